//! An engine for a test, and the requests that tests make of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rpc::cri;
use rpc::cri::image_service_client::ImageServiceClient;
use rpc::cri::runtime_service_client::RuntimeServiceClient;
use runtime::{Config, LoopbackOnly, Runtime};
use tonic::transport::Channel;

use crate::waiting::{self, PATIENCE};

pub const IMAGE: &str = "localhost/demo:1";

/// An engine, its socket and a client.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub cgroup: String,
    pub client: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
    pub runtime: Option<Arc<Runtime>>,
    shutdown: base::Shutdown,
    server: Option<tokio::task::JoinHandle<()>>,
}

pub fn config(dir: &Path, cgroup: &str) -> Config {
    let mut config = Config::new(dir.join("root"), dir.join("run"), Arc::new(LoopbackOnly));
    config.cgroup_root = PathBuf::from(cgroup);
    config
}

pub async fn connect(socket: &Path) -> Channel {
    let uri = format!("unix://{}", socket.display());
    let endpoint = tonic::transport::Endpoint::try_from(uri).unwrap();
    // It appears when it can be connected to.
    waiting::files(socket.parent().unwrap(), || socket.exists()).await;
    endpoint.connect().await.unwrap()
}

impl Node {
    pub async fn start(name: &str) -> Node {
        Node::start_with(name, |_| {}).await
    }

    /// An engine with other settings than the usual ones.
    pub async fn start_with(name: &str, change: impl FnOnce(&mut Config)) -> Node {
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_env_filter("runtime=debug")
            .try_init();
        let dir = tempfile::Builder::new().prefix("trt").tempdir().unwrap();
        let cgroup = format!("/trireme-test-{}-{name}", std::process::id());
        let archive = dir.path().join("demo.tar");
        std::fs::write(&archive, runtime::image::demo_image(IMAGE)).unwrap();
        let mut config = config(dir.path(), &cgroup);
        change(&mut config);
        let runtime = Runtime::open(config).await.unwrap();
        runtime.import_image(&archive).await.unwrap();
        Node::serve(dir, cgroup, runtime).await
    }

    async fn serve(dir: tempfile::TempDir, cgroup: String, runtime: Arc<Runtime>) -> Node {
        let socket = dir.path().join("cri.sock");
        let shutdown = base::Shutdown::new();
        let serving = runtime::serve(Arc::clone(&runtime), &socket, shutdown.clone()).await;
        let server = tokio::spawn(serving.unwrap());
        let channel = connect(&socket).await;
        Node {
            dir,
            cgroup,
            client: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            runtime: Some(runtime),
            shutdown,
            server: Some(server),
        }
    }

    /// Ends the daemon's part, as a restart does; containers go on.
    pub async fn halt(&mut self) {
        self.shutdown.trigger();
        if let Some(server) = self.server.take() {
            server.await.unwrap();
        }
        self.shutdown.finish().await;
        drop(self.runtime.take());
        // The engine holds it until its last user is gone.
        waiting::lock_of(&self.dir.path().join("root/lock")).await;
    }

    /// A new engine over the same directories.
    pub async fn restart(mut self) -> Node {
        if self.runtime.is_some() {
            self.halt().await;
        }
        let runtime = Runtime::open(config(self.dir.path(), &self.cgroup)).await.unwrap();
        Node::serve(self.dir, self.cgroup, runtime).await
    }

    pub fn sandbox_config(&self, name: &str) -> cri::PodSandboxConfig {
        let logs = self.dir.path().join("logs").join(name);
        let options = cri::NamespaceOption {
            pid: cri::NamespaceMode::Container.into(),
            ..Default::default()
        };
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: logs.to_string_lossy().into_owned(),
            dns_config: Some(cri::DnsConfig {
                servers: vec!["10.96.0.10".into()],
                ..Default::default()
            }),
            labels: [("app".to_owned(), name.to_owned())].into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("/kubepods/besteffort/pod-{name}"),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(options),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub async fn run_sandbox(&mut self, name: &str) -> Pod {
        let config = self.sandbox_config(name);
        self.run_sandbox_with(config).await
    }

    pub async fn run_sandbox_with(&mut self, config: cri::PodSandboxConfig) -> Pod {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let id = self
            .client
            .run_pod_sandbox(request)
            .await
            .unwrap()
            .into_inner()
            .pod_sandbox_id;
        Pod { id, config }
    }

    pub async fn create(&mut self, pod: &Pod, config: cri::ContainerConfig) -> String {
        self.try_create(pod, config).await.unwrap()
    }

    pub async fn try_create(&mut self, pod: &Pod, config: cri::ContainerConfig) -> Result<String, tonic::Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let created = self.client.create_container(request).await?;
        Ok(created.into_inner().container_id)
    }

    pub async fn start_container(&mut self, id: &str) {
        self.client
            .start_container(cri::StartContainerRequest {
                container_id: id.into(),
            })
            .await
            .unwrap();
    }

    pub async fn run(&mut self, pod: &Pod, config: cri::ContainerConfig) -> String {
        let id = self.create(pod, config).await;
        self.start_container(&id).await;
        id
    }

    /// Runs a container to its end and returns its status and log.
    pub async fn run_to_end(&mut self, pod: &Pod, config: cri::ContainerConfig) -> (cri::ContainerStatus, String) {
        let id = self.run(pod, config).await;
        let status = self.ended(&id).await;
        let log = std::fs::read_to_string(&status.log_path).unwrap();
        (status, log)
    }

    pub async fn status(&mut self, id: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        self.client
            .container_status(request)
            .await
            .unwrap()
            .into_inner()
            .status
            .unwrap()
    }

