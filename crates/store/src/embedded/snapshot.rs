//! Writing and reading a snapshot: every key at a revision, so that the log before it can go.
//!
//! It is written in steps beside the commits, from a root that nothing changes. Invariant: a file has its final name only
//! when it is whole and synced.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::disk::{Disk, DiskFile, OpenMode};
use bytes::Bytes;

use super::format::{
    self, FORMAT_VERSION, FRAME_BYTES, FileKind, HEADER_BYTES, Header, HeaderError, SnapshotFrame, Writer,
};
use super::log::{Place, sync_directory};
use super::memory::View;
use crate::engine::Record;
use crate::map::Map;

pub(super) type SnapshotError = io::Error;

/// The suffix of snapshots, and of files being written.
pub(super) const SNAPSHOT_SUFFIX: &str = ".snapshot";
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Bytes after which a snapshot being written is synced: what one sync at its end would otherwise cost all at once.
const SYNC_BYTES: usize = 4 * 1024 * 1024;

/// A snapshot that is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct SnapshotFile {
    /// Raw.
    pub(super) revision: u64,
    pub(super) bytes: u64,
}

pub(super) fn snapshot_path(directory: &Path, raw_revision: u64) -> PathBuf {
    directory.join(format!("{raw_revision:020}{SNAPSHOT_SUFFIX}"))
}

/// A snapshot's file being written, under a temporary name until it is whole and synced.
pub(super) struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    revision: u64,
    file: Box<dyn DiskFile>,
    seed: u32,
    entries: u64,
    unsynced: usize,
    buffer: Vec<u8>,
}

impl SnapshotWriter {
    /// Begins the snapshot of a raw revision. `revision_offset` is the store's, for the header; an unfinished one of the
    /// same revision is replaced.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        store: [u8; 16],
        revision: u64,
        revision_offset: u64,
    ) -> io::Result<Self> {
        let temporary = temporary_path(&directory, revision);
        match disk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = disk.open(&temporary, OpenMode::CreateNew)?;
        let (header, seed) = Header {
            kind: FileKind::Snapshot,
            store,
            number: revision,
            base: 0,
            revision_offset,
            writer: Writer::this(),
            grid: None,
            reused: false,
        }
        .encode();
        file.append(&header)?;
        Ok(Self {
            disk,
            directory,
            revision,
            file,
            seed,
            entries: 0,
            unsynced: 0,
            buffer: Vec::new(),
        })
    }

    /// Appends records, which follow the earlier ones in key order. `subtract` makes their revisions raw. True: what was
    /// written so far was synced, too, so that no sync ever has much to do while commits wait for theirs.
    pub(super) fn append(&mut self, records: &[Arc<Record>], subtract: u64) -> io::Result<bool> {
        self.buffer.clear();
        self.seed = format::encode_block(records, subtract, self.seed, &mut self.buffer);
        self.file.append(&self.buffer)?;
        self.entries += records.len() as u64;
        self.unsynced += self.buffer.len();
        let much = self.unsynced >= SYNC_BYTES;
        if much {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(much)
    }

    /// Ends and syncs the file.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        self.buffer.clear();
        format::encode_end(self.entries, self.seed, &mut self.buffer);
        self.file.append(&self.buffer)?;
        self.file.sync_data()
    }

    /// Gives the sealed file its name, durably.
    pub(super) fn name(&mut self) -> io::Result<SnapshotFile> {
        let bytes = self.file.length()?;
        let path = snapshot_path(&self.directory, self.revision);
        self.disk
            .rename(&temporary_path(&self.directory, self.revision), &path)?;
        sync_directory(&*self.disk, &self.directory)?;
        Ok(SnapshotFile {
            revision: self.revision,
            bytes,
        })
    }
}

fn temporary_path(directory: &Path, raw_revision: u64) -> PathBuf {
    directory.join(format!("{raw_revision:020}{SNAPSHOT_SUFFIX}{TEMPORARY_SUFFIX}"))
}

/// A snapshot being written beside the commits, step by step.
pub(super) struct SnapshotJob {
    place: Place,
    /// Raw.
    revision: u64,
    block_bytes: usize,
    state: State,
}

enum State {
    Start {
        view: View,
    },
    Blocks {
        writer: SnapshotWriter,
        root: Map<Arc<Record>>,
        after: Option<Bytes>,
    },
    Name {
        writer: SnapshotWriter,
    },
    Done,
}

/// What a step came to.
pub(super) enum Step {
    /// There is more to write.
    More,
    /// There is more to write, and the disk was kept busy: others should have it for as long.
    Busy,
    /// The file has its name.
    Done(SnapshotFile),
}

