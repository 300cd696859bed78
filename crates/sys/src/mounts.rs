//! Mounts: the table, overlays, and taking whole trees of them away.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind, mount_bind_recursive, mount_change,
    move_mount, unmount,
};

/// Rounds of taking mounts away: mounts may be stacked, but not this deep by us.
const UNMOUNT_ROUNDS_MAX: usize = 16;

/// A mount's options are cut off silently behind a page. Source: `copy_mount_options` of the kernel.
const OPTIONS_BYTES_MAX: usize = 4096;

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub target: PathBuf,
    /// The directory of its file system that is mounted.
    pub root: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// The device or other source.
    pub source: String,
    /// Options of this mount (`ro`, `nosuid`).
    pub options: String,
    /// Options of the file system (v1 control groups: the controllers).
    pub super_options: String,
    /// Whether changes spread to and from its peers.
    pub shared: bool,
    /// Whether changes of its master spread to it.
    pub slave: bool,
}

/// The mounts of this process's namespace, in the kernel's order.
pub fn list() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Whether something is mounted right there. Costs one call, where the table grows with every pod; absent is no mount.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// Reads `/proc/PID/mountinfo`; lines that are not as documented are left out.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let root = unescape(fields.next()?);
    let target = unescape(fields.next()?);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let options = text(fields.next()?);
    let (mut shared, mut slave) = (false, false);
    for field in fields.by_ref() {
        if field == b"-" {
            break;
        }
        shared |= field.starts_with(b"shared:");
        slave |= field.starts_with(b"master:");
    }
    let kind = text(fields.next()?);
    let source = text(&unescape(fields.next()?));
    let super_options = text(fields.next().unwrap_or_default());
    Some(Mount {
        target: PathBuf::from(std::ffi::OsString::from_vec(target)),
        root: PathBuf::from(std::ffi::OsString::from_vec(root)),
        kind,
        source,
        options,
        super_options,
        shared,
        slave,
    })
}

/// Blanks, tabs, newlines and backslashes stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let octal = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\');
        match octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(field[at]);
                at += 1;
            }
        }
    }
    out
}

/// Mounts an overlay of `lowers` (the topmost first) with a writable upper directory.
///
/// Each layer is handed over by a call of its own where the kernel can (6.5 and later), since the old option string is
/// limited to a page, which images of a few dozen layers pass.
pub fn overlay(lowers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    // A kernel that refused once always will, and writes a line to its log each time.
    static BY_STRING: AtomicBool = AtomicBool::new(false);
    if !BY_STRING.load(Ordering::Relaxed) {
        match overlay_by_calls(lowers, upper, work, target) {
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {}
            other => return Ok(other?),
        }
    }
    overlay_by_string(lowers, upper, work, target)?;
    // What the string could and the calls could not was the calls' fault, not the layers'.
    BY_STRING.store(true, Ordering::Relaxed);
    Ok(())
}

/// The old way. Paths that do not fit into a page are replaced by short ones, which lead through open descriptors.
fn overlay_by_string(lowers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    let mut opened = Vec::new();
    let mut options = options_of(lowers, upper, work);
    if options.len() >= OPTIONS_BYTES_MAX {
        let mut short = Vec::new();
        for lower in lowers {
            let directory = std::fs::File::open(lower)?;
            short.push(PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())));
            opened.push(directory);
        }
        options = options_of(&short, upper, work);
    }
    let options = CString::new(options)?;
    mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())?;
    Ok(())
}

fn options_of(lowers: &[PathBuf], upper: &Path, work: &Path) -> Vec<u8> {
    let mut options = b"lowerdir=".to_vec();
    for (index, lower) in lowers.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        escape_option(lower, &mut options);
    }
    options.extend_from_slice(b",upperdir=");
    escape_option(upper, &mut options);
    options.extend_from_slice(b",workdir=");
    escape_option(work, &mut options);
    options
}

