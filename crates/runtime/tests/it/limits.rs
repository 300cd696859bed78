//! Limits as the kernel keeps them, on either version of control groups, and what is told of their effect.

use std::path::PathBuf;

use rpc::cri;
use sys::cgroup::{Cgroups, Version};

use crate::node::{Node, Pod, container, resources, texts};

/// The files of a group below the test's own root; on v1 each lies in the hierarchy of its controller.
fn read(node: &Node, group: &str, name: &str) -> String {
    let all = Cgroups::detect(std::path::Path::new(&node.cgroup)).unwrap();
    let files = all
        .group(group)
        .directories()
        .into_iter()
        .map(|directory: PathBuf| directory.join(name));
    let text = files.filter_map(|file| std::fs::read_to_string(file).ok()).next();
    text.unwrap_or_else(|| panic!("{group} has no {name}"))
        .trim()
        .to_owned()
}

fn group_of(pod: &Pod) -> String {
    pod.config.linux.as_ref().unwrap().cgroup_parent.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_stats_and_events() {
    let mut node = Node::start("limits").await;
    let mut events = node
        .client
        .get_container_events(cri::GetEventsRequest {})
        .await
        .unwrap()
        .into_inner();
    let pod = node.run_sandbox("web").await;
    let mut config = container("eater", &["eat", "200", "100"]);
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    let (status, _) = node.run_to_end(&pod, config).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    let mut config = container("small", &["eat", "8", "1000"]);
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    resources(&mut config).cpu_shares = 512;
    let id = node.run(&pod, config).await;
    node.log_with(&id, "ate 8").await;
    let request = cri::ContainerStatsRequest {
        container_id: id.clone(),
    };
    let stats = node.client.container_stats(request).await.unwrap().into_inner().stats;
    let stats = stats.unwrap();
    let memory = stats.memory.unwrap();
    assert!(memory.working_set_bytes.unwrap().value > 8 << 20);
    assert!(memory.available_bytes.unwrap().value < 64 << 20);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    let linux = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 128 << 20,
        ..Default::default()
    });
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux,
        ..Default::default()
    };
    node.client.update_container_resources(request).await.unwrap();
    let now = node.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!((now.memory_limit_in_bytes, now.cpu_shares), (128 << 20, 512));
    let request = cri::ListPodSandboxStatsRequest { filter: None };
    let pods = node
        .client
        .list_pod_sandbox_stats(request)
        .await
        .unwrap()
        .into_inner()
        .stats;
    assert_eq!(pods[0].linux.as_ref().unwrap().containers.len(), 1);
    node.stop(&id, 0).await;
    use cri::ContainerEventType::{ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent};
    let mut seen = Vec::new();
    while seen.last() != Some(&(id.clone(), ContainerStoppedEvent)) {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!(event.pod_sandbox_status.as_ref().unwrap().id, pod.id);
        seen.push((event.container_id.clone(), event.container_event_type()));
    }
    let of = |wanted: &str| {
        seen.iter()
            .filter(|(id, _)| id == wanted)
            .map(|(_, kind)| *kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of(&id),
        [ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent]
    );
    node.remove_pod(&pod).await;
    drop(events);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_reaches_the_kernel() {
    let mut node = Node::start("files").await;
    let mut config = node.sandbox_config("web");
    config.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 256 << 20,
        cpu_shares: 1024,
        ..Default::default()
    });
    let pod = node.run_sandbox_with(config).await;
    let mut config = container("limited", &["sleep", "1000"]);
    let wanted = resources(&mut config);
    wanted.memory_limit_in_bytes = 64 << 20;
    (wanted.cpu_shares, wanted.cpu_quota, wanted.cpu_period) = (512, 25_000, 50_000);
    wanted.unified.insert("pids.max".into(), "9".into());
    let id = node.run(&pod, config).await;
    let version = Cgroups::detect(std::path::Path::new("/")).unwrap().version();
    let (of_pod, of_container) = match version {
        Version::V1 => (
            vec![("memory.limit_in_bytes", "268435456"), ("cpu.shares", "1024")],
            vec![
                ("memory.limit_in_bytes", "67108864"),
                ("cpu.shares", "512"),
                ("cpu.cfs_quota_us", "25000"),
                ("cpu.cfs_period_us", "50000"),
                ("pids.max", "9"),
            ],
        ),
        Version::V2 => (
            // What is below may use all of them: each was delegated.
            vec![
                ("memory.max", "268435456"),
                ("cpu.weight", "39"),
                ("cgroup.subtree_control", "cpu io memory pids"),
            ],
            vec![
                ("memory.max", "67108864"),
                ("cpu.weight", "20"),
                ("cpu.max", "25000 50000"),
                ("pids.max", "9"),
                ("cgroup.events", "populated 1\nfrozen 0"),
            ],
        ),
    };
    let pod_group = group_of(&pod);
    for (name, expect) in of_pod {
        assert_eq!(read(&node, &pod_group, name), expect, "{name} of the pod");
    }
    let group = format!("{pod_group}/{id}");
    for (name, expect) in of_container {
        assert_eq!(read(&node, &group, name), expect, "{name} of the container");
    }
    // The container sees its own group as the root, and cannot change it.
    if version == Version::V2 {
        let seen = node
            .exec(&id, &["cat", "/sys/fs/cgroup/memory.max", "/proc/self/cgroup"])
            .await;
        assert_eq!(String::from_utf8_lossy(&seen.stdout), "67108864\n0::/\n");
        let refused = node.exec(&id, &["write", "/sys/fs/cgroup/memory.max", "max"]).await;
        assert_eq!(refused.exit_code, 1);
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("Read-only"),
            "{refused:?}"
        );
    }
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_group_has_no_room_for_another_process() {
    let mut node = Node::start("pids").await;
    let pod = node.run_sandbox("web").await;
    // The shell, two orphans, and one that starts the third.
    let script = "orphan 100000; orphan 100000; orphan 100000";
    let mut config = container("forks", &["sh", "-c", script]);
    resources(&mut config).unified.insert("pids.max".into(), "4".into());
    let (status, log) = node.run_to_end(&pod, config).await;
    assert_eq!(status.exit_code, 1, "{log}");
    assert!(
        texts(&log, "stderr")[0].contains("Resource temporarily unavailable"),
        "{log}"
    );
    node.remove_pod(&pod).await;
    node.finish().await;
}
