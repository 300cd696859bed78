//! The log backend: events become lines, and a thread of its own writes them.
//!
//! In upstream's mode `batch` a request does not wait for the disk, events wait for others if that is wanted, and an event that
//! finds the buffer full is lost and counted. In `blocking` and `blocking-strict` a request waits until the thread has written its first and its last event:
//! tasks of requests share a few threads, and a disk that hangs stops those that wait and no others. Invariants: lines are
//! written in the order in which they were taken, and all that were taken before [`LogSink::close`] are written, or counted as
//! lost, when it returns.
//!
//! Source: `plugin/pkg/audit/log`, `plugin/pkg/audit/buffered` and `defaultLogBatchConfig` of `pkg/server/options/audit.go`.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use api::Value;
use futures::future::BoxFuture;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::throttle::Throttle;
use super::{AuditSink, Format, Strictness, Truncate, line};
use crate::metrics::AuditMetrics;

/// How the log is written: upstream's `--audit-log-*`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogOptions {
    /// The form of a line.
    pub format: Format,
    /// Whether requests wait for their events; `None`: they go on.
    pub waits: Option<Strictness>,
    /// So many events wait at most.
    pub buffer_events: usize,
    /// When requests go on: so many events are written at once.
    pub events_max: usize,
    /// And so long the first of them waits for the others.
    pub wait_max: Duration,
    /// And so many batches a second, and how many of them at once after a pause; `None`: no limit.
    pub throttle: Option<(f64, f64)>,
    /// How long an event may be; `None`: no limit.
    pub truncate: Option<Truncate>,
}

impl Default for LogOptions {
    /// Upstream's: what waits is written at once.
    fn default() -> LogOptions {
        LogOptions {
            format: Format::Json,
            waits: Some(Strictness::Lax),
            buffer_events: 10_000,
            events_max: 1,
            wait_max: Duration::ZERO,
            throttle: None,
            truncate: None,
        }
    }
}

/// An event may have whole objects in it: as many bytes as a few of the largest lists, so that a slow disk costs no more
/// memory than that.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Takes events and writes them as lines.
pub struct LogSink {
    options: LogOptions,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Lines that requests wait for are counted in these: the whole room is [`BYTES_MAX`].
const ROOM_UNIT_BYTES: usize = 1024;
const ROOM_UNITS: usize = BYTES_MAX / ROOM_UNIT_BYTES;

/// A line, and who waits for it.
type Line = (String, Option<Waiter>);

/// A request that goes on when its line is written.
struct Waiter {
    tell: oneshot::Sender<Result<(), String>>,
    _room: OwnedSemaphorePermit,
}

struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
    /// Of lines that requests wait for. Whoever finds none waits for it, and so a slow disk slows them down and loses nothing.
    room: Arc<Semaphore>,
    metrics: AuditMetrics,
}

#[derive(Default)]
struct Buffer {
    waiting: Vec<Line>,
    /// Of those that nobody waits for, the ones that are being written included.
    events: usize,
    bytes: usize,
    is_full: bool,
    is_closed: bool,
}

/// When what waits is written, while requests go on.
struct Pace {
    events_max: usize,
    wait_max: Duration,
    throttle: Option<Throttle>,
}

// === impl Pace ===

impl Pace {
    /// `None`: at once.
    fn of(options: &LogOptions) -> Option<Pace> {
        let plain = options.events_max <= 1 && options.throttle.is_none();
        (options.waits.is_none() && !plain).then(|| Pace {
            events_max: options.events_max,
            wait_max: options.wait_max,
            throttle: options.throttle.map(Throttle::new),
        })
    }
}

// === impl LogSink ===

impl LogSink {
    /// Starts a thread that hands every line to `write`, which may block. A line that it fails to write is lost.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        options: LogOptions,
        metrics: AuditMetrics,
        write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<LogSink> {
        let shared = Arc::new(Shared {
            buffer: Mutex::default(),
            changed: Condvar::new(),
            room: Arc::new(Semaphore::new(ROOM_UNITS)),
            metrics,
        });
        let run = {
            let (shared, pace) = (shared.clone(), Pace::of(&options));
            move || shared.run(pace, write)
        };
        let writer = std::thread::Builder::new().name("audit-log".into()).spawn(run)?;
        Ok(LogSink {
            options,
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
        self.shared.take(self.line(event)?, None, self.options.buffer_events)
    }

    fn waits(&self) -> Option<Strictness> {
        self.options.waits
    }

    fn deliver<'a>(&'a self, event: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let line = self.line(event)?;
            let units = (line.len() / ROOM_UNIT_BYTES + 1).min(ROOM_UNITS);
            let units = u32::try_from(units).expect("invariant: the room has fewer units than that");
            let mut given_up = GivenUp {
                sink: self,
                line: Some(line),
            };
            let room = self.shared.room.clone().acquire_many_owned(units).await;
            let line = given_up.line.take().unwrap_or_default();
            let room = room.map_err(|_| "the audit log is closed".to_owned())?;
            let (tell, told) = oneshot::channel();
            let waiter = Waiter { tell, _room: room };
            self.shared.take(line, Some(waiter), self.options.buffer_events)?;
            told.await
                .unwrap_or_else(|_| Err("the audit log's writer fell over".into()))
        })
    }
}

