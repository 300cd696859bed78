//! Error events of libcontainer, which say what its error values leave out.
//!
//! Only the error level is taken: its debug log prints whole specifications, secrets in environment variables included.
//! The processes that libcontainer clones share nothing with the helper, so the texts travel through a pipe.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::span;

/// Longest text taken from the events: enough for the chain of causes, small enough for an API event.
const TEXT_BYTES_MAX: usize = 2048;

static PIPE: OnceLock<(File, File)> = OnceLock::new();

/// Starts collecting.
pub fn collect() -> io::Result<()> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
    let (read, write): (OwnedFd, OwnedFd) = rustix::pipe::pipe_with(flags)?;
    if PIPE.set((File::from(read), File::from(write))).is_ok() {
        // Fails only if there is one already, and then that one collects.
        let _ = tracing::subscriber::set_global_default(Collector);
    }
    Ok(())
}

/// The error with its causes, and the collected events that add something to them.
pub fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        source = cause.source();
    }
    let mut events = Vec::new();
    if let Some((read, _)) = PIPE.get() {
        let _ = read.take(TEXT_BYTES_MAX as u64).read_to_end(&mut events);
    }
    for line in String::from_utf8_lossy(&events).lines() {
        if !text.contains(line) {
            let _ = write!(text, "; {line}");
        }
    }
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

struct Collector;

impl tracing::Subscriber for Collector {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        line.0.push('\n');
        if let Some((_, write)) = PIPE.get() {
            let mut write = write;
            // A full pipe loses events; the error itself arrives anyway.
            let _ = write.write_all(line.0.as_bytes());
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}").replace('\n', " ");
        if field.name() == "message" {
            self.0.insert_str(0, &text);
        } else {
            let _ = write!(self.0, " {}={text}", field.name());
        }
    }
}
