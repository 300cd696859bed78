//! The log backend: events become lines, and a thread of its own writes them.
//!
//! This is upstream's `batch` mode with its values for the log (`--audit-log-mode=batch`): a request does not wait for the
//! disk, and an event that finds the buffer full is lost and counted. Upstream's default for the log is `blocking`, which
//! has each request wait for the file; here the tasks of all requests share a few threads, and a disk that hangs would
//! stop them all, also those that nobody audits. Invariants: lines are written in the order in which they were taken, and
//! all that were taken before [`LogSink::close`] are written, or counted as lost, when it returns.
//!
//! Source: `plugin/pkg/audit/log`, `plugin/pkg/audit/buffered` and `defaultLogBatchConfig` of `pkg/server/options/audit.go`.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use api::Value;
use parking_lot::{Condvar, Mutex};

use super::{AuditSink, Format, line};
use crate::metrics::AuditMetrics;

/// Upstream's `--audit-log-batch-buffer-size`.
const EVENTS_MAX: usize = 10_000;
/// An event may have whole objects in it: as many bytes as a few of the largest lists, so that a slow disk costs no more
/// memory than that.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Takes events and writes them as lines.
pub struct LogSink {
    format: Format,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
}

#[derive(Default)]
struct Buffer {
    waiting: Vec<String>,
    /// Of the waiting ones, and of those that are being written.
    events: usize,
    bytes: usize,
    is_full: bool,
    is_closed: bool,
}

// === impl LogSink ===

impl LogSink {
    /// Starts a thread that hands every line to `write`, which may block. A line that it fails to write is lost.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        format: Format,
        metrics: AuditMetrics,
        write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<LogSink> {
        let shared = Arc::new(Shared::default());
        let run = {
            let shared = shared.clone();
            move || shared.run(&metrics, write)
        };
        let writer = std::thread::Builder::new().name("audit-log".into()).spawn(run)?;
        Ok(LogSink {
            format,
            shared,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Takes no more, and returns when all that was taken is written. Blocks.
    pub fn close(&self) {
        self.shared.buffer.lock().is_closed = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!("the audit log's writer fell over");
        }
    }
}

impl AuditSink for LogSink {
    fn name(&self) -> &'static str {
        "log"
    }

    fn write(&self, event: &Value) -> Result<(), String> {
        self.shared.take(line(self.format, event))
    }
}

// === impl Shared ===

impl Shared {
    fn take(&self, line: String) -> Result<(), String> {
        let mut buffer = self.buffer.lock();
        if buffer.is_closed {
            return Err("the audit log is closed".into());
        }
        // One line alone always fits.
        let is_full = buffer.events >= EVENTS_MAX || buffer.events > 0 && buffer.bytes + line.len() > BYTES_MAX;
        if is_full != buffer.is_full {
            buffer.is_full = is_full;
            match is_full {
                true => tracing::warn!("the audit log is written too slowly: events are lost from now on"),
                false => tracing::warn!("the audit log takes events again"),
            }
        }
        if is_full {
            return Err("audit buffer queue blocked".into());
        }
        buffer.events += 1;
        buffer.bytes += line.len();
        buffer.waiting.push(line);
        drop(buffer);
        self.changed.notify_one();
        Ok(())
    }

    fn run(&self, metrics: &AuditMetrics, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        let mut is_failing = false;
        while let Some(lines) = self.next() {
            for line in lines {
                let outcome = write(line.as_bytes());
                if let Err(error) = &outcome {
                    metrics.lost("log");
                    if !is_failing {
                        tracing::warn!(%error, "the audit log cannot be written: events are lost from now on");
                    }
                } else if is_failing {
                    tracing::warn!("the audit log is written again");
                }
                is_failing = outcome.is_err();
                self.written(&line);
            }
        }
    }

    /// What waits; `None`: nothing does, and nothing will.
    fn next(&self) -> Option<Vec<String>> {
        let mut buffer = self.buffer.lock();
        while buffer.waiting.is_empty() {
            if buffer.is_closed {
                return None;
            }
            self.changed.wait(&mut buffer);
        }
        Some(std::mem::take(&mut buffer.waiting))
    }

    fn written(&self, line: &str) {
        let mut buffer = self.buffer.lock();
        buffer.events -= 1;
        buffer.bytes -= line.len();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_was_taken_is_written_in_its_order() {
        let (lines, written) = mpsc::channel();
        let write = move |line: &[u8]| {
            lines.send(String::from_utf8(line.to_vec()).unwrap()).unwrap();
            Ok(())
        };
        let sink = LogSink::start(Format::Json, AuditMetrics::default(), write).unwrap();
        for number in 0..100 {
            sink.write(&json!({"number": number})).unwrap();
        }
        sink.close();
        let expect: Vec<String> = (0..100).map(|number| format!("{{\"number\":{number}}}\n")).collect();
        assert_eq!(written.try_iter().collect::<Vec<_>>(), expect);
        assert_eq!(sink.write(&json!({})), Err("the audit log is closed".into()));
    }

    #[test]
    fn a_disk_that_hangs_stops_nobody_and_costs_so_much() {
        let long = "x".repeat(BYTES_MAX / 2);
        for (text, taken) in [("x", EVENTS_MAX), (long.as_str(), 1)] {
            let (go_on, hangs) = mpsc::channel::<()>();
            let write = move |_: &[u8]| {
                // Ends when the test lets go.
                let _ = hangs.recv();
                Ok(())
            };
            let sink = LogSink::start(Format::Json, AuditMetrics::default(), write).unwrap();
            let event = json!({"text": text});
            for _ in 0..taken {
                sink.write(&event).unwrap();
            }
            assert_eq!(sink.write(&event), Err("audit buffer queue blocked".into()));
            drop(go_on);
            sink.close();
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let mut calls = 0;
        let write = move |_: &[u8]| {
            calls += 1;
            match calls {
                1 | 3 => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(()),
            }
        };
        let metrics = AuditMetrics::default();
        let sink = LogSink::start(Format::Json, metrics.clone(), write).unwrap();
        for _ in 0..4 {
            sink.write(&json!({})).unwrap();
        }
        sink.close();
        assert_eq!(metrics.losses("log"), 2);
    }
}
