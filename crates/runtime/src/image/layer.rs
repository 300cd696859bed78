//! Unpacking one layer, as an overlayfs lower directory of its own.
//!
//! An archive is somebody else's: every path is resolved by the kernel below the layer's directory (`openat2` with
//! `RESOLVE_IN_ROOT`), so neither `..` nor a symbolic link planted by an earlier entry leads out of it.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, linkat, makedev, mkdirat, mknodat, open, openat, openat2, symlinkat, unlinkat, utimensat,
};

/// Most entries of a layer: far beyond real ones, and a limit to what a small compressed archive can make of itself.
const ENTRIES_MAX: usize = 4_000_000;
/// Most bytes of a layer when unpacked.
const LAYER_BYTES_MAX: u64 = 64 << 30;
/// The file system's own mark on a deleted file.
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";

/// Unpacks `tar` into the existing directory `target`; returns the bytes of its files.
pub fn unpack(tar: impl Read, target: &Path) -> io::Result<u64> {
    let root = open(target, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut archive = tar::Archive::new(tar);
    let mut total = 0u64;
    // Times of directories change while their entries are made.
    let mut directories: Vec<(PathBuf, u64)> = Vec::new();
    for (index, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let path = clean(&entry.path()?)?;
        total += entry.size();
        if index >= ENTRIES_MAX || total > LAYER_BYTES_MAX {
            return Err(io::Error::other("the layer is larger than any that is taken"));
        }
        if path.as_os_str().is_empty() {
            continue;
        }
        unpack_entry(&root, &path, &mut entry)
            .map_err(|err| io::Error::new(err.kind(), format!("{}: {err}", path.display())))?;
        if entry.header().entry_type().is_dir() {
            directories.push((path, entry.header().mtime().unwrap_or_default()));
        }
    }
    for (path, time) in directories.iter().rev() {
        let (parent, name) = parent_of(&root, path)?;
        set_time(&parent, name, *time)?;
    }
    Ok(total)
}

/// Without leading slashes and dots; a `..` is refused rather than interpreted.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                let text = format!("{}: leads out of the image", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            _ => {}
        }
    }
    Ok(out)
}

