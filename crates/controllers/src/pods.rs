//! What the controllers ask of a pod. Pure.

use jiff::Timestamp;

use crate::views::{Pod, condition};

/// Whether the pod has ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// Neither ended nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether the Ready condition is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(&pod.status.conditions, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when the pod is ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(&pod.status.conditions, "Ready").filter(|condition| condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// When the pod has been ready for `min_ready_seconds`; `None` when it is not ready.
/// Source: `pkg/api/v1/pod/util.go` `IsPodAvailable`.
pub(crate) fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds == 0 {
        return Some(Timestamp::MIN);
    }
    let span = jiff::SignedDuration::from_secs(min_ready_seconds.into());
    ready_since(pod)?.checked_add(span).ok()
}

/// Whether the pod has been ready for `min_ready_seconds`.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}
