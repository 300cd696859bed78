//! CRI's runtime service.
//!
//! A client that hangs up must not stop an operation half way: whatever changes something runs in a task of its own.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use rpc::cri;
use rpc::cri::runtime_service_server::RuntimeService;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::Cri;
use crate::error::{Error, Result};
use crate::records::required;
use crate::sandbox::limits;

type Answer<T> = std::result::Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

/// CRI's own version and those of this engine.
const CRI_VERSION: &str = "v1";
const KUBELET_RUNTIME_VERSION: &str = "0.1.0";
const NAME: &str = "trireme";

/// Runs to the end whether or not the client waits.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> std::result::Result<T, Status> {
    let outcome = tokio::spawn(work)
        .await
        .map_err(|err| Status::internal(err.to_string()))?;
    Ok(outcome?)
}

/// One answer as a stream.
fn once<T: Send + 'static>(response: T) -> Response<Streamed<T>> {
    Response::new(Box::pin(futures::stream::iter([Ok(response)])))
}

fn unsupported<T>(what: &str) -> Answer<T> {
    Err(Error::Unsupported(format!("{what} is not supported by this runtime yet")).into())
}

#[tonic::async_trait]
impl RuntimeService for Cri {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        Ok(Response::new(cri::VersionResponse {
            version: KUBELET_RUNTIME_VERSION.into(),
            runtime_name: NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: CRI_VERSION.into(),
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<cri::RunPodSandboxRequest>) -> Answer<cri::RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = required(request.config, "the sandbox's configuration")?;
        let runtime = Arc::clone(&self.0);
        let work = async move { runtime.run_sandbox(config, &request.runtime_handler).await };
        Ok(Response::new(cri::RunPodSandboxResponse {
            pod_sandbox_id: detached(work).await?,
        }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let (runtime, id) = (Arc::clone(&self.0), request.into_inner().pod_sandbox_id);
        detached(async move { runtime.stop_sandbox(&id).await }).await?;
        Ok(Response::new(cri::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let (runtime, id) = (Arc::clone(&self.0), request.into_inner().pod_sandbox_id);
        detached(async move { runtime.remove_sandbox(&id).await }).await?;
        Ok(Response::new(cri::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        let containers = self.0.containers_of(&sandbox.id);
        let mut info = HashMap::new();
        if request.verbose {
            let pid = sandbox.record.lock().shim_pid;
            info.insert("info".into(), serde_json::json!({"pid": pid}).to_string());
        }
        Ok(Response::new(cri::PodSandboxStatusResponse {
            status: Some(self.0.sandbox_status(&sandbox)),
            info,
            containers_statuses: containers
                .iter()
                .map(|container| self.0.container_status(container))
                .collect(),
            timestamp: self.0.now_ns(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let items = self.0.list_sandboxes(&request.into_inner().filter.unwrap_or_default());
        Ok(Response::new(cri::ListPodSandboxResponse { items }))
    }

    type StreamPodSandboxesStream = Streamed<cri::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let pod_sandboxes = self.0.list_sandboxes(&request.into_inner().filter.unwrap_or_default());
        Ok(once(cri::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let request = request.into_inner();
        let config = required(request.config, "the container's configuration")?;
        let runtime = Arc::clone(&self.0);
        let work = async move {
            runtime
                .create_container(&request.pod_sandbox_id, config, request.sandbox_config)
                .await
        };
        Ok(Response::new(cri::CreateContainerResponse {
            container_id: detached(work).await?,
        }))
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let (runtime, id) = (Arc::clone(&self.0), request.into_inner().container_id);
        detached(async move { runtime.start_container(&id).await }).await?;
        Ok(Response::new(cri::StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<cri::StopContainerRequest>) -> Answer<cri::StopContainerResponse> {
        let (runtime, request) = (Arc::clone(&self.0), request.into_inner());
        detached(async move { runtime.stop_container(&request.container_id, request.timeout).await }).await?;
        Ok(Response::new(cri::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        let (runtime, id) = (Arc::clone(&self.0), request.into_inner().container_id);
        detached(async move { runtime.remove_container(&id).await }).await?;
        Ok(Response::new(cri::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let containers = self.0.list_containers(&request.into_inner().filter.unwrap_or_default());
        Ok(Response::new(cri::ListContainersResponse { containers }))
    }

    type StreamContainersStream = Streamed<cri::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<cri::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let containers = self.0.list_containers(&request.into_inner().filter.unwrap_or_default());
        Ok(once(cri::StreamContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.0.container(&request.container_id)?;
        let mut info = HashMap::new();
        if request.verbose {
            let record = container.record.lock();
            let document =
                serde_json::json!({"pid": record.pid, "sandboxID": record.sandbox_id, "cgroup": record.cgroup});
            info.insert("info".into(), document.to_string());
        }
        Ok(Response::new(cri::ContainerStatusResponse {
            status: Some(self.0.container_status(&container)),
            info,
        }))
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let (runtime, request) = (Arc::clone(&self.0), request.into_inner());
        let resources = required(request.linux, "the container's resources")?;
        detached(async move { runtime.update_resources(&request.container_id, resources).await }).await?;
        Ok(Response::new(cri::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        self.0.reopen_log(&request.into_inner().container_id).await?;
        Ok(Response::new(cri::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        let (runtime, request) = (Arc::clone(&self.0), request.into_inner());
        let timeout = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
        let work = async move { runtime.exec_sync(&request.container_id, request.cmd, timeout).await };
        let output = detached(work).await?;
        Ok(Response::new(cri::ExecSyncResponse {
            stdout: output.stdout,
            stderr: output.stderr,
            exit_code: output.exit_code,
        }))
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        Ok(Response::new(cri::ExecResponse {
            url: self.0.exec_url(request.into_inner())?,
        }))
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        Ok(Response::new(cri::AttachResponse {
            url: self.0.attach_url(request.into_inner())?,
        }))
    }

    async fn port_forward(&self, request: Request<cri::PortForwardRequest>) -> Answer<cri::PortForwardResponse> {
        Ok(Response::new(cri::PortForwardResponse {
            url: self.0.forward_url(&request.into_inner())?,
        }))
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        let stats = self.0.container_stats(&container).await?;
        Ok(Response::new(cri::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let listed = self.0.list_containers(&cri::ContainerFilter {
            id: filter.id,
            state: Some(cri::ContainerStateValue {
                state: cri::ContainerState::ContainerRunning.into(),
            }),
            pod_sandbox_id: filter.pod_sandbox_id,
            label_selector: filter.label_selector,
        });
        let mut stats = Vec::with_capacity(listed.len());
        for container in listed {
            // It may have been removed meanwhile.
            if let Ok(container) = self.0.container(&container.id) {
                stats.push(self.0.container_stats(&container).await?);
            }
        }
        Ok(Response::new(cri::ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Streamed<cri::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<cri::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let filter = request.into_inner().filter;
        let listed = self
            .list_container_stats(Request::new(cri::ListContainerStatsRequest { filter }))
            .await?;
        Ok(once(cri::StreamContainerStatsResponse {
            container_stats: listed.into_inner().stats,
        }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let sandbox = self.0.sandbox(&request.into_inner().pod_sandbox_id)?;
        let stats = self.0.sandbox_stats(&sandbox).await?;
        Ok(Response::new(cri::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let listed = self.0.list_sandboxes(&cri::PodSandboxFilter {
            id: filter.id,
            state: Some(cri::PodSandboxStateValue {
                state: cri::PodSandboxState::SandboxReady.into(),
            }),
            label_selector: filter.label_selector,
        });
        let mut stats = Vec::with_capacity(listed.len());
        for sandbox in listed {
            if let Ok(sandbox) = self.0.sandbox(&sandbox.id) {
                stats.push(self.0.sandbox_stats(&sandbox).await?);
            }
        }
        Ok(Response::new(cri::ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Streamed<cri::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let filter = request.into_inner().filter;
        let listed = self
            .list_pod_sandbox_stats(Request::new(cri::ListPodSandboxStatsRequest { filter }))
            .await?;
        Ok(once(cri::StreamPodSandboxStatsResponse {
            pod_sandbox_stats: listed.into_inner().stats,
        }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        let network = request
            .into_inner()
            .runtime_config
            .and_then(|config| config.network_config);
        if let Some(network) = network.filter(|network| !network.pod_cidr.is_empty()) {
            self.0.config.network.set_pod_cidr(&network.pod_cidr);
        }
        Ok(Response::new(cri::UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let condition = |kind: &str, status: std::result::Result<(), String>, reason: &str| cri::RuntimeCondition {
            r#type: kind.into(),
            status: status.is_ok(),
            reason: if status.is_ok() { String::new() } else { reason.into() },
            message: status.err().unwrap_or_default(),
        };
        let conditions = vec![
            condition("RuntimeReady", Ok(()), ""),
            condition("NetworkReady", self.0.config.network.ready(), "NetworkPluginNotReady"),
        ];
        let mut info = HashMap::new();
        if request.into_inner().verbose {
            let document = serde_json::json!({
                "rootDir": self.0.config.root_dir,
                "runDir": self.0.config.run_dir,
                "cgroupVersion": format!("{:?}", self.0.cgroups.version()),
            });
            info.insert("config".into(), document.to_string());
        }
        let features = cri::RuntimeHandlerFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: false,
        };
        let handler = |name: &str| cri::RuntimeHandler {
            name: name.into(),
            features: Some(features),
        };
        Ok(Response::new(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions }),
            info,
            runtime_handlers: vec![handler(""), handler(NAME)],
            features: Some(cri::RuntimeFeatures {
                supplemental_groups_policy: true,
                ..Default::default()
            }),
        }))
    }

    async fn checkpoint_container(
        &self,
        _: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        unsupported("checkpointing")
    }

    type GetContainerEventsStream = Streamed<cri::ContainerEventResponse>;

    async fn get_container_events(&self, _: Request<cri::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        // A reader that fell behind is told by an error, and lists again when it comes back.
        let events = BroadcastStream::new(self.0.subscribe()).map(|event| {
            event
                .map_err(|err| Status::resource_exhausted(format!("the reader of container events is too slow: {err}")))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        unsupported("listing metric descriptors")
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        unsupported("listing pod metrics")
    }

    type StreamPodSandboxMetricsStream = Streamed<cri::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        unsupported("listing pod metrics")
    }

    async fn runtime_config(&self, _: Request<cri::RuntimeConfigRequest>) -> Answer<cri::RuntimeConfigResponse> {
        let linux = cri::LinuxRuntimeConfiguration {
            cgroup_driver: cri::CgroupDriver::Cgroupfs.into(),
        };
        Ok(Response::new(cri::RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        if let Some(resources) = request.resources {
            let runtime = Arc::clone(&self.0);
            let cgroup = sandbox.record.lock().cgroup.clone();
            crate::runtime::blocking(move || {
                let group = runtime.cgroups.group(&cgroup);
                group
                    .apply(&limits(&resources))
                    .map_err(crate::error::doing("limiting the pod"))
            })
            .await?;
        }
        Ok(Response::new(cri::UpdatePodSandboxResourcesResponse {}))
    }
}