/// Opens below the root, whatever symbolic links are on the way.
fn open_in(root: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// The directory that holds `path`, made if it is not in this layer, and the last name.
fn parent_of<'a>(root: &OwnedFd, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidData)?;
    let parent = path.parent().unwrap_or(Path::new(""));
    let flags = OFlags::DIRECTORY;
    match open_in(root, parent, flags) {
        Ok(fd) => return Ok((fd, name)),
        Err(rustix::io::Errno::NOENT) => {}
        Err(err) => return Err(err.into()),
    }
    let mut made = PathBuf::new();
    for part in parent.components() {
        let above = open_in(root, &made, flags)?;
        made.push(part);
        match mkdirat(&above, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok((open_in(root, parent, flags)?, name))
}

fn unpack_entry<R: Read>(root: &OwnedFd, path: &Path, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
    let (parent, name) = parent_of(root, path)?;
    if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
        if name.as_bytes() == OPAQUE_WHITEOUT {
            return Ok(fsetxattr(&parent, "trusted.overlay.opaque", b"y", XattrFlags::empty())?);
        }
        if hidden.is_empty() || hidden == b".." || hidden == b"." {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let hidden = OsStr::from_bytes(hidden);
        remove(&parent, hidden)?;
        return Ok(mknodat(
            &parent,
            hidden,
            FileType::CharacterDevice,
            Mode::empty(),
            makedev(0, 0),
        )?);
    }
    let header = entry.header().clone();
    let kind = header.entry_type();
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    let owner = (
        Uid::from_raw(number(header.uid()?)?),
        Gid::from_raw(number(header.gid()?)?),
    );
    let attributes = attributes(entry)?;
    if !kind.is_dir() {
        remove(&parent, name)?;
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let device = || -> io::Result<u64> {
        Ok(makedev(
            header.device_major()?.unwrap_or_default(),
            header.device_minor()?.unwrap_or_default(),
        ))
    };
    match kind {
        tar::EntryType::Directory => {
            match mkdirat(&parent, name, mode) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(err) => return Err(err.into()),
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match openat(&parent, name, flags, Mode::empty()) {
                // A symbolic link or file of this layer gives way to the directory.
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                    remove(&parent, name)?;
                    mkdirat(&parent, name, mode)?;
                    openat(&parent, name, flags, Mode::empty())?
                }
                other => other?,
            };
            fchown(&fd, Some(owner.0), Some(owner.1))?;
            fchmod(&fd, mode)?;
            return set_attributes(&fd, &attributes);
        }
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let fd = openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
            let mut file = std::fs::File::from(fd);
            io::copy(entry, &mut file)?;
            fchown(&file, Some(owner.0), Some(owner.1))?;
            // After the owner: a change of it takes set-id bits and capabilities away.
            fchmod(&file, mode)?;
            set_attributes(&file, &attributes)?;
        }
        tar::EntryType::Symlink => {
            let link = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
            symlinkat(link.as_ref(), &parent, name)?;
            chownat(&parent, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        tar::EntryType::Link => {
            let link = clean(&entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?)?;
            let (other_parent, other) = parent_of(root, &link)?;
            return Ok(linkat(&other_parent, other, &parent, name, AtFlags::empty())?);
        }
        tar::EntryType::Char => mknodat(&parent, name, FileType::CharacterDevice, mode, device()?)?,
        tar::EntryType::Block => mknodat(&parent, name, FileType::BlockDevice, mode, device()?)?,
        tar::EntryType::Fifo => mknodat(&parent, name, FileType::Fifo, mode, 0)?,
        // Global headers and what else archivers invent carry no file.
        _ => return Ok(()),
    }
    if matches!(
        kind,
        tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo
    ) {
        chownat(&parent, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    set_time(&parent, name, header.mtime().unwrap_or_default())
}

fn number(value: u64) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Removes what an earlier entry made under this name.
fn remove(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => {
            // Through the descriptor, so that nothing on the way can be a link.
            let number = std::os::fd::AsRawFd::as_raw_fd(parent);
            std::fs::remove_dir_all(Path::new("/proc/self/fd").join(number.to_string()).join(name))
        }
        Err(err) => Err(err.into()),
    }
}

fn set_time(parent: &OwnedFd, name: &OsStr, seconds: u64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: seconds as i64,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Extended attributes from pax records; file capabilities are one.
fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let name = extension
                .key()
                .unwrap_or_default()
                .strip_prefix("SCHILY.xattr.")
                .map(str::to_owned);
            // The overlay's own marks are not an image's to set.
            if let Some(name) = name.filter(|name| !name.starts_with("trusted.")) {
                found.push((name, extension.value_bytes().to_vec()));
            }
        }
    }
    Ok(found)
}

fn set_attributes(fd: impl AsFd, attributes: &[(String, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in attributes {
        match fsetxattr(&fd, name.as_str(), value, XattrFlags::empty()) {
            // A file system without them, or a security module that is not there.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

/// Reads a file of a container's root without being led out of it; `None` if it is not there.
pub fn read_in_root(root: &Path, path: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let root = open(root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = Path::new(path);
    let fd = match open_in(
        &root,
        path.strip_prefix("/").unwrap_or(path),
        OFlags::RDONLY | OFlags::NONBLOCK,
    ) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(err) => return Err(err.into()),
    };
    let file = std::fs::File::from(fd);
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Makes a directory in a container's root, with its parents; what is there is left as it is.
pub fn make_directory_in_root(root: &Path, path: &str) -> io::Result<()> {
    let root = open(root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = clean(Path::new(path))?;
    if path.as_os_str().is_empty() || open_in(&root, &path, OFlags::PATH).is_ok() {
        return Ok(());
    }
    let (parent, name) = parent_of(&root, &path)?;
    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_mtime(7);
            header.set_uid(0);
            header.set_gid(0);
            // Written past the builder's own checks: the archives of attackers are not made by it.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let data = if kind.is_file() { content.as_bytes() } else { b"" };
            if !kind.is_file() {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(entries: &[(&str, tar::EntryType, &str)]) -> (tempfile::TempDir, io::Result<u64>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("layer")).unwrap();
        let result = unpack(layer(entries).as_slice(), &dir.path().join("layer"));
        (dir, result)
    }

    use tar::EntryType::{Directory, Link, Regular, Symlink};

    #[test]
    fn files_links_and_whiteouts() {
        let (dir, result) = unpacked(&[
            ("etc/", Directory, ""),
            ("etc/hosts", Regular, "hosts"),
            ("deep/er/file", Regular, "x"),
            ("link", Symlink, "etc/hosts"),
            ("hard", Link, "etc/hosts"),
            ("etc/.wh.gone", Regular, ""),
            ("etc/.wh..wh..opq", Regular, ""),
        ]);
        assert_eq!(result.unwrap(), 6);
        let path = |name: &str| dir.path().join("layer").join(name);
        assert_eq!(std::fs::read_to_string(path("link")).unwrap(), "hosts");
        assert_eq!(std::fs::read_to_string(path("hard")).unwrap(), "hosts");
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let gone = std::fs::symlink_metadata(path("etc/gone")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        let mut value = [0u8; 4];
        let length = rustix::fs::getxattr(path("etc"), "trusted.overlay.opaque", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"y");
        assert_eq!(std::fs::metadata(path("etc")).unwrap().mtime(), 7);
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let outside = |entries: &[(&str, tar::EntryType, &str)]| {
            let (dir, _) = unpacked(entries);
            let names: Vec<_> = std::fs::read_dir(dir.path())
                .unwrap()
                .flatten()
                .map(|e| e.file_name())
                .collect();
            assert_eq!(names, ["layer"], "{entries:?}");
        };
        outside(&[("../evil", Regular, "x")]);
        outside(&[("a", Symlink, ".."), ("a/evil", Regular, "x")]);
        outside(&[("a", Symlink, "../.."), ("a/b/evil", Regular, "x")]);
        outside(&[("a", Link, "../outside")]);
        // An absolute link means the image's root.
        let (dir, result) = unpacked(&[
            ("data", Directory, ""),
            ("a", Symlink, "/data"),
            ("a/file", Regular, "x"),
        ]);
        result.unwrap();
        assert!(dir.path().join("layer/data/file").exists());
    }

    #[test]
    fn files_are_read_inside_the_root_only() {
        let (dir, _) = unpacked(&[
            ("etc", Directory, ""),
            ("etc/passwd", Symlink, "/../../../etc/hostname"),
        ]);
        assert_eq!(
            read_in_root(&dir.path().join("layer"), "/etc/passwd", 100).unwrap(),
            None
        );
        make_directory_in_root(&dir.path().join("layer"), "/work/deep").unwrap();
        assert!(dir.path().join("layer/work/deep").is_dir());
        assert!(make_directory_in_root(&dir.path().join("layer"), "/../x").is_err());
    }
}
