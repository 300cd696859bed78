//! The log of a daemon: lines on its standard error, and the file behind it kept short.
//!
//! `up` starts daemons with a file as their standard error. Whoever writes a line into it first looks how long it is: a
//! full one is put aside (the one put aside before goes) and the standard error becomes a new one, so that panics and the
//! supervisor's words go there too. Invariant: no line is lost or torn by that: what is put aside was written whole, and
//! supervisor and daemon never write at the same time (one starts when the other has nothing to say).

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::errors::{CliError, Result};

/// How long a log may get; with the one that was put aside a daemon has twice as much on the disk. At a quiet cluster's
/// few lines a minute that is months, at a line for each of a thousand failures a second still a minute.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// What the name of a log that was put aside ends with.
const ASIDE: &str = "1";

/// Opens a log for appending.
pub fn open(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.map_err(|error| CliError::file(path, &error))
}

/// Writes lines to the standard error, and keeps the file behind it short if it is that log.
pub fn writer(path: Option<PathBuf>) -> BoxMakeWriter {
    let behind = path.and_then(|path| {
        let file = rustix::io::dup(std::io::stderr()).ok().map(File::from)?;
        is_at(&file, &path).then_some(Log {
            path,
            file,
            bytes_max: LOG_BYTES_MAX,
            is_stderr: true,
        })
    });
    match behind {
        Some(log) => {
            let log = Arc::new(Mutex::new(log));
            BoxMakeWriter::new(move || Line(log.clone()))
        }
        None => BoxMakeWriter::new(std::io::stderr),
    }
}

/// An open log.
struct Log {
    path: PathBuf,
    file: File,
    bytes_max: u64,
    /// Whether the standard error follows.
    is_stderr: bool,
}

// === impl Log ===

impl Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.file.metadata()?.len() >= self.bytes_max {
            // A log that cannot be put aside (a full disk, a directory that went) goes on.
            let _ = self.begin_another();
        }
        self.file.write_all(line)
    }

    fn begin_another(&mut self) -> std::io::Result<()> {
        // Somebody else may have done it: then theirs is followed.
        if is_at(&self.file, &self.path) {
            std::fs::rename(&self.path, aside(&self.path))?;
        }
        let new = File::options().create(true).append(true).open(&self.path)?;
        if self.is_stderr {
            rustix::stdio::dup2_stderr(&new)?;
        }
        self.file = new;
        Ok(())
    }
}

/// Where a log is that was put aside.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ASIDE);
    name.into()
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Writes one line. The subscriber hands a whole one to each call.
struct Line(Arc<Mutex<Log>>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: &Path) -> Log {
        Log {
            path: path.to_owned(),
            file: open(path).unwrap(),
            bytes_max: 10,
            is_stderr: false,
        }
    }

    #[test]
    fn a_full_log_is_put_aside_and_no_line_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let mut log = log(&path);
        for (line, now, before) in [
            ("one 1\n", "one 1\n", ""),
            ("two 2\n", "one 1\ntwo 2\n", ""),
            ("three\n", "three\n", "one 1\ntwo 2\n"),
            ("four of them\n", "three\nfour of them\n", "one 1\ntwo 2\n"),
            ("five\n", "five\n", "three\nfour of them\n"),
        ] {
            log.write(line.as_bytes()).unwrap();
            assert_eq!((read(&path).as_str(), read(&aside(&path)).as_str()), (now, before));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn who_comes_later_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        let (mut daemon, mut supervisor) = (log(&path), log(&path));
        daemon.write(b"the daemon's\n").unwrap();
        daemon.write(b"dies\n").unwrap();
        supervisor.write(b"died\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "dies\ndied\n");
        assert_eq!(std::fs::read_to_string(aside(&path)).unwrap(), "the daemon's\n");
    }

    #[test]
    fn a_log_that_cannot_be_put_aside_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        std::fs::create_dir(aside(&path)).unwrap();
        let mut log = log(&path);
        for _ in 0..3 {
            log.write(b"0123456789\n").unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 33);
    }
}
