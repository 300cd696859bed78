//! What the kubelet's server asks about pods: which run of a container is meant.

use std::sync::Arc;
use std::time::Duration;

use client::informer::Informer;
use client::k8s_openapi::api::core::v1::Pod;
use futures::future::BoxFuture;

use crate::config::identity;
use crate::cri::Cri;
use crate::observed::{self, Observed, RunState};
use crate::plan::defined;
use crate::server::{Pods, PodsError, Run};

/// The runtime is asked again after this long when its events were lost.
const EVENTS_RETRY: Duration = Duration::from_secs(1);

/// The pods of this node, as the API and the runtime have them.
pub struct NodePods {
    node: String,
    cri: Cri,
    pods: Informer<Pod>,
}

// === impl NodePods ===

impl NodePods {
    /// The pods that the informer tells of.
    pub fn new(node: String, cri: Cri, pods: Informer<Pod>) -> Arc<NodePods> {
        Arc::new(NodePods { node, cri, pods })
    }

    async fn observe(&self, namespace: &str, name: &str, container: &str) -> Result<Observed, PodsError> {
        let absent = || PodsError::NotFound(format!("pod {} does not exist", api::field::quote(name)));
        let pod = self.pods.get(namespace, name).ok_or_else(absent)?;
        let ephemeral = pod
            .spec
            .iter()
            .flat_map(|spec| spec.ephemeral_containers.iter().flatten());
        let known = defined(&pod).iter().any(|defined| defined.container.name == container)
            || ephemeral.clone().any(|ephemeral| ephemeral.name == container);
        if !known {
            let (container, name) = (api::field::quote(container), api::field::quote(name));
            return Err(PodsError::NotFound(format!(
                "container {container} not found in pod {name}"
            )));
        }
        let observed = Observed::of_pod(&self.cri, identity(&pod).2).await;
        observed.map_err(|error| PodsError::Internal(error.to_string()))
    }
}

fn run(run: &observed::Run) -> Run {
    Run {
        id: run.id.clone(),
        log_path: (&*run.log_path).into(),
    }
}

impl Pods for NodePods {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.list()
    }

    fn log<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        previous: bool,
    ) -> BoxFuture<'a, Result<Run, PodsError>> {
        Box::pin(async move {
            let observed = self.observe(namespace, pod, container).await?;
            let (quoted, pod) = (api::field::quote(container), api::field::quote(pod));
            let mut runs = observed.runs_of(container).filter(|run| run.state != RunState::Created);
            if previous {
                let none = || format!("previous terminated container {quoted} in pod {pod} not found");
                return runs.nth(1).map(run).ok_or_else(|| PodsError::BadRequest(none()));
            }
            let none = || format!("container {quoted} in pod {pod} is waiting to start: ContainerCreating");
            runs.next().map(run).ok_or_else(|| PodsError::BadRequest(none()))
        })
    }

    fn running<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<Run, PodsError>> {
        Box::pin(async move {
            let observed = self.observe(namespace, pod, container).await?;
            let latest = observed.latest(container).filter(|run| run.is_running());
            let none = || PodsError::NotFound(format!("container not found ({})", api::field::quote(container)));
            latest.map(run).ok_or_else(none)
        })
    }

    fn ended(&self, id: &str) -> BoxFuture<'static, ()> {
        let (cri, id) = (self.cri.clone(), id.to_owned());
        Box::pin(async move {
            loop {
                // Events first, the state after: an end between the two is seen by one of them.
                let events = cri.events().await;
                match cri.container_status(&id).await {
                    Ok(status) if status.state == rpc::cri::ContainerState::ContainerRunning as i32 => {}
                    Err(error) if !error.not_found => {}
                    _ => return,
                }
                let Ok(mut events) = events else {
                    tokio::time::sleep(EVENTS_RETRY).await;
                    continue;
                };
                while let Ok(Some(event)) = events.message().await {
                    if event.container_id == id {
                        break;
                    }
                }
            }
        })
    }

    fn node_name(&self) -> String {
        self.node.clone()
    }
}
