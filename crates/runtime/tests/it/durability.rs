//! The daemon dies, the containers do not.

use std::process::Stdio;
use std::time::Duration;

use rpc::cri;

use crate::node::{Node, container, texts};
use crate::waiting;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_everything_as_it_is() {
    let mut node = Node::start("restart").await;
    let pod = node.run_sandbox("web").await;
    let runs = node.run(&pod, container("runs", &["spam", "100000", "1"])).await;
    let ends = node
        .run(&pod, container("ends", &["sh", "-c", "sleep 0.3; exit 9"]))
        .await;
    let waits = node.create(&pod, container("waits", &["true"])).await;
    let pid = node.pid(&runs).await;
    let ticks = sys::process::start_ticks(pid).unwrap();
    node.halt().await;
    // While nobody is there, one of them ends.
    let exits = node.dir.path().join("run/sandboxes").join(&pod.id).join("exits");
    waiting::files(&exits, || exits.join(&ends).exists()).await;
    let mut node = node.restart().await;
    let status = node.status(&ends).await;
    assert_eq!(
        (status.exit_code, status.state()),
        (9, cri::ContainerState::ContainerExited)
    );
    assert_eq!(node.status(&runs).await.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(node.pid(&runs).await, pid);
    assert_eq!(sys::process::start_ticks(pid), Some(ticks));
    node.start_container(&waits).await;
    assert_eq!(node.ended(&waits).await.exit_code, 0);
    assert_eq!(node.exec(&runs, &["true"]).await.exit_code, 0);
    node.stop(&runs, 0).await;
    let log = std::fs::read_to_string(node.status(&runs).await.log_path).unwrap();
    let lines = texts(&log, "stdout");
    let expect: Vec<String> = (0..lines.len()).map(|index| format!("line {index}")).collect();
    assert!(lines == expect && lines.len() > 100, "{} lines, some lost", lines.len());
    node.remove_pod(&pod).await;
    node.finish().await;
}

/// Not a test of its own: the process that the next test kills. Does nothing unless it is told where.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_of_an_engine() {
    let (Ok(dir), Ok(cgroup)) = (std::env::var("TRIREME_TEST_DIR"), std::env::var("TRIREME_TEST_CGROUP")) else {
        return;
    };
    let dir = std::path::PathBuf::from(dir);
    let runtime = runtime::Runtime::open(crate::node::config(&dir, &cgroup))
        .await
        .unwrap();
    let socket = dir.join("child.sock");
    let serving = runtime::serve(runtime, &socket, base::Shutdown::new()).await;
    serving.unwrap().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_at_any_moment() {
    const ROUNDS: usize = 5;
    let mut node = Node::start("kill").await;
    let pod = node.run_sandbox("web").await;
    let runs = node.run(&pod, container("runs", &["spam", "100000", "1"])).await;
    let pid = node.pid(&runs).await;
    let ticks = sys::process::start_ticks(pid);
    node.halt().await;
    for round in 0..ROUNDS {
        let mut host = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durability::host_of_an_engine"])
            .env("TRIREME_TEST_DIR", node.dir.path())
            .env("TRIREME_TEST_CGROUP", &node.cgroup)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let channel = crate::node::connect(&node.dir.path().join("child.sock")).await;
        let mut client = rpc::cri::runtime_service_client::RuntimeServiceClient::new(channel);
        // Killed while it makes pods and containers.
        let config = node.sandbox_config(&format!("victim-{round}"));
        let making = tokio::spawn(async move {
            let request = cri::RunPodSandboxRequest {
                config: Some(config),
                ..Default::default()
            };
            let Ok(made) = client.run_pod_sandbox(request).await else {
                return;
            };
            let pod_sandbox_id = made.into_inner().pod_sandbox_id;
            let config = Some(container("victim", &["sleep", "1000"]));
            let request = cri::CreateContainerRequest {
                pod_sandbox_id,
                config,
                sandbox_config: None,
            };
            let Ok(made) = client.create_container(request).await else {
                return;
            };
            let container_id = made.into_inner().container_id;
            let _ = client
                .start_container(cri::StartContainerRequest { container_id })
                .await;
        });
        // Not a wait for anything: another moment each round.
        tokio::time::sleep(Duration::from_millis(round as u64 * 12)).await;
        host.kill().unwrap();
        host.wait().unwrap();
        let _ = making.await;
        let _ = std::fs::remove_file(node.dir.path().join("child.sock"));
    }
    let mut node = node.restart().await;
    assert_eq!(node.status(&runs).await.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(sys::process::start_ticks(pid), ticks);
    for sandbox in node.sandboxes().await {
        if sandbox.id != pod.id {
            node.remove_sandbox(sandbox.id).await;
        }
    }
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_shim_takes_its_pod_along() {
    let mut node = Node::start("lost").await;
    let pod = node.run_sandbox("web").await;
    let id = node.run(&pod, container("runs", &["sleep", "1000"])).await;
    let pid = node.pid(&id).await;
    let shim = node.sandbox_info(&pod).await["pid"].as_i64().unwrap() as i32;
    let ticks = sys::process::start_ticks(shim).unwrap();
    assert!(sys::process::kill(shim, ticks, rustix::process::Signal::KILL).unwrap());
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    waiting::end_of(pid).await;
    let status = node.sandbox_status(&pod).await;
    assert_eq!(status.state(), cri::PodSandboxState::SandboxNotready);
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_pods_are_not_ready() {
    let mut node = Node::start("reboot").await;
    let pod = node.run_sandbox("web").await;
    let id = node.run(&pod, container("runs", &["sleep", "1000"])).await;
    let pid = node.pid(&id).await;
    node.halt().await;
    // What a reboot does: everything dies, mounts and the run directory are gone.
    let all = sys::cgroup::Cgroups::detect(std::path::Path::new(&node.cgroup)).unwrap();
    all.group("").kill_and_remove().unwrap();
    sys::mounts::detach_below(node.dir.path()).unwrap();
    std::fs::remove_dir_all(node.dir.path().join("run")).unwrap();
    waiting::end_of(pid).await;
    let mut node = node.restart().await;
    let listed = node.sandboxes().await;
    assert_eq!(listed[0].state(), cri::PodSandboxState::SandboxNotready);
    let status = node.status(&id).await;
    assert_eq!(
        (status.state(), status.reason.as_str()),
        (cri::ContainerState::ContainerExited, "Unknown")
    );
    node.remove_pod(&pod).await;
    // And a new one works.
    let pod = node.run_sandbox("web").await;
    let (status, _) = node.run_to_end(&pod, container("new", &["true"])).await;
    assert_eq!(status.exit_code, 0);
    node.remove_pod(&pod).await;
    node.finish().await;
}
