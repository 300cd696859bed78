//! Opening a store: from files to memory.
//!
//! Invariant: what is handed on is durable. What might have been seen in the page cache only (the last batch) is written
//! again into a new segment and synced first. Rot is refused, never skipped.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::disk::{Disk, DiskFile, DiskLock, OpenMode, read_all};

use super::format::{
    FORMAT_VERSION, FileKind, FrameError, HEADER_BYTES, Header, LogRecord, Writer, decode_record, is_rot,
};
use super::log::{Log, Place, SEGMENT_SUFFIX, Segment, segment_path};
use super::marks::{self, MARKS};
use super::memory::{Memory, evolve};
use super::reuse::Content;
use super::snapshot::{
    ReadError, SNAPSHOT_SUFFIX, SnapshotFile, TEMPORARY_SUFFIX, read_header, read_snapshot, snapshot_path,
};
use super::tail::{Tail, judge};
use super::{EmbeddedOptions, Tuning};
use crate::engine::{Committed, Record};
use crate::map::Map;
use crate::mutation::{Mutation, mutated};
use crate::transaction::{Operation, Put};

/// Why a store was not opened. Nothing was changed in its files, except that unfinished ones were removed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another process has the store in {0} open")]
    Locked(PathBuf),
    /// A file, or a record in it, of a format that this program does not know.
    #[error(
        "{file} has content of format version {found} that this program, which knows version {supported}, cannot read; \
         it was written by {writer} of trireme: use that or a newer one"
    )]
    UnsupportedVersion {
        /// Which file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads.
        supported: u32,
        /// The program version that wrote it, in words.
        writer: String,
    },
    /// A file is not what was written.
    #[error(
        "{file} is damaged at byte {offset}: {what}. Nothing was changed. Move the directory aside and restore a backup \
         into a new one (trireme restore)"
    )]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The disk.
    #[error("{file}: {error}")]
    Io {
        /// Which file or directory.
        file: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A defect of this program.
    #[error("reading the store failed: {0}")]
    Panicked(String),
}

impl OpenError {
    pub(super) fn io(file: &Path, error: io::Error) -> Self {
        Self::Io {
            file: file.to_owned(),
            error,
        }
    }

    fn corrupt(file: &Path, offset: u64, what: &'static str) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            offset,
            what,
        }
    }

    fn newer(file: &Path, found: u32, writer: Writer) -> Self {
        Self::UnsupportedVersion {
            file: file.to_owned(),
            found,
            supported: FORMAT_VERSION,
            writer: writer.to_string(),
        }
    }
}

/// The file that is locked while a store is open.
pub(super) const LOCK: &str = "LOCK";

/// Whether a directory with nothing but a snapshot is a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogFiles {
    Required,
    /// It was imported, and gets its log now.
    MayBeMissing,
}

/// A store ready to be written.
pub(super) struct Recovered {
    pub(super) log: Log,
    pub(super) memory: Memory,
    pub(super) snapshot: Option<SnapshotFile>,
}

/// A segment with a whole header.
struct Found {
    header: Header,
    seed: u32,
    path: PathBuf,
    bytes: u64,
}

struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Ids.
    segments: Vec<u64>,
    /// Raw revisions.
    snapshots: Vec<u64>,
}

