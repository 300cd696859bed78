//! Removing a directory that a container may have filled with anything.
//!
//! Invariants: no symbolic link is followed, no mount is entered (the kernel checks both, at every step), and memory and
//! open files stay bounded however deep the directories are.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, renameat, unlinkat};
use rustix::io::Errno;

/// Directories deeper than this are first moved up: each level costs an open file.
const DEPTH_MAX: usize = 32;
/// Rounds over the top: each one that moves something up removes `DEPTH_MAX` levels of it.
const ROUNDS_MAX: usize = 1 << 20;

/// Removes a directory and all in it, or a single file. That it is not there is fine.
///
/// # Errors
/// Of the file system; a mount below the directory is one (`EXDEV` or `EBUSY`).
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::open(parent, flags, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let name = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
    match unlinkat(&parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = open_below(parent.as_fd(), &name)?;
    let mut moved = 0;
    for _ in 0..ROUNDS_MAX {
        if empty(top.as_fd(), top.as_fd(), 0, &mut moved)? {
            return Ok(unlinkat(&parent, &name, AtFlags::REMOVEDIR)?);
        }
    }
    Err(io::Error::other(format!(
        "{} is filled faster than it is removed",
        path.display()
    )))
}

fn open_below(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(openat2(parent, name, flags, Mode::empty(), resolve)?)
}

/// Removes what is in `directory`; false when something was moved up to `top` instead, so that another round is due.
fn empty(top: BorrowedFd<'_>, directory: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> io::Result<bool> {
    let mut done = true;
    let mut entries = Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if !matches!(entry.file_type(), FileType::Directory) {
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // Some file systems do not tell the type of an entry.
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        if depth >= DEPTH_MAX {
            // A name that nobody else uses is found by counting: the container is gone, nothing new appears.
            loop {
                *moved += 1;
                let free = CString::new(format!("..removal-{moved}"))?;
                match renameat(directory, name, top, &free) {
                    Ok(()) => break,
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            done = false;
            continue;
        }
        let below = open_below(directory, name)?;
        done &= empty(top, below.as_fd(), depth + 1, moved)?;
        if done {
            unlinkat(directory, name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(done)
}
