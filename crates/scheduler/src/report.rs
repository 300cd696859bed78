//! What a verdict looks like to people: the condition `PodScheduled` and the event.

use client::events::{ObjectReference, Recorder};
use client::{Client, Patch, resources};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::pod::Pod;

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

/// The patch that brings the condition about; `None` when it says so already.
pub fn condition_patch(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Option<Value> {
    let old = pod.scheduled_condition.as_ref();
    let status_same = old.is_some_and(|old| old.status == "False");
    if status_same && old.is_some_and(|old| old.reason == reason && old.message == message) {
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
    Some(json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}}))
}

/// Writes the condition. That the pod is gone meanwhile is no worry.
pub async fn write_condition(client: &Client, pod: &Pod, patch: &Value) {
    let (namespace, name) = (&pod.key.namespace, &pod.key.name);
    let written = client
        .patch(
            &resources::PODS,
            namespace,
            name,
            Some("status"),
            &Patch::Strategic,
            patch,
        )
        .await;
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
            let patch = condition_patch(pod, UNSCHEDULABLE, message, now)?;
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
    }
}
