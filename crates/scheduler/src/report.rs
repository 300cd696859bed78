//! What a verdict looks like to people: the condition `PodScheduled` and the event.

use client::events::{ObjectReference, Recorder};
use client::{Client, DeleteParams, Error, resources};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::pod::{PREEMPTED, Pod};

/// Reason of the condition when no node fits.
pub const UNSCHEDULABLE: &str = "Unschedulable";
/// Reason of the condition when a gate is closed.
pub const GATED: &str = "SchedulingGated";
/// Reason of the condition when the scheduler failed.
pub const SCHEDULER_ERROR: &str = "SchedulerError";
/// The message of a gated pod.
pub const GATED_MESSAGE: &str = "Scheduling is blocked due to non-empty scheduling gates";

/// A reference to the pod, for events.
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: pod.key.namespace.to_string(),
        name: pod.key.name.to_string(),
        uid: pod.uid.to_string(),
        resource_version: pod.resource_version.clone(),
        field_path: String::new(),
    }
}

/// Tells that no node fits, or that the attempt failed.
pub fn failed(recorder: &Recorder, pod: &Pod, message: &str) {
    recorder.warning(reference(pod), "FailedScheduling", message);
}

/// The patch that brings the condition about, and the node on which room is made; `None` when both are said already.
pub fn condition_patch(pod: &Pod, reason: &str, message: &str, nominated: &str, now: Timestamp) -> Option<Value> {
    let old = pod.scheduled_condition.as_ref();
    let status_same = old.is_some_and(|old| old.status == "False");
    let told = status_same && old.is_some_and(|old| old.reason == reason && old.message == message);
    if told && *pod.nominated == *nominated {
        return None;
    }
    let since = old
        .filter(|_| status_same)
        .and_then(|old| old.last_transition_time.clone());
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut condition = json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or(now),
    });
    if pod.generation > 0 {
        condition["observedGeneration"] = json!(pod.generation);
    }
    let mut patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}});
    if *pod.nominated != *nominated {
        patch["status"]["nominatedNodeName"] = nomination(nominated);
    }
    Some(patch)
}

fn nomination(node: &str) -> Value {
    if node.is_empty() { Value::Null } else { node.into() }
}

/// No room is kept for the pod any more: a more important one takes it.
pub async fn write_no_nomination(client: &Client, pod: &Pod) {
    let patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"nominatedNodeName": nomination("")}});
    write_condition(client, pod, &patch).await;
}

/// Makes a pod go for a more important one: says so in its status, then deletes it. That it is gone is all the better.
pub async fn evict(
    client: &Client,
    recorder: &Recorder,
    victim: &Pod,
    preemptor: &Pod,
    now: Timestamp,
) -> Result<(), Error> {
    let (namespace, name) = (&victim.key.namespace, &victim.key.name);
    let mut condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": PREEMPTED,
        "message": format!("{}: preempting to accommodate a higher priority pod", preemptor.scheduler),
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    if victim.generation > 0 {
        condition["observedGeneration"] = json!(victim.generation);
    }
    let patch = json!({"metadata": {"uid": &*victim.uid}, "status": {"conditions": [condition]}});
    let told = client.patch_status(&resources::PODS, namespace, name, &patch).await;
    let gone = |error: &Error| error.is_not_found() || error.is_conflict();
    match told {
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    match client
        .delete(&resources::PODS, namespace, name, &DeleteParams::uid(&*victim.uid))
        .await
    {
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let text = format!("Preempted by pod {} on node {}", preemptor.uid, victim.node);
    recorder.normal(reference(victim), "Preempted", text);
    Ok(())
}

/// Writes the condition. That the pod is gone meanwhile is no worry.
pub async fn write_condition(client: &Client, pod: &Pod, patch: &Value) {
    let (namespace, name) = (&pod.key.namespace, &pod.key.name);
    let written = client.patch_status(&resources::PODS, namespace, name, patch).await;
    match written {
        Err(error) if !error.is_not_found() && !error.is_conflict() => {
            tracing::warn!(%namespace, %name, %error, "the condition PodScheduled was not written");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::PodView;

    #[test]
    fn the_condition_is_written_once_and_keeps_its_time() {
        let pod = |conditions: Value| {
            let view: PodView = serde_json::from_value(json!({"status": {"conditions": conditions}})).unwrap();
            Pod::of_view(&view)
        };
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let at = |pod: &Pod, message: &str| {
            let patch = condition_patch(pod, UNSCHEDULABLE, message, "", now)?;
            Some(
                patch["status"]["conditions"][0]["lastTransitionTime"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            )
        };
        let told = pod(json!([{
            "type": "PodScheduled", "status": "False", "reason": UNSCHEDULABLE, "message": "m",
            "lastTransitionTime": "2025-01-01T00:00:00Z",
        }]));
        assert_eq!(at(&pod(json!([])), "m").as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(at(&told, "m"), None);
        assert_eq!(at(&told, "other").as_deref(), Some("2025-01-01T00:00:00Z"));
        let patch = condition_patch(&told, UNSCHEDULABLE, "m", "a", now).unwrap();
        assert_eq!(patch["status"]["nominatedNodeName"], "a");
    }
}
