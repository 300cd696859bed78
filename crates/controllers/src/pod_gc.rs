//! The pod garbage collector: pods that no kubelet will ever end are removed here.
//!
//! Source: `pkg/controller/podgc/gc_controller.go`. Upstream looks at all pods every 20 s; here news of pods and nodes say
//! what to look at.

use std::sync::Arc;
use std::time::Duration;

use client::informer::{Delta, Informer};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, Meta, resources};
use serde_json::json;

use crate::context::{Context, Name, name_of, synced};
use crate::pods::is_terminal;
use crate::views::{Node, Pod, condition};

const WORKERS: usize = 8;
/// The index of pods by their node; shared with other controllers.
pub(crate) const NODE_INDEX: &str = "node";
/// The index of pods that have ended.
const TERMINAL_INDEX: &str = "terminal";
/// A node that is missing may be about to register: so long its pods are left alone. Source: `quarantineTime`.
const QUARANTINE: Duration = Duration::from_secs(40);
/// An administrator says that the node's pods will not come back.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Indexes pods by their node.
pub(crate) fn add_node_index(pods: &Informer<Pod>) {
    pods.add_index(NODE_INDEX, |pod, add| {
        if !pod.spec.node_name.is_empty() {
            add(&pod.spec.node_name);
        }
    });
}

/// What to do about one pod.
#[derive(Debug, PartialEq)]
enum Verdict {
    Leave,
    /// Its node is missing: look again, and remove it if the node still is.
    Quarantine,
    /// Remove it at once. With the reason for its status, when it did not end by itself.
    Remove(Option<(&'static str, &'static str)>),
}

fn judge(pod: &Pod, node: Option<&Node>) -> Verdict {
    if pod.spec.node_name.is_empty() {
        return if pod.metadata.is_deleting() {
            Verdict::Remove(None)
        } else {
            Verdict::Leave
        };
    }
    let Some(node) = node else { return Verdict::Quarantine };
    let ready = condition(&node.status.conditions, "Ready").is_some_and(|ready| ready.status == "True");
    let out_of_service = node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
    if pod.metadata.is_deleting() && !ready && out_of_service {
        let text = "PodGC: node is out-of-service";
        return Verdict::Remove(Some(("DeletionByPodGC", text)));
    }
    Verdict::Leave
}

/// The oldest of the pods that ended, beyond the number that is kept.
fn surplus(mut ended: Vec<Arc<Pod>>, max: usize) -> Vec<Arc<Pod>> {
    if max == 0 || ended.len() <= max {
        return Vec::new();
    }
    ended.sort_by_key(|pod| {
        (
            pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            pod.metadata.name.clone(),
        )
    });
    ended.truncate(ended.len() - max);
    ended
}

/// Starts the controller.
pub(crate) fn start(context: Context, terminated_max: usize) {
    let pods = context.informers.informer::<Pod>();
    let nodes = context.informers.informer::<Node>();
    add_node_index(&pods);
    pods.add_index(TERMINAL_INDEX, |pod, add| {
        if is_terminal(pod) {
            add("");
        }
    });
    let queue = WorkQueue::<Name>::new().named("orphaned_pods_nodes");
    context.watch(&pods, {
        let (queue, pods) = (queue.clone(), pods.clone());
        move |delta| match &delta {
            Delta::Added(pod) | Delta::Updated { new: pod, .. } => {
                let was_terminal = matches!(&delta, Delta::Updated { old, .. } if is_terminal(old));
                let node_changed = match &delta {
                    Delta::Updated { old, .. } => old.spec.node_name != pod.spec.node_name,
                    _ => true,
                };
                if pod.metadata.is_deleting() || node_changed {
                    queue.add(name_of(&**pod));
                }
                if is_terminal(pod) && !was_terminal && terminated_max > 0 {
                    let surplus = surplus(pods.indexed(TERMINAL_INDEX, ""), terminated_max);
                    surplus.iter().for_each(|pod| queue.add(name_of(&**pod)));
                }
            }
            _ => {}
        }
    });
    context.watch(&nodes, {
        let (queue, pods) = (queue.clone(), pods.clone());
        move |delta| {
            let concerned = match &delta {
                Delta::Deleted(node) => Some(node),
                Delta::Added(node) | Delta::Updated { new: node, .. } => node
                    .spec
                    .taints
                    .iter()
                    .any(|taint| taint.key == OUT_OF_SERVICE)
                    .then_some(node),
                Delta::Synced => None,
            };
            let pods = concerned
                .map(|node| pods.indexed(NODE_INDEX, node.metadata.name()))
                .unwrap_or_default();
            pods.iter().for_each(|pod| queue.add(name_of(&**pod)));
        }
    });
    let ready = vec![synced(&pods), synced(&nodes)];
    let collector = Arc::new(Collector {
        context: context.clone(),
        pods,
        nodes,
        terminated_max,
        missing: parking_lot::Mutex::default(),
    });
    context.work(queue, ready, WORKERS, move |key| {
        let collector = collector.clone();
        async move { collector.sync(&key).await }
    });
}

struct Collector {
    context: Context,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    terminated_max: usize,
    /// Since when nodes that pods name are missing.
    missing: parking_lot::Mutex<std::collections::HashMap<String, tokio::time::Instant>>,
}