fn escape_option(path: &Path, out: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

fn overlay_by_calls(lowers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for lower in lowers {
        fsconfig_set_string(&context, "lowerdir+", lower)?;
    }
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_create(&context)?;
    let made = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(
        &made,
        "",
        rustix::fs::CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Mounts a file system in memory.
pub fn tmpfs(target: &Path, size_bytes: u64, mode: u32) -> io::Result<()> {
    let options = CString::new(format!("size={size_bytes},mode={mode:o}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("tmpfs", target, "tmpfs", flags, options.as_c_str())?)
}

/// Makes a file or directory visible in a second place.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> io::Result<()> {
    if recursive {
        mount_bind_recursive(source, target)?;
    } else {
        mount_bind(source, target)?;
    }
    Ok(())
}

/// Makes `directory` a mount of its own (if it is none yet) whose later mounts, and those of all below it, reach whoever
/// asked for them.
pub fn share(directory: &Path) -> io::Result<()> {
    let target = directory.canonicalize()?;
    if !list()?.iter().any(|mount| mount.target == target) {
        mount_bind(&target, &target)?;
    }
    Ok(mount_change(
        &target,
        MountPropagationFlags::SHARED | MountPropagationFlags::REC,
    )?)
}

/// Takes the topmost mount at `target` away; what is busy goes when its last user does. `Ok(false)` if none is there.
pub fn detach(target: &Path) -> io::Result<bool> {
    match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// Takes every mount at or below `directory` away, the deepest first.
pub fn detach_below(directory: &Path) -> io::Result<()> {
    let directory = match directory.canonicalize() {
        Ok(path) => path,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(err),
    };
    for _ in 0..UNMOUNT_ROUNDS_MAX {
        let below: Vec<Mount> = list()?
            .into_iter()
            .filter(|mount| mount.target.starts_with(&directory))
            .collect();
        if below.is_empty() {
            return Ok(());
        }
        for mount in below.iter().rev() {
            detach(&mount.target)?;
        }
    }
    Err(io::Error::other(format!(
        "mounts below {} come back",
        directory.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_lines() {
        let table = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue\n\
            nonsense\n\
            40 35 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].target, Path::new("/mnt 2"));
        let first = &mounts[0];
        assert_eq!(
            (first.root.as_path(), first.shared, first.slave),
            (Path::new("/mnt1"), true, true)
        );
        assert_eq!(
            (mounts[1].kind.as_str(), mounts[1].super_options.as_str()),
            ("cgroup", "rw,memory")
        );
        assert!(!mounts[1].shared && !mounts[1].slave);
    }

    #[test]
    fn own_table_is_read() {
        assert!(list().unwrap().iter().any(|mount| mount.target == Path::new("/")));
        for (path, expect) in [("/", true), ("/proc", true), ("/proc/self/fd", false), ("/none", false)] {
            assert_eq!(is_mount_point(Path::new(path)).unwrap(), expect, "{path}");
        }
    }

    #[test]
    fn overlay_layers_win_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["top", "bot:tom", "upper", "work", "target"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("top").join("file"), "top").unwrap();
        std::fs::write(path("bot:tom").join("file"), "bottom").unwrap();
        std::fs::write(path("bot:tom").join("other"), "bottom").unwrap();
        overlay(
            &[path("top"), path("bot:tom")],
            &path("upper"),
            &path("work"),
            &path("target"),
        )
        .unwrap();
        let read = |name: &str| std::fs::read_to_string(path("target").join(name)).unwrap();
        assert_eq!((read("file").as_str(), read("other").as_str()), ("top", "bottom"));
        detach_below(dir.path()).unwrap();
        assert!(!detach(&path("target")).unwrap());
        assert!(!path("target").join("file").exists());
    }

    /// Images of more layers than fit into a page of options, by either way of mounting.
    #[test]
    fn long_stacks_of_layers() {
        const LAYERS: usize = 150;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut lowers = Vec::new();
        for index in 0..LAYERS {
            let layer = path(&format!("a-layer-with-a-name-as-long-as-a-digest-would-be-{index}"));
            std::fs::create_dir(&layer).unwrap();
            std::fs::write(layer.join(format!("of-{index}")), "").unwrap();
            std::fs::write(layer.join("every"), index.to_string()).unwrap();
            lowers.push(layer);
        }
        for (name, mount) in [
            ("any", overlay as fn(&[PathBuf], &Path, &Path, &Path) -> _),
            ("string", overlay_by_string),
        ] {
            let [upper, work, target] = ["upper", "work", "target"].map(|part| path(&format!("{name}-{part}")));
            for directory in [&upper, &work, &target] {
                std::fs::create_dir(directory).unwrap();
            }
            mount(&lowers, &upper, &work, &target).unwrap_or_else(|err| panic!("{name}: {err}"));
            assert_eq!(std::fs::read_dir(&target).unwrap().count(), LAYERS + 1, "{name}");
            assert_eq!(
                std::fs::read_to_string(target.join("every")).unwrap(),
                "0",
                "the topmost wins"
            );
            assert!(detach(&target).unwrap());
        }
    }
}
