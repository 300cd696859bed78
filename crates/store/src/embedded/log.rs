//! The segments of the log: appending, syncing, beginning a new one, forgetting old ones.
//!
//! Invariants: only the newest segment is written, and only while every write and sync of it has succeeded; everything before
//! `durable` in it is on the medium; a segment's name appears only when its header and first records are. Behind the last
//! record of the newest one there is room for the next, to a place of its [`Grid`] at least: durable before that next one is
//! written, so that what has rotted there is not taken for room (`tail.rs`). A forgotten segment's file is written over by a
//! new one (`reuse.rs`) only when no crash can bring its old name back.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::disk::{Disk, DiskFile, DiskLock, OpenMode, read_all};

use super::Tuning;
use super::format::{FileKind, Grid, Header, LogRecord, SECTOR_BYTES, Writer, decode_record};
use super::reuse::{Content, Ending, Reuse, ending};
use super::snapshot::TEMPORARY_SUFFIX;
use crate::mutation::{Mutation, mutated};

/// A segment is read at once when the store is opened, and freed at once.
const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Room made ahead at once: one sync in some hundred has a new length to write, which on a journalling file system costs as
/// much again as the content, and a sync never waits for more than this of filling.
const ROOM_BYTES: u64 = 256 * 1024;
/// The grid of room: a batch that is smaller is nearly always inside of what was room before it.
const GRID_BYTES: u64 = 64 * 1024;
/// Bytes of an old segment read at once.
const READ_BYTES: usize = 256 * 1024;
/// The suffix of segments.
pub(super) const SEGMENT_SUFFIX: &str = ".log";

pub(super) fn segment_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{id:020}{SEGMENT_SUFFIX}"))
}

/// The name of a segment that is not there yet, or not any more.
fn temporary_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{id:020}{SEGMENT_SUFFIX}{TEMPORARY_SUFFIX}"))
}

/// A segment with a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    /// Raw revision before its first record.
    pub(super) base: u64,
    /// Bytes, as far as they count.
    pub(super) bytes: u64,
    /// It has ended, and every write and sync of its file is known to have succeeded: another segment can be written there.
    pub(super) sound: bool,
}

/// The identity of a store and where it is.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    /// Held by the log and by whoever writes beside it, until all of them are gone.
    pub(super) _lock: Arc<dyn DiskLock>,
    pub(super) store: [u8; 16],
    pub(super) revision_offset: u64,
}

pub(super) struct Log {
    place: Place,
    tuning: Tuning,
    /// Oldest first; the last one is the newest.
    segments: VecDeque<Segment>,
    /// The newest segment while it can be written.
    active: Option<Active>,
    next_id: u64,
    /// Segments that were forgotten, for their files: durably under temporary names.
    spares: Vec<Segment>,
}

struct Active {
    file: Box<dyn DiskFile>,
    seed: u32,
    length: u64,
    durable: u64,
    grid: Grid,
    /// Where the room for more ends, which is at a place of the grid behind `length`.
    room_end: u64,
    /// Of a file that is used again.
    reuse: Option<Reuse>,
    /// No write of room has failed, nor giving it back.
    sound: bool,
}

impl Active {
    /// Begins a segment in a file of its own.
    fn fresh(disk: &dyn Disk, path: &Path, header: Header, grid: Grid) -> io::Result<Self> {
        let (bytes, seed) = header.encode();
        let mut file = disk.open(path, OpenMode::CreateNew)?;
        file.append(&bytes)?;
        Ok(Self {
            file,
            seed,
            length: bytes.len() as u64,
            durable: 0,
            grid,
            room_end: bytes.len() as u64,
            reuse: None,
            sound: true,
        })
    }