impl Collector {
    async fn sync(&self, key: &Name) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(&key.0, &key.1) else {
            return Ok(Next::Wait);
        };
        let ended = self.pods.indexed(TERMINAL_INDEX, "");
        if is_terminal(&pod)
            && surplus(ended, self.terminated_max)
                .iter()
                .any(|surplus| surplus.metadata.uid == pod.metadata.uid)
        {
            return self.remove(&pod, None).await;
        }
        let node_name = &pod.spec.node_name;
        let node = self.nodes.get("", node_name);
        if node.is_some() {
            self.missing.lock().remove(node_name);
        }
        match judge(&pod, node.as_deref()) {
            Verdict::Leave => Ok(Next::Wait),
            Verdict::Remove(why) => self.remove(&pod, why).await,
            Verdict::Quarantine => {
                let now = tokio::time::Instant::now();
                let since = *self.missing.lock().entry(node_name.clone()).or_insert(now);
                let left = QUARANTINE.saturating_sub(now - since);
                if !left.is_zero() {
                    return Ok(Next::After(left));
                }
                // The copy may be behind: only the server's word ends a pod.
                match self.context.client.get::<Node>("", node_name).await {
                    Ok(_) => Ok(Next::Wait),
                    Err(error) if error.is_not_found() => {
                        self.remove(&pod, Some(("DeletionByPodGC", "PodGC: node no longer exists")))
                            .await
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn remove(&self, pod: &Pod, why: Option<(&str, &str)>) -> Result<Next, Error> {
        let (namespace, name) = (pod.metadata.namespace(), pod.metadata.name());
        let client = &self.context.client;
        if let Some((reason, message)) = why.filter(|_| !is_terminal(pod)) {
            let edit = json!({"metadata": {"uid": pod.metadata.uid()}, "status": {
                "phase": "Failed",
                "conditions": [disruption(&self.context.now_text(), reason, message)],
            }});
            match client.patch_status(&resources::PODS, namespace, name, &edit).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => return Ok(Next::Wait),
                Err(error) => return Err(error),
            }
        }
        let params = DeleteParams::uid(pod.metadata.uid()).grace(0);
        match client.delete(&resources::PODS, namespace, name, &params).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        Ok(Next::Wait)
    }
}

/// The condition that says that a pod was ended from outside.
pub(crate) fn disruption(now: &str, reason: &str, message: &str) -> api::Value {
    json!({
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastTransitionTime": now,
    })
}

#[cfg(test)]
mod tests {
    use api::Value;

    use super::*;
    use crate::testkit::Bench;

    fn pod(name: &str, node: &str, phase: &str) -> Value {
        let mut spec = json!({});
        if !node.is_empty() {
            spec["nodeName"] = node.into();
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec,
            "status": {"phase": phase}})
    }

    #[test]
    fn verdicts() {
        let read = |value: Value| serde_json::from_value::<Pod>(value).unwrap();
        let mut going = pod("a", "", "Pending");
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut stuck = pod("a", "n", "Running");
        stuck["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let node = |ready: &str, taint: &str| -> Node {
            serde_json::from_value(json!({"spec": {"taints": [{"key": taint}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        let out = Verdict::Remove(Some(("DeletionByPodGC", "PodGC: node is out-of-service")));
        for (pod, node, expect) in [
            (read(pod("a", "", "Pending")), None, Verdict::Leave),
            (read(going), None, Verdict::Remove(None)),
            (read(pod("a", "n", "Running")), None, Verdict::Quarantine),
            (
                read(pod("a", "n", "Running")),
                Some(node("Unknown", OUT_OF_SERVICE)),
                Verdict::Leave,
            ),
            (read(stuck.clone()), Some(node("Unknown", OUT_OF_SERVICE)), out),
            (read(stuck.clone()), Some(node("True", OUT_OF_SERVICE)), Verdict::Leave),
            (read(stuck), Some(node("Unknown", "other")), Verdict::Leave),
        ] {
            assert_eq!(judge(&pod, node.as_ref()), expect, "{pod:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pods_of_a_missing_node_go_after_the_quarantine() {
        let bench = Bench::new();
        start(bench.context("pod-garbage-collector"), 2);
        bench
            .api
            .put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}));
        bench.api.put(pod("stays", "n", "Running"));
        bench.api.put(pod("late", "other", "Running"));
        bench.api.put(pod("orphan", "gone", "Running"));
        tokio::time::sleep(Duration::from_secs(39)).await;
        bench
            .api
            .put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other"}}));
        assert_eq!(bench.pod_names().len(), 3);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(bench.pod_names(), ["late", "stays"]);
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn finished_pods_beyond_the_limit_go_oldest_first() {
        let bench = Bench::new();
        start(bench.context("pod-garbage-collector"), 2);
        bench
            .api
            .put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}));
        for name in ["a", "b", "c", "d"] {
            bench.api.put(pod(name, "n", "Succeeded"));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        bench.api.put(pod("e", "n", "Running"));
        bench.idle().await;
        assert_eq!(bench.pod_names(), ["c", "d", "e"]);
        bench.end().await;
    }
}
