//! The taint eviction controller: pods that do not tolerate a NoExecute taint of their node leave it, at once or when the
//! time they tolerate it is over.
//!
//! Source: `pkg/controller/tainteviction`. The time counts from when the taint was added (where it says), so that it does
//! not begin again when this program is restarted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use client::events::ObjectReference;
use client::informer::{Delta, Informer};
use client::k8s_openapi::api::core::v1::Toleration;
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, Meta, resources};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{Context, Name, name_of, synced};
use crate::pod_gc::{NODE_INDEX, add_node_index, disruption};
use crate::views::{Node, Pod, Taint};

const WORKERS: usize = 16;

/// Whether the toleration tolerates the taint. Source: `Toleration.ToleratesTaint`.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == taint.value,
        _ => false,
    }
}

/// When a pod must leave.
#[derive(Debug, PartialEq)]
enum Leave {
    Never,
    Now,
    At(Timestamp),
}

/// Decides by the tolerations and the taints of the node. `now` stands for when a taint was added that does not say.
fn leave(tolerations: &[Toleration], taints: &[Taint], now: Timestamp) -> Leave {
    let taints: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == "NoExecute").collect();
    let mut used: Vec<&Toleration> = Vec::new();
    for taint in &taints {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|one| tolerates(one, taint)).collect();
        if matching.is_empty() {
            return Leave::Now;
        }
        used.extend(matching);
    }
    let Some(seconds) = used.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
        return Leave::Never;
    };
    if seconds <= 0 {
        return Leave::Now;
    }
    let since = taints
        .iter()
        .filter_map(|taint| taint.time_added.as_ref())
        .map(|time| time.0)
        .max()
        .unwrap_or(now);
    match since.checked_add(SignedDuration::from_secs(seconds)) {
        Ok(at) if at <= now => Leave::Now,
        Ok(at) => Leave::At(at),
        Err(_) => Leave::Never,
    }
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let pods = context.informers.informer::<Pod>();
    let nodes = context.informers.informer::<Node>();
    add_node_index(&pods);
    let queue = WorkQueue::<Name>::new().named("noexec_taint_pod");
    context.watch(&pods, {
        let queue = queue.clone();
        move |delta| {
            let (pod, changed) = match &delta {
                Delta::Added(pod) => (pod, true),
                Delta::Updated { old, new } => {
                    let changed =
                        old.spec.node_name != new.spec.node_name || old.spec.tolerations != new.spec.tolerations;
                    (new, changed)
                }
                _ => return,
            };
            if changed && !pod.spec.node_name.is_empty() {
                queue.add(name_of(&**pod));
            }
        }
    });
    context.watch(&nodes, {
        let (queue, pods) = (queue.clone(), pods.clone());
        move |delta| {
            let node = match &delta {
                Delta::Added(node) => node,
                Delta::Updated { old, new } if old.spec.taints != new.spec.taints => new,
                _ => return,
            };
            let pods = pods.indexed(NODE_INDEX, node.metadata.name());
            pods.iter().for_each(|pod| queue.add(name_of(&**pod)));
        }
    });
    let ready = vec![synced(&pods), synced(&nodes)];
    let controller = Arc::new(Controller {
        context: context.clone(),
        pods,
        nodes,
        scheduled: Mutex::default(),
    });
    context.work(queue, ready, WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

struct Controller {
    context: Context,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// Uids of pods that were told to have to leave later; only for the event that takes it back.
    scheduled: Mutex<HashSet<String>>,
}

impl Controller {
    async fn sync(&self, key: &Name) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(&key.0, &key.1) else {
            return Ok(Next::Wait);
        };
        let uid = pod.metadata.uid();
        let Some(node) = self
            .nodes
            .get("", &pod.spec.node_name)
            .filter(|_| !pod.metadata.is_deleting())
        else {
            self.scheduled.lock().remove(uid);
            return Ok(Next::Wait);
        };
        let now = self.context.clock.now();
        match leave(&pod.spec.tolerations, &node.spec.taints, now) {
            Leave::Never => {
                if self.scheduled.lock().remove(uid) {
                    let about = ObjectReference::to(&resources::PODS, &pod.metadata);
                    let text = format!("Cancelling deletion of Pod {}/{}", key.0, key.1);
                    self.context.recorder.normal(about, "TaintManagerEviction", text);
                }
                Ok(Next::Wait)
            }
            Leave::At(at) => {
                self.scheduled.lock().insert(uid.to_string());
                Ok(Next::After(
                    Duration::try_from(at.duration_since(now)).unwrap_or_default(),
                ))
            }
            Leave::Now => {
                self.scheduled.lock().remove(uid);
                self.evict(&pod).await
            }
        }
    }

    async fn evict(&self, pod: &Pod) -> Result<Next, Error> {
        let (namespace, name) = (pod.metadata.namespace(), pod.metadata.name());
        let about = ObjectReference::to(&resources::PODS, &pod.metadata);
        let text = format!("Marking for deletion Pod {namespace}/{name}");
        self.context.recorder.normal(about, "TaintManagerEviction", text);
        let message = "Taint manager: deleting due to NoExecute taint";
        let edit = json!({
            "metadata": {"uid": pod.metadata.uid()},
            "status": {"conditions": [disruption(&self.context.now_text(), "DeletionByTaintManager", message)]},
        });
        let client = &self.context.client;
        match client.patch_status(&resources::PODS, namespace, name, &edit).await {
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(Next::Wait),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        match client
            .delete(
                &resources::PODS,
                namespace,
                name,
                &DeleteParams::uid(pod.metadata.uid()),
            )
            .await
        {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Next::Wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::Value;

    use super::*;

    fn check(tolerations: Value, taints: Value, expect: Leave) {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let read: Vec<Toleration> = serde_json::from_value(tolerations.clone()).unwrap();
        let taints: Vec<Taint> = serde_json::from_value(taints).unwrap();
        assert_eq!(leave(&read, &taints, now), expect, "{tolerations}");
    }

    #[test]
    fn who_leaves_when() {
        let taint = || json!([{"key": "gone", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:30Z"}]);
        let tolerate = |seconds: i64| json!([{"key": "gone", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        check(json!([]), json!([]), Leave::Never);
        check(json!([]), json!([{"key": "x", "effect": "NoSchedule"}]), Leave::Never);
        check(json!([]), taint(), Leave::Now);
        check(
            tolerate(300),
            taint(),
            Leave::At("2026-01-01T00:05:30Z".parse().unwrap()),
        );
        check(tolerate(20), taint(), Leave::Now);
        check(tolerate(0), taint(), Leave::Now);
        check(tolerate(-1), taint(), Leave::Now);
        check(json!([{"operator": "Exists"}]), taint(), Leave::Never);
        check(
            json!([{"key": "gone", "operator": "Equal", "value": "other"}]),
            taint(),
            Leave::Now,
        );
        check(json!([{"key": "gone"}]), taint(), Leave::Never);
        check(
            json!([{"key": "gone", "operator": "Exists", "effect": "NoSchedule"}]),
            taint(),
            Leave::Now,
        );
        let two = json!([{"key": "gone", "effect": "NoExecute"}, {"key": "more", "effect": "NoExecute"}]);
        check(tolerate(300), two, Leave::Now);
    }
}