    pub async fn pid(&mut self, id: &str) -> i32 {
        let request = cri::ContainerStatusRequest {
            container_id: id.into(),
            verbose: true,
        };
        let info = self.client.container_status(request).await.unwrap().into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        info["pid"].as_i64().unwrap() as i32
    }

    /// Waits for a container's end.
    pub async fn ended(&mut self, id: &str) -> cri::ContainerStatus {
        let events = self.client.get_container_events(cri::GetEventsRequest {}).await;
        let mut events = events.unwrap().into_inner();
        let wait = async {
            loop {
                let status = self.status(id).await;
                if status.state() == cri::ContainerState::ContainerExited {
                    return status;
                }
                events.message().await.unwrap().expect("the engine serves");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the container ends")
    }

    /// Waits until a container's log has a text, and returns the log.
    pub async fn log_with(&mut self, id: &str, text: &str) -> String {
        let path = PathBuf::from(self.status(id).await.log_path);
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        waiting::files(path.parent().unwrap(), || read().contains(text)).await;
        read()
    }

    /// What a sandbox's status tells beside, for those who debug: `pid` is the shim's.
    pub async fn sandbox_info(&mut self, pod: &Pod) -> serde_json::Value {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: pod.id.clone(),
            verbose: true,
        };
        let info = self.client.pod_sandbox_status(request).await.unwrap().into_inner().info;
        serde_json::from_str(&info["info"]).unwrap()
    }

    pub async fn sandbox_status(&mut self, pod: &Pod) -> cri::PodSandboxStatus {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: pod.id.clone(),
            verbose: false,
        };
        let status = self
            .client
            .pod_sandbox_status(request)
            .await
            .unwrap()
            .into_inner()
            .status;
        status.unwrap()
    }

    /// Every sandbox that the engine lists.
    pub async fn sandboxes(&mut self) -> Vec<cri::PodSandbox> {
        let request = cri::ListPodSandboxRequest { filter: None };
        self.client.list_pod_sandbox(request).await.unwrap().into_inner().items
    }

    pub async fn stop(&mut self, id: &str, timeout: i64) {
        self.client
            .stop_container(cri::StopContainerRequest {
                container_id: id.into(),
                timeout,
            })
            .await
            .unwrap();
    }

    pub async fn exec(&mut self, id: &str, cmd: &[&str]) -> cri::ExecSyncResponse {
        let request = cri::ExecSyncRequest {
            container_id: id.into(),
            cmd: words(cmd),
            timeout: 30,
        };
        self.client.exec_sync(request).await.unwrap().into_inner()
    }

    pub async fn remove_pod(&mut self, pod: &Pod) {
        self.remove_sandbox(pod.id.clone()).await;
    }

    pub async fn remove_sandbox(&mut self, id: String) {
        self.client
            .stop_pod_sandbox(cri::StopPodSandboxRequest {
                pod_sandbox_id: id.clone(),
            })
            .await
            .unwrap();
        self.client
            .remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: id })
            .await
            .unwrap();
    }

    /// Ends the engine and asserts that nothing of it is left on the machine.
    pub async fn finish(mut self) {
        if self.runtime.is_some() {
            self.halt().await;
        }
        assert_nothing_left(self.dir.path(), &self.cgroup);
    }
}

pub fn assert_nothing_left(dir: &Path, cgroup: &str) {
    let mounts = sys::mounts::list().unwrap();
    let mounts: Vec<_> = mounts.iter().filter(|mount| mount.target.starts_with(dir)).collect();
    assert!(mounts.is_empty(), "mounts are left: {mounts:?}");
    for directory in sys::cgroup::Cgroups::detect(Path::new(cgroup))
        .unwrap()
        .group("")
        .directories()
    {
        assert!(!directory.exists(), "{} is left", directory.display());
    }
    for place in ["root/containers", "root/sandboxes", "run/sandboxes", "run/oci"] {
        let left: Vec<_> = std::fs::read_dir(dir.join(place))
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    // Every process of an engine has its directory in a control group that is gone, or among its open files.
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let links = std::fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let used = links
            .filter_map(|link| std::fs::read_link(link.path()).ok())
            .find(|path| path.starts_with(dir));
        let Some(used) = used else { continue };
        // Ours: this process under its three names, and children of other tests' between fork and exec, which have all of
        // our files for that moment. What an engine starts is another program.
        let program = |process: &Path| std::fs::read_link(process.join("exe")).ok();
        if program(&process.path()) == program(Path::new("/proc/self")) {
            continue;
        }
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        panic!(
            "process {:?} ({words}) is left with {}",
            process.file_name(),
            used.display()
        );
    }
}

/// A sandbox that a test made.
#[derive(Clone)]
pub struct Pod {
    pub id: String,
    pub config: cri::PodSandboxConfig,
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A container of the demo image that runs a command of it.
pub fn container(name: &str, command: &[&str]) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: name.into(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: IMAGE.into(),
            ..Default::default()
        }),
        command: words(command),
        log_path: format!("{name}/0.log"),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources {
                oom_score_adj: 1000,
                ..Default::default()
            }),
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(cri::NamespaceOption {
                    pid: cri::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

pub fn sandbox_security(config: &mut cri::PodSandboxConfig) -> &mut cri::LinuxSandboxSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

pub fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

pub fn resources(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config.linux.as_mut().unwrap().resources.as_mut().unwrap()
}

/// The texts of a CRI log, without times and tags.
pub fn texts(log: &str, stream: &str) -> Vec<String> {
    let parse = |line: &str| {
        let mut parts = line.splitn(4, ' ');
        let (_time, name, _tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        (name == stream).then(|| text.to_owned())
    };
    log.lines().filter_map(parse).collect()
}