    /// Begins a segment over an old one, after noting how that one's sectors end.
    fn over(disk: &dyn Disk, path: &Path, header: Header, grid: Grid) -> io::Result<Self> {
        let mut file = disk.open(path, OpenMode::Reuse)?;
        let length = file.length()?;
        let room_end = grid.after(length.saturating_sub(1));
        if room_end > length {
            file.make_room(length, &vec![Grid::FILL; (room_end - length) as usize])?;
        }
        let endings = endings(&*file, room_end)?;
        if endings.len() as u64 * SECTOR_BYTES as u64 != room_end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (header, seed) = header.encode();
        let (reuse, mut bytes) = Reuse::begin(&header, seed, &endings);
        let mut active = Self {
            file,
            seed,
            length: 0,
            durable: 0,
            grid,
            room_end,
            reuse: Some(reuse),
            sound: true,
        };
        active.write(&mut bytes)?;
        Ok(active)
    }

    /// Gives back the room from `from` on, as no more records will come.
    fn give_back_room(&mut self, from: u64) {
        // It only takes space.
        if let Err(error) = self.file.truncate(from) {
            self.sound = false;
            tracing::debug!(%error, "room at the end of a segment could not be given back");
        }
    }

    /// Sees to it that there is room for `bytes`, and for `more` if it can be had. After an error there is as much as before.
    fn see_to_room(&mut self, bytes: u64, more: u64) -> io::Result<()> {
        let needed = self.length + bytes;
        if self.room_end > needed {
            return Ok(());
        }
        let (least, wanted) = (self.grid.after(needed), self.grid.after(needed + more));
        match self.fill(wanted) {
            Err(error) if wanted > least => {
                tracing::debug!(%error, "less room was made at the end of the log");
                self.fill(least)
            }
            filled => filled,
        }
    }

    /// Writes a batch, for which there is room; `bytes` are made what is written.
    fn write(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let length = bytes.len();
        let padding = self.reuse.map_or(0, |reuse| reuse.padding(self.length + length as u64));
        bytes.resize(length + padding, Grid::FILL);
        if let Some(reuse) = self.reuse {
            reuse.tag(self.length, bytes);
        }
        self.file.append_with_room(bytes, padding)?;
        self.length += length as u64;
        Ok(())
    }

    /// Makes room up to `end`. After an error there is as much as before.
    fn fill(&mut self, end: u64) -> io::Result<()> {
        let bytes = usize::try_from(end - self.room_end).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let filled = self.file.make_room(self.room_end, &vec![Grid::FILL; bytes]);
        match filled {
            Ok(()) => self.room_end = end,
            Err(_) => {
                self.sound = false;
                self.give_back_room(self.room_end);
            }
        }
        filled
    }
}

/// A batch could not be appended.
#[derive(Debug)]
pub(super) struct AppendError {
    pub(super) error: io::Error,
    /// Some of it may be there. The segment is not written any more.
    pub(super) begun: bool,
}

/// A segment could not be begun.
#[derive(Debug)]
pub(super) struct StartError {
    pub(super) error: io::Error,
    /// Its name may be there and cut the segment before it, which must then not be written any more.
    pub(super) named: bool,
}

