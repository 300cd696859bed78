//! Files that change all at once: readers see the old set or the new one, never a mix.
//!
//! The files stand in a directory with the time in its name; `..data` is a link to it that is replaced by a rename, and
//! what users see are links through `..data`:
//! ```text
//! ..2026_01_01_00_00_00.123456789/key
//! ..data -> ..2026_01_01_00_00_00.123456789
//! key -> ..data/key
//! ```
//! Source: `pkg/volume/util/atomic_writer.go`. Containers can only read these volumes, so nobody else writes here.

use std::collections::BTreeSet;
use std::fs::{File as Disk, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use base::Random;
use jiff::Timestamp;

use super::payload::Payload;

/// The link to the current directory.
const DATA: &str = "..data";
/// Its successor, before it is renamed.
const DATA_NEW: &str = "..data_tmp";
/// Tries to find a name for the directory that is not taken.
const NAMES_MAX: usize = 16;

/// Makes the volume at `target` hold just these files. Says whether that changed anything. `finish` sets the ownership
/// of what was written, before readers see it.
///
/// # Errors
/// Of the file system; the old files are then still in their place.
pub fn write(
    target: &Path,
    payload: &Payload,
    now: Timestamp,
    random: &Random,
    finish: impl FnOnce() -> io::Result<()>,
) -> io::Result<bool> {
    let old = match std::fs::read_link(target.join(DATA)) {
        Ok(link) => Some(link),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let current = old.as_ref().map(|old| target.join(old));
    if let Some(current) = &current
        && is_equal(current, payload)?
    {
        // A crash between the rename and the links leaves this to be done.
        link_visible(target, payload)?;
        return Ok(false);
    }
    let name = make_directory(target, now, random)?;
    let directory = target.join(&name);
    let written = write_files(&directory, payload).and_then(|()| finish());
    if let Err(error) = written {
        let _ = super::removal::remove_tree(&directory);
        return Err(error);
    }
    match std::fs::remove_file(target.join(DATA_NEW)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&name, target.join(DATA_NEW))?;
    std::fs::rename(target.join(DATA_NEW), target.join(DATA))?;
    link_visible(target, payload)?;
    remove_stale(target, &name, payload)?;
    Ok(true)
}

/// Whether a volume was written here once.
pub fn is_written(target: &Path) -> bool {
    target.join(DATA).symlink_metadata().is_ok()
}

fn is_equal(directory: &Path, payload: &Payload) -> io::Result<bool> {
    let mut present = BTreeSet::new();
    if !directory.is_dir() {
        return Ok(false);
    }
    list(directory, "", &mut present)?;
    if present.len() != payload.len() || !payload.keys().all(|path| present.contains(path)) {
        return Ok(false);
    }
    for (path, file) in payload {
        let mut disk = Disk::open(directory.join(path))?;
        // Reading one byte more than there should be tells a longer file.
        let mut data = Vec::with_capacity(file.data.len() + 1);
        (&mut disk).take(file.data.len() as u64 + 1).read_to_end(&mut data)?;
        if data != file.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn list(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{path}/"), found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

fn make_directory(target: &Path, now: Timestamp, random: &Random) -> io::Result<String> {
    let time = now.strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    for _ in 0..NAMES_MAX {
        let name = format!("{time}.{}", random.range(0..1 << 32));
        let path = target.join(&name);
        match std::fs::create_dir(&path) {
            Ok(()) => {
                std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn write_files(directory: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let full = directory.join(path);
        let mut parents: Vec<&Path> = full
            .ancestors()
            .skip(1)
            .take_while(|parent| *parent != directory)
            .collect();
        parents.reverse();
        for parent in parents {
            match std::fs::create_dir(parent) {
                Ok(()) => std::fs::set_permissions(parent, Permissions::from_mode(0o755))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let mut disk = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&full)?;
        disk.write_all(&file.data)?;
        if let Some(owner) = file.owner {
            chown(&full, Some(owner), None)?;
        }
        // After the owner, whose change takes bits away, and whatever the umask is.
        disk.set_permissions(Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

/// The first parts of the paths: what users see.
fn visible(payload: &Payload) -> BTreeSet<&str> {
    payload
        .keys()
        .map(|path| path.split('/').next().unwrap_or(path))
        .collect()
}

fn link_visible(target: &Path, payload: &Payload) -> io::Result<()> {
    for name in visible(payload) {
        match symlink(Path::new(DATA).join(name), target.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes links to what is no longer there, and directories of earlier sets, also those that a crash left.
fn remove_stale(target: &Path, current: &str, payload: &Payload) -> io::Result<()> {
    let kept = visible(payload);
    for entry in std::fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("..") {
            if name != current && entry.file_type()?.is_dir() {
                super::removal::remove_tree(&entry.path())?;
            }
        } else if !kept.contains(name) && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
