//! The files of a log: the one that is written, and those that were renamed.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reading backwards goes in blocks of this size.
const TAIL_BLOCK_BYTES: u64 = 16 * 1024;

/// An open file of a log.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub(super) file: Arc<File>,
    pub(super) inode: u64,
    /// Its length when it was opened.
    pub(super) length: u64,
}

// === impl LogFile ===

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(LogFile {
            file: Arc::new(file),
            inode: metadata.ino(),
            length: metadata.len(),
        })
    }
}

/// Which file has the name now.
pub(super) fn inode_of(path: &Path) -> io::Result<Option<u64>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All files of a log, the oldest first; the last is the one at `path`. One that goes away meanwhile is left out.
pub(super) fn open_all(path: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for rotated in rotated(path)? {
        match LogFile::open(&rotated) {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let current = LogFile::open(path)?;
    // Renamed between the two looks: it would be read twice.
    files.retain(|file| file.inode != current.inode);
    files.push(current);
    Ok(files)
}

/// The renamed files, the oldest first.
pub(super) fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let entry_name = entry.file_name();
        let Some(entry_name) = entry_name.to_str() else {
            continue;
        };
        let readable = entry_name.starts_with(&prefix) && !entry_name.ends_with(".gz") && !entry_name.ends_with(".tmp");
        if readable
            && let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            found.push((metadata.mtime(), metadata.mtime_nsec(), entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// Where the last lines begin: which file, and the offset in it.
pub(super) fn start_of_tail(files: &[LogFile], lines: u64) -> io::Result<(usize, u64)> {
    let mut ends_wanted = lines.saturating_add(1);
    for (index, file) in files.iter().enumerate().rev() {
        let mut right = file.length;
        while right > 0 {
            let left = right.saturating_sub(TAIL_BLOCK_BYTES);
            let mut block = vec![0; (right - left) as usize];
            let count = read_full(&file.file, &mut block, left)?;
            for at in (0..count).rev().filter(|at| block[*at] == b'\n') {
                ends_wanted -= 1;
                if ends_wanted == 0 {
                    return Ok((index, left + at as u64 + 1));
                }
            }
            right = left;
        }
    }
    Ok((0, 0))
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read_at(&mut buffer[count..], offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Reads a block, in a thread that may wait for the disk.
pub(super) async fn read_block(file: &LogFile, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let file = file.file.clone();
    let read = move || {
        let mut block = vec![0; length];
        let count = read_full(&file, &mut block, offset)?;
        block.truncate(count);
        Ok(block)
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
