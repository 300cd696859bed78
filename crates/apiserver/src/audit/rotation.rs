//! The file of the audit log, put aside when it is full.
//!
//! Names, limits and what is removed are those of the library that upstream writes its log with, so that whoever collects
//! the one collects the other. Invariants: a line is whole in one file; a file that was put aside is never written over, and
//! goes only after its compressed form is complete.
//!
//! Source: `gopkg.in/natefinch/lumberjack.v2` and `pkg/server/options/audit.go` of `k8s.io/apiserver`.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use base::Clock;
use base::disk::{Disk, DiskFile, OpenMode};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// When a file was put aside, as its name says it: UTC.
const ASIDE_FORMAT: &str = "%Y-%m-%dT%H-%M-%S.%3f";
/// The same for reading.
const ASIDE_PARSED: &str = "%Y-%m-%dT%H-%M-%S%.f";
/// What a time in that form has: other names are not ours.
const ASIDE_BYTES: usize = "2006-01-02T15-04-05.000".len();

/// What the name of a compressed file ends with.
const COMPRESSED: &str = ".gz";
/// How much of a file is read at a time while it is compressed.
const CHUNK_BYTES: usize = 64 * 1024;

/// How much of the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file that would get longer is put aside.
    pub bytes_max: u64,
    /// So many files that were put aside are kept, the newest; 0: all.
    pub backups_max: usize,
    /// So many days they are kept; 0: for ever.
    pub days_max: u32,
    /// Whether they are compressed, with gzip.
    pub compress: bool,
}

/// The open log.
pub struct LogFile {
    disk: Arc<dyn Disk>,
    clock: Clock,
    path: PathBuf,
    rotation: Rotation,
    file: Box<dyn DiskFile>,
    bytes: u64,
    /// Compresses what was put aside: seconds for a full file, which no line waits for.
    compressing: Option<JoinHandle<()>>,
}

/// What the name of a file that was put aside says.
struct Aside {
    at: DateTime,
    name: String,
    compressed: bool,
}

// === impl LogFile ===

