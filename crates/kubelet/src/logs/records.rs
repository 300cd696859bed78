//! The records of a log file, and what of them is shown. Pure.
//!
//! A record is `<time> <stdout|stderr> <F|P[:more]> <text>`; `P` says that the line goes on in the next record of that
//! stream.

use jiff::Timestamp;

use super::{Options, Stream};

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) time: Timestamp,
    pub(super) stream: Stream,
    /// Whether its line goes on.
    pub(super) partial: bool,
    /// Without the end of the line.
    pub(super) text: &'a [u8],
}

/// Reads a record; `None` for what is none.
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let tags = parts.next()?;
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    Some(Record {
        time,
        stream,
        partial,
        text: parts.next()?,
    })
}

/// Turns records into what is shown.
pub(super) struct Formatter {
    timestamps: bool,
    since: Option<Timestamp>,
    stream: Stream,
    /// Bytes that may still be shown.
    remaining: u64,
    at_line_start: bool,
}

// === impl Formatter ===

impl Formatter {
    pub(super) fn new(options: &Options) -> Formatter {
        Formatter {
            timestamps: options.timestamps,
            since: options.since,
            stream: options.stream,
            remaining: options.limit_bytes.unwrap_or(u64::MAX),
            at_line_start: true,
        }
    }

    /// Whether nothing more will be shown.
    pub(super) fn is_done(&self) -> bool {
        self.remaining == 0
    }

    /// Appends what a line of the file shows. A line that is no record shows nothing. `complete` says whether the file
    /// has the end of the line already.
    pub(super) fn line(&mut self, line: &[u8], complete: bool, out: &mut Vec<u8>) {
        let Some(record) = parse(line) else { return };
        if self.since.is_some_and(|since| record.time < since) {
            return;
        }
        if self.stream != Stream::All && self.stream != record.stream {
            return;
        }
        if self.timestamps && self.at_line_start {
            // The fixed width of upstream's RFC3339NanoFixed.
            let time = record.time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string();
            self.push(time.as_bytes(), out);
        }
        self.push(record.text, out);
        self.at_line_start = !record.partial && complete;
        if self.at_line_start {
            self.push(b"\n", out);
        }
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let count = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
        out.extend_from_slice(&bytes[..count]);
        self.remaining -= count as u64;
    }
}
