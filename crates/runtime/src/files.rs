//! Small file operations that several parts need.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file's content: readers see the old or the new whole. Survives this process, not a power failure, which
/// nothing that is recorded this way does either.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_beside(path, bytes, false)
}

/// The same, and on the disk when it returns.
pub fn replace_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_beside(path, bytes, true)
}

fn write_beside(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    std::fs::rename(&part, path)?;
    if let (true, Some(directory)) = (sync, path.parent()) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Removes a file or a whole directory; absent is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let result = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(err) => Err(err),
    };
    match result {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