/// Opens, or makes, the store.
pub(super) fn recover(options: &EmbeddedOptions, log_files: LogFiles) -> Result<Recovered, OpenError> {
    let directory = &options.directory;
    let lock = lock(options)?;
    let listed = Directory::list(options.disk.clone(), directory)?;
    let segments = listed.read_segments()?;
    let highest = listed.segments.iter().max().copied().unwrap_or(0);
    let newest_snapshot = listed.newest_snapshot()?;
    check_one_store(&segments, newest_snapshot.as_ref())?;

    let store = segments.first().map(|found| found.header.store);
    let store = store.or(newest_snapshot.as_ref().map(|(header, _)| header.store));
    let store = store.unwrap_or_else(|| options.random.bytes());
    let offsets = segments.iter().map(|found| found.header.revision_offset);
    let offset = offsets
        .chain(newest_snapshot.iter().map(|(header, _)| header.revision_offset))
        .max()
        .unwrap_or(0);
    let offset = offset + options.raise_revisions_by;

    let (root, snapshot) = match &newest_snapshot {
        Some((header, path)) => {
            let file = open_read(&*options.disk, path)?;
            let bytes = file.length().map_err(|error| OpenError::io(path, error))?;
            let root = read_snapshot(file.as_ref(), offset).map_err(|error| read_error(path, error))?;
            (
                root,
                Some(SnapshotFile {
                    revision: header.number,
                    bytes,
                }),
            )
        }
        None => (Map::new(), None),
    };
    let start = snapshot.map_or(0, |snapshot| snapshot.revision);
    if segments.is_empty() && snapshot.is_some() && log_files == LogFiles::Required {
        let path = snapshot_path(directory, start);
        return Err(OpenError::corrupt(
            &path,
            0,
            "the log that belongs to this snapshot is missing",
        ));
    }

    let mut replay = Replay {
        revision: start,
        read: 0,
        memory: Memory::new(start + offset, root),
        offset,
        now_ms: options.clock.now_ms(),
        tail: Vec::new(),
        room: false,
    };
    let kept = replay.run(&*options.disk, directory, &segments)?;
    check_marks(options, store, &segments, replay.revision)?;
    // Only by age: the rest is bounded by the log, and those who will stream it are not there yet.
    let unlimited = Tuning {
        log_floor_bytes: u64::MAX,
        ..options.tuning
    };
    while replay.memory.trim(options.clock.now_ms(), &unlimited, None) {}

    // Only now, that everything was understood, are files written or removed.
    let disk = options.disk.clone();
    let place = Place {
        disk: disk.clone(),
        directory: directory.clone(),
        _lock: lock,
        store,
        revision_offset: offset,
    };
    if mutated(Mutation::TailNotRewritten) {
        replay.tail.clear();
    }
    if mutated(Mutation::RevisionOfLiveKeys) {
        let newest = replay.memory.root.iter().map(|record| record.mod_revision).max();
        replay.memory.revision = newest.unwrap_or(offset);
        replay.revision = replay.memory.revision - offset;
    }
    let base = replay.tail.first().map_or(replay.revision, |first| first.revision - 1);
    let superseded = kept
        .iter()
        .filter(|segment| segment.base >= base)
        .map(|segment| segment.id);
    let mut obsolete: Vec<PathBuf> = superseded.map(|id| segment_path(directory, id)).collect();
    obsolete.extend(
        segments
            .iter()
            .map(|found| found.path.clone())
            .filter(|path| kept.iter().all(|segment| segment_path(directory, segment.id) != *path)),
    );
    obsolete.extend(
        listed
            .snapshots
            .iter()
            .filter(|old| **old < start)
            .map(|old| snapshot_path(directory, *old)),
    );
    let kept: VecDeque<Segment> = kept.into_iter().filter(|segment| segment.base < base).collect();
    let last = kept.back().copied().filter(|_| replay.room);
    let mut log = Log::new(place, options.tuning, kept, highest + 1);
    log.start_segment(base, &mut replay.tail)
        .map_err(|failed| OpenError::io(directory, failed.error))?;
    if let Some(last) = last.filter(|last| last.id == highest) {
        let path = segment_path(directory, last.id);
        let cut = disk.open(&path, OpenMode::Append);
        cut.and_then(|mut file| file.truncate(last.bytes))
            .map_err(|error| OpenError::io(&path, error))?;
    }
    for path in obsolete {
        disk.remove(&path).map_err(|error| OpenError::io(&path, error))?;
    }
    Ok(Recovered {
        log,
        memory: replay.memory,
        snapshot,
    })
}