impl Log {
    pub(super) fn new(place: Place, tuning: Tuning, segments: VecDeque<Segment>, next_id: u64) -> Self {
        Self {
            place,
            tuning,
            segments,
            active: None,
            next_id,
            spares: Vec::new(),
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn revision_offset(&self) -> u64 {
        self.place.revision_offset
    }

    /// Room made at once, and the grid of it.
    fn room(&self) -> (u64, Grid) {
        let room = ROOM_BYTES.min(self.tuning.segment_bytes / 4);
        (room, Grid::of(room.min(GRID_BYTES)))
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes of the segments that would go with everything up to a raw revision.
    pub(super) fn bytes_before(&self, revision: u64) -> u64 {
        let segments = self.segments.iter().zip(self.segments.iter().skip(1));
        let free = segments.take_while(|(_, next)| next.base <= revision);
        free.map(|(segment, _)| segment.bytes).sum()
    }

    /// Where the next batch starts and what seeds its checksums; none: there is no segment to write to.
    pub(super) fn position(&self) -> Option<(u64, u32)> {
        self.active.as_ref().map(|active| (active.length, active.seed))
    }

    /// Whether the newest segment is long enough: a fixed part of the live data, within limits.
    pub(super) fn is_full(&self, live_bytes: u64) -> bool {
        let enough = (live_bytes / 16).min(SEGMENT_BYTES_MAX).max(self.tuning.segment_bytes);
        self.active.as_ref().is_some_and(|active| active.length >= enough)
    }

    /// Begins a segment with `records`, which follow the raw revision `base`. The old one is not written any more, unless
    /// the error says that the new one has no name.
    pub(super) fn start_segment(&mut self, base: u64, records: &mut [LogRecord]) -> Result<(), StartError> {
        let id = self.next_id;
        self.next_id += 1;
        let path = segment_path(&self.place.directory, id);
        let spare = self.spares.pop();
        let temporary = temporary_path(&self.place.directory, spare.map_or(id, |spare| spare.id));
        let (_, grid) = self.room();
        let header = Header {
            kind: FileKind::Segment,
            store: self.place.store,
            number: id,
            base,
            revision_offset: self.place.revision_offset,
            writer: Writer::this(),
            grid: Some(grid),
            reused: spare.is_some(),
        };
        let disk = self.place.disk.clone();
        let begun = if header.reused {
            Active::over(&*disk, &temporary, header, grid)
        } else {
            Active::fresh(&*disk, &temporary, header, grid)
        };
        let ready = begun.and_then(|mut active| {
            let mut buffer = Vec::new();
            for record in records {
                record.batch_start = active.length;
                record.encode(active.seed, &mut buffer);
            }
            if !buffer.is_empty() {
                active.see_to_room(buffer.len() as u64, 0)?;
                active.write(&mut buffer)?;
            }
            active.see_to_room(0, 0)?;
            sync(&mut *active.file)?;
            active.durable = active.length;
            Ok(active)
        });
        let active: Active = ready.map_err(|error| {
            // What is left is removed at the next opening, if not now.
            let _ = disk.remove(&temporary);
            StartError { error, named: false }
        })?;
        let named = disk
            .rename(&temporary, &path)
            .and_then(|()| sync_directory(&*disk, &self.place.directory));
        if let Err(error) = named {
            self.active = None;
            return Err(StartError { error, named: true });
        }
        self.segments.push_back(Segment {
            id,
            base,
            bytes: active.length,
            sound: false,
        });
        if let Some(mut old) = self.active.replace(active) {
            old.give_back_room(old.length);
            if let Some(before) = self.segments.iter_mut().nth_back(1) {
                before.sound = old.sound;
            }
        }
        Ok(())
    }

    /// Appends a batch, after making room for it when there is none; much of it with `roomy`. On a full disk it is the room
    /// that cannot be had, before anything of the batch was written.
    /// `bytes` are what was written afterwards.
    pub(super) fn append(&mut self, bytes: &mut Vec<u8>, roomy: bool) -> Result<(), AppendError> {
        let refused = |error| AppendError { error, begun: false };
        let more = if roomy { self.room().0 } else { 0 };
        let length = bytes.len() as u64;
        let active = self.active.as_mut().ok_or_else(no_segment).map_err(refused)?;
        if let Err(error) = active.see_to_room(length, more) {
            if self.spares.is_empty() {
                return Err(refused(error));
            }
            // Their space is better used now.
            self.keep_spares(0);
        }
        let active = self.active.as_mut().ok_or_else(no_segment).map_err(refused)?;
        active.see_to_room(length, more).map_err(refused)?;
        if let Err(error) = active.write(bytes) {
            self.active = None;
            return Err(AppendError { error, begun: true });
        }
        Ok(())
    }

    /// Nothing will be appended any more.
    pub(super) fn close(&mut self) {
        self.keep_spares(0);
        if let Some(active) = &mut self.active {
            active.give_back_room(active.grid.after(active.length));
        }
    }

    /// Makes everything appended durable. After an error the segment is not written any more.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let active = self.active.as_mut().ok_or_else(no_segment)?;
        if let Err(error) = sync(&mut *active.file) {
            if !mutated(Mutation::FailedSyncRepeated) {
                self.active = None;
            }
            return Err(error);
        }
        active.durable = active.length;
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes = active.durable;
        }
        Ok(())
    }

    /// Reads the durable part of the newest segment again, after a failed write or sync.
    pub(super) fn verify(&self) -> io::Result<()> {
        let Some(segment) = self.segments.back() else {
            return Ok(());
        };
        let path = segment_path(&self.place.directory, segment.id);
        let file = self.place.disk.open(&path, OpenMode::Read)?;
        let bytes = read_all(file.as_ref())?;
        let rotten = || io::Error::other(format!("{} is not what was written", path.display()));
        let (header, seed) = Header::decode(FileKind::Segment, &bytes).map_err(|_| rotten())?;
        let content = Content::read(bytes, header.reused, seed).ok_or_else(rotten)?;
        let mut offset = content.start();
        while (offset as u64) < segment.bytes {
            offset = decode_record(content.bytes(), offset, seed).map_err(|_| rotten())?.1;
        }
        Ok(())
    }

    /// Forgets segments whose records are all at or before a raw revision, oldest first. Files are kept for new segments as
    /// long as all together have no more than `bytes_max`.
    pub(super) fn forget_before(&mut self, revision: u64, bytes_max: u64) -> io::Result<()> {
        let (disk, directory) = (&*self.place.disk, &self.place.directory);
        let mut bytes = self.bytes() + self.spare_bytes();
        let mut kept = Vec::new();
        let mut forgotten = Ok(());
        while forgotten.is_ok() && self.segments.get(1).is_some_and(|second| second.base <= revision) {
            let Some(segment) = self.segments.pop_front() else {
                break;
            };
            let path = segment_path(directory, segment.id);
            forgotten = if segment.sound && bytes <= bytes_max {
                kept.push(segment);
                disk.rename(&path, &temporary_path(directory, segment.id))
            } else {
                bytes -= segment.bytes;
                disk.remove(&path)
            };
            if forgotten.is_err() {
                kept.pop_if(|kept| kept.id == segment.id);
                self.segments.push_front(segment);
            }
        }
        if kept.is_empty() {
            return forgotten;
        }
        // Before that the old names can come back, and must then be the names of what they were.
        let synced = if mutated(Mutation::OldNameComesBack) {
            Ok(())
        } else {
            sync_directory(disk, directory)
        };
        self.spares.append(&mut kept);
        if synced.is_err() {
            self.keep_spares(0);
        }
        forgotten.and(synced)
    }

    fn spare_bytes(&self) -> u64 {
        self.spares.iter().map(|spare| spare.bytes).sum()
    }

    /// Removes files that were kept for new segments, until all together have no more than `bytes_max`.
    pub(super) fn keep_spares(&mut self, bytes_max: u64) {
        while self.bytes() + self.spare_bytes() > bytes_max
            && let Some(spare) = self.spares.pop()
        {
            let path = temporary_path(&self.place.directory, spare.id);
            if let Err(error) = self.place.disk.remove(&path) {
                // The next opening removes it.
                tracing::debug!(%error, "the file of an old segment could not be removed");
            }
        }
    }
}

/// How the sectors of a file end.
fn endings(file: &dyn DiskFile, length: u64) -> io::Result<Vec<Ending>> {
    let mut endings = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    while offset < length {
        let read = file.read_at(offset, &mut buffer)?;
        endings.extend(buffer[..read].chunks(SECTOR_BYTES).filter_map(ending));
        if read < buffer.len() {
            break;
        }
        offset += read as u64;
    }
    Ok(endings)
}

fn no_segment() -> io::Error {
    io::Error::other("no segment of the log can be written")
}

fn sync(file: &mut dyn DiskFile) -> io::Result<()> {
    if mutated(Mutation::SyncLeftOut) {
        return Ok(());
    }
    file.sync_data()
}

/// Makes a new name durable.
pub(super) fn sync_directory(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    if mutated(Mutation::DirectorySyncLeftOut) {
        return Ok(());
    }
    disk.sync_directory(directory)
}
