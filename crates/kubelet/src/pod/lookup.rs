//! What the kubelet's server asks about pods: which run of a container is meant.

use std::sync::Arc;
use std::time::Duration;

use client::informer::Informer;
use client::k8s_openapi::api::core::v1::Pod;
use futures::future::BoxFuture;

use crate::config::identity;
use crate::cri::Cri;
use crate::observed::{self, Observed, RunState};
use crate::plan::role_of;
use crate::probes::ProbeMetrics;
use crate::server::{Pods, PodsError, Run};

/// The runtime is asked again after this long when its events were lost.
const EVENTS_RETRY: Duration = Duration::from_secs(1);

/// The pods of this node, as the API and the runtime have them.
pub struct NodePods {
    node: String,
    cri: Cri,
    pods: Informer<Pod>,
    probes: ProbeMetrics,
}

// === impl NodePods ===

impl NodePods {
    /// The pods that the informer tells of, and how their probes come out.
    pub fn new(node: String, cri: Cri, pods: Informer<Pod>, probes: ProbeMetrics) -> Arc<NodePods> {
        Arc::new(NodePods {
            node,
            cri,
            pods,
            probes,
        })
    }

    async fn observe(&self, namespace: &str, name: &str, container: &str) -> Result<Observed, PodsError> {
        let absent = || PodsError::NotFound(format!("pod {} does not exist", api::field::quote(name)));
        let pod = self.pods.get(namespace, name).ok_or_else(absent)?;
        if role_of(&pod, container).is_none() {
            let (container, name) = (api::field::quote(container), api::field::quote(name));
            return Err(PodsError::NotFound(format!(
                "container {container} not found in pod {name}"
            )));
        }
        let observed = Observed::of_pod(&self.cri, identity(&pod).2).await;
        observed.map_err(|error| PodsError::Internal(error.to_string()))
    }
}

/// The run that the pod's status tells of as the container's last one.
fn told_last(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let found = lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|own| own.name == container)?;
    let id = found.last_state.as_ref()?.terminated.as_ref()?.container_id.as_ref()?;
    Some(id.rsplit('/').next().unwrap_or(id).to_owned())
}

/// What `--previous` means: the last state that the status tells of, and before it does, the run before the newest.
/// Source: `pkg/kubelet/kubelet_pods.go` (`validateContainerLogStatus`).
fn previous_run<'a>(observed: &'a Observed, container: &'a str, told: Option<&str>) -> Option<&'a observed::Run> {
    let of_status = told.and_then(|told| observed.runs_of(container).find(|run| run.id == told));
    of_status.or_else(|| observed.runs_of(container).nth(1))
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
            let told = self.pods.get(namespace, pod).and_then(|pod| told_last(&pod, container));
            let (quoted, pod) = (api::field::quote(container), api::field::quote(pod));
            if previous {
                let none = || format!("previous terminated container {quoted} in pod {pod} not found");
                let found = previous_run(&observed, container, told.as_deref());
                return found.map(run).ok_or_else(|| PodsError::BadRequest(none()));
            }
            let mut runs = observed.runs_of(container).filter(|run| run.state != RunState::Created);
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

    fn sandbox<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, Result<String, PodsError>> {
        Box::pin(async move {
            let none = || {
                PodsError::NotFound(format!(
                    "pod not found ({})",
                    api::field::quote(&format!("{pod}_{namespace}"))
                ))
            };
            let found = self.pods.get(namespace, pod).ok_or_else(none)?;
            let observed = Observed::of_pod(&self.cri, identity(&found).2).await;
            let observed = observed.map_err(|error| PodsError::Internal(error.to_string()))?;
            observed
                .ready_sandbox()
                .map(|sandbox| sandbox.id.clone())
                .ok_or_else(none)
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

    fn probe_metrics(&self) -> String {
        self.probes.text()
    }

    fn node_name(&self) -> String {
        self.node.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_run_before_is_the_one_that_the_status_tells_of() {
        let run = |id: &str, state| observed::Run {
            id: id.into(),
            name: "c".into(),
            state,
            ..observed::Run::default()
        };
        let observed = |newest| Observed {
            runs: vec![run("new", newest), run("old", RunState::Exited)],
            ..Observed::default()
        };
        for (newest, last, expect) in [
            (RunState::Running, None, Some("old")),
            (RunState::Created, None, Some("old")),
            (RunState::Running, Some("old"), Some("old")),
            // It waits for its next run: the one that ended is the last.
            (RunState::Exited, Some("new"), Some("new")),
            (RunState::Running, Some("removed"), Some("old")),
        ] {
            let last_state = last.map_or(
                json!({}),
                |id| json!({"terminated": {"exitCode": 1, "containerID": format!("trireme://{id}")}}),
            );
            let pod: Pod = serde_json::from_value(json!({"status": {"containerStatuses": [{
                "name": "c", "ready": false, "image": "", "imageID": "", "restartCount": 1, "lastState": last_state,
            }]}}))
            .unwrap();
            let told = told_last(&pod, "c");
            assert_eq!(told.as_deref(), last);
            let observed = observed(newest);
            let found = previous_run(&observed, "c", told.as_deref()).map(|run| run.id.as_str());
            assert_eq!(found, expect, "{newest:?} {last:?}");
        }
    }
}
