//! Specifications as a whole: made from what CRI asks for.

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
        node_mounts: &[],
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