impl LogFile {
    /// Goes on with the file that is there, or makes one, for its owner alone; and the directories above it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(disk: Arc<dyn Disk>, clock: Clock, path: &Path, rotation: Rotation) -> Result<LogFile> {
        disk.create_directory(directory(path))?;
        let file = open(&*disk, path)?;
        let mut log = LogFile {
            disk,
            clock,
            path: path.to_owned(),
            rotation,
            bytes: file.length()?,
            file,
            compressing: None,
        };
        log.tidy();
        Ok(log)
    }

    /// Writes a line, into another file if this one would get too long.
    ///
    /// # Errors
    /// The disk's, or the line alone is longer than a file may be. Nothing of the line is there then.
    pub fn write(&mut self, line: &[u8]) -> Result<()> {
        let (bytes, bytes_max) = (line.len() as u64, self.rotation.bytes_max);
        if bytes > bytes_max {
            let why = format!("write length {bytes} exceeds maximum file size {bytes_max}");
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        if self.bytes + bytes > bytes_max {
            // A log that cannot be put aside goes on: one that is too long is better than one with a hole.
            match self.put_aside() {
                Ok(()) => self.tidy(),
                Err(error) => tracing::warn!(%error, path = %self.path.display(), "the audit log cannot be put aside"),
            }
        }
        if let Err(error) = self.file.append(line) {
            // Part of the line may be there, and the next one would be torn by it.
            let _ = self.file.truncate(self.bytes);
            return Err(error);
        }
        self.bytes += bytes;
        Ok(())
    }

    fn put_aside(&mut self) -> Result<()> {
        let names = self.disk.list(directory(&self.path))?;
        let mut at = self.clock.now();
        let aside = loop {
            let name = self.name_aside(at);
            match names.contains(&name) {
                true => at += SignedDuration::from_millis(1),
                false => break directory(&self.path).join(name),
            }
        };
        match self.disk.rename(&self.path, &aside) {
            // Somebody else has put it aside.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
        self.file = open(&*self.disk, &self.path)?;
        self.bytes = self.file.length()?;
        Ok(())
    }

    /// Removes what is too much or too old of what was put aside, and compresses the rest. What does not work is tried again
    /// with the next file.
    fn tidy(&mut self) {
        let Rotation {
            backups_max,
            days_max,
            compress,
            ..
        } = self.rotation;
        if backups_max == 0 && days_max == 0 && !compress {
            return;
        }
        let Ok(names) = self.disk.list(directory(&self.path)) else {
            return;
        };
        let mut all: Vec<Aside> = names.into_iter().filter_map(|name| self.aside(name)).collect();
        all.sort_by(|a, b| (a.at, &a.name).cmp(&(b.at, &b.name)));
        let age = SignedDuration::from_hours(24 * i64::from(days_max));
        let oldest = self.clock.now().checked_sub(age).unwrap_or(Timestamp::MIN);
        let oldest = TimeZone::UTC.to_datetime(oldest);
        // A file whose compressed form is not complete yet counts once.
        let mut kept = BTreeSet::new();
        let mut plain = Vec::new();
        for file in all.into_iter().rev() {
            kept.insert(file.at);
            let is_too_much = backups_max > 0 && kept.len() > backups_max;
            let is_too_old = days_max > 0 && file.at < oldest;
            if is_too_much || is_too_old {
                if let Err(error) = self.disk.remove(&directory(&self.path).join(&file.name)) {
                    tracing::warn!(%error, file.name, "an old audit log cannot be removed");
                }
            } else if !file.compressed {
                plain.push(file.name);
            }
        }
        if compress {
            self.compress(plain);
        }
    }

    /// Compresses files in a thread of their own, unless there still is one: then they wait for the next time.
    fn compress(&mut self, names: Vec<String>) {
        let at_work = self.compressing.as_ref().is_some_and(|thread| !thread.is_finished());
        if names.is_empty() || at_work {
            return;
        }
        let (disk, directory) = (self.disk.clone(), directory(&self.path).to_owned());
        let run = move || {
            for name in names {
                if let Err(error) = compress(&*disk, &directory, &name) {
                    tracing::warn!(%error, name, "an old audit log cannot be compressed");
                }
            }
        };
        let thread = std::thread::Builder::new().name("audit-gzip".into()).spawn(run);
        self.compressing = thread
            .inspect_err(|error| tracing::warn!(%error, "old audit logs cannot be compressed"))
            .ok();
    }

    /// `audit-2006-01-02T15-04-05.000.log` for `audit.log`.
    fn name_aside(&self, at: Timestamp) -> String {
        let (stem, extension) = self.parts();
        format!("{stem}-{}{extension}", at.strftime(ASIDE_FORMAT))
    }

    /// A file that was put aside; `None`: it is none of this log's.
    fn aside(&self, name: String) -> Option<Aside> {
        let (stem, extension) = self.parts();
        let plain = name
            .strip_suffix(COMPRESSED)
            .filter(|plain| plain.ends_with(&extension));
        let (compressed, own) = (plain.is_some(), plain.unwrap_or(&name));
        let time = own.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
        if time.len() != ASIDE_BYTES {
            return None;
        }
        let at = DateTime::strptime(ASIDE_PARSED, time).ok()?;
        Some(Aside { at, name, compressed })
    }

    /// The file's name before and from its last dot.
    fn parts(&self) -> (String, String) {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let (stem, extension) = name.split_at(name.rfind('.').unwrap_or(name.len()));
        (stem.to_owned(), extension.to_owned())
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if let Some(thread) = self.compressing.take() {
            // A thread that fell over leaves the file as it was.
            let _ = thread.join();
        }
    }
}

/// Puts a compressed form in the place of a file. What is left of an attempt that was cut short goes first.
fn compress(disk: &dyn Disk, directory: &Path, name: &str) -> Result<()> {
    let (from, to) = (directory.join(name), directory.join(format!("{name}{COMPRESSED}")));
    match disk.remove(&to) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = disk
        .open(&to, OpenMode::CreateNew)
        .and_then(|file| write_compressed(&*disk.open(&from, OpenMode::Read)?, file));
    match written {
        Ok(()) => disk.remove(&from),
        Err(error) => {
            // The whole file is still there; the part is of no use, and goes with the next attempt at the latest.
            let _ = disk.remove(&to);
            Err(error)
        }
    }
}

fn write_compressed(from: &dyn DiskFile, to: Box<dyn DiskFile>) -> Result<()> {
    struct Appended(Box<dyn DiskFile>);
    impl Write for Appended {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.append(bytes).map(|()| bytes.len())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }
    let mut gzip = GzEncoder::new(Appended(to), Compression::default());
    let (mut chunk, mut at) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let read = from.read_at(at, &mut chunk)?;
        if read == 0 {
            break;
        }
        gzip.write_all(&chunk[..read])?;
        at += read as u64;
    }
    // Before the file goes, its compressed form has to be there whatever happens.
    gzip.finish()?.0.sync_data()
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn open(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskFile>> {
    match disk.open(path, OpenMode::Append) {
        Err(error) if error.kind() == ErrorKind::NotFound => disk.open(path, OpenMode::CreateNew),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use base::Random;
    use base::disk::{Faults, SimDisk, read_all};

    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    struct Place {
        disk: SimDisk,
        clock: Clock,
        rotation: Rotation,
    }

    impl Place {
        fn new(backups_max: usize, days_max: u32) -> Place {
            let rotation = Rotation {
                bytes_max: 10,
                backups_max,
                days_max,
                compress: false,
            };
            Place {
                disk: SimDisk::new(Random::seeded(1)),
                clock: Clock::simulated(at(0)),
                rotation,
            }
        }

        fn open(&self) -> LogFile {
            let disk = Arc::new(self.disk.clone());
            LogFile::open(disk, self.clock.clone(), Path::new("/d/audit.log"), self.rotation).unwrap()
        }

        fn texts(&self) -> Vec<(String, String)> {
            let text = |name: String| {
                let file = self.disk.open(&Path::new("/d").join(&name), OpenMode::Read).unwrap();
                (name, String::from_utf8(read_all(&*file).unwrap()).unwrap())
            };
            self.disk.list(Path::new("/d")).unwrap().into_iter().map(text).collect()
        }
    }

    fn at(seconds: i64) -> Timestamp {
        "2026-01-02T03:04:05.678Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
    }

    fn check(place: &Place, expect: &[(&str, &str)]) {
        let texts = place.texts();
        let texts: Vec<_> = texts
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        assert_eq!(texts, expect);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_file_is_put_aside_under_upstreams_name() {
        let place = Place::new(0, 0);
        let mut log = place.open();
        log.write(b"one\n").unwrap();
        log.write(b"two 2\n").unwrap();
        check(&place, &[("audit.log", "one\ntwo 2\n")]);
        log.write(b"three\n").unwrap();
        let first = ("audit-2026-01-02T03-04-05.678.log", "one\ntwo 2\n");
        check(&place, &[first, ("audit.log", "three\n")]);
        // The same millisecond again: what was put aside stays.
        log.write(b"four\n").unwrap();
        let second = ("audit-2026-01-02T03-04-05.679.log", "three\n");
        check(&place, &[first, second, ("audit.log", "four\n")]);
        // Whoever opens it again goes on, and a line that fits into no file is refused.
        drop(log);
        let mut log = place.open();
        log.write(b"five\n").unwrap();
        let error = log.write(b"more than ten\n").unwrap_err();
        assert_eq!(error.to_string(), "write length 14 exceeds maximum file size 10");
        check(&place, &[first, second, ("audit.log", "four\nfive\n")]);
    }

    #[tokio::test(start_paused = true)]
    async fn old_files_go_by_number_and_by_age() {
        for (backups_max, days_max, expect) in [
            (0, 0, vec![0, 1, 2, 3]),
            (2, 0, vec![2, 3]),
            (0, 2, vec![1, 2, 3]),
            (1, 2, vec![3]),
            (9, 9, vec![0, 1, 2, 3]),
        ] {
            let place = Place::new(backups_max, days_max);
            let other = Path::new("/d/audit-0.log");
            place.disk.open(other, OpenMode::CreateNew).unwrap();
            let mut log = place.open();
            for day in 0..5_i64 {
                // What line 0 was written into is put aside with line 1: on day 0.
                place.clock.set(at((day - 1).max(0) * DAY));
                log.write(format!("{day} 345678\n").as_bytes()).unwrap();
            }
            let mut left: Vec<String> = place.texts().into_iter().map(|(_, text)| text).collect();
            assert_eq!(left.remove(0), "", "a name that is not ours went");
            assert_eq!(left.pop().unwrap(), "4 345678\n");
            let expect: Vec<String> = expect.iter().map(|day| format!("{day} 345678\n")).collect();
            assert_eq!(left, expect, "{backups_max} files, {days_max} days");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_whole_or_not_there() {
        let place = Place::new(0, 0);
        let mut log = place.open();
        log.write(b"one\n").unwrap();
        place.disk.set_faults(Faults {
            no_space: 1.0,
            ..Faults::default()
        });
        assert!(log.write(b"two\n").is_err());
        place.disk.set_faults(Faults::default());
        log.write(b"three\n").unwrap();
        check(&place, &[("audit.log", "one\nthree\n")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_put_aside_is_compressed_when_that_is_wanted() {
        let mut place = Place::new(2, 0);
        place.rotation.compress = true;
        // What is left of an attempt that was cut short, with its file.
        let cut = Path::new("/d/audit-2026-01-01T00-00-00.000.log");
        place.disk.create_directory(Path::new("/d")).unwrap();
        place
            .disk
            .open(cut, OpenMode::CreateNew)
            .unwrap()
            .append(b"zero\n")
            .unwrap();
        let part = Path::new("/d/audit-2026-01-01T00-00-00.000.log.gz");
        place
            .disk
            .open(part, OpenMode::CreateNew)
            .unwrap()
            .append(b"half")
            .unwrap();
        drop(place.open());
        let unpacked = |name: &str| {
            let file = place.disk.open(&Path::new("/d").join(name), OpenMode::Read).unwrap();
            let mut text = String::new();
            let bytes = read_all(&*file).unwrap();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*bytes), &mut text).unwrap();
            text
        };
        let names = || place.disk.list(Path::new("/d")).unwrap();
        assert_eq!(names(), ["audit-2026-01-01T00-00-00.000.log.gz", "audit.log"]);
        assert_eq!(unpacked("audit-2026-01-01T00-00-00.000.log.gz"), "zero\n");
        for (seconds, line) in [(0, "one 567\n"), (1, "two 567\n"), (2, "three 7\n")] {
            place.clock.set(at(seconds));
            let mut log = place.open();
            log.write(line.as_bytes()).unwrap();
        }
        // Two are kept, each once, and the newest line is in the log itself.
        assert_eq!(
            names(),
            [
                "audit-2026-01-02T03-04-06.678.log.gz",
                "audit-2026-01-02T03-04-07.678.log.gz",
                "audit.log"
            ]
        );
        assert_eq!(unpacked("audit-2026-01-02T03-04-06.678.log.gz"), "one 567\n");
        assert_eq!(unpacked("audit-2026-01-02T03-04-07.678.log.gz"), "two 567\n");
    }
}
