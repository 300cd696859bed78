//! The disk as a value that is handed in: a small blocking file interface, real or simulated.
//!
//! It offers what a log-structured store needs and no more. What it promises is what POSIX promises, which is little: a
//! write is durable after [`DiskFile::sync_data`] of its file returned without error, and a created, renamed or removed
//! *name* is durable after [`Disk::sync_directory`] of its directory did. After a failed sync nothing is known about what
//! it covered, and a later successful one does not cover it either. [`SimDisk`] breaks everything beyond those promises.

mod real;
mod sim;

use std::io;
use std::path::Path;

pub use real::RealDisk;
pub use sim::{Faults, SimDisk};

/// How [`Disk::open`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and appending.
    Append,
    /// A new file, for reading and appending; an error when the name exists.
    CreateNew,
    /// An existing file, for reading and for writing over it: all that it has is room, and appends begin at its beginning.
    Reuse,
}

/// A file system with names, in which one directory level is used at a time.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    /// Renames over whatever has the new name; atomic, durable after the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a directory, sorted.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Creates a directory, its parents, and makes them durable. Only the owner may enter it.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;
    /// Bytes that an unprivileged writer can still write in the file system of `directory`.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;
    /// Takes an exclusive lock that ends with the returned value or with the process, whichever is first;
    /// `WouldBlock` when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at the end, but before room that was made through this file. After an error any part of them
    /// may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.append_with_room(bytes, 0)
    }
    /// Writes all of `bytes` as [`DiskFile::append`] does, at once; the last `room` of them are room.
    fn append_with_room(&mut self, bytes: &[u8], room: usize) -> io::Result<()>;
    /// Writes `content` at `from`, at the file's end or before it, for later appends to replace; these go on where they were.
    /// What they write there changes no length and takes no new blocks, so that a sync has nothing but it to make durable.
    /// After an error any part of `content` may be there.
    fn make_room(&mut self, from: u64, content: &[u8]) -> io::Result<()>;
    /// Reads from `offset` until `buffer` is full or the file ends; returns how much.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Length in bytes, with the room that was made.
    fn length(&self) -> io::Result<u64>;
    /// Cuts the file, or only the room behind what was appended; durable after a sync.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Makes content and length durable. After an error nothing is known, and a retry proves nothing.
    fn sync_data(&mut self) -> io::Result<()>;
}

/// A held lock; dropping it releases it.
pub trait DiskLock: Send + Sync {}

/// Reads a whole file.
pub fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut buffer = vec![0; length];
    let read = file.read_at(0, &mut buffer)?;
    buffer.truncate(read);
    Ok(buffer)
}