impl LogSink {
    fn line(&self, event: &Value) -> Result<String, String> {
        let Some(limits) = self.options.truncate else {
            return Ok(line(self.options.format, event));
        };
        let shortened = limits
            .shortened(event)
            .ok_or("event is too large even after truncating")?;
        Ok(line(self.options.format, &shortened.0))
    }
}

/// A line whose request waits for room: when it goes away, the line is written while nobody waits.
struct GivenUp<'a> {
    sink: &'a LogSink,
    line: Option<String>,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let shared = &self.sink.shared;
        if let Some(line) = self.line.take()
            && shared.take(line, None, self.sink.options.buffer_events).is_err()
        {
            shared.metrics.lost("log");
        }
    }
}

// === impl Shared ===

impl Shared {
    fn take(&self, line: String, waiter: Option<Waiter>, events_max: usize) -> Result<(), String> {
        let mut buffer = self.buffer.lock();
        if buffer.is_closed {
            return Err("the audit log is closed".into());
        }
        // One line alone always fits. Those that requests wait for have a room of their own.
        let is_full = waiter.is_none()
            && (buffer.events >= events_max || buffer.events > 0 && buffer.bytes + line.len() > BYTES_MAX);
        if waiter.is_none() && is_full != buffer.is_full {
            buffer.is_full = is_full;
            match is_full {
                true => tracing::warn!("the audit log is written too slowly: events are lost from now on"),
                false => tracing::warn!("the audit log takes events again"),
            }
        }
        if is_full {
            return Err("audit buffer queue blocked".into());
        }
        if waiter.is_none() {
            buffer.events += 1;
            buffer.bytes += line.len();
        }
        buffer.waiting.push((line, waiter));
        drop(buffer);
        self.changed.notify_one();
        Ok(())
    }

    fn run(&self, mut pace: Option<Pace>, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        let mut is_failing = false;
        while let Some(lines) = self.next(pace.as_mut()) {
            for (line, waiter) in lines {
                let outcome = write(line.as_bytes());
                if let Err(error) = &outcome {
                    if waiter.is_none() {
                        self.metrics.lost("log");
                    }
                    if !is_failing {
                        tracing::warn!(%error, "the audit log cannot be written: events are lost from now on");
                    }
                } else if is_failing {
                    tracing::warn!("the audit log is written again");
                }
                is_failing = outcome.is_err();
                match waiter {
                    None => self.written(&line),
                    Some(waiter) => {
                        let told = waiter.tell.send(outcome.map_err(|error| error.to_string()));
                        // Whoever waited and went away counts nothing.
                        if let Err(Err(_)) = told {
                            self.metrics.lost("log");
                        }
                    }
                }
            }
        }
    }

    /// What waits, or the next batch of it; `None`: nothing does, and nothing will.
    fn next(&self, pace: Option<&mut Pace>) -> Option<Vec<Line>> {
        let mut buffer = self.buffer.lock();
        while buffer.waiting.is_empty() {
            if buffer.is_closed {
                return None;
            }
            self.changed.wait(&mut buffer);
        }
        let Some(pace) = pace else {
            return Some(std::mem::take(&mut buffer.waiting));
        };
        self.wait_while(&mut buffer, pace.wait_max, |buffer| {
            buffer.waiting.len() < pace.events_max
        });
        if let Some(throttle) = &mut pace.throttle {
            self.wait_while(&mut buffer, throttle.take(), |_| true);
        }
        // At the end nothing is held back.
        let all = buffer.waiting.len();
        let count = if buffer.is_closed {
            all
        } else {
            all.min(pace.events_max)
        };
        Some(buffer.waiting.drain(..count).collect())
    }

