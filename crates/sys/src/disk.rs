//! What directories take up on disk.

use std::path::Path;

/// Directory entries that are counted; a larger tree is told as at least this.
const ENTRIES_MAX: u64 = 200_000;

/// Bytes on the disk and entries of everything below a directory. What cannot be read counts as nothing. Blocks.
pub fn usage(directory: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut inodes) = (0, 0);
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            bytes += meta.blocks() * 512;
            inodes += 1;
            if inodes >= ENTRIES_MAX {
                return (bytes, inodes);
            }
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    (bytes, inodes)
}
