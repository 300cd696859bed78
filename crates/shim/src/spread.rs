//! How mounts spread between node and container, each mount by itself.
//!
//! libcontainer knows one propagation for all mounts of a container, so it is given the one of the mount that needs most,
//! and what others would have too much of is taken away here: in the container's own mount namespace, before its program
//! runs. Its paths are read there after its root was changed, so no link of an image leads out of it.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, mount_change};

use crate::kernel;
use crate::protocol::{MountSpread, Spread};

/// Gives each mount of the container what it was asked for; what was not asked for is private. Ends in the container's
/// mount namespace, so it is the helper's last work.
pub fn apply(pid: i32, wanted: &[MountSpread]) -> Result<(), String> {
    let table = format!("/proc/{pid}/mountinfo");
    let table = std::fs::read(&table).map_err(|err| format!("{table}: {err}"))?;
    let process = rustix::process::Pid::from_raw(pid).ok_or("the container has no process")?;
    let pidfd = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())
        .map_err(|err| format!("the container is not running: {err}"))?;
    kernel::enter(pidfd.as_fd(), libc::CLONE_NEWNS).map_err(|err| format!("cannot enter the container: {err}"))?;
    for target in targets(&table) {
        let flags = match spread_of(&target, wanted) {
            Spread::Both => continue,
            Spread::In => MountPropagationFlags::DOWNSTREAM,
            Spread::None => MountPropagationFlags::PRIVATE,
        };
        mount_change(&target, flags).map_err(|err| format!("{}: {err}", target.display()))?;
    }
    Ok(())
}

/// What is asked for a place: by the innermost mount it is in.
fn spread_of(target: &Path, wanted: &[MountSpread]) -> Spread {
    wanted
        .iter()
        .filter(|mount| target.starts_with(&mount.target))
        .max_by_key(|mount| mount.target.components().count())
        .map_or(Spread::None, |mount| mount.how)
}

/// Where things are mounted, from `/proc/PID/mountinfo`.
fn targets(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
        .collect()
}

/// Blanks, tabs, newlines and backslashes stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let octal = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let mount = |target: &str, how| MountSpread {
            target: target.into(),
            how,
        };
        let wanted = [mount("/data", Spread::Both), mount("/data/in", Spread::In)];
        for (target, expect) in [
            ("/", Spread::None),
            ("/dev/shm", Spread::None),
            ("/data", Spread::Both),
            ("/database", Spread::None),
            ("/data/x", Spread::Both),
            ("/data/in", Spread::In),
            ("/data/in/y", Spread::In),
        ] {
            assert_eq!(spread_of(Path::new(target), &wanted), expect, "{target}");
        }
    }

    #[test]
    fn tables_are_read() {
        let table = b"1 2 0:1 / / rw - overlay o rw\n3 1 0:2 /a /b\\040c rw,x shared:1 - tmpfs t rw\n";
        assert_eq!(targets(table), [PathBuf::from("/"), PathBuf::from("/b c")]);
    }
}
