//! Starting one container: its image, its configuration, the runtime, its hook. Each step that fails says so in the
//! container's waiting state and in an event, in upstream's words.
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_container.go` (`startContainer`), `pkg/kubelet/images/image_manager.go`.

use std::net::IpAddr;
use std::sync::Arc;

use api::field::quote;
use client::k8s_openapi::api::core::v1::{Container, Pod};
use rpc::cri;
use tokio::time::Instant;

use super::kill::Ending;
use super::{Shared, container_reference, full_name, hooks};
use crate::config::{self, Wanted};
use crate::status::Waiting;
use crate::volumes::PodVolumes;

/// A container that was made and could not be started.
pub const RUN_ERROR: &str = "RunContainerError";
/// A container whose hook after its start failed.
pub const POST_START_ERROR: &str = "PostStartHookError";

/// What a start needs.
pub struct Start {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container.
    pub container: Container,
    /// For an ephemeral container: the run whose processes it is to see, or the name of the container that has none.
    pub target: Option<Result<String, String>>,
    /// How many runs came before.
    pub attempt: u32,
    /// The sandbox.
    pub sandbox: String,
    /// The sandbox's own configuration, which the runtime wants again.
    pub sandbox_config: cri::PodSandboxConfig,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// The pod's volumes.
    pub volumes: Arc<PodVolumes>,
}

impl Start {
    /// Starts the container.
    ///
    /// # Errors
    /// What the container waits for.
    pub async fn run(self, shared: &Shared) -> Result<(), Waiting> {
        tracing::trace!(target: "walk", pod = full_name(&self.pod), "a container is asked for");
        let about = container_reference(&self.pod, &self.container.name);
        let image = self.image(shared).await?;
        config::check_non_root(&self.pod, &self.container, &image).map_err(|message| {
            shared
                .recorder
                .warning(about.clone(), "Failed", format!("Error: {message}"));
            Waiting {
                reason: "CreateContainerConfigError".into(),
                message,
            }
        })?;
        let refused = |reason: &str, message: String| {
            shared
                .recorder
                .warning(about.clone(), "Failed", format!("Error: {message}"));
            Waiting {
                reason: reason.into(),
                message,
            }
        };
        let wanted = self
            .wanted(shared, image.id)
            .await
            .map_err(|m| refused("CreateContainerConfigError", m))?;
        let config = config::container(&self.pod, &self.container, wanted, &shared.node);
        let id = shared
            .cri
            .create_container(&self.sandbox, config, self.sandbox_config.clone())
            .await
            .map_err(|error| refused("CreateContainerError", error.description))?;
        shared.recorder.normal(about.clone(), "Created", "Container created");
        if let Err(error) = shared.cri.start_container(&id).await {
            return Err(refused(RUN_ERROR, error.description));
        }
        shared.recorder.normal(about.clone(), "Started", "Container started");
        if let Some(handler) = hooks::post_start(&self.container)
            && let Err(why) = hooks::run(&shared.cri, handler, &self.container, &id, self.address(), None).await
        {
            // What the hook said may hold secrets: it is not in the event.
            let recorder = &shared.recorder;
            recorder.warning(about.clone(), "FailedPostStartHook", "PostStartHook failed");
            recorder.normal(about, "Killing", "FailedPostStartHook");
            // A container whose hook failed is ended; the plan starts it again.
            let grace = super::worker::grace_seconds(&self.pod);
            let ending = Ending {
                container: Some(&self.container),
                run: &id,
                address: self.address(),
                grace_seconds: grace,
            };
            ending.kill(shared, &self.pod).await;
            return Err(Waiting {
                reason: POST_START_ERROR.into(),
                message: why,
            });
        }
        Ok(())
    }

    fn address(&self) -> Option<IpAddr> {
        self.pod_ips.first().and_then(|ip| ip.parse().ok())
    }

    /// The image, brought when the policy says so.
    async fn image(&self, shared: &Shared) -> Result<cri::Image, Waiting> {
        let about = container_reference(&self.pod, &self.container.name);
        let name = self.container.image.clone().unwrap_or_default();
        let policy = self.container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let inspect = |error: crate::cri::CriError| {
            let message = format!("Failed to inspect image \"{name}\": {error}");
            shared.recorder.warning(about.clone(), "InspectFailed", message.clone());
            shared
                .recorder
                .warning(about.clone(), "Failed", "Error: ImageInspectError");
            Waiting {
                reason: "ImageInspectError".into(),
                message,
            }
        };
        if let Err(why) = config::check_image_name(&name) {
            let message = format!("Failed to apply default image tag {}: {why}", quote(&name));
            shared.recorder.warning(about.clone(), "InspectFailed", message.clone());
            shared
                .recorder
                .warning(about.clone(), "Failed", "Error: InvalidImageName");
            return Err(Waiting {
                reason: "InvalidImageName".into(),
                message,
            });
        }
        let present = shared.cri.image(&name).await.map_err(inspect)?;
        if let Some(image) = present
            && policy != "Always"
        {
            let text = format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
            shared.recorder.normal(about.clone(), "Pulled", text);
            return Ok(image);
        }
        if policy == "Never" {
            let message = format!("Container image \"{name}\" is not present with pull policy of Never");
            shared
                .recorder
                .warning(about.clone(), "ErrImageNeverPull", message.clone());
            shared
                .recorder
                .warning(about.clone(), "Failed", "Error: ErrImageNeverPull");
            return Err(Waiting {
                reason: "ErrImageNeverPull".into(),
                message,
            });
        }
        shared
            .recorder
            .normal(about.clone(), "Pulling", format!("Pulling image \"{name}\""));
        let begun = Instant::now();
        if let Err(error) = shared.cri.pull(&name, Some(self.sandbox_config.clone())).await {
            let message = format!("Failed to pull image \"{name}\": {error}");
            shared.recorder.warning(about.clone(), "Failed", message.clone());
            shared.recorder.warning(about.clone(), "Failed", "Error: ErrImagePull");
            return Err(Waiting {
                reason: "ErrImagePull".into(),
                message: error.to_string(),
            });
        }
        let took = begun.elapsed().as_millis();
        let image = shared.cri.image(&name).await.map_err(inspect)?.ok_or_else(|| Waiting {
            reason: "ImageInspectError".into(),
            message: format!("image \"{name}\" is not there after it was pulled"),
        })?;
        let text = format!(
            "Successfully pulled image \"{name}\" in {took}ms. Image size: {} bytes.",
            image.size
        );
        shared.recorder.normal(about.clone(), "Pulled", text);
        Ok(image)
    }

    async fn wanted(&self, shared: &Shared, image_ref: String) -> Result<Wanted, String> {
        let target = self.target.clone().transpose();
        let target = target.map_err(|name| format!("unable to find target container {name}"))?;
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("");
        let mut services = shared.services.list_namespace(namespace);
        services.extend(
            shared
                .services
                .get("default", "kubernetes")
                .filter(|_| namespace != "default"),
        );
        let input = crate::env::Input {
            pod: &self.pod,
            container: &self.container,
            node: &shared.facts,
            pod_ips: &self.pod_ips,
            volumes: &self.volumes.volumes,
            services: &services,
        };
        let environment = crate::env::environment(&input, shared.volumes.objects())
            .await
            .map_err(|error| error.to_string())?;
        for text in &environment.skipped {
            let about = container_reference(&self.pod, &self.container.name);
            shared.recorder.warning(about, crate::env::REASON_SKIPPED, text.clone());
        }
        let mounts = shared
            .volumes
            .mounts(&self.pod, &self.container, &self.volumes, &environment, &self.pod_ips)
            .map_err(|error| error.to_string())?;
        let expand = |list: &Option<Vec<String>>| environment.expand_all(list.as_deref().unwrap_or_default());
        Ok(Wanted {
            image_ref,
            command: expand(&self.container.command),
            args: expand(&self.container.args),
            environment: environment.variables.clone(),
            mounts,
            attempt: self.attempt,
            target,
        })
    }
}
