//! Making a container: its root file system, user and specification. Nothing runs yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rpc::cri;
use rpc::cri::ContainerState::{ContainerCreated, ContainerRunning};

use crate::error::{Error, Result, doing};
use crate::image::{ImageError, read_in_root};
use crate::records::{ContainerRecord, required};
use crate::runtime::{Container, Runtime, Sandbox, blocking};
use crate::sandbox::namespace_options;
use crate::signals::stop_signal;
use crate::spec::{self, PidNamespace};
use crate::user::{self, User};

/// Longest account file that is read from an image.
const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;

impl Runtime {
    /// Makes a container: its root file system, user and specification. Nothing runs yet.
    pub async fn create_container(
        self: &Arc<Self>,
        sandbox_id: &str,
        config: cri::ContainerConfig,
        sandbox_config: Option<cri::PodSandboxConfig>,
    ) -> Result<String> {
        let sandbox = self.sandbox(sandbox_id)?;
        tracing::trace!(target: "walk", "a container is made");
        let metadata = required(config.metadata.clone(), "the container's metadata")?;
        let image_name = required(config.image.clone(), "the container's image")?.image;
        let image = self
            .images
            .find(&image_name)
            .ok_or_else(|| ImageError::NotFound(image_name.clone()))?;
        let _changing = sandbox.changing.lock().await;
        if !sandbox.record.lock().ready {
            return Err(Error::State(format!("sandbox container {} is not running", sandbox.id)));
        }
        let same = |container: &Arc<Container>| {
            let record = container.record.lock();
            record.config.as_ref().and_then(|config| config.metadata.as_ref()) == Some(&metadata)
        };
        if let Some(other) = self.containers_of(&sandbox.id).iter().find(|container| same(container)) {
            let (name, id) = (&metadata.name, &other.id);
            return Err(Error::Exists(format!(
                "container {name} attempt {} is there already: {id}",
                metadata.attempt
            )));
        }
        let id = self.new_id();
        let sandbox_config = sandbox_config.unwrap_or_else(|| sandbox.record.lock().config());
        let log_path = match (sandbox_config.log_directory.as_str(), config.log_path.as_str()) {
            ("", _) | (_, "") => String::new(),
            (directory, path) => Path::new(directory).join(path).to_string_lossy().into_owned(),
        };
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone());
        let record = ContainerRecord {
            id: id.clone(),
            sandbox_id: sandbox.id.clone(),
            image_id: image.id.clone(),
            image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.clone()),
            layers: image.layers.clone(),
            created_at: self.now_ns(),
            state: ContainerCreated.into(),
            log_path,
            cgroup: format!("{}/{}", sandbox.record.lock().cgroup, id),
            resources: Some(resources.unwrap_or_default()),
            stop_signal: stop_signal(config.stop_signal(), &image.config.stop_signal),
            config: Some(config),
            ..ContainerRecord::default()
        };
        let pid_namespace = self.pid_namespace(&sandbox, record.config.as_ref().unwrap_or(&Default::default()))?;
        let (runtime, for_sandbox) = (Arc::clone(self), Arc::clone(&sandbox));
        let prepared = blocking(move || {
            let id = record.id.clone();
            let result = runtime.prepare_container(&for_sandbox, &sandbox_config, record, &image.config, pid_namespace);
            if result.is_err() {
                runtime.delete_container_files(&id)?;
            }
            result
        });
        let container = Arc::new(Container::new(prepared.await?));
        self.containers.lock().insert(id.clone(), container);
        self.emit(&id, &sandbox.id, cri::ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    /// Blocks: root file system, user, specification, record.
    fn prepare_container(
        &self,
        sandbox: &Sandbox,
        sandbox_config: &cri::PodSandboxConfig,
        mut record: ContainerRecord,
        image: &crate::image::ImageConfig,
        pid_namespace: PidNamespace,
    ) -> Result<ContainerRecord> {
        let directory = self.container_dir(&record.id);
        let rootfs = self.mount_rootfs(&record)?;
        let config = record.config.clone().unwrap_or_default();
        let user = self.resolve_user(&config, &image.user, &rootfs)?;
        (record.uid, record.gid, record.groups) = (user.uid, user.gid, user.groups.clone());
        let sandbox_dir = self.sandbox_dir(&sandbox.id);
        let options = namespace_options(sandbox_config);
        let files = [
            (sandbox_dir.join("resolv.conf"), "/etc/resolv.conf"),
            (sandbox_dir.join("hostname"), "/etc/hostname"),
            (sandbox_dir.join("hosts"), "/etc/hosts"),
        ];
        let shm = self.sandbox_run_dir(&sandbox.id).join("shm");
        let hostname = std::fs::read_to_string(sandbox_dir.join("hostname")).unwrap_or_default();
        let group = self.cgroups.group(&record.cgroup);
        let joined = matches!(pid_namespace, PidNamespace::Join(_));
        let v1 = self.cgroups.version() == sys::cgroup::Version::V1;
        let node_mounts = match spec::spread(&config).is_empty() {
            true => Vec::new(),
            false => sys::mounts::list().map_err(doing("reading the mounts"))?,
        };
        let output = spec::make(&spec::Input {
            config: &config,
            image,
            user: &user,
            rootfs: &rootfs,
            cgroup: &group.path(),
            sandbox_files: &files,
            shm: (options.ipc() != cri::NamespaceMode::Node).then_some(shm.as_path()),
            pid_namespace,
            cgroup_directories: if v1 && joined {
                named_directories(&group)
            } else {
                Vec::new()
            }
            .as_slice(),
            bounding: &self.bounding,
            hostname: hostname.trim(),
            node_mounts: &node_mounts,
        })?;
        record.seccomp = output.seccomp;
        crate::image::make_directory_in_root(&rootfs, &output.cwd).map_err(doing("making the working directory"))?;
        let write = |name: &str, bytes: Vec<u8>| {
            let path = directory.join(name);
            std::fs::write(&path, bytes).map_err(doing(path.display()))
        };
        let plain = "invariant: specifications are plain data";
        write("config.json", serde_json::to_vec(&output.spec).expect(plain))?;
        write("devices.json", serde_json::to_vec(&output.devices).expect(plain))?;
        crate::records::save(&directory, &record)?;
        Ok(record)
    }

    pub(super) fn mount_rootfs(&self, record: &ContainerRecord) -> Result<PathBuf> {
        let directory = self.container_dir(&record.id);
        let path = |name: &str| directory.join(name);
        for name in ["upper", "work", "rootfs"] {
            std::fs::create_dir_all(path(name)).map_err(doing(path(name).display()))?;
        }
        // The top directory is visible as the container's root to its user.
        use std::os::unix::fs::PermissionsExt;
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path("upper"), readable).map_err(doing(path("upper").display()))?;
        let mut lowers = self.images.layer_directories(&record.layers);
        if lowers.is_empty() {
            // An image may have nothing in it; an overlay may not.
            std::fs::create_dir_all(path("empty")).map_err(doing(path("empty").display()))?;
            lowers.push(path("empty"));
        }
        let mounted = sys::mounts::overlay(&lowers, &path("upper"), &path("work"), &path("rootfs"));
        mounted.map_err(doing("mounting the container's root file system"))?;
        Ok(path("rootfs"))
    }

    fn resolve_user(&self, config: &cri::ContainerConfig, image_user: &str, rootfs: &Path) -> Result<User> {
        let security = config
            .linux
            .clone()
            .unwrap_or_default()
            .security_context
            .unwrap_or_default();
        let read = |path: &str| -> Result<String> {
            let bytes = read_in_root(rootfs, path, ACCOUNTS_BYTES_MAX).map_err(doing(path))?;
            Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
        };
        let wanted = user::Wanted {
            uid: security.run_as_user.as_ref().map(|user| user.value),
            gid: security.run_as_group.as_ref().map(|group| group.value),
            username: &security.run_as_username,
            image_user,
            groups: &security.supplemental_groups,
            merge_groups: security.supplemental_groups_policy() == cri::SupplementalGroupsPolicy::Merge,
        };
        user::resolve(&wanted, &read("/etc/passwd")?, &read("/etc/group")?).map_err(Error::Invalid)
    }

    pub(super) fn pid_namespace(&self, sandbox: &Sandbox, config: &cri::ContainerConfig) -> Result<PidNamespace> {
        let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = security.and_then(|security| security.namespace_options.clone());
        let options = options.unwrap_or_else(|| namespace_options(&sandbox.record.lock().config()));
        match options.pid() {
            cri::NamespaceMode::Container => Ok(PidNamespace::New),
            cri::NamespaceMode::Node => Ok(PidNamespace::Node),
            cri::NamespaceMode::Pod => match sandbox.record.lock().pause_pid {
                0 => Ok(PidNamespace::New),
                pid => Ok(PidNamespace::Join(pid)),
            },
            cri::NamespaceMode::Target => {
                let target = self.container(&options.target_id)?;
                let record = target.record.lock();
                if record.state() != ContainerRunning || record.sandbox_id != sandbox.id {
                    return Err(Error::State(format!(
                        "target container {} is not running in this pod",
                        target.id
                    )));
                }
                Ok(PidNamespace::Join(record.pid))
            }
        }
    }
}

/// A group's directory in each hierarchy with the name that the hierarchy is mounted under.
fn named_directories(group: &sys::cgroup::Group<'_>) -> Vec<(PathBuf, String)> {
    // The path begins with a slash, which is one component that the directories do not have.
    let depth = group.path().components().count() - 1;
    let name = |directory: &Path| {
        Some(
            directory
                .ancestors()
                .nth(depth)?
                .file_name()?
                .to_string_lossy()
                .into_owned(),
        )
    };
    let directories = group.directories().into_iter();
    directories
        .filter_map(|directory| name(&directory).map(|name| (directory, name)))
        .collect()
}
