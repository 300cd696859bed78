//! The OCI specification of a container: what CRI asks for, the image's defaults, and what every container gets.
//!
//! Invariants: `noNewPrivileges` is only ever written as true (libcontainer takes the presence of false for a filter to be
//! loaded late); `oomScoreAdj` and limits never appear, because shim and daemon set them; the namespaces of the pod are not
//! listed, since the helper that creates the container is in them already. Resource limits of processes are not written
//! either: CRI has no word for them, and containerd takes its own default out for pods, so containers have the daemon's.
//! SELinux options are without effect on a node without SELinux, as there.

mod mounts;
mod process;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rpc::cri;
use serde_json::{Value, json};

use crate::devices::devices;
use crate::error::{Error, Result};
use crate::image::ImageConfig;
use crate::protocol::DeviceRule;
use crate::seccomp;
use crate::user::User;

pub(crate) use mounts::spread;

/// Parts of `/proc` and `/sys` that nobody should see, as the kubelet's default proc mount lists them.
const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Everything a specification is made from.
pub struct Input<'a> {
    /// The container as CRI asks for it.
    pub config: &'a cri::ContainerConfig,
    /// The image's defaults.
    pub image: &'a ImageConfig,
    /// Whom it runs as.
    pub user: &'a User,
    /// The root file system.
    pub rootfs: &'a Path,
    /// Path of its control group.
    pub cgroup: &'a Path,
    /// Files that the sandbox gives to each container: source and destination.
    pub sandbox_files: &'a [(PathBuf, &'static str)],
    /// The sandbox's shared memory; `None` is the node's.
    pub shm: Option<&'a Path>,
    /// The PID namespace to join; `None` is a new one.
    pub pid_namespace: PidNamespace,
    /// Its control group's directory in each v1 hierarchy, with the hierarchy's name, if they have to be mounted one by
    /// one: libcontainer looks for them under its own process number, which another PID namespace's `/proc` does not know.
    pub cgroup_directories: &'a [(PathBuf, String)],
    /// Capabilities that can be given at all.
    pub bounding: &'a [&'static str],
    /// The pod's host name.
    pub hostname: &'a str,
    /// The node's mounts, if a volume is to spread; none are needed otherwise.
    pub node_mounts: &'a [sys::mounts::Mount],
}

/// Which PID namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PidNamespace {
    /// Its own.
    New,
    /// The node's.
    Node,
    /// Another process's.
    Join(i32),
}

/// A specification, and what the shim has to know of it.
pub struct Output {
    /// `config.json`.
    pub spec: Value,
    /// Whether a filter has to be found on the created process.
    pub seccomp: bool,
    /// Devices for the v2 program.
    pub devices: Vec<DeviceRule>,
    /// The working directory, to be made if it is not there.
    pub cwd: String,
}

/// Makes the specification.
pub fn make(input: &Input<'_>) -> Result<Output> {
    let linux = input.config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    refuse_unsupported(input.config, &security)?;
    let capabilities = process::capabilities(&security, input.bounding)?;
    let profile = seccomp_profile(&security, &capabilities)?;
    let cwd = [input.config.working_dir.as_str(), input.image.working_dir.as_str(), "/"];
    let cwd = cwd.into_iter().find(|path| !path.is_empty()).unwrap_or("/").to_owned();
    if !cwd.starts_with('/') {
        return Err(Error::Invalid(format!(
            "the working directory {cwd:?} is not an absolute path"
        )));
    }
    let (device_nodes, devices) = devices(input.config, security.privileged)?;
    let process = process::process(input, &cwd, &capabilities)?;
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    match input.pid_namespace {
        PidNamespace::New => namespaces.push(json!({"type": "pid"})),
        PidNamespace::Node => {}
        PidNamespace::Join(pid) => namespaces.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")})),
    }
    let mounts = mounts::mounts(input, security.privileged)?;
    let mut rules = vec![json!({"allow": security.privileged, "access": "rwm"})];
    rules.extend(devices.iter().filter(|rule| rule.kind != 'a').map(|rule| {
        let kind = rule.kind.to_string();
        json!({"allow": true, "type": kind, "major": rule.major, "minor": rule.minor, "access": rule.access})
    }));
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": input.cgroup,
        "resources": {"devices": rules},
        "devices": device_nodes,
    });
    linux["rootfsPropagation"] = json!(mounts.propagation);
    if !security.privileged {
        let or_default = |asked: &[String], default: &[&str]| -> Vec<String> {
            if asked.is_empty() {
                default.iter().map(|path| (*path).to_owned()).collect()
            } else {
                asked.to_vec()
            }
        };
        linux["maskedPaths"] = json!(or_default(&security.masked_paths, MASKED_PATHS));
        linux["readonlyPaths"] = json!(or_default(&security.readonly_paths, READONLY_PATHS));
    }
    let seccomp = profile.is_some();
    if let Some(profile) = profile {
        linux["seccomp"] = profile;
    }
    let spec = json!({
        "ociVersion": "1.2.0",
        "root": {"path": input.rootfs, "readonly": security.readonly_rootfs},
        "process": process,
        "mounts": mounts.list,
        "linux": linux,
    });
    Ok(Output {
        spec,
        seccomp,
        devices,
        cwd,
    })
}

/// What would be silently left out is refused: somebody relies on it.
fn refuse_unsupported(config: &cri::ContainerConfig, security: &cri::LinuxContainerSecurityContext) -> Result<()> {
    use cri::security_profile::ProfileType;
    let unsupported = |what: &str| {
        Err(Error::Unsupported(format!(
            "{what} are not supported by this runtime yet"
        )))
    };
    if security
        .apparmor
        .as_ref()
        .is_some_and(|profile| profile.profile_type() == ProfileType::Localhost)
    {
        return unsupported("AppArmor profiles");
    }
    if !config.cdi_devices.is_empty() {
        return unsupported("CDI devices");
    }
    if config
        .mounts
        .iter()
        .any(|mount| !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty())
    {
        return unsupported("mounts with mapped user ids");
    }
    if config
        .mounts
        .iter()
        .any(|mount| mount.image.as_ref().is_some_and(|image| !image.image.is_empty()))
    {
        return unsupported("image volumes");
    }
    Ok(())
}

fn seccomp_profile(security: &cri::LinuxContainerSecurityContext, capabilities: &[String]) -> Result<Option<Value>> {
    use cri::security_profile::ProfileType;
    if security.privileged {
        return Ok(None);
    }
    let Some(profile) = &security.seccomp else {
        // The kubelet always says what it wants; whoever says nothing gets the safe one.
        return Ok(Some(seccomp::default_profile(capabilities)));
    };
    match profile.profile_type() {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => Ok(Some(seccomp::default_profile(capabilities))),
        ProfileType::Localhost => {
            let path = profile
                .localhost_ref
                .strip_prefix("localhost/")
                .unwrap_or(&profile.localhost_ref);
            seccomp::load(Path::new(path)).map(Some).map_err(Error::Invalid)
        }
    }
}
