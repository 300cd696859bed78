//! The container runtime as the kubelet speaks to it: CRI v1 over a Unix socket, ours or any other.

use std::path::Path;
use std::time::Duration;

use rpc::cri::image_service_client::ImageServiceClient;
use rpc::cri::runtime_service_client::RuntimeServiceClient;
use rpc::cri::{self, ContainerFilter, PodSandboxFilter};
use tonic::transport::{Channel, Endpoint};

/// The longest answer that is read: a list of all containers of a full node is far below it.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Calls other than pulls, stops and execs end within this time, as upstream's `--runtime-request-timeout`.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// The label that marks what belongs to a pod.
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
/// The label with the pod's name.
pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
/// The label with the pod's namespace.
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The label with the container's name.
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The annotation that tells whether the container's definition changed.
pub const ANNOTATION_HASH: &str = "io.kubernetes.container.hash";

/// A call that the runtime refused or that did not reach it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CriError {
    /// Whether what was asked for is not there.
    pub not_found: bool,
    /// Whether the runtime cannot be reached.
    pub unreachable: bool,
    /// Whether what was asked for took too long.
    pub timed_out: bool,
    /// The whole error as Go prints it, with the code.
    pub message: String,
    /// The runtime's own words alone.
    pub description: String,
}

impl From<tonic::Status> for CriError {
    fn from(status: tonic::Status) -> CriError {
        CriError {
            not_found: status.code() == tonic::Code::NotFound,
            unreachable: status.code() == tonic::Code::Unavailable,
            timed_out: status.code() == tonic::Code::DeadlineExceeded,
            message: format!("rpc error: code = {:?} desc = {}", status.code(), status.message()),
            description: status.message().to_owned(),
        }
    }
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, CriError>;

/// A connection to a runtime. Cheap to clone; connects when it is first used and again when it was lost.
#[derive(Clone, Debug)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// A request that ends by itself.
fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// What a runtime can do beyond what every runtime can.
#[derive(Clone, Debug, Default)]
pub struct Abilities {
    /// For each kind of pods (`runtimeClassName`; the usual kind has no name).
    pub handlers: Vec<cri::RuntimeHandler>,
    /// For all of them.
    pub features: cri::RuntimeFeatures,
}

// === impl Abilities ===

impl Abilities {
    /// Whether a mount of a usual pod can be read-only with all below it.
    pub fn recursive_read_only(&self) -> bool {
        let mut usual = self.handlers.iter().filter(|handler| handler.name.is_empty());
        usual.any(|handler| {
            handler
                .features
                .is_some_and(|features| features.recursive_read_only_mounts)
        })
    }
}

// === impl Cri ===

impl Cri {
    /// A connection to the socket of a runtime.
    ///
    /// # Errors
    /// A path that cannot stand in a URI.
    pub fn connect(socket: &Path) -> Result<Cri> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(|error| CriError {
            not_found: false,
            unreachable: true,
            timed_out: false,
            message: format!("{}: {error}", socket.display()),
            description: error.to_string(),
        })?;
        let channel = endpoint.connect_lazy();
        let (runtime, images) = (
            RuntimeServiceClient::new(channel.clone()),
            ImageServiceClient::new(channel),
        );
        Ok(Cri {
            runtime: runtime.max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: images.max_decoding_message_size(MESSAGE_BYTES_MAX),
        })
    }

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<cri::VersionResponse> {
        let request = cri::VersionRequest { version: "v1".into() };
        Ok(self.runtime.clone().version(timed(request)).await?.into_inner())
    }

    /// Whether runtime and network are ready.
    pub async fn status(&self) -> Result<cri::RuntimeStatus> {
        let request = cri::StatusRequest { verbose: false };
        Ok(self
            .runtime
            .clone()
            .status(timed(request))
            .await?
            .into_inner()
            .status
            .unwrap_or_default())
    }

    /// What the runtime can do beyond what every runtime can.
    pub async fn abilities(&self) -> Result<Abilities> {
        let request = cri::StatusRequest { verbose: false };
        let status = self.runtime.clone().status(timed(request)).await?.into_inner();
        Ok(Abilities {
            handlers: status.runtime_handlers,
            features: status.features.unwrap_or_default(),
        })
    }

