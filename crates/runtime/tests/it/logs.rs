//! Logs that nobody rotates, and logs on disks that are full.

use crate::node::{Node, container, texts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_a_full_disk_stops_nobody() {
    let mut node = Node::start("full").await;
    let mut config = node.sandbox_config("web");
    let logs = node.dir.path().join("small");
    std::fs::create_dir(&logs).unwrap();
    sys::mounts::tmpfs(&logs, 64 << 10, 0o755).unwrap();
    config.log_directory = logs.to_string_lossy().into_owned();
    let pod = node.run_sandbox_with(config).await;
    // Far more than fits: the container goes on and ends as it would.
    let (status, log) = node.run_to_end(&pod, container("spam", &["spam", "20000"])).await;
    assert_eq!(status.exit_code, 0);
    let lines = texts(&log, "stdout");
    assert!(lines.len() < 20_000 && lines[0] == "line 0", "{} lines", lines.len());
    assert!(log.ends_with('\n'), "no record is torn: {:?}", log.lines().last());
    node.remove_pod(&pod).await;
    sys::mounts::detach_below(&logs).unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_a_kubelet_is_bounded() {
    const BYTES_MAX: u64 = 64 << 10;
    let mut node = Node::start_with("bounded", |config| config.log_bytes_max = BYTES_MAX).await;
    let pod = node.run_sandbox("web").await;
    let (status, log) = node.run_to_end(&pod, container("spam", &["spam", "20000"])).await;
    assert_eq!(status.exit_code, 0);
    let older = std::fs::read_to_string(format!("{}.full", status.log_path)).unwrap();
    assert!(log.len() as u64 <= BYTES_MAX && older.len() as u64 <= BYTES_MAX);
    let lines = texts(&(older + &log), "stdout");
    let last: Vec<String> = (20_000 - lines.len()..20_000)
        .map(|index| format!("line {index}"))
        .collect();
    assert!(
        lines.len() > 500 && lines == last,
        "the newest lines are there, in order"
    );
    node.remove_pod(&pod).await;
    node.finish().await;
}
