//! A part of a volume as a mount of its own, which a container cannot turn into a way out of the volume.
//!
//! A container that writes to the volume can replace any part of a path by a symbolic link at any moment. So the path is
//! resolved by the kernel within the volume (`openat2` with `RESOLVE_BENEATH`), and what was found is bound by its
//! descriptor, never by its name. Links inside of the volume work: the files of ConfigMaps are links.
//! Source of the rules: `pkg/volume/util/subpath/subpath_linux.go`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, open, openat2, stat};
use rustix::io::Errno;

/// Resolving is tried again that often when a rename came in between.
const RETRIES_MAX: usize = 16;

/// Checks a sub path as it is written.
///
/// # Errors
/// In upstream's words.
pub fn validate(sub_path: &str) -> Result<(), String> {
    if sub_path.starts_with('/') {
        return Err(format!("error SubPath `{sub_path}` must not be an absolute path"));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(format!(
            "unable to provision SubPath `{sub_path}`: must not contain '..'"
        ));
    }
    Ok(())
}

/// Opens what is at `sub_path` of the volume, making directories that are not there with the volume's own mode.
///
/// # Errors
/// Of the file system; a path that leads out of the volume is `EXDEV`.
pub fn resolve(volume: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let root = open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let parts: Vec<&OsStr> = Path::new(sub_path)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    match open_beneath(&root, &parts.iter().collect::<PathBuf>()) {
        Err(Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let mode = Mode::from_raw_mode(fstat(&root)?.st_mode & 0o7777);
    let mut so_far = PathBuf::new();
    let mut at = root.try_clone()?;
    for part in parts {
        match mkdirat(&at, part, mode) {
            Ok(()) => {
                // Whatever the umask is. What was just made is opened without following anything.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat2(
                    &at,
                    part,
                    flags,
                    Mode::empty(),
                    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
                )?;
                fchmod(&made, mode)?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        so_far.push(part);
        // From the volume's root each time: a link may lead elsewhere in the volume.
        at = open_beneath(&root, &so_far)?;
    }
    Ok(at)
}

fn open_beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < RETRIES_MAX => tries += 1,
            other => return other,
        }
    }
}

/// Makes what is behind the descriptor visible at `target`. What was bound there before goes, unless it is the same.
///
/// # Errors
/// Of the file system.
pub fn bind(found: &OwnedFd, target: &Path) -> io::Result<()> {
    let source = fstat(found)?;
    if let Ok(present) = stat(target) {
        let is_mount = sys::mounts::list()?.iter().any(|mount| mount.target == target);
        if is_mount && (present.st_dev, present.st_ino) == (source.st_dev, source.st_ino) {
            return Ok(());
        }
    }
    while sys::mounts::detach(target)? {}
    let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(parent)?;
    super::removal::remove_tree(target)?;
    if FileType::from_raw_mode(source.st_mode) == FileType::Directory {
        std::fs::create_dir(target)?;
    } else {
        std::fs::OpenOptions::new().write(true).create_new(true).open(target)?;
    }
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", found.as_fd().as_raw_fd()));
    sys::mounts::bind(&by_descriptor, target, false)
}

/// Whether a name can stand in a path of ours.
pub fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !OsStr::new(name).as_bytes().iter().any(|byte| matches!(byte, b'/' | 0))
}
