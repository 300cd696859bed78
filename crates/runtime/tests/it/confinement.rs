//! What a container may do, read from inside of it.

use std::collections::BTreeMap;

use rpc::cri;

use crate::node::{Node, container, resources, security, texts};

fn values(lines: &[String]) -> BTreeMap<String, String> {
    lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(k, v)| (k.to_owned(), v.trim().to_owned()))
        .collect()
}

/// The default set: the 14 capabilities that every CRI runtime gives.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";
const DENIED: &str = "Operation not permitted (os error 1)";

fn assert_fenced(seen: &BTreeMap<String, String>) {
    let check =
        |name: &str, expect: &str| assert_eq!(seen.get(name).map(String::as_str), Some(expect), "{name}: {seen:?}");
    check("Seccomp", "2");
    check("CapBnd", DEFAULT_CAPABILITIES);
    check("CapInh", NONE);
    check("CapAmb", NONE);
    check("mknod-null", "done");
    // Making the node of the kernel's log is harmless, opening it is not.
    check("mknod-kmsg", DENIED);
    check("unshare-user", DENIED);
    check("mount", DENIED);
    check("dev-null", "done");
    assert!(seen["sys-write"].contains("Read-only"), "{seen:#?}");
    assert_ne!(seen["sysrq"], "done", "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_fence_stands() {
    let mut node = Node::start("fence").await;
    let pod = node.run_sandbox("web").await;
    let (status, log) = node.run_to_end(&pod, container("probe", &["probe"])).await;
    assert_eq!(status.exit_code, 0, "{log}");
    let seen = values(&texts(&log, "stdout"));
    assert_fenced(&seen);
    assert_eq!(seen["CapEff"], DEFAULT_CAPABILITIES);
    assert_eq!((seen["pid"].as_str(), seen["NoNewPrivs"].as_str()), ("1", "0"));
    assert_eq!(seen["descriptors"], "3", "{log}");
    // The same for a process that comes later.
    let id = node.run(&pod, container("sleeper", &["sleep", "1000"])).await;
    let output = node.exec(&id, &["probe"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let seen = values(&text.lines().map(str::to_owned).collect::<Vec<_>>());
    assert_fenced(&seen);
    assert_eq!(seen["descriptors"], "3", "{text}");
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fences_as_asked() {
    let mut node = Node::start("asked").await;
    let pod = node.run_sandbox("web").await;
    let mut config = container("user", &["probe"]);
    security(&mut config).run_as_user = Some(cri::Int64Value { value: 1000 });
    security(&mut config).no_new_privs = true;
    let (_, log) = node.run_to_end(&pod, config).await;
    let seen = values(&texts(&log, "stdout"));
    assert_eq!(
        (seen["CapEff"].as_str(), seen["NoNewPrivs"].as_str()),
        (NONE, "1"),
        "{log}"
    );
    assert_eq!(
        (seen["Seccomp"].as_str(), seen["Uid"].as_str()),
        ("2", "1000 1000 1000 1000")
    );
    let mut config = container("dropped", &["probe"]);
    let drop_all = cri::Capability {
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        ..Default::default()
    };
    security(&mut config).capabilities = Some(drop_all);
    let (_, log) = node.run_to_end(&pod, config).await;
    assert_eq!(values(&texts(&log, "stdout"))["CapBnd"], "0000000000000400", "{log}");
    let mut config = container("unconfined", &["probe"]);
    let unconfined = cri::security_profile::ProfileType::Unconfined.into();
    security(&mut config).seccomp = Some(cri::SecurityProfile {
        profile_type: unconfined,
        ..Default::default()
    });
    let (_, log) = node.run_to_end(&pod, config).await;
    assert_eq!(values(&texts(&log, "stdout"))["Seccomp"], "0", "{log}");
    let mut config = container("privileged", &["probe"]);
    security(&mut config).privileged = true;
    let (status, log) = node.run_to_end(&pod, config).await;
    assert_eq!(status.exit_code, 0, "{log}");
    let seen = values(&texts(&log, "stdout"));
    assert_eq!(
        (seen["Seccomp"].as_str(), seen["mknod-kmsg"].as_str()),
        ("0", "done"),
        "{log}"
    );
    node.remove_pod(&pod).await;
    node.finish().await;
}

/// What a container gets for its life as a process: nothing of it is written into a specification, so it is looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scores_and_limits_of_processes() {
    let mut node = Node::start("scores").await;
    let pod = node.run_sandbox("web").await;
    let mut config = container("scored", &["sleep", "1000"]);
    resources(&mut config).oom_score_adj = 700;
    // A node without SELinux takes no notice of it, as containerd does not.
    security(&mut config).selinux_options = Some(cri::SeLinuxOption {
        level: "s0:c1,c2".into(),
        ..Default::default()
    });
    let id = node.run(&pod, config).await;
    let pid = node.pid(&id).await;
    let read = |path: String| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(format!("/proc/{pid}/oom_score_adj")), "700\n");
    let exec = node.exec(&id, &["cat", "/proc/self/oom_score_adj"]).await;
    assert_eq!(String::from_utf8_lossy(&exec.stdout), "700\n");
    // CRI has no word for resource limits: as with containerd, a container has those of the daemon.
    assert_eq!(read(format!("/proc/{pid}/limits")), read("/proc/self/limits".into()));
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_without_its_filter_does_not_start() {
    let mut node = Node::start("nofilter").await;
    let pod = node.run_sandbox("web").await;
    let id = node.create(&pod, container("open", &["sleep", "1000"])).await;
    // As if libcontainer had not loaded what it was told to: the specification loses the filter, the record does not.
    let path = node.dir.path().join("root/containers").join(&id).join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(spec["linux"].as_object_mut().unwrap().remove("seccomp").is_some());
    std::fs::write(&path, spec.to_string()).unwrap();
    let request = cri::StartContainerRequest {
        container_id: id.clone(),
    };
    let error = node.client.start_container(request).await.unwrap_err();
    assert!(
        error
            .message()
            .contains("the seccomp profile was not applied (mode Some(0))"),
        "{error}"
    );
    let status = node.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_asked_for() {
    let mut node = Node::start("device").await;
    let pod = node.run_sandbox("web").await;
    let mut config = container(
        "log",
        &["sh", "-c", "stat /dev/log-of-the-node; write /dev/log-of-the-node x"],
    );
    config.devices = vec![cri::Device {
        container_path: "/dev/log-of-the-node".into(),
        host_path: "/dev/kmsg".into(),
        permissions: "r".into(),
    }];
    let (status, log) = node.run_to_end(&pod, config).await;
    // A character device, to be read and not written.
    assert!(texts(&log, "stdout")[0].starts_with("/dev/log-of-the-node 20"), "{log}");
    assert_eq!(status.exit_code, 1, "{log}");
    assert!(texts(&log, "stderr")[0].contains(DENIED), "{log}");
    node.remove_pod(&pod).await;
    node.finish().await;
}
