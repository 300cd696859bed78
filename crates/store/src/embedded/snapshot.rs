//! Writing and reading a snapshot: every key at a revision, so that the log before it can go.
//!
//! It is written in steps beside the commits, from a root that nothing changes. Invariant: a file has its final name only
//! when it is whole and synced.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::disk::{Disk, DiskFile, DiskLock, OpenMode};
use bytes::Bytes;

use super::format::{self, FRAME_BYTES, FileKind, HEADER_BYTES, Header, HeaderError, SnapshotFrame};
use crate::engine::{Record, Revision};
use crate::map::Map;

pub(super) type SnapshotError = io::Error;

/// The suffix of snapshots, and of files being written.
pub(super) const SNAPSHOT_SUFFIX: &str = ".snapshot";
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

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

/// A snapshot being written.
pub(super) struct SnapshotJob {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// The directory stays this process's until the job is gone.
    _lock: Arc<dyn DiskLock>,
    header: Header,
    root: Map<Arc<Record>>,
    block_bytes: usize,
    state: State,
}

enum State {
    Start,
    Blocks {
        file: Box<dyn DiskFile>,
        seed: u32,
        after: Option<Bytes>,
        entries: u64,
    },
    Name {
        bytes: u64,
    },
    Done,
}

impl SnapshotJob {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        lock: Arc<dyn DiskLock>,
        store: [u8; 16],
        revision: Revision,
        revision_offset: u64,
        root: Map<Arc<Record>>,
        block_bytes: usize,
    ) -> Self {
        let number = revision - revision_offset;
        let header = Header {
            kind: FileKind::Snapshot,
            store,
            number,
            base: 0,
            revision_offset,
        };
        Self {
            disk,
            directory,
            _lock: lock,
            header,
            root,
            block_bytes,
            state: State::Start,
        }
    }

    fn temporary(&self) -> PathBuf {
        self.directory
            .join(format!("{:020}{SNAPSHOT_SUFFIX}{TEMPORARY_SUFFIX}", self.header.number))
    }

    /// Writes some more; the file when it is done.
    pub(super) fn step(&mut self) -> Result<Option<SnapshotFile>, SnapshotError> {
        let result = self.advance();
        if result.is_err() {
            // What is left is removed at the next opening, if not now.
            let _ = self.disk.remove(&self.temporary());
            self.state = State::Done;
        }
        result
    }

    fn advance(&mut self) -> Result<Option<SnapshotFile>, SnapshotError> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Start => {
                let temporary = self.temporary();
                match self.disk.remove(&temporary) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                let mut file = self.disk.open(&temporary, OpenMode::CreateNew)?;
                let (header, seed) = self.header.encode();
                file.append(&header)?;
                self.state = State::Blocks {
                    file,
                    seed,
                    after: None,
                    entries: 0,
                };
            }
            State::Blocks {
                mut file,
                seed,
                after,
                entries,
            } => {
                let lower = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let mut records = Vec::new();
                let mut bytes = 0;
                for record in self.root.range(lower, Bound::Unbounded) {
                    bytes += record.key.len() + record.value.len();
                    records.push(record.clone());
                    if bytes >= self.block_bytes {
                        break;
                    }
                }
                let mut buffer = Vec::with_capacity(bytes + records.len() * 64 + 64);
                if let Some(last) = records.last() {
                    let seed = format::encode_block(&records, self.header.revision_offset, seed, &mut buffer);
                    file.append(&buffer)?;
                    let (after, entries) = (Some(last.key.clone()), entries + records.len() as u64);
                    self.state = State::Blocks {
                        file,
                        seed,
                        after,
                        entries,
                    };
                } else {
                    format::encode_end(entries, seed, &mut buffer);
                    file.append(&buffer)?;
                    file.sync_data()?;
                    self.state = State::Name { bytes: file.length()? };
                }
            }
            State::Name { bytes } => {
                let path = snapshot_path(&self.directory, self.header.number);
                self.disk.rename(&self.temporary(), &path)?;
                self.disk.sync_directory(&self.directory)?;
                return Ok(Some(SnapshotFile {
                    revision: self.header.number,
                    bytes,
                }));
            }
            State::Done => return Err(io::Error::other("the snapshot has already ended")),
        }
        Ok(None)
    }
}

/// Why a snapshot cannot be read.
pub(super) enum ReadError {
    Io(io::Error),
    Version(u32),
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
        HeaderError::Version(version) => ReadError::Version(version),
    })
}

/// Reads a whole snapshot; its revisions become raw plus `revision_offset`.
pub(super) fn read_snapshot(file: &dyn DiskFile, revision_offset: u64) -> Result<Map<Arc<Record>>, ReadError> {
    let (_, mut seed) = read_header(file, FileKind::Snapshot)?;
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
        match format::decode_snapshot(payload, revision_offset).ok_or_else(broken)? {
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