    /// Changes of containers as they happen, until the connection is lost.
    pub async fn events(&self) -> Result<tonic::Streaming<cri::ContainerEventResponse>> {
        Ok(self
            .runtime
            .clone()
            .get_container_events(cri::GetEventsRequest {})
            .await?
            .into_inner())
    }

    /// The sandboxes of a pod, or of all pods.
    pub async fn sandboxes(&self, uid: Option<&str>) -> Result<Vec<cri::PodSandbox>> {
        let label_selector = uid
            .map(|uid| (LABEL_POD_UID.to_owned(), uid.to_owned()))
            .into_iter()
            .collect();
        let filter = PodSandboxFilter {
            label_selector,
            ..PodSandboxFilter::default()
        };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        Ok(self
            .runtime
            .clone()
            .list_pod_sandbox(timed(request))
            .await?
            .into_inner()
            .items)
    }

    /// One sandbox with its addresses.
    pub async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.into(),
            verbose: false,
        };
        Ok(self
            .runtime
            .clone()
            .pod_sandbox_status(timed(request))
            .await?
            .into_inner()
            .status
            .unwrap_or_default())
    }

    /// Makes a sandbox.
    pub async fn run_sandbox(&self, config: cri::PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: runtime_handler.into(),
        };
        Ok(self
            .runtime
            .clone()
            .run_pod_sandbox(timed(request))
            .await?
            .into_inner()
            .pod_sandbox_id)
    }

    /// Ends a sandbox and all in it. That it is gone already is no error.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        gone_is_fine(self.runtime.clone().stop_pod_sandbox(timed(request)).await.map(drop))
    }

    /// Removes a stopped sandbox.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        gone_is_fine(self.runtime.clone().remove_pod_sandbox(timed(request)).await.map(drop))
    }

    /// The containers of a pod, or of all pods.
    pub async fn containers(&self, uid: Option<&str>) -> Result<Vec<cri::Container>> {
        let label_selector = uid
            .map(|uid| (LABEL_POD_UID.to_owned(), uid.to_owned()))
            .into_iter()
            .collect();
        let filter = ContainerFilter {
            label_selector,
            ..ContainerFilter::default()
        };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        Ok(self
            .runtime
            .clone()
            .list_containers(timed(request))
            .await?
            .into_inner()
            .containers)
    }

    /// All about one container.
    pub async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        Ok(self
            .runtime
            .clone()
            .container_status(timed(request))
            .await?
            .into_inner()
            .status
            .unwrap_or_default())
    }

    /// Makes a container in a sandbox.
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self
            .runtime
            .clone()
            .create_container(timed(request))
            .await?
            .into_inner()
            .container_id)
    }

    /// Starts a container that was made.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let request = cri::StartContainerRequest {
            container_id: id.into(),
        };
        Ok(self.runtime.clone().start_container(timed(request)).await.map(drop)?)
    }

    /// Asks a container to end, and kills it after the seconds.
    pub async fn stop_container(&self, id: &str, timeout_seconds: i64) -> Result<()> {
        let request = cri::StopContainerRequest {
            container_id: id.into(),
            timeout: timeout_seconds,
        };
        gone_is_fine(self.runtime.clone().stop_container(request).await.map(drop))
    }

    /// Gives a running container other limits.
    pub async fn update_container(&self, id: &str, resources: cri::LinuxContainerResources) -> Result<()> {
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux: Some(resources),
            ..cri::UpdateContainerResourcesRequest::default()
        };
        self.runtime.clone().update_container_resources(timed(request)).await?;
        Ok(())
    }

    /// Changes the limits of a whole pod.
    pub async fn update_sandbox(&self, id: &str, resources: cri::LinuxContainerResources) -> Result<()> {
        let request = cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.into(),
            resources: Some(resources),
            ..cri::UpdatePodSandboxResourcesRequest::default()
        };
        self.runtime
            .clone()
            .update_pod_sandbox_resources(timed(request))
            .await?;
        Ok(())
    }

    /// Tells the runtime that a container's log was renamed.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = cri::ReopenContainerLogRequest {
            container_id: id.into(),
        };
        self.runtime.clone().reopen_container_log(timed(request)).await?;
        Ok(())
    }

    /// Removes a container and its log.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest {
            container_id: id.into(),
        };
        gone_is_fine(self.runtime.clone().remove_container(timed(request)).await.map(drop))
    }

    /// Runs a command in a container and waits for its end.
    pub async fn exec_sync(&self, id: &str, command: &[String], timeout_seconds: i64) -> Result<cri::ExecSyncResponse> {
        let request = cri::ExecSyncRequest {
            container_id: id.into(),
            cmd: command.to_vec(),
            timeout: timeout_seconds,
        };
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    /// Where a command's streams can be had.
    pub async fn exec(&self, request: cri::ExecRequest) -> Result<String> {
        Ok(self.runtime.clone().exec(timed(request)).await?.into_inner().url)
    }

    /// Where a container's own streams can be had.
    pub async fn attach(&self, request: cri::AttachRequest) -> Result<String> {
        Ok(self.runtime.clone().attach(timed(request)).await?.into_inner().url)
    }

    /// Where connections into a sandbox can be had.
    pub async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String> {
        Ok(self
            .runtime
            .clone()
            .port_forward(timed(request))
            .await?
            .into_inner()
            .url)
    }

    /// An image, when it is there.
    pub async fn image(&self, image: &str) -> Result<Option<cri::Image>> {
        let spec = cri::ImageSpec {
            image: image.into(),
            ..cri::ImageSpec::default()
        };
        let request = cri::ImageStatusRequest {
            image: Some(spec),
            verbose: false,
        };
        Ok(self
            .images
            .clone()
            .image_status(timed(request))
            .await?
            .into_inner()
            .image)
    }

    /// All images.
    pub async fn images(&self) -> Result<Vec<cri::Image>> {
        let request = cri::ListImagesRequest { filter: None };
        Ok(self
            .images
            .clone()
            .list_images(timed(request))
            .await?
            .into_inner()
            .images)
    }

    /// Brings an image. Takes as long as it takes.
    pub async fn pull(&self, image: &str, sandbox_config: Option<cri::PodSandboxConfig>) -> Result<String> {
        let spec = cri::ImageSpec {
            image: image.into(),
            ..cri::ImageSpec::default()
        };
        let request = cri::PullImageRequest {
            image: Some(spec),
            auth: None,
            sandbox_config,
        };
        Ok(self.images.clone().pull_image(request).await?.into_inner().image_ref)
    }

    /// Removes an image from the node.
    pub async fn remove_image(&self, image: &str) -> Result<()> {
        let spec = cri::ImageSpec {
            image: image.into(),
            ..cri::ImageSpec::default()
        };
        let request = cri::RemoveImageRequest { image: Some(spec) };
        Ok(self.images.clone().remove_image(timed(request)).await.map(drop)?)
    }

    /// What containers use now.
    pub async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>> {
        self.stats(None).await
    }

    /// What the containers of a pod use now.
    pub async fn stats_of_pod(&self, uid: &str) -> Result<Vec<cri::ContainerStats>> {
        let filter = cri::ContainerStatsFilter {
            label_selector: [(LABEL_POD_UID.to_owned(), uid.to_owned())].into(),
            ..cri::ContainerStatsFilter::default()
        };
        self.stats(Some(filter)).await
    }

    async fn stats(&self, filter: Option<cri::ContainerStatsFilter>) -> Result<Vec<cri::ContainerStats>> {
        let request = cri::ListContainerStatsRequest { filter };
        Ok(self
            .runtime
            .clone()
            .list_container_stats(timed(request))
            .await?
            .into_inner()
            .stats)
    }
}

fn gone_is_fine(answer: std::result::Result<(), tonic::Status>) -> Result<()> {
    match answer {
        Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
        other => Ok(other?),
    }
}
