//! Container logs in the CRI format: `<time> <stream> <F|P> <text>`, one line a record.
//!
//! A full disk must stop neither the container nor the shim: what cannot be written is counted and the count is written
//! when there is room again. A file that reaches its hard limit is renamed to `<name>.full` (replacing the one before), so
//! that a container that logs without end takes at most twice the limit even while no kubelet rotates its log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::clock;

/// Longest text of one record; longer lines are split into partial records, as by every CRI runtime.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Written at a time, so that limits and full disks cut between records and not between what a pipe held.
const PIECE_BYTES_MAX: usize = 2 * LINE_BYTES_MAX;

/// An open log file.
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    bytes_max: u64,
    dropped: u64,
}

impl LogFile {
    /// Opens the file for appending.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<LogFile> {
        let mut log = LogFile {
            path: path.to_owned(),
            file: None,
            length: 0,
            bytes_max,
            dropped: 0,
        };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file again under its name.
    pub fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.path)?;
        self.length = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Appends whole records, one a line. Never fails: what does not fit on the disk is dropped and counted.
    pub fn append(&mut self, mut records: &[u8]) {
        while !records.is_empty() {
            let window = &records[..records.len().min(PIECE_BYTES_MAX)];
            // No record is longer than a piece.
            let end = window.iter().rposition(|byte| *byte == b'\n');
            let (piece, rest) = records.split_at(end.map_or(window.len(), |end| end + 1));
            self.append_piece(piece);
            records = rest;
        }
    }

    fn append_piece(&mut self, piece: &[u8]) {
        if self.bytes_max > 0 && self.length > 0 && self.length + piece.len() as u64 > self.bytes_max {
            self.rotate();
        }
        let lines = piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        if self.dropped > 0 {
            let note = format!(
                "{} stderr F trireme: {} log lines were dropped because they could not be written\n",
                clock::rfc3339(clock::now_ns()),
                self.dropped
            );
            if self.write(note.as_bytes()).is_err() {
                self.dropped += lines;
                return;
            }
            self.dropped = 0;
        }
        if self.write(piece).is_err() {
            self.dropped += lines;
        }
    }

    /// Writes all or nothing, so that a record is never torn.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match file.write_all(bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(err) => {
                // Nothing better can be done if this fails too.
                let _ = file.set_len(self.length);
                Err(err)
            }
        }
    }

    fn rotate(&mut self) {
        let mut name = self.path.clone().into_os_string();
        name.push(".full");
        if std::fs::rename(&self.path, name).is_ok() {
            // On an error the old descriptor goes on being used: late lines in the renamed file are better than none.
            let _ = self.reopen();
        }
    }
}

/// Splits one stream of a container into records.
pub struct Splitter {
    stream: &'static str,
    rest: Vec<u8>,
}

impl Splitter {
    /// For `stdout` or `stderr`.
    pub fn new(stream: &'static str) -> Splitter {
        Splitter {
            stream,
            rest: Vec::new(),
        }
    }

    /// Takes a chunk and appends the records it completes to `out`.
    pub fn push(&mut self, mut chunk: &[u8], time: &str, out: &mut Vec<u8>) {
        while !chunk.is_empty() {
            let room = LINE_BYTES_MAX - self.rest.len();
            let window = &chunk[..chunk.len().min(room)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.record(time, 'F', &chunk[..end], out);
                chunk = &chunk[end + 1..];
            } else if window.len() == room {
                // A line that ends exactly here is still one full record.
                if chunk.get(room) == Some(&b'\n') {
                    self.record(time, 'F', &chunk[..room], out);
                    chunk = &chunk[room + 1..];
                } else {
                    self.record(time, 'P', &chunk[..room], out);
                    chunk = &chunk[room..];
                }
            } else {
                self.rest.extend_from_slice(chunk);
                return;
            }
        }
    }

    /// The stream ended: what is left becomes a record.
    pub fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.record(time, 'F', &[], out);
        }
    }

    fn record(&mut self, time: &str, tag: char, text: &[u8], out: &mut Vec<u8>) {
        let _ = write!(out, "{time} {} {tag} ", self.stream);
        out.extend_from_slice(&self.rest);
        out.extend_from_slice(text);
        out.push(b'\n');
        self.rest = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> String {
        let mut splitter = Splitter::new("stdout");
        let mut out = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, "T", &mut out);
        }
        splitter.finish("T", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_become_records() {
        let check = |chunks: &[&[u8]], expect: &str| assert_eq!(split(chunks), expect, "{chunks:?}");
        check(&[], "");
        check(&[b"a\nb\n"], "T stdout F a\nT stdout F b\n");
        check(&[b"a", b"b\n\n"], "T stdout F ab\nT stdout F \n");
        check(&[b"end"], "T stdout F end\n");
    }

    #[test]
    fn long_lines_become_partial_records() {
        let line = "x".repeat(LINE_BYTES_MAX);
        let exact = format!("{line}\n");
        assert_eq!(split(&[exact.as_bytes()]), format!("T stdout F {line}\n"));
        let longer = format!("{line}yz\n");
        assert_eq!(
            split(&[longer.as_bytes()]),
            format!("T stdout P {line}\nT stdout F yz\n")
        );
    }

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("shim-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn what_a_full_disk_took_is_told_when_there_is_room() {
        let dir = directory("full");
        let path = dir.join("0.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut log = LogFile::open(&path, 0).unwrap();
        log.append(b"T stdout F a\nT stdout F b\n");
        log.append(b"T stdout F c\n");
        std::fs::remove_file(&path).unwrap();
        log.reopen().unwrap();
        log.append(b"T stdout F d\n");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(text.contains("stderr F trireme: 3 log lines were dropped"), "{text}");
        assert!(text.ends_with("T stdout F d\n"), "{text}");
    }

    #[test]
    fn what_comes_at_once_is_cut_between_records() {
        let dir = directory("pieces");
        let path = dir.join("0.log");
        let limit = 4 * PIECE_BYTES_MAX as u64;
        let mut log = LogFile::open(&path, limit).unwrap();
        let records: Vec<u8> = (0..100_000).flat_map(|line| format!("{line}\n").into_bytes()).collect();
        log.append(&records);
        let text = std::fs::read_to_string(dir.join("0.log.full")).unwrap() + &std::fs::read_to_string(&path).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() <= limit);
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(
            records.ends_with(text.as_bytes()) && text.len() as u64 > limit / 2,
            "{}",
            text.len()
        );
    }

    #[test]
    fn the_hard_limit_rotates() {
        let dir = directory("limit");
        let path = dir.join("0.log");
        let mut log = LogFile::open(&path, 100).unwrap();
        for _ in 0..3 {
            log.append(&[b'x'; 60]);
        }
        assert_eq!(std::fs::read(&path).unwrap().len(), 60);
        assert_eq!(std::fs::read(dir.join("0.log.full")).unwrap().len(), 60);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