    /// Waits for so long, or until something is no more, or the end.
    fn wait_while(&self, buffer: &mut MutexGuard<'_, Buffer>, most: Duration, so: impl Fn(&Buffer) -> bool) {
        let end = Instant::now() + most;
        while !buffer.is_closed && so(buffer) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.changed.wait_for(buffer, left).timed_out() {
                return;
            }
        }
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
        let sink = LogSink::start(LogOptions::default(), AuditMetrics::default(), write).unwrap();
        for number in 0..100 {
            sink.write(&json!({"number": number})).unwrap();
        }
        sink.close();
        let expect: Vec<String> = (0..100).map(|number| format!("{{\"number\":{number}}}\n")).collect();
        assert_eq!(written.try_iter().collect::<Vec<_>>(), expect);
        assert_eq!(sink.write(&json!({})), Err("the audit log is closed".into()));
    }

    #[test]
    fn a_batch_waits_for_the_rest_of_it() {
        let (lines, written) = mpsc::channel();
        let write = move |line: &[u8]| {
            lines.send(String::from_utf8(line.to_vec()).unwrap()).unwrap();
            Ok(())
        };
        let options = LogOptions {
            waits: None,
            events_max: 3,
            // Only a full batch, or the end, lets them go.
            wait_max: Duration::from_secs(3600),
            throttle: Some((1e6, 10.0)),
            ..LogOptions::default()
        };
        let sink = LogSink::start(options, AuditMetrics::default(), write).unwrap();
        for number in 0..5 {
            sink.write(&json!(number)).unwrap();
        }
        let three: Vec<String> = (0..3).map(|_| written.recv().unwrap()).collect();
        assert_eq!(three, ["0\n", "1\n", "2\n"]);
        assert!(written.try_recv().is_err(), "two are no batch");
        sink.close();
        assert_eq!(written.try_iter().collect::<Vec<_>>(), ["3\n", "4\n"]);
    }

    #[test]
    fn a_disk_that_hangs_stops_nobody_and_costs_so_much() {
        let long = "x".repeat(BYTES_MAX / 2);
        for (text, taken) in [("x", LogOptions::default().buffer_events), (long.as_str(), 1)] {
            let (go_on, hangs) = mpsc::channel::<()>();
            let write = move |_: &[u8]| {
                // Ends when the test lets go.
                let _ = hangs.recv();
                Ok(())
            };
            let sink = LogSink::start(LogOptions::default(), AuditMetrics::default(), write).unwrap();
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
        let sink = LogSink::start(LogOptions::default(), metrics.clone(), write).unwrap();
        for _ in 0..4 {
            sink.write(&json!({})).unwrap();
        }
        sink.close();
        assert_eq!(metrics.losses("log"), 2);
    }

    #[tokio::test]
    async fn a_slow_disk_loses_nothing_that_is_waited_for() {
        let (go_on, hangs) = mpsc::channel::<()>();
        let (lines, written) = mpsc::channel();
        let write = move |line: &[u8]| {
            // Ends when the test lets go.
            let _ = hangs.recv();
            lines.send(line.len()).unwrap();
            Ok(())
        };
        let metrics = AuditMetrics::default();
        let sink = LogSink::start(LogOptions::default(), metrics.clone(), write).unwrap();
        let long = json!({"text": "x".repeat(BYTES_MAX * 2 / 3)});
        let (mut first, mut second) = (sink.deliver(&long), sink.deliver(&long));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        // It is given up before there was room.
        let mut third = sink.deliver(&long);
        assert!(futures::poll!(&mut third).is_pending());
        drop(third);
        drop(go_on);
        assert_eq!((first.await, second.await), (Ok(()), Ok(())));
        sink.close();
        assert_eq!((written.try_iter().count(), metrics.losses("log")), (3, 0));
    }

    #[tokio::test]
    async fn whoever_blocks_waits_until_it_is_written() {
        let (lines, written) = mpsc::channel();
        let write = move |line: &[u8]| match line.starts_with(b"{\"bad") {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => {
                lines.send(String::from_utf8(line.to_vec()).unwrap()).unwrap();
                Ok(())
            }
        };
        let options = LogOptions {
            waits: Some(Strictness::Strict),
            truncate: Some(Truncate {
                event_bytes_max: 70,
                batch_bytes_max: 70,
            }),
            ..LogOptions::default()
        };
        let metrics = AuditMetrics::default();
        let sink = LogSink::start(options, metrics.clone(), write).unwrap();
        sink.deliver(&json!({"a": 1})).await.unwrap();
        assert_eq!(written.try_recv().as_deref(), Ok("{\"a\":1}\n"));
        assert!(sink.deliver(&json!({"bad": 1})).await.is_err());
        assert_eq!(metrics.losses("log"), 0, "whoever waits counts");
        sink.deliver(&json!({"a": 1, "requestObject": "x".repeat(100)}))
            .await
            .unwrap();
        let short = "{\"a\":1,\"annotations\":{\"audit.k8s.io/truncated\":\"true\"}}\n";
        assert_eq!(written.try_recv().as_deref(), Ok(short));
        assert!(sink.deliver(&json!({"verb": "x".repeat(100)})).await.is_err());
        sink.close();
    }
}
