//! What one container mounts: the volumes it names, the hosts file, and the file for its last words.
//!
//! Source: `pkg/kubelet/kubelet_pods.go` (`makeMounts`) and `pkg/kubelet/kuberuntime/kuberuntime_container.go`
//! (`makeMounts`).

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::field::quote;
use base::Random;
use client::k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use rpc::cri::{Mount, MountPropagation};

use super::{Config, PodVolumes, VolumeError, hosts, sub_path};
use crate::env::{Environment, expand_strict};

const HOSTS_PATH: &str = "/etc/hosts";
/// Where a container leaves its last words when its definition names no path.
const TERMINATION_PATH_DEFAULT: &str = "/dev/termination-log";
/// Files of earlier runs that are kept; the status shows the last two runs at most.
const TERMINATION_FILES_MAX: usize = 8;

pub(super) struct Context<'a> {
    pub(super) config: &'a Config,
    pub(super) pod_directory: PathBuf,
    pub(super) random: &'a Random,
}

// === impl Context ===

impl Context<'_> {
    pub(super) fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        volumes: &PodVolumes,
        environment: &Environment,
        pod_ips: &[String],
    ) -> Result<Vec<Mount>, VolumeError> {
        let mut mounts = Vec::new();
        let wanted = container.volume_mounts.as_deref().unwrap_or_default();
        for (index, mount) in wanted.iter().enumerate() {
            mounts.push(
                self.volume(container, mount, index, volumes, environment)
                    .map_err(VolumeError::Mount)?,
            );
        }
        // Without an address there is nothing to write; a container that brings its own file keeps it.
        if !pod_ips.is_empty() && !wanted.iter().any(|mount| mount.mount_path == HOSTS_PATH) {
            let path = self
                .hosts(pod, pod_ips)
                .map_err(|error| VolumeError::Mount(error.to_string()))?;
            mounts.push(plain(HOSTS_PATH, &path));
        }
        let last_words = container
            .termination_message_path
            .as_deref()
            .unwrap_or(TERMINATION_PATH_DEFAULT);
        if !last_words.is_empty() {
            let path = self.termination_log(container);
            let path =
                path.map_err(|error| VolumeError::Mount(format!("error on creating termination-log file: {error}")))?;
            mounts.push(plain(last_words, &path));
        }
        Ok(mounts)
    }

    fn volume(
        &self,
        container: &Container,
        mount: &VolumeMount,
        index: usize,
        volumes: &PodVolumes,
        environment: &Environment,
    ) -> Result<Mount, String> {
        let volume = volumes.volumes.get(&mount.name).ok_or_else(|| {
            format!(
                "cannot find volume {} to mount into container {}",
                quote(&mount.name),
                quote(&container.name)
            )
        })?;
        let sub = match mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
            Some(expression) => expand_strict(expression, |name| environment.get(name).map(str::to_owned))?,
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        let mut host_path = volume.path.clone();
        if !sub.is_empty() {
            sub_path::validate(&sub)?;
            host_path = self.sub_path(container, mount, index, &volume.path, &sub)?;
        }
        let readonly = mount.read_only.unwrap_or(false) || volume.read_only;
        let recursive_read_only = match mount.recursive_read_only.as_deref() {
            Some("Enabled") if !self.config.recursive_read_only => {
                return Err(format!(
                    "volume {}: recursive read-only mounts are not supported by the container runtime",
                    quote(&mount.name)
                ));
            }
            Some("Enabled" | "IfPossible") => self.config.recursive_read_only && readonly,
            _ => false,
        };
        let propagation = match mount.mount_propagation.as_deref() {
            None | Some("" | "None") => MountPropagation::PropagationPrivate,
            Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => MountPropagation::PropagationBidirectional,
            Some(other) => return Err(format!("invalid MountPropagation mode: {}", quote(other))),
        };
        Ok(Mount {
            container_path: absolute(&mount.mount_path),
            host_path: text(&host_path)?,
            readonly,
            propagation: propagation as i32,
            recursive_read_only,
            ..Mount::default()
        })
    }

    fn sub_path(
        &self,
        container: &Container,
        mount: &VolumeMount,
        index: usize,
        volume: &Path,
        sub: &str,
    ) -> Result<PathBuf, String> {
        let tell = |error: io::Error| {
            let (mount, container) = (quote(&mount.name), quote(&container.name));
            format!("failed to prepare subPath for volumeMount {mount} of container {container}: {error}")
        };
        if !sub_path::is_plain_name(&container.name) || !sub_path::is_plain_name(&mount.name) {
            return Err(tell(io::ErrorKind::InvalidInput.into()));
        }
        let found = sub_path::resolve(volume, sub).map_err(tell)?;
        // Mounts are found by their canonical paths.
        let directory = self.pod_directory.canonicalize().map_err(tell)?;
        let target = directory
            .join("volume-subpaths")
            .join(&mount.name)
            .join(&container.name)
            .join(index.to_string());
        sub_path::bind(&found, &target).map_err(tell)?;
        Ok(target)
    }

    /// Writes the hosts file in its place: running containers have it mounted.
    fn hosts(&self, pod: &Pod, pod_ips: &[String]) -> io::Result<PathBuf> {
        let spec = pod.spec.as_ref();
        let aliases = spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
        let text = if spec.and_then(|spec| spec.host_network).unwrap_or(false) {
            let own = std::fs::read(&self.config.hosts_file)?;
            hosts::of_node(&String::from_utf8_lossy(&own), aliases)
        } else {
            let (host, domain) = hosts::host_name(pod, &self.config.cluster_domain);
            hosts::managed(pod_ips, &host, &domain, aliases)
        };
        let path = self.pod_directory.join("etc-hosts");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&self.pod_directory)?;
        let mut options = std::fs::OpenOptions::new();
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags(no_follow)
            .open(&path)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        Ok(path)
    }

    /// A new file for this run.
    fn termination_log(&self, container: &Container) -> io::Result<PathBuf> {
        if !sub_path::is_plain_name(&container.name) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let directory = self.pod_directory.join("containers").join(&container.name);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&directory)?;
        forget_old(&directory)?;
        let path = directory.join(format!("{:08x}", self.random.range(0..1 << 32)));
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        // Any user of the container may write.
        file.set_permissions(std::fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }
}

/// Removes the oldest files, so that a container that ends again and again does not fill the disk.
fn forget_old(directory: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort();
    let surplus = files.len().saturating_sub(TERMINATION_FILES_MAX - 1);
    files
        .into_iter()
        .take(surplus)
        .try_for_each(|(_, path)| std::fs::remove_file(path))
}

fn plain(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: absolute(container_path),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Mount::default()
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

fn text(path: &Path) -> Result<String, String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("the path {} is not valid UTF-8", path.display()))
}
