//! How many pods a replica set is short of or has too many, which go first, and what its status says. Pure.
//!
//! Source of the rules: `pkg/controller/replicaset` and `pkg/controller/controller_utils.go`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use client::{Meta, Resource};
use jiff::Timestamp;
use serde_json::json;

use crate::pods::{available_at, is_active, is_available, is_ready, ready_since};
use crate::views::{Pod, ReplicaSet, ReplicaSetStatus, WorkloadCondition};

/// Pods created or deleted in one go. Source: `BurstReplicas`.
pub(super) const BURST_MAX: usize = 500;
/// Its value (an integer) says how much a pod's deletion costs.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What to do about the number of pods.
#[derive(Debug)]
pub(super) enum Scale {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Compares wish and pods. `active` are the set's own active pods, `related` the active pods of all sets with the same
/// controller (a deployment's other revisions), the set's own included.
pub(super) fn scale(set: &ReplicaSet, active: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Scale {
    if set.metadata.is_deleting() {
        return Scale::Nothing;
    }
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    match active.len().cmp(&wanted) {
        Ordering::Equal => Scale::Nothing,
        Ordering::Less => Scale::Create((wanted - active.len()).min(BURST_MAX)),
        Ordering::Greater => {
            let count = (active.len() - wanted).min(BURST_MAX);
            Scale::Delete(first_to_go(active, related, now, count))
        }
    }
}

/// The pods whose loss hurts least. Source: `ActivePodsWithRanks.Less`.
fn first_to_go(active: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp, count: usize) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(&pod.spec.node_name).or_default() += 1;
    }
    let crowd = |pod: &Pod| on_node.get(pod.spec.node_name.as_str()).copied().unwrap_or(0);
    let mut pods = active.to_vec();
    if count < pods.len() {
        pods.sort_by(|a, b| {
            let assigned = |pod: &Pod| !pod.spec.node_name.is_empty();
            assigned(a)
                .cmp(&assigned(b))
                .then(phase_rank(a).cmp(&phase_rank(b)))
                .then(is_ready(a).cmp(&is_ready(b)))
                .then(deletion_cost(a).cmp(&deletion_cost(b)))
                .then(crowd(b).cmp(&crowd(a)))
                .then_with(|| younger(ready_since(a), ready_since(b), is_ready(a) && is_ready(b), now))
                .then(restarts(b).cmp(&restarts(a)))
                .then_with(|| younger(created(a), created(b), true, now))
                .then_with(|| a.metadata.uid().cmp(b.metadata.uid()))
        });
    }
    pods.truncate(count);
    pods
}

fn phase_rank(pod: &Pod) -> u8 {
    match pod.status.phase.as_str() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(DELETION_COST)?.parse().ok())
        .unwrap_or(0)
}

fn restarts(pod: &Pod) -> i64 {
    pod.status
        .container_statuses
        .iter()
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Younger first, but ages of the same magnitude (base 2) count as equal, so that it is not always the same pods.
/// Source: `logarithmicRankDiff`.
fn younger(a: Option<Timestamp>, b: Option<Timestamp>, compare: bool, now: Timestamp) -> Ordering {
    if !compare || a == b {
        return Ordering::Equal;
    }
    let (Some(a), Some(b)) = (a, b) else {
        // A pod without a time counts as the youngest.
        return a.is_some().cmp(&b.is_some());
    };
    let rank = |at: Timestamp| {
        let nanoseconds = now.as_nanosecond() - at.as_nanosecond();
        if nanoseconds > 0 {
            i64::from(nanoseconds.ilog2())
        } else {
            -1
        }
    };
    rank(a).cmp(&rank(b))
}

/// The status that the pods make. `terminating` is told by the newer kind only; `failure` is what went wrong in this
/// round, as (reason, message).
pub(super) fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: Option<usize>,
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let labels = set.spec.template.pointer("/metadata/labels").and_then(Value::as_object);
    let fully_labeled = |pod: &Arc<Pod>| {
        labels
            .into_iter()
            .flatten()
            .all(|(key, value)| value.as_str() == pod.metadata.label(key))
    };
    let count = |wanted: &dyn Fn(&Arc<Pod>) -> bool| {
        i32::try_from(active.iter().filter(|pod| wanted(pod)).count()).unwrap_or(i32::MAX)
    };
    let mut conditions = set.status.conditions.clone();
    let had = conditions.iter().any(|condition| condition.kind == "ReplicaFailure");
    match failure {
        Some((reason, message)) if !had => conditions.push(WorkloadCondition {
            kind: "ReplicaFailure".into(),
            status: "True".into(),
            reason: reason.into(),
            message,
            last_transition_time: Some(now.into()),
            last_update_time: None,
        }),
        None if had => conditions.retain(|condition| condition.kind != "ReplicaFailure"),
        _ => {}
    }
    ReplicaSetStatus {
        observed_generation: set.metadata.generation.unwrap_or(0),
        replicas: count(&|_| true),
        fully_labeled_replicas: count(&fully_labeled),
        ready_replicas: count(&|pod| is_ready(pod)),
        available_replicas: count(&|pod| is_available(pod, set.spec.min_ready_seconds, now)),
        terminating_replicas: terminating.map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
        conditions,
    }
}

/// When the next ready pod becomes available.
pub(super) fn next_available(set: &ReplicaSet, active: &[Arc<Pod>], now: Timestamp) -> Option<Timestamp> {
    let times = active
        .iter()
        .filter_map(|pod| available_at(pod, set.spec.min_ready_seconds));
    times.filter(|at| *at > now).min()
}

/// Whether both say the same; a server that does not know `terminatingReplicas` drops it.
pub(super) fn same_status(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let known = |status: &ReplicaSetStatus| ReplicaSetStatus {
        terminating_replicas: Some(status.terminating_replicas.unwrap_or(0)),
        ..status.clone()
    };
    known(a) == known(b)
}

/// The edit of the status.
pub(super) fn status_edit(set: &ReplicaSet, status: &ReplicaSetStatus) -> Value {
    let mut edit = json!({
        "metadata": {"resourceVersion": set.metadata.resource_version(), "uid": set.metadata.uid()},
        "status": {
            "observedGeneration": status.observed_generation, "replicas": status.replicas,
            "fullyLabeledReplicas": status.fully_labeled_replicas, "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas,
            "conditions": status.conditions.iter().map(condition_value).collect::<Vec<_>>(),
        },
    });
    if let Some(terminating) = status.terminating_replicas {
        edit["status"]["terminatingReplicas"] = terminating.into();
    }
    edit
}

/// A condition as it is written.
pub(crate) fn condition_value(condition: &WorkloadCondition) -> Value {
    let mut value = json!({"type": condition.kind, "status": condition.status});
    let time = |at: &client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time| crate::context::time_text(at.0);
    if let Some(at) = &condition.last_update_time {
        value["lastUpdateTime"] = time(at).into();
    }
    if let Some(at) = &condition.last_transition_time {
        value["lastTransitionTime"] = time(at).into();
    }
    for (key, text) in [("reason", &condition.reason), ("message", &condition.message)] {
        if !text.is_empty() {
            value[key] = text.as_str().into();
        }
    }
    value
}

/// A new pod from the set's template, under this name.
pub(super) fn new_pod(resource: &Resource, set: &ReplicaSet, name: &str) -> Value {
    let template = &set.spec.template;
    let mut metadata = json!({
        "name": name,
        "generateName": format!("{}-", set.metadata.name()),
        "namespace": set.metadata.namespace(),
        "ownerReferences": [crate::owners::controller_reference(resource, &set.metadata)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")) {
            metadata[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}