pub(super) fn lock(options: &EmbeddedOptions) -> Result<Arc<dyn DiskLock>, OpenError> {
    let directory = &options.directory;
    options
        .disk
        .create_directory(directory)
        .map_err(|error| OpenError::io(directory, error))?;
    match options.disk.lock(&directory.join(LOCK)) {
        Ok(lock) => Ok(Arc::from(lock)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(OpenError::Locked(directory.clone())),
        Err(error) => Err(OpenError::io(directory, error)),
    }
}

fn open_read(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskFile>, OpenError> {
    disk.open(path, OpenMode::Read)
        .map_err(|error| OpenError::io(path, error))
}

fn read_error(path: &Path, error: ReadError) -> OpenError {
    match error {
        ReadError::Io(error) => OpenError::io(path, error),
        ReadError::Newer { version, writer } => OpenError::newer(path, version, writer),
        ReadError::NotWhole(offset) => OpenError::corrupt(path, offset, "its checksum or framing is wrong"),
    }
}

fn check_one_store(segments: &[Found], snapshot: Option<&(Header, PathBuf)>) -> Result<(), OpenError> {
    let stores = segments.iter().map(|found| (found.header.store, &found.path));
    let mut stores = stores.chain(snapshot.map(|(header, path)| (header.store, path)));
    let Some((first, _)) = stores.next() else { return Ok(()) };
    match stores.find(|(store, _)| *store != first) {
        Some((_, path)) => Err(OpenError::corrupt(path, 16, "it belongs to another store")),
        None => Ok(()),
    }
}

/// Refuses a log that ends before what was once acknowledged.
fn check_marks(options: &EmbeddedOptions, store: [u8; 16], segments: &[Found], revision: u64) -> Result<(), OpenError> {
    let path = options.directory.join(MARKS);
    let read = marks::read(&*options.disk, &options.directory, store).map_err(|error| OpenError::io(&path, error))?;
    if read.rotten {
        let file = path.display();
        tracing::warn!(%file, "some mark of the store is not whole; whether the log's end was cut off cannot be told by it");
    }
    let Some(last) = segments.last() else {
        let fresh = read.marks == 0;
        let what = "the log that belongs to it is missing";
        return if fresh {
            Ok(())
        } else {
            Err(OpenError::corrupt(&path, 0, what))
        };
    };
    if revision < read.newest {
        let what = "acknowledged writes are missing at the end of the log";
        return Err(OpenError::corrupt(&last.path, last.bytes, what));
    }
    Ok(())
}

impl Directory {
    /// Lists the files of a store and removes the unfinished ones.
    fn list(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, OpenError> {
        // Whatever name is seen now must still be there after a crash.
        disk.sync_directory(path).map_err(|error| OpenError::io(path, error))?;
        let names = disk.list(path).map_err(|error| OpenError::io(path, error))?;
        let mut listed = Self {
            disk,
            path: path.to_owned(),
            segments: Vec::new(),
            snapshots: Vec::new(),
        };
        for name in names {
            if name.ends_with(TEMPORARY_SUFFIX) {
                let temporary = path.join(&name);
                listed
                    .disk
                    .remove(&temporary)
                    .map_err(|error| OpenError::io(&temporary, error))?;
            } else if let Some(id) = name.strip_suffix(SEGMENT_SUFFIX).and_then(|id| id.parse().ok()) {
                listed.segments.push(id);
            } else if let Some(revision) = name
                .strip_suffix(SNAPSHOT_SUFFIX)
                .and_then(|number| number.parse().ok())
            {
                listed.snapshots.push(revision);
            }
        }
        listed.segments.sort_unstable();
        listed.snapshots.sort_unstable();
        Ok(listed)
    }

    /// The segments in order. Each was named when its header was durable, so all have one.
    fn read_segments(&self) -> Result<Vec<Found>, OpenError> {
        let mut segments = Vec::new();
        for id in &self.segments {
            let path = segment_path(&self.path, *id);
            let file = open_read(&*self.disk, &path)?;
            let bytes = file.length().map_err(|error| OpenError::io(&path, error))?;
            match read_header(file.as_ref(), FileKind::Segment) {
                Ok((header, seed)) if header.number == *id => segments.push(Found {
                    header,
                    seed,
                    path,
                    bytes,
                }),
                Ok(_) => return Err(OpenError::corrupt(&path, 32, "its id is not its name")),
                Err(error) => return Err(read_error(&path, error)),
            }
        }
        Ok(segments)
    }

    fn newest_snapshot(&self) -> Result<Option<(Header, PathBuf)>, OpenError> {
        let Some(newest) = self.snapshots.last() else {
            return Ok(None);
        };
        let path = snapshot_path(&self.path, *newest);
        let file = open_read(&*self.disk, &path)?;
        let (header, _) = read_header(file.as_ref(), FileKind::Snapshot).map_err(|error| read_error(&path, error))?;
        if header.number != *newest {
            return Err(OpenError::corrupt(&path, 32, "its revision is not its name"));
        }
        Ok(Some((header, path)))
    }
}

/// The log being read into memory.
struct Replay {
    /// Raw revision of the state.
    revision: u64,
    /// Raw revision of the last record read.
    read: u64,
    memory: Memory,
    offset: u64,
    now_ms: i64,
    /// The records of the last batch, which may not be durable.
    tail: Vec<LogRecord>,
    /// Something is behind the records of the newest segment.
    room: bool,
}

impl Replay {
    /// Reads the segments from the one that the snapshot's revision is in; returns those that count.
    fn run(&mut self, disk: &dyn Disk, directory: &Path, segments: &[Found]) -> Result<Vec<Segment>, OpenError> {
        let Some(first) = segments.iter().rposition(|found| found.header.base <= self.revision) else {
            return match segments.first() {
                Some(found) => Err(OpenError::corrupt(
                    &found.path,
                    40,
                    "the snapshot before this segment is missing",
                )),
                None => Ok(Vec::new()),
            };
        };
        let segments = &segments[first..];
        let mut kept = Vec::new();
        let mut root = self.memory.root.clone();
        for (index, found) in segments.iter().enumerate() {
            let next = segments.get(index + 1).map(|next| next.header.base);
            let bytes = self.segment(disk, found, next, &mut root)?;
            kept.push(Segment {
                id: found.header.number,
                base: found.header.base,
                bytes,
                // What an earlier process was told of its writes is not known.
                sound: false,
            });
        }
        self.memory.root = root;
        if self.read < self.revision {
            return Err(OpenError::corrupt(directory, 0, "the log ends before the snapshot"));
        }
        Ok(kept)
    }

    /// Reads one segment up to the base of the next; returns the bytes that count.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        found: &Found,
        next: Option<u64>,
        root: &mut Map<Arc<Record>>,
    ) -> Result<u64, OpenError> {
        let file = open_read(disk, &found.path)?;
        let bytes = read_all(file.as_ref()).map_err(|error| OpenError::io(&found.path, error))?;
        debug_assert_eq!(bytes.len() as u64, found.bytes, "the file is locked");
        let damaged = || {
            OpenError::corrupt(
                &found.path,
                HEADER_BYTES as u64,
                "the note of what was there before is damaged",
            )
        };
        let content = Content::read(bytes, found.header.reused, found.seed).ok_or_else(damaged)?;
        let bytes = content.bytes();
        let mut last = found.header.base;
        let (mut offset, mut batch) = (content.start(), content.start());
        while offset < bytes.len() {
            if next.is_some_and(|next| last >= next) {
                // The next segment cut the rest off.
                break;
            }
            let (record, end) = match decode_record(bytes, offset, found.seed) {
                Ok(decoded) => decoded,
                Err(FrameError::NotWhole) => break,
                Err(FrameError::Unknown) => {
                    return Err(OpenError::newer(&found.path, FORMAT_VERSION, found.header.writer));
                }
            };
            if record.revision != last + 1 {
                return Err(OpenError::corrupt(
                    &found.path,
                    offset as u64,
                    "its revisions have a gap",
                ));
            }
            last = record.revision;
            // A place in this file, or nothing can be said of its end.
            batch = usize::try_from(record.batch_start).unwrap_or(offset).min(offset);
            if last > self.revision {
                self.apply(record, next.is_none(), root);
            }
            offset = end;
        }
        self.read = last;
        if let Some(next) = next {
            if last < next {
                let what = "records before the next segment are missing";
                return Err(OpenError::corrupt(&found.path, offset as u64, what));
            }
            return Ok(offset as u64);
        }
        let tail = match found.header.grid {
            Some(grid) => judge(&content, offset, batch, last, grid, found.seed),
            // Written by the program's first builds, whose room was zeros.
            None if is_rot(bytes, offset, last, found.seed) => Tail::Rotten("a record that was durable is damaged"),
            None if bytes[offset..].iter().all(|byte| *byte == 0) => Tail::Room,
            None => Tail::Torn,
        };
        self.room = offset < bytes.len();
        match tail {
            Tail::Room => {}
            Tail::Torn => {
                let (file, lost) = (found.path.display(), bytes.len() - offset);
                tracing::warn!(%file, offset, lost, "the log ends in a batch that was never acknowledged; dropped");
            }
            Tail::Rotten(what) => return Err(OpenError::corrupt(&found.path, offset as u64, what)),
        }
        Ok(offset as u64)
    }

    fn apply(&mut self, mut record: LogRecord, newest_segment: bool, root: &mut Map<Arc<Record>>) {
        if mutated(Mutation::ReplayByTheClock) {
            let expired = |put: &Put| {
                put.expires_at_ms
                    .is_some_and(|expires_at_ms| expires_at_ms <= self.now_ms)
            };
            let lives = |operation: &Operation| !matches!(operation, Operation::Put(put) if expired(put));
            record.operations.retain(lives);
        }
        let revision = record.revision + self.offset;
        let changes = evolve(root, revision, &record.operations);
        let commit = Committed {
            revision,
            time_ms: record.time_ms,
            changes,
        };
        self.memory.note(Arc::new(commit));
        self.revision = record.revision;
        if newest_segment {
            if self
                .tail
                .first()
                .is_some_and(|first| first.batch_start != record.batch_start)
            {
                self.tail.clear();
            }
            self.tail.push(record);
        }
    }
}
