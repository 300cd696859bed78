//! Which devices a container finds and may use.

use std::path::Path;

use rpc::cri;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::protocol::DeviceRule;

/// Device nodes to make, and the rules for all that may be used.
pub(crate) fn devices(config: &cri::ContainerConfig, privileged: bool) -> Result<(Vec<Value>, Vec<DeviceRule>)> {
    let rule = |kind: char, major: Option<u32>, minor: Option<u32>, access: &str| DeviceRule {
        kind,
        major,
        minor,
        access: access.to_owned(),
    };
    if privileged {
        let mut nodes = Vec::new();
        collect_devices(Path::new("/dev"), 0, &mut nodes);
        return Ok((nodes, vec![rule('a', None, None, "rwm")]));
    }
    // null, zero, full, random, urandom, tty, console, ptmx and the terminals; making nodes is harmless without opening.
    let mut rules = vec![rule('c', None, None, "m"), rule('b', None, None, "m")];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule('c', Some(major), Some(minor), "rwm"));
    }
    rules.push(rule('c', Some(136), None, "rwm"));
    let mut nodes = Vec::new();
    for device in &config.devices {
        let path = Path::new(&device.host_path);
        let (kind, major, minor, mode, uid, gid) =
            device_of(path).ok_or_else(|| Error::Invalid(format!("{} is not a device", path.display())))?;
        let access = if device.permissions.is_empty() {
            "rwm"
        } else {
            &device.permissions
        };
        rules.push(rule(kind, Some(major), Some(minor), access));
        nodes.push(node(&device.container_path, kind, major, minor, mode, uid, gid));
    }
    Ok((nodes, rules))
}

fn node(path: &str, kind: char, major: u32, minor: u32, mode: u32, uid: u32, gid: u32) -> Value {
    let kind = kind.to_string();
    json!({"path": path, "type": kind, "major": major, "minor": minor, "fileMode": mode, "uid": uid, "gid": gid})
}

fn device_of(path: &Path) -> Option<(char, u32, u32, u32, u32, u32)> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = std::fs::symlink_metadata(path).ok()?;
    let kind = if meta.file_type().is_char_device() {
        'c'
    } else if meta.file_type().is_block_device() {
        'b'
    } else {
        return None;
    };
    let device = meta.rdev();
    let mode = meta.mode() & 0o777;
    Some((
        kind,
        rustix::fs::major(device),
        rustix::fs::minor(device),
        mode,
        meta.uid(),
        meta.gid(),
    ))
}

/// The node's own devices, for privileged containers; what the container mounts itself is left out.
fn collect_devices(directory: &Path, depth: usize, nodes: &mut Vec<Value>) {
    const DEPTH_MAX: usize = 4;
    const OWN: &[&str] = &[
        "pts", "shm", "mqueue", "console", "ptmx", "fd", "stdin", "stdout", "stderr",
    ];
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if depth == 0 && OWN.iter().any(|own| name == *own) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth < DEPTH_MAX {
                collect_devices(&path, depth + 1, nodes);
            }
        } else if let Some((kind, major, minor, mode, uid, gid)) = device_of(&path) {
            nodes.push(node(&path.to_string_lossy(), kind, major, minor, mode, uid, gid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_the_node() {
        let device = |path: &str, permissions: &str| cri::Device {
            container_path: "/dev/x".into(),
            host_path: path.into(),
            permissions: permissions.into(),
        };
        let of = |device: cri::Device| {
            devices(
                &cri::ContainerConfig {
                    devices: vec![device],
                    ..Default::default()
                },
                false,
            )
        };
        let (nodes, rules) = of(device("/dev/null", "r")).unwrap();
        assert_eq!(
            (nodes[0]["path"].as_str(), nodes[0]["major"].as_u64()),
            (Some("/dev/x"), Some(1))
        );
        let rule = rules.last().unwrap();
        assert_eq!(
            (rule.kind, rule.major, rule.minor, rule.access.as_str()),
            ('c', Some(1), Some(3), "r")
        );
        assert!(of(device("/etc/passwd", "")).is_err());
        assert!(of(device("/dev/nothing", "")).is_err());
        let (nodes, rules) = devices(&cri::ContainerConfig::default(), true).unwrap();
        assert!(nodes.iter().any(|node| node["path"] == "/dev/null"));
        assert!(rules.iter().any(|rule| rule.kind == 'a' && rule.access == "rwm"));
    }
}
