//! The OCI specification of a container: what CRI asks for, the image's defaults, and what every container gets.
//!
//! Invariants: `noNewPrivileges` is only ever written as true (libcontainer takes the presence of false for a filter to be
//! loaded late); `oomScoreAdj` and limits never appear, because shim and daemon set them; the namespaces of the pod are not
//! listed, since the helper that creates the container is in them already. Resource limits of processes are not written
//! either: CRI has no word for them, and containerd takes its own default out for pods, so containers have the daemon's.
//! SELinux options are without effect on a node without SELinux, as there.

use std::path::{Path, PathBuf};

use rpc::cri;
use serde_json::{Value, json};

use crate::devices::devices;
use crate::error::{Error, Result};
use crate::image::ImageConfig;
use crate::protocol::DeviceRule;
use crate::seccomp;
use crate::user::User;

/// What containerd and CRI-O give to a container that asks for nothing.
pub const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

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
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    let capabilities = capabilities(&security, input.bounding)?;
    let profile = seccomp_profile(&security, &capabilities)?;
    let cwd = [input.config.working_dir.as_str(), input.image.working_dir.as_str(), "/"];
    let cwd = cwd.into_iter().find(|path| !path.is_empty()).unwrap_or("/").to_owned();
    if !cwd.starts_with('/') {
        return Err(Error::Invalid(format!(
            "the working directory {cwd:?} is not an absolute path"
        )));
    }
    let (device_nodes, devices) = devices(input.config, security.privileged)?;
    let ambient = security
        .capabilities
        .as_ref()
        .map(|caps| caps.add_ambient_capabilities.as_slice())
        .unwrap_or_default();
    let ambient: Vec<String> = ambient.iter().map(|name| capability_name(name)).collect();
    let mut process = json!({
        "terminal": input.config.tty,
        "user": {"uid": input.user.uid, "gid": input.user.gid, "additionalGids": groups(input.user)},
        "args": args(input)?,
        "env": environment(input),
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
            "inheritable": ambient,
            "ambient": ambient,
        },
    });
    if security.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    match input.pid_namespace {
        PidNamespace::New => namespaces.push(json!({"type": "pid"})),
        PidNamespace::Node => {}
        PidNamespace::Join(pid) => namespaces.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")})),
    }
    let (mounts, propagation) = mounts(input, security.privileged)?;
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
    linux["rootfsPropagation"] = json!(propagation);
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
        "mounts": mounts,
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

fn groups(user: &User) -> Vec<u32> {
    let mut groups = vec![user.gid];
    groups.extend(user.groups.iter().filter(|gid| **gid != user.gid));
    groups
}

/// `command` replaces the entry point (and with it the image's arguments), `args` the image's arguments.
fn args(input: &Input<'_>) -> Result<Vec<String>> {
    let (config, image) = (input.config, input.image);
    let mut words = if config.command.is_empty() {
        image.entrypoint.clone()
    } else {
        config.command.clone()
    };
    if !config.args.is_empty() {
        words.extend(config.args.iter().cloned());
    } else if config.command.is_empty() {
        words.extend(image.cmd.iter().cloned());
    }
    if words.is_empty() {
        return Err(Error::Invalid(
            "no command specified, neither by the container nor by its image".into(),
        ));
    }
    Ok(words)
}

fn environment(input: &Input<'_>) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let key = entry.split('=').next().unwrap_or_default().to_owned();
        env.retain(|other| other.split('=').next() != Some(&key));
        env.push(entry);
    };
    set(DEFAULT_PATH.to_owned());
    if !input.hostname.is_empty() {
        set(format!("HOSTNAME={}", input.hostname));
    }
    if input.config.tty {
        set("TERM=xterm".into());
    }
    if let Some(home) = &input.user.home {
        set(format!("HOME={home}"));
    }
    input.image.env.iter().for_each(|entry| set(entry.clone()));
    for variable in &input.config.envs {
        set(format!("{}={}", variable.key, String::from_utf8_lossy(&variable.value)));
    }
    env
}