impl SnapshotJob {
    /// `revision` is raw; `view` is the state at it.
    pub(super) fn new(place: Place, revision: u64, view: View, block_bytes: usize) -> Self {
        Self {
            place,
            revision,
            block_bytes,
            state: State::Start { view },
        }
    }

    /// Writes some more.
    pub(super) fn step(&mut self) -> Result<Step, SnapshotError> {
        let result = self.advance();
        if result.is_err() {
            // What is left is removed at the next opening, if not now.
            let temporary = temporary_path(&self.place.directory, self.revision);
            let _ = self.place.disk.remove(&temporary);
            self.state = State::Done;
        }
        result
    }

    fn advance(&mut self) -> Result<Step, SnapshotError> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Start { view } => {
                let place = &self.place;
                let (disk, directory) = (place.disk.clone(), place.directory.clone());
                let writer = SnapshotWriter::begin(disk, directory, place.store, self.revision, place.revision_offset)?;
                self.state = State::Blocks {
                    writer,
                    // Going back in history takes a while, and nobody waits for it here.
                    root: view.root(),
                    after: None,
                };
            }
            State::Blocks {
                mut writer,
                root,
                after,
            } => {
                let records = block(&root, after.as_ref(), self.block_bytes);
                if let Some(last) = records.last() {
                    let busy = writer.append(&records, self.place.revision_offset)?;
                    let after = Some(last.key.clone());
                    self.state = State::Blocks { writer, root, after };
                    return Ok(if busy { Step::Busy } else { Step::More });
                }
                writer.seal()?;
                self.state = State::Name { writer };
            }
            State::Name { mut writer } => return writer.name().map(Step::Done),
            State::Done => return Err(io::Error::other("the snapshot has already ended")),
        }
        Ok(Step::More)
    }
}

/// The records after a key, until they have `bytes_min` bytes.
pub(super) fn block(root: &Map<Arc<Record>>, after: Option<&Bytes>, bytes_min: usize) -> Vec<Arc<Record>> {
    let lower = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_ref()));
    let mut records = Vec::new();
    let mut bytes = 0;
    for record in root.range(lower, Bound::Unbounded) {
        bytes += record.key.len() + record.value.len();
        records.push(record.clone());
        if bytes >= bytes_min {
            break;
        }
    }
    records
}

/// Why a snapshot cannot be read.
pub(super) enum ReadError {
    Io(io::Error),
    /// It has this format version, or something else that this program does not know.
    Newer {
        version: u32,
        writer: Writer,
    },
    /// At this offset.
    NotWhole(u64),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads the header of a file.
pub(super) fn read_header(file: &dyn DiskFile, kind: FileKind) -> Result<(Header, u32), ReadError> {
    let mut bytes = [0; HEADER_BYTES];
    let read = file.read_at(0, &mut bytes)?;
    Header::decode(kind, &bytes[..read]).map_err(|error| match error {
        HeaderError::NotWhole => ReadError::NotWhole(0),
        HeaderError::Newer { version, writer } => ReadError::Newer { version, writer },
    })
}

/// Reads a whole snapshot; its revisions become raw plus `revision_offset`.
pub(super) fn read_snapshot(file: &dyn DiskFile, revision_offset: u64) -> Result<Map<Arc<Record>>, ReadError> {
    let (header, mut seed) = read_header(file, FileKind::Snapshot)?;
    let length = file.length()?;
    let mut offset = HEADER_BYTES as u64;
    let mut root: Vec<Arc<Record>> = Vec::new();
    loop {
        let broken = || ReadError::NotWhole(offset);
        let mut head = [0; FRAME_BYTES];
        if file.read_at(offset, &mut head)? < FRAME_BYTES {
            return Err(broken());
        }
        let payload_length = format::payload_length(&head).ok_or_else(broken)?;
        if offset + (FRAME_BYTES + payload_length) as u64 > length {
            return Err(broken());
        }
        let mut frame = vec![0; FRAME_BYTES + payload_length];
        file.read_at(offset, &mut frame)?;
        let (payload, crc, size) = format::frame_at(&frame, 0, seed).ok_or_else(broken)?;
        seed = crc;
        let unknown = || ReadError::Newer {
            version: FORMAT_VERSION,
            writer: header.writer,
        };
        match format::decode_snapshot(payload, revision_offset).ok_or_else(unknown)? {
            SnapshotFrame::Block(records) => root.extend(records.into_iter().map(Arc::new)),
            SnapshotFrame::End(expected) => {
                let ordered = root.windows(2).all(|pair| pair[0].key < pair[1].key);
                let whole = ordered && expected == root.len() as u64 && offset + size as u64 == length;
                return if whole {
                    Ok(Map::from_sorted(root))
                } else {
                    Err(broken())
                };
            }
        }
        offset += size as u64;
    }
}
