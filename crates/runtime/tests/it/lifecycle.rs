//! From image to exit code.

use rpc::cri;

use crate::node::{IMAGE, Node, container, resources, sandbox_security, security, texts, words};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_logs_and_exit_codes() {
    let mut node = Node::start("runs").await;
    let pod = node.run_sandbox("web").await;
    let (status, log) = node
        .run_to_end(&pod, container("hello", &["echo", "hello", "world"]))
        .await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(
        status.started_at >= status.created_at && status.finished_at >= status.started_at,
        "{status:?}"
    );
    assert_eq!(texts(&log, "stdout"), ["hello world"]);
    let (status, log) = node.run_to_end(&pod, container("spam", &["spam", "1000"])).await;
    assert_eq!(status.exit_code, 0);
    assert_eq!(texts(&log, "stdout").len(), 1000);
    assert_eq!(texts(&log, "stderr"), ["done"]);
    let (status, _) = node.run_to_end(&pod, container("fails", &["exit", "7"])).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    let (_, log) = node.run_to_end(&pod, container("name", &["hostname"])).await;
    assert_eq!(texts(&log, "stdout"), ["web"]);
    let (_, log) = node
        .run_to_end(&pod, container("dns", &["cat", "/etc/resolv.conf"]))
        .await;
    assert_eq!(texts(&log, "stdout"), ["nameserver 10.96.0.10"]);
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why() {
    let mut node = Node::start("nostart").await;
    let pod = node.run_sandbox("web").await;
    for (name, command, expect) in [
        ("absent", &["/nothing"][..], "no such file or directory"),
        ("path", &["nothing"], "executable file not found in $PATH"),
        ("file", &["/etc/passwd"], "permission denied"),
    ] {
        let id = node.create(&pod, container(name, command)).await;
        let request = cri::StartContainerRequest {
            container_id: id.clone(),
        };
        let error = node.client.start_container(request).await.unwrap_err();
        assert!(error.message().contains(expect), "{error}");
        let status = node.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert!(status.message.contains(expect), "{}", status.message);
    }
    let mut config = container("image", &["true"]);
    config.image = Some(cri::ImageSpec {
        image: "nothing".into(),
        ..Default::default()
    });
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.id.clone(),
        config: Some(config),
        sandbox_config: None,
    };
    assert_eq!(
        node.client.create_container(request).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    let image = Some(cri::ImageSpec {
        image: "registry.example/a:1".into(),
        ..Default::default()
    });
    let request = cri::PullImageRequest {
        image,
        ..Default::default()
    };
    let error = node.images.pull_image(request).await.unwrap_err();
    assert!(error.message().contains("registry.example/a:1"), "{error}");
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_environment_and_mounts() {
    let mut node = Node::start("users").await;
    let pod = node.run_sandbox("web").await;
    let mut config = container("id", &["id"]);
    security(&mut config).run_as_username = "app".into();
    security(&mut config).supplemental_groups = vec![3000];
    let (_, log) = node.run_to_end(&pod, config).await;
    assert_eq!(texts(&log, "stdout"), ["uid=1000 gid=1000 groups=1000,2000,3000"]);
    let mut config = container("env", &["printenv", "A"]);
    config.envs = vec![cri::KeyValue {
        key: "A".into(),
        value: "b c".into(),
    }];
    let (_, log) = node.run_to_end(&pod, config).await;
    assert_eq!(texts(&log, "stdout"), ["b c"]);
    let mut config = container("cwd", &["pwd"]);
    config.working_dir = "/some/where".into();
    let (_, log) = node.run_to_end(&pod, config).await;
    assert_eq!(texts(&log, "stdout"), ["/some/where"]);
    let volume = node.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "from outside\n").unwrap();
    let mount = |path: &str, readonly: bool| cri::Mount {
        container_path: path.into(),
        host_path: volume.to_string_lossy().into_owned(),
        readonly,
        ..Default::default()
    };
    let mut config = container(
        "volume",
        &["sh", "-c", "cat /data/file; write /data/new x; write /ro/new y"],
    );
    config.mounts = vec![mount("/data", false), mount("/ro", true)];
    let (status, log) = node.run_to_end(&pod, config).await;
    assert_eq!(texts(&log, "stdout"), ["from outside"]);
    assert_eq!(status.exit_code, 1, "{log}");
    assert!(texts(&log, "stderr")[0].contains("Read-only"), "{log}");
    assert_eq!(std::fs::read_to_string(volume.join("new")).unwrap(), "x\n");
    // What the kubelet gives to every container: a message file among the devices, a token where /var/run may be.
    let message = node.dir.path().join("message");
    std::fs::write(&message, "").unwrap();
    let mut config = container(
        "message",
        &[
            "sh",
            "-c",
            "write /dev/termination-log bye; cat /var/run/secrets/token/file",
        ],
    );
    let mut termination = mount("/dev/termination-log", false);
    termination.host_path = message.to_string_lossy().into_owned();
    config.mounts = vec![termination, mount("/var/run/secrets/token", true)];
    let (status, log) = node.run_to_end(&pod, config).await;
    assert_eq!(status.exit_code, 0, "{log}");
    assert_eq!(texts(&log, "stdout"), ["from outside"]);
    assert_eq!(std::fs::read_to_string(&message).unwrap(), "bye\n");
    let mut config = container("readonly", &["touch", "/file"]);
    security(&mut config).readonly_rootfs = true;
    let (status, log) = node.run_to_end(&pod, config).await;
    assert_eq!(status.exit_code, 1);
    assert!(log.contains("Read-only"), "{log}");
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_with_grace_and_without() {
    let mut node = Node::start("stops").await;
    let pod = node.run_sandbox("web").await;
    let mut config = container("server", &["serve", "9000"]);
    config.envs = vec![cri::KeyValue {
        key: "DRAIN_SECONDS".into(),
        value: "0".into(),
    }];
    let id = node.run(&pod, config).await;
    // Told, it ends by itself.
    node.log_with(&id, "serves port").await;
    let answer = node.exec(&id, &["get", "http://127.0.0.1:9000/"]).await;
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "web has answered 1\n");
    node.stop(&id, 30).await;
    let status = node.status(&id).await;
    assert_eq!(
        (status.exit_code, status.state()),
        (0, cri::ContainerState::ContainerExited)
    );
    let log = std::fs::read_to_string(&status.log_path).unwrap();
    assert!(log.contains("web served 1"), "{log}");
    // Not listening, it is killed.
    let id = node.run(&pod, container("stubborn", &["stubborn"])).await;
    node.stop(&id, 1).await;
    assert_eq!(node.status(&id).await.exit_code, 137);
    // Without grace, at once; and stopping again is fine.
    let id = node.run(&pod, container("sleeper", &["sleep", "1000"])).await;
    node.stop(&id, 0).await;
    node.stop(&id, 0).await;
    assert_eq!(node.status(&id).await.exit_code, 137);
    let running = node.run(&pod, container("running", &["sleep", "1000"])).await;
    let pid = node.pid(&running).await;
    let ticks = sys::process::start_ticks(pid).unwrap();
    node.remove_pod(&pod).await;
    assert!(!sys::process::is_running(pid, ticks));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_filters_and_images() {
    let mut node = Node::start("lists").await;
    let pod = node.run_sandbox("web").await;
    let other = node.run_sandbox("db").await;
    let filter = cri::PodSandboxFilter {
        label_selector: [("app".to_owned(), "db".to_owned())].into(),
        ..Default::default()
    };
    let request = cri::ListPodSandboxRequest { filter: Some(filter) };
    let items = node.client.list_pod_sandbox(request).await.unwrap().into_inner().items;
    assert_eq!(items.iter().map(|item| &item.id).collect::<Vec<_>>(), [&other.id]);
    // The same pod, attempt and all, is refused.
    let request = cri::RunPodSandboxRequest {
        config: Some(pod.config.clone()),
        ..Default::default()
    };
    assert_eq!(
        node.client.run_pod_sandbox(request).await.unwrap_err().code(),
        tonic::Code::AlreadyExists
    );
    let id = node.create(&pod, container("waits", &["sleep", "1"])).await;
    let listed = node
        .client
        .list_containers(cri::ListContainersRequest { filter: None })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.containers.len(), 1);
    assert_eq!(listed.containers[0].state(), cri::ContainerState::ContainerCreated);
    assert!(listed.containers[0].image_id.starts_with("sha256:"));
    // Its image may lose its name, but its layers stay while the container does.
    let image = Some(cri::ImageSpec {
        image: IMAGE.into(),
        ..Default::default()
    });
    node.images
        .remove_image(cri::RemoveImageRequest { image: image.clone() })
        .await
        .unwrap();
    let status = node
        .images
        .image_status(cri::ImageStatusRequest { image, verbose: false })
        .await
        .unwrap();
    assert!(status.into_inner().image.is_none());
    node.start_container(&id).await;
    assert_eq!(node.ended(&id).await.exit_code, 0);
    let status = node
        .client
        .status(cri::StatusRequest { verbose: true })
        .await
        .unwrap()
        .into_inner();
    assert!(
        status
            .status
            .unwrap()
            .conditions
            .iter()
            .all(|condition| condition.status)
    );
    let version = node
        .client
        .version(cri::VersionRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (version.runtime_api_version.as_str(), version.runtime_name.as_str()),
        ("v1", "trireme")
    );
    node.remove_pod(&pod).await;
    node.remove_pod(&other).await;
    assert_eq!(words(&["gone"]), ["gone"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_pid_namespace() {
    let mut node = Node::start("sharedpid").await;
    let mut config = node.sandbox_config("web");
    let shared = cri::NamespaceOption {
        pid: cri::NamespaceMode::Pod.into(),
        ..Default::default()
    };
    sandbox_security(&mut config).namespace_options = Some(shared.clone());
    let pod = node.run_sandbox_with(config).await;
    let with = |name: &str, command: &[&str]| {
        let mut config = container(name, command);
        security(&mut config).namespace_options = Some(shared.clone());
        config
    };
    let sleeper = node.run(&pod, with("sleeper", &["sleep", "1000"])).await;
    let (_, log) = node
        .run_to_end(&pod, with("looker", &["sh", "-c", "readlink /proc/self; ls /proc"]))
        .await;
    let texts = texts(&log, "stdout");
    assert_ne!(texts[0], "1", "{log}");
    let numbers = texts[1..].iter().filter(|name| name.parse::<u32>().is_ok()).count();
    assert!(numbers >= 3, "pause, sleeper and looker are seen: {log}");
    // Its own limit is seen in its own place.
    let v1 = sys::cgroup::Cgroups::detect(std::path::Path::new("/"))
        .unwrap()
        .version()
        == sys::cgroup::Version::V1;
    let file = if v1 {
        "memory/memory.limit_in_bytes"
    } else {
        "memory.max"
    };
    let mut limited = with("limited", &["cat", &format!("/sys/fs/cgroup/{file}")]);
    resources(&mut limited).memory_limit_in_bytes = 64 << 20;
    let (_, log) = node.run_to_end(&pod, limited).await;
    assert_eq!(crate::node::texts(&log, "stdout"), [(64 << 20).to_string()], "{log}");
    node.stop(&sleeper, 0).await;
    assert_eq!(node.status(&sleeper).await.exit_code, 137);
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_of_pod_and_node() {
    let mut node = Node::start("nodens").await;
    let own = |name: &str| {
        std::fs::read_link(format!("/proc/self/ns/{name}"))
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    let command = &[
        "sh",
        "-c",
        "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; readlink /proc/self/ns/pid",
    ];
    let mut config = node.sandbox_config("host");
    let everything = cri::NamespaceOption {
        network: cri::NamespaceMode::Node.into(),
        pid: cri::NamespaceMode::Node.into(),
        ipc: cri::NamespaceMode::Node.into(),
        ..Default::default()
    };
    sandbox_security(&mut config).namespace_options = Some(everything.clone());
    let host = node.run_sandbox_with(config).await;
    let mut inside = container("looks", command);
    security(&mut inside).namespace_options = Some(everything.clone());
    let (_, log) = node.run_to_end(&host, inside).await;
    assert_eq!(texts(&log, "stdout"), ["net", "ipc", "uts", "pid"].map(own), "{log}");
    // What a container of the node's processes leaves behind ends with it.
    let mut leaves = container("leaves", &["sh", "-c", "orphan 1000000"]);
    security(&mut leaves).namespace_options = Some(everything);
    let (status, _) = node.run_to_end(&host, leaves).await;
    assert_eq!(status.exit_code, 0);
    let network = node.sandbox_status(&host).await.network.unwrap();
    assert_eq!(network.ip, "", "the node's own address is nobody else's to tell");
    let pod = node.run_sandbox("web").await;
    let (_, first) = node.run_to_end(&pod, container("first", command)).await;
    let (_, second) = node.run_to_end(&pod, container("second", command)).await;
    let (first, second) = (texts(&first, "stdout"), texts(&second, "stdout"));
    assert_eq!(
        first[..3],
        second[..3],
        "a pod's containers share network, IPC and name"
    );
    for (index, name) in ["net", "ipc", "uts", "pid"].into_iter().enumerate() {
        assert_ne!(first[index], own(name));
    }
    node.remove_pod(&host).await;
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_reopened_and_engines_exclude_each_other() {
    let mut node = Node::start("reopen").await;
    let pod = node.run_sandbox("web").await;
    let id = node.run(&pod, container("spam", &["spam", "100000", "1"])).await;
    let path = std::path::PathBuf::from(node.status(&id).await.log_path);
    let rotated = path.with_extension("log.1");
    std::fs::rename(&path, &rotated).unwrap();
    node.client
        .reopen_container_log(cri::ReopenContainerLogRequest {
            container_id: id.clone(),
        })
        .await
        .unwrap();
    node.log_with(&id, "line").await;
    node.stop(&id, 0).await;
    let both = std::fs::read_to_string(&rotated).unwrap() + &std::fs::read_to_string(&path).unwrap();
    let lines = texts(&both, "stdout");
    let expect: Vec<String> = (0..lines.len()).map(|index| format!("line {index}")).collect();
    assert_eq!(lines, expect);
    let second = runtime::Runtime::open(crate::node::config(node.dir.path(), &node.cgroup)).await;
    let error = second.err().expect("there is one already").to_string();
    assert!(error.contains("another container engine"), "{error}");
    node.remove_pod(&pod).await;
    node.finish().await;
}
