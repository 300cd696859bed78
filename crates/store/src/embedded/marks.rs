//! How far the log was durable, noted in a file of its own.
//!
//! The log alone cannot tell its last batch, cut off or rotted, from one that was never synced: both end in bytes that are
//! not whole. So whenever a batch was synced and no other one follows for a moment, a mark is written that names its revision.
//! A log that ends before its newest mark has lost what was acknowledged, and is refused.
//!
//! Marks are not synced while running (that would double the cost of a write); after the power failed, those of the last
//! seconds may be gone, and with them only this check. Invariants: a mark names only what was durable when it was written;
//! nothing but the check depends on a mark, so that a rotten one costs the check and no data.

use std::io;
use std::path::{Path, PathBuf};

use base::disk::{Disk, DiskFile, OpenMode, read_all};

use super::log::Place;

/// The file of the marks.
pub(super) const MARKS: &str = "MARKS";
/// Bytes of one mark: magic (4), checksum (4), store id (16), raw revision (8).
const MARK_BYTES: usize = 32;
const MAGIC: &[u8; 4] = b"TRIM";
/// Bytes after which the file begins anew.
const FILE_BYTES_MAX: u64 = 4096;

/// The marks of an open store.
pub(super) struct Marks {
    /// None: it cannot be written. The store does without.
    file: Option<Box<dyn DiskFile>>,
    length: u64,
    store: [u8; 16],
    marked: u64,
}

fn path(directory: &Path) -> PathBuf {
    directory.join(MARKS)
}

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Whole marks, of whichever store.
    pub(super) marks: usize,
    /// The highest raw revision that one of this store names; 0 without one.
    pub(super) newest: u64,
    /// Something in it is no mark.
    pub(super) rotten: bool,
}

/// Reads the marks of a store that is not open.
pub(super) fn read(disk: &dyn Disk, directory: &Path, store: [u8; 16]) -> io::Result<Read> {
    let file = match disk.open(&path(directory), OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::default()),
        file => file?,
    };
    let bytes = read_all(file.as_ref())?;
    Ok(decode_all(&bytes, store))
}

pub(super) fn decode_all(bytes: &[u8], store: [u8; 16]) -> Read {
    let mut read = Read::default();
    for mark in bytes.chunks(MARK_BYTES) {
        match decode(mark) {
            Some((of, revision)) => {
                read.marks += 1;
                if of == store {
                    read.newest = read.newest.max(revision);
                }
            }
            None => read.rotten = true,
        }
    }
    read
}

pub(super) fn encode(store: [u8; 16], revision: u64) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..4].copy_from_slice(MAGIC);
    mark[8..24].copy_from_slice(&store);
    mark[24..].copy_from_slice(&revision.to_le_bytes());
    let crc = crc32c::crc32c(&mark[8..]);
    mark[4..8].copy_from_slice(&crc.to_le_bytes());
    mark
}

fn decode(mark: &[u8]) -> Option<([u8; 16], u64)> {
    let store = mark.get(8..24)?.try_into().ok()?;
    let revision = u64::from_le_bytes(mark.get(24..MARK_BYTES)?.try_into().ok()?);
    (mark == encode(store, revision)).then_some((store, revision))
}

impl Marks {
    /// Opens, or makes, the file, and marks a raw revision that is durable.
    pub(super) fn begin(place: &Place, revision: u64) -> Self {
        let mut marks = Self {
            file: None,
            length: 0,
            store: place.store,
            marked: 0,
        };
        let path = path(&place.directory);
        let file = place.disk.open(&path, OpenMode::Append).or_else(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                place.disk.open(&path, OpenMode::CreateNew)
            } else {
                Err(error)
            }
        });
        match file {
            Ok(mut file) => {
                // Part of a mark may be at its end: begun anew, marks stand where they are looked for.
                if file.truncate(0).is_ok() {
                    marks.file = Some(file);
                }
            }
            Err(error) => tracing::warn!(%error, "the store's marks cannot be written"),
        }
        marks.mark(revision);
        marks
    }

    /// Notes that everything up to a raw revision is durable. A failure costs the check until the next mark.
    pub(super) fn mark(&mut self, revision: u64) {
        if revision == self.marked {
            return;
        }
        self.marked = revision;
        let Some(file) = &mut self.file else { return };
        let begun = if self.length >= FILE_BYTES_MAX {
            self.length = 0;
            file.truncate(0)
        } else {
            Ok(())
        };
        let written = begun.and_then(|()| file.append(&encode(self.store, revision)));
        self.length += MARK_BYTES as u64;
        if let Err(error) = written {
            tracing::debug!(%error, "the store's marks cannot be written");
            // Part of it may be there: the next one begins the file anew.
            self.length = FILE_BYTES_MAX;
        }
    }

    /// Makes the newest mark durable: the store is closed.
    pub(super) fn seal(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.sync_data()
        {
            tracing::warn!(%error, "the store's last mark could not be synced");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_mark_counts() {
        let bytes = [encode([1; 16], 5), encode([1; 16], 9), encode([1; 16], 7)].concat();
        let read = |bytes: &[u8], store| {
            let read = decode_all(bytes, [store; 16]);
            (read.marks, read.newest, read.rotten)
        };
        assert_eq!(read(&bytes, 1), (3, 9, false));
        assert_eq!(read(&bytes, 2), (3, 0, false), "of another store");
        assert_eq!(read(&bytes[..70], 1), (2, 9, true));
        for bit in MARK_BYTES * 8..2 * MARK_BYTES * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes, 1), (2, 7, true), "bit {bit}");
        }
        assert_eq!(read(&[], 1), (0, 0, false));
    }
}
