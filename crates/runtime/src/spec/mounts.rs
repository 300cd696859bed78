//! The mounts of a specification: the system's own, the sandbox's files, and the pod's volumes, outer ones first.

use std::path::{Path, PathBuf};

use rpc::cri;
use rpc::cri::MountPropagation::{PropagationBidirectional, PropagationHostToContainer, PropagationPrivate};
use serde_json::{Value, json};

use super::Input;
use crate::error::{Error, Result};
use crate::protocol::{MountSpread, Spread};

/// What is mounted, and how mounts spread.
pub(super) struct Mounts {
    /// For the specification.
    pub list: Vec<Value>,
    /// libcontainer's one propagation for all mounts: that of the mount which needs most.
    pub propagation: &'static str,
}

/// All mounts of a container.
pub(super) fn mounts(input: &Input<'_>, privileged: bool) -> Result<Mounts> {
    let asked: Vec<&str> = input
        .config
        .mounts
        .iter()
        .map(|mount| mount.container_path.trim_end_matches('/'))
        .collect();
    let mut list = system(input, privileged);
    list.extend(of_sandbox(input));
    // A mount of the pod replaces one of ours: an emptyDir at /dev/shm is common.
    list.retain(|mount| !asked.iter().any(|path| mount["destination"] == *path));
    let mut wanted: Vec<&cri::Mount> = input.config.mounts.iter().collect();
    // Outer ones first, otherwise they would hide the inner ones.
    wanted.sort_by_key(|mount| Path::new(&mount.container_path).components().count());
    for mount in &wanted {
        list.push(volume(mount, input.node_mounts)?);
    }
    let has = |how| wanted.iter().any(|mount| mount.propagation() == how);
    let propagation = match (has(PropagationBidirectional), has(PropagationHostToContainer)) {
        (true, _) => "shared",
        (false, true) => "slave",
        (false, false) => "private",
    };
    Ok(Mounts { list, propagation })
}

/// How each of a container's volumes spreads; nothing when none does.
pub(crate) fn spread(config: &cri::ContainerConfig) -> Vec<MountSpread> {
    let spreads = |mount: &cri::Mount| mount.propagation() != PropagationPrivate;
    if !config.mounts.iter().any(spreads) {
        return Vec::new();
    }
    let of = |mount: &cri::Mount| MountSpread {
        target: PathBuf::from(&mount.container_path),
        how: match mount.propagation() {
            PropagationPrivate => Spread::None,
            PropagationHostToContainer => Spread::In,
            PropagationBidirectional => Spread::Both,
        },
    };
    config.mounts.iter().map(of).collect()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

fn system(input: &Input<'_>, privileged: bool) -> Vec<Value> {
    let access = if privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
    ];
    if input.cgroup_directories.is_empty() {
        let options = ["nosuid", "noexec", "nodev", "relatime", access];
        list.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
        return list;
    }
    let options = ["nosuid", "noexec", "nodev", "mode=755", "size=64k"];
    list.push(mount("/sys/fs/cgroup", "tmpfs", "tmpfs", &options));
    for (directory, name) in input.cgroup_directories {
        let (source, target) = (directory.to_string_lossy(), format!("/sys/fs/cgroup/{name}"));
        let options = ["rbind", "nosuid", "noexec", "nodev", access];
        list.push(mount(&target, "bind", &source, &options));
    }
    list
}

/// The pod's shared memory and files.
fn of_sandbox(input: &Input<'_>) -> Vec<Value> {
    let shm = input.shm.unwrap_or(Path::new("/dev/shm")).to_string_lossy();
    let mut list = vec![mount("/dev/shm", "bind", &shm, &["rbind", "nosuid", "noexec", "nodev"])];
    let linux = input.config.linux.as_ref();
    let security = linux.and_then(|linux| linux.security_context.as_ref());
    let read_only = security.is_some_and(|security| security.readonly_rootfs);
    let options = ["rbind", if read_only { "ro" } else { "rw" }];
    for (source, destination) in input.sandbox_files {
        list.push(mount(destination, "bind", &source.to_string_lossy(), &options));
    }
    list
}

fn volume(wanted: &cri::Mount, node_mounts: &[sys::mounts::Mount]) -> Result<Value> {
    if !wanted.container_path.starts_with('/') {
        return Err(Error::Invalid(format!(
            "mount path {:?} is not absolute",
            wanted.container_path
        )));
    }
    let mut options = vec!["rbind", if wanted.readonly { "ro" } else { "rw" }];
    if wanted.recursive_read_only {
        options.push("rro");
    }
    // The mount's source may be a link that the user planted in a volume: the kubelet resolved what is to be resolved.
    let source = std::fs::canonicalize(&wanted.host_path)
        .map_err(|err| Error::Invalid(format!("failed to stat {:?}: {err}", wanted.host_path)))?;
    can_spread(&source, wanted.propagation(), node_mounts)?;
    Ok(mount(
        &wanted.container_path,
        "bind",
        &source.to_string_lossy(),
        &options,
    ))
}

/// A mount spreads no further than the one it is taken from: saying so is better than a mount that never shows up.
/// Source: containerd's `ensureShared` and `ensureSharedOrSlave`, whose words these are.
fn can_spread(source: &Path, how: cri::MountPropagation, node_mounts: &[sys::mounts::Mount]) -> Result<()> {
    let holds = node_mounts.iter().filter(|mount| source.starts_with(&mount.target));
    // Of several at one place the last one covers the others.
    let Some(holder) = holds.max_by_key(|mount| mount.target.components().count()) else {
        return Ok(());
    };
    let refuse = |what: &str| {
        let (source, target) = (source.display(), holder.target.display());
        Err(Error::Invalid(format!(
            "path \"{source}\" is mounted on \"{target}\" but it is not a {what} mount"
        )))
    };
    match how {
        PropagationBidirectional if !holder.shared => refuse("shared"),
        PropagationHostToContainer if !holder.shared && !holder.slave => refuse("shared or slave"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_spreads_no_further_than_its_source() {
        let table = sys::mounts::parse(
            b"1 0 0:1 / / rw - t a rw\n2 1 0:2 / /shared rw shared:1 - t b rw\n3 1 0:3 / /slave rw master:1 - t c rw\n",
        );
        for (source, how, expect) in [
            ("/x", PropagationPrivate, ""),
            (
                "/x",
                PropagationHostToContainer,
                "path \"/x\" is mounted on \"/\" but it is not a shared or slave mount",
            ),
            (
                "/x",
                PropagationBidirectional,
                "path \"/x\" is mounted on \"/\" but it is not a shared mount",
            ),
            ("/slave/x", PropagationHostToContainer, ""),
            (
                "/slave/x",
                PropagationBidirectional,
                "path \"/slave/x\" is mounted on \"/slave\" but it is not a shared mount",
            ),
            ("/shared/x", PropagationBidirectional, ""),
        ] {
            let got = can_spread(Path::new(source), how, &table).err();
            let got = got.map(|err| err.to_string()).unwrap_or_default();
            assert_eq!(got, expect, "{source} {how:?}");
        }
    }
}