fn capability_name(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    }
}

fn capabilities(security: &cri::LinuxContainerSecurityContext, bounding: &[&str]) -> Result<Vec<String>> {
    let asked = security.capabilities.clone().unwrap_or_default();
    let names = |list: &[String]| list.iter().map(|name| capability_name(name)).collect::<Vec<_>>();
    let (add, drop) = (names(&asked.add_capabilities), names(&asked.drop_capabilities));
    let all = |list: &[String]| list.iter().any(|name| name == "CAP_ALL");
    let known = |name: &&String| sys::process::CAPABILITIES.contains(&name.as_str()) || *name == "CAP_ALL";
    if let Some(unknown) = add.iter().chain(&drop).find(|name| !known(name)) {
        return Err(Error::Invalid(format!("unknown capability {unknown:?}")));
    }
    let every = || bounding.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut set: Vec<String> = DEFAULT_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
    // In containerd's order: dropping ALL outdoes adding ALL, dropping one outdoes adding it.
    if all(&add) {
        set = every();
    }
    if all(&drop) {
        set.clear();
    }
    set.extend(add.into_iter().filter(|name| name != "CAP_ALL"));
    set.retain(|name| !drop.contains(name));
    if security.privileged {
        set = every();
    }
    // What the node itself does not have cannot be given.
    set.retain(|name| bounding.contains(&name.as_str()));
    set.sort();
    set.dedup();
    Ok(set)
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

/// The mounts, and how mounts spread between node and container: libcontainer sets it for all of them together, so the
/// mount that needs most decides (`private`, `slave` for what comes from the node, `shared` for both ways).
fn mounts(input: &Input<'_>, privileged: bool) -> Result<(Vec<Value>, &'static str)> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let system = if privileged { "rw" } else { "ro" };
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
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", system]),
    ];
    if input.cgroup_directories.is_empty() {
        list.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", system],
        ));
    } else {
        list.push(mount(
            "/sys/fs/cgroup",
            "tmpfs",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=755", "size=64k"],
        ));
        for (directory, name) in input.cgroup_directories {
            let (source, target) = (directory.to_string_lossy(), format!("/sys/fs/cgroup/{name}"));
            list.push(mount(
                &target,
                "bind",
                &source,
                &["rbind", "nosuid", "noexec", "nodev", system],
            ));
        }
    }
    let asked: Vec<&str> = input
        .config
        .mounts
        .iter()
        .map(|mount| mount.container_path.trim_end_matches('/'))
        .collect();
    // A mount of the pod replaces one of ours: an emptyDir at /dev/shm is common.
    list.retain(|mount| !asked.iter().any(|path| mount["destination"] == *path));
    if !asked.contains(&"/dev/shm") {
        let source = input
            .shm
            .unwrap_or(Path::new("/dev/shm"))
            .to_string_lossy()
            .into_owned();
        list.push(mount(
            "/dev/shm",
            "bind",
            &source,
            &["rbind", "nosuid", "noexec", "nodev"],
        ));
    }
    for (source, destination) in input.sandbox_files {
        if !asked.contains(destination) {
            let readonly = input
                .config
                .linux
                .as_ref()
                .and_then(|linux| linux.security_context.as_ref());
            let access = if readonly.is_some_and(|security| security.readonly_rootfs) {
                "ro"
            } else {
                "rw"
            };
            list.push(mount(
                destination,
                "bind",
                &source.to_string_lossy(),
                &["rbind", access],
            ));
        }
    }
    let mut asked: Vec<&cri::Mount> = input.config.mounts.iter().collect();
    // Outer ones first, otherwise they would hide the inner ones.
    asked.sort_by_key(|mount| Path::new(&mount.container_path).components().count());
    let mut propagation = "private";
    for wanted in asked {
        if !wanted.container_path.starts_with('/') {
            return Err(Error::Invalid(format!(
                "mount path {:?} is not absolute",
                wanted.container_path
            )));
        }
        let mut options = vec!["rbind"];
        match wanted.propagation() {
            cri::MountPropagation::PropagationPrivate => {}
            cri::MountPropagation::PropagationHostToContainer if propagation == "shared" => {}
            cri::MountPropagation::PropagationHostToContainer => propagation = "slave",
            cri::MountPropagation::PropagationBidirectional => propagation = "shared",
        }
        options.push(if wanted.readonly { "ro" } else { "rw" });
        if wanted.recursive_read_only {
            options.push("rro");
        }
        // The mount's source may be a link that the user planted in a volume: the kubelet resolved what is to be resolved.
        let source = std::fs::canonicalize(&wanted.host_path)
            .map_err(|err| Error::Invalid(format!("failed to stat {:?}: {err}", wanted.host_path)))?;
        list.push(mount(
            &wanted.container_path,
            "bind",
            &source.to_string_lossy(),
            &options,
        ));
    }
    Ok((list, propagation))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(config: &cri::ContainerConfig) -> Result<Output> {
        let image = ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["PATH=/image".into(), "A=image".into()],
            ..ImageConfig::default()
        };
        make(&Input {
            config,
            image: &image,
            user: &User::default(),
            rootfs: Path::new("/rootfs"),
            cgroup: Path::new("/trireme/x"),
            sandbox_files: &[],
            shm: None,
            pid_namespace: PidNamespace::New,
            cgroup_directories: &[],
            bounding: sys::process::CAPABILITIES,
            hostname: "pod",
        })
    }

    fn with(security: cri::LinuxContainerSecurityContext) -> cri::ContainerConfig {
        let linux = cri::LinuxContainerConfig {
            security_context: Some(security),
            ..Default::default()
        };
        cri::ContainerConfig {
            linux: Some(linux),
            ..Default::default()
        }
    }

    #[test]
    fn it_is_a_specification() {
        let spec = output(&cri::ContainerConfig::default()).unwrap().spec;
        serde_json::from_value::<oci_spec::runtime::Spec>(spec.clone()).unwrap();
        assert!(spec["process"].get("noNewPrivileges").is_none());
        assert!(spec["process"].get("oomScoreAdj").is_none());
        assert!(spec["linux"]["seccomp"].is_object());
    }

    #[test]
    fn commands_merge() {
        let check = |command: &[&str], args: &[&str], expect: &[&str]| {
            let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            let config = cri::ContainerConfig {
                command: words(command),
                args: words(args),
                ..Default::default()
            };
            assert_eq!(
                output(&config).unwrap().spec["process"]["args"],
                json!(expect),
                "{command:?} {args:?}"
            );
        };
        check(&[], &[], &["/entry", "default"]);
        check(&[], &["a"], &["/entry", "a"]);
        check(&["c"], &[], &["c"]);
        check(&["c"], &["a"], &["c", "a"]);
    }

    #[test]
    fn environments_merge() {
        let envs = vec![cri::KeyValue {
            key: "A".into(),
            value: "pod=x".into(),
        }];
        let config = cri::ContainerConfig {
            envs,
            ..Default::default()
        };
        let env = output(&config).unwrap().spec["process"]["env"].clone();
        assert_eq!(env, json!(["HOSTNAME=pod", "PATH=/image", "A=pod=x"]));
    }

    #[test]
    fn capability_sets() {
        let check = |add: &[&str], drop: &[&str], expect: usize| {
            let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
            let capabilities = cri::Capability {
                add_capabilities: words(add),
                drop_capabilities: words(drop),
                ..Default::default()
            };
            let security = cri::LinuxContainerSecurityContext {
                capabilities: Some(capabilities),
                ..Default::default()
            };
            let spec = output(&with(security)).unwrap().spec;
            let set = spec["process"]["capabilities"]["bounding"].as_array().unwrap().len();
            assert_eq!(set, expect, "{add:?} {drop:?}");
        };
        check(&[], &[], 14);
        check(&["NET_ADMIN"], &[], 15);
        check(&["net_admin"], &["ALL"], 1);
        check(&[], &["ALL"], 0);
        check(&["ALL"], &[], 41);
        check(&["ALL"], &["CAP_SYS_ADMIN"], 40);
        check(&["ALL"], &["ALL"], 0);
        check(&["NET_ADMIN"], &["NET_ADMIN"], 14);
        let bad = cri::Capability {
            add_capabilities: vec!["NONSENSE".into()],
            ..Default::default()
        };
        let security = cri::LinuxContainerSecurityContext {
            capabilities: Some(bad),
            ..Default::default()
        };
        assert!(output(&with(security)).is_err());
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let check = |config: cri::ContainerConfig, expect: &str| {
            let error = output(&config).err().expect("a refusal").to_string();
            assert!(error.contains(expect), "{error}");
        };
        let apparmor = cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::Localhost.into(),
            localhost_ref: "x".into(),
        };
        check(
            with(cri::LinuxContainerSecurityContext {
                apparmor: Some(apparmor),
                ..Default::default()
            }),
            "AppArmor",
        );
        let image = Some(cri::ImageSpec {
            image: "x".into(),
            ..Default::default()
        });
        let mounts = vec![cri::Mount {
            image,
            ..Default::default()
        }];
        check(
            cri::ContainerConfig {
                mounts,
                ..Default::default()
            },
            "image volumes",
        );
        let mounts = vec![cri::Mount {
            uid_mappings: vec![cri::IdMapping::default()],
            ..Default::default()
        }];
        check(
            cri::ContainerConfig {
                mounts,
                ..Default::default()
            },
            "mapped user ids",
        );
        let mounts = vec![cri::Mount {
            container_path: "relative".into(),
            ..Default::default()
        }];
        check(
            cri::ContainerConfig {
                mounts,
                ..Default::default()
            },
            "not absolute",
        );
        check(
            cri::ContainerConfig {
                working_dir: "relative".into(),
                ..Default::default()
            },
            "not an absolute path",
        );
    }

    #[test]
    fn privileged_has_no_fences() {
        let output = output(&with(cri::LinuxContainerSecurityContext {
            privileged: true,
            ..Default::default()
        }))
        .unwrap();
        assert!(!output.seccomp && output.spec["linux"].get("maskedPaths").is_none());
        serde_json::from_value::<oci_spec::runtime::Spec>(output.spec).unwrap();
    }

    #[test]
    fn the_mount_that_needs_most_decides_how_mounts_spread() {
        use cri::MountPropagation::{PropagationBidirectional, PropagationHostToContainer, PropagationPrivate};
        let check = |wanted: &[cri::MountPropagation], expect: &str| {
            let mount = |(index, propagation): (usize, &cri::MountPropagation)| cri::Mount {
                container_path: format!("/m{index}"),
                host_path: "/tmp".into(),
                propagation: (*propagation).into(),
                ..Default::default()
            };
            let mounts = wanted.iter().enumerate().map(mount).collect();
            let spec = output(&cri::ContainerConfig {
                mounts,
                ..Default::default()
            })
            .unwrap()
            .spec;
            assert_eq!(spec["linux"]["rootfsPropagation"], expect, "{wanted:?}");
        };
        check(&[], "private");
        check(&[PropagationPrivate], "private");
        check(&[PropagationPrivate, PropagationHostToContainer], "slave");
        check(&[PropagationBidirectional, PropagationHostToContainer], "shared");
    }

    #[test]
    fn mounts_of_the_pod_win_and_outer_ones_come_first() {
        let mount = |path: &str| cri::Mount {
            container_path: path.into(),
            host_path: "/tmp".into(),
            readonly: true,
            ..Default::default()
        };
        let config = cri::ContainerConfig {
            mounts: vec![mount("/a/b"), mount("/dev/shm"), mount("/a")],
            ..Default::default()
        };
        let spec = output(&config).unwrap().spec;
        let places: Vec<&str> = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        assert_eq!(places.iter().filter(|place| **place == "/dev/shm").count(), 1);
        let position = |name| places.iter().position(|place| *place == name).unwrap();
        assert!(position("/a") < position("/a/b"));
    }
}
