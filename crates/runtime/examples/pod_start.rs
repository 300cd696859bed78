//! Measures pod starts: `cargo run -p runtime --example pod_start [PODS] [AT ONCE]`, as root. Prints milliseconds a step.

use std::sync::Arc;
use std::time::Instant;

use rpc::cri;
use runtime::{Config, LoopbackOnly, Runtime};
use tokio::sync::Semaphore;

const IMAGE: &str = "localhost/demo:1";

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let (pods, at_once) = (args.next().unwrap_or(20), args.next().unwrap_or(1));
    let dir = std::env::temp_dir().join(format!("trireme-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let archive = dir.join("demo.tar");
    std::fs::write(&archive, runtime::image::demo_image(IMAGE)).expect("an archive");
    let mut config = Config::new(dir.join("root"), dir.join("run"), Arc::new(LoopbackOnly));
    config.cgroup_root = format!("/trireme-bench-{}", std::process::id()).into();
    let runtime = Runtime::open(config).await.expect("an engine");
    runtime.import_image(&archive).await.expect("an image");
    let gate = Arc::new(Semaphore::new(at_once));
    let begin = Instant::now();
    let mut tasks = Vec::new();
    for index in 0..pods {
        let (runtime, gate, logs) = (Arc::clone(&runtime), Arc::clone(&gate), dir.join("logs"));
        tasks.push(tokio::spawn(async move {
            let _turn = gate.acquire().await;
            start(&runtime, index, &logs).await
        }));
    }
    let mut steps: [Vec<f64>; 4] = Default::default();
    let mut sandboxes = Vec::new();
    for task in tasks {
        let (id, times) = task.await.expect("a pod");
        sandboxes.push(id);
        for (step, time) in steps.iter_mut().zip(times) {
            step.push(time);
        }
    }
    println!(
        "{pods} pods, {at_once} at once: {:.0} ms in all",
        begin.elapsed().as_secs_f64() * 1000.0
    );
    for (name, mut times) in ["sandbox", "create", "start", "pod"].into_iter().zip(steps) {
        times.sort_by(f64::total_cmp);
        println!(
            "{name:8} p50 {:6.1} ms  p99 {:6.1} ms",
            times[times.len() / 2],
            times[times.len() * 99 / 100]
        );
    }
    let begin = Instant::now();
    for id in sandboxes {
        runtime.remove_sandbox(&id).await.expect("an end");
    }
    println!("removed in {:.0} ms", begin.elapsed().as_secs_f64() * 1000.0);
    drop(runtime);
    std::fs::remove_dir_all(dir).expect("an empty directory");
}

async fn start(runtime: &Arc<Runtime>, index: usize, logs: &std::path::Path) -> (String, [f64; 4]) {
    let private = cri::NamespaceOption {
        pid: cri::NamespaceMode::Container.into(),
        ..Default::default()
    };
    let name = format!("pod-{index}");
    let sandbox = cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.clone(),
            uid: name.clone(),
            ..Default::default()
        }),
        hostname: name.clone(),
        log_directory: logs.join(&name).to_string_lossy().into_owned(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: format!("/kubepods/{name}"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let container = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: "main".into(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: IMAGE.into(),
            ..Default::default()
        }),
        command: vec!["sleep".into(), "1000".into()],
        log_path: "main/0.log".into(),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(private),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let begin = Instant::now();
    let since = |begin: Instant| begin.elapsed().as_secs_f64() * 1000.0;
    let mut sandbox = sandbox;
    sandbox.linux.as_mut().expect("set above").security_context = Some(cri::LinuxSandboxSecurityContext {
        namespace_options: Some(cri::NamespaceOption {
            pid: cri::NamespaceMode::Container.into(),
            ..Default::default()
        }),
        ..Default::default()
    });
    let id = runtime.run_sandbox(sandbox, "").await.expect("a sandbox");
    let made = since(begin);
    let container = runtime
        .create_container(&id, container, None)
        .await
        .expect("a container");
    let created = since(begin);
    runtime.start_container(&container).await.expect("a start");
    let started = since(begin);
    (id, [made, created - made, started - created, started])
}
