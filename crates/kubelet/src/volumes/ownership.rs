//! Who may use the files of a volume: the pod's `fsGroup`.
//!
//! Source: `pkg/volume/volume_linux.go`.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use client::k8s_openapi::api::core::v1::Pod;

/// Nested deeper than this nothing of ours is.
const DEPTH_MAX: usize = 64;

/// The group that owns the pod's volumes.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    context.fs_group.and_then(|group| u32::try_from(group).ok())
}

/// The user of all containers, when they all have the same. Source: `FsUserFrom` of `pkg/volume/util/util.go`.
pub fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let default = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = containers.map(|container| {
        container
            .security_context
            .as_ref()
            .and_then(|context| context.run_as_user)
            .or(default)
    });
    let first = users.next()??;
    users
        .all(|user| user == Some(first))
        .then(|| u32::try_from(first).ok())?
}

/// Gives a directory with all in it to a group. Symbolic links are not followed.
///
/// # Errors
/// Of the file system.
pub fn give(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    give_below(path, group, read_only, 0)
}

fn give_below(path: &Path, group: u32, read_only: bool, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.gid() != group {
        lchown(path, None, Some(group))?;
    }
    if metadata.is_symlink() {
        return Ok(());
    }
    let mut added = if read_only { 0o440 } else { 0o660 };
    if metadata.is_dir() {
        added |= 0o2110;
    }
    // Changing the group takes the set-group-id bit away, so it is always written.
    std::fs::set_permissions(
        path,
        std::fs::Permissions::from_mode((metadata.mode() & 0o7777) | added),
    )?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_below(&entry?.path(), group, read_only, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn users_in_common() {
        for (pod_user, users, expect) in [
            (None, vec![None], None),
            (Some(5), vec![None, None], Some(5)),
            (Some(5), vec![None, Some(6)], None),
            (None, vec![Some(6), Some(6)], Some(6)),
            (None, vec![Some(6), None], None),
        ] {
            let containers: Vec<_> = users
                .iter()
                .map(|user| json!({"name": "c", "securityContext": {"runAsUser": user}}))
                .collect();
            let pod = json!({"spec": {"securityContext": {"runAsUser": pod_user}, "containers": containers}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(common_user(&pod), expect, "{pod_user:?} {users:?}");
        }
    }
}
