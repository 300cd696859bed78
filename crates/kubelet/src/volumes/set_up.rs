//! Doing on the disk what was decided for a pod's volumes. Blocks; one pod at a time.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base::{Clock, Random};
use rustix::mount::{MountFlags, mount};

use super::gather::Work;
use super::payload::Payload;
use super::{Volume, VolumeError, atomic, host_path, ownership, sub_path};

/// What all volumes of a pod have in common.
pub(super) struct Context {
    pub(super) pod_directory: PathBuf,
    pub(super) fs_group: Option<u32>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) clock: Clock,
    pub(super) random: Random,
}

/// What became of a volume: it is there, or an error, or both (it is there but old).
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) volume: Option<Volume>,
    pub(super) error: Option<String>,
}

/// Does it all. Each volume succeeds or fails by itself.
///
/// # Errors
/// Only when the pod has no directory.
pub(super) fn set_up(
    context: &Context,
    work: Vec<(String, Result<Work, String>)>,
) -> Result<Vec<Outcome>, VolumeError> {
    let volumes = context.pod_directory.join("volumes");
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&volumes);
    made.map_err(|error| VolumeError::Directory(format!("error making pod data directories: {error}")))?;
    // Mounts are found by their canonical paths.
    let volumes = volumes
        .canonicalize()
        .map_err(|error| VolumeError::Directory(error.to_string()))?;
    Ok(work
        .into_iter()
        .map(|(name, work)| context.one(&volumes, name, work))
        .collect())
}

// === impl Context ===

impl Context {
    fn one(&self, volumes: &Path, name: String, work: Result<Work, String>) -> Outcome {
        if !sub_path::is_plain_name(&name) {
            return Outcome {
                error: Some("its name is not valid".into()),
                name,
                volume: None,
            };
        }
        match work.and_then(|work| self.make(volumes, &name, work)) {
            Ok(volume) => Outcome {
                name,
                volume: Some(volume),
                error: None,
            },
            Err(why) => Outcome {
                volume: earlier(volumes, &name),
                name,
                error: Some(why),
            },
        }
    }

    fn make(&self, volumes: &Path, name: &str, work: Work) -> Result<Volume, String> {
        match work {
            Work::HostPath { path, kind } => {
                host_path::check(&path, &kind)?;
                Ok(Volume { path, read_only: false })
            }
            Work::EmptyDirectory { memory, size_bytes } => {
                let path = volumes.join("kubernetes.io~empty-dir").join(name);
                self.empty_directory(&path, memory, size_bytes)
                    .map_err(|error| error.to_string())?;
                Ok(Volume { path, read_only: false })
            }
            Work::Files { kind, memory, payload } => {
                let path = volumes.join(format!("kubernetes.io~{kind}")).join(name);
                self.files(&path, memory, &payload).map_err(|error| error.to_string())?;
                Ok(Volume { path, read_only: true })
            }
        }
    }

    /// Ownership is given once, to the empty directory: later it is the containers' business.
    fn empty_directory(&self, path: &Path, memory: bool, size_bytes: Option<u64>) -> io::Result<()> {
        let fresh = match memory {
            true => {
                let limits = size_bytes.into_iter().chain(self.memory_bytes);
                mount_memory(path, limits.min())?
            }
            false => make_directory(path, 0o777)?,
        };
        if fresh && let Some(group) = self.fs_group {
            ownership::give(path, group, false)?;
        }
        Ok(())
    }

    fn files(&self, path: &Path, memory: bool, payload: &Payload) -> io::Result<()> {
        match memory {
            true => mount_memory(path, self.memory_bytes)?,
            false => make_directory(path, 0o777)?,
        };
        atomic::write(path, payload, self.clock.now(), &self.random, || match self.fs_group {
            Some(group) => ownership::give(path, group, true),
            None => Ok(()),
        })?;
        Ok(())
    }
}

/// A volume with files that an earlier call made.
fn earlier(volumes: &Path, name: &str) -> Option<Volume> {
    let kinds = ["configmap", "secret", "projected", "downward-api"];
    let mut paths = kinds
        .iter()
        .map(|kind| volumes.join(format!("kubernetes.io~{kind}")).join(name));
    paths
        .find(|path| atomic::is_written(path))
        .map(|path| Volume { path, read_only: true })
}

/// True when it was not there before.
fn make_directory(path: &Path, mode: u32) -> io::Result<bool> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
    }
    match std::fs::create_dir(path) {
        Ok(()) => {
            // Whatever the umask is.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Mounts memory there; true when it was not mounted before.
///
/// Not by `sys::mounts::tmpfs`, which forbids to execute: volumes may hold programs, as upstream.
fn mount_memory(path: &Path, size_bytes: Option<u64>) -> io::Result<bool> {
    make_directory(path, 0o777)?;
    if sys::mounts::list()?
        .iter()
        .any(|mount| mount.target == path && mount.kind == "tmpfs")
    {
        return Ok(false);
    }
    let size = size_bytes.map(|bytes| format!("size={bytes},")).unwrap_or_default();
    let options = std::ffi::CString::new(format!("{size}mode=1777"))?;
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())?;
    Ok(true)
}
