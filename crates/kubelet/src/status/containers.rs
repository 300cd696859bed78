//! The status of one container: its state, the state before, and how often it was started.

use serde_json::{Value, json};

use client::k8s_openapi::api::core::v1::{Container, Pod};

use super::{Known, nanoseconds};
use crate::observed::{Observed, Run};
use crate::plan::{Defined, Role};
use crate::restart;

/// Why a container without a run does not start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// In one word: `ErrImagePull`, `CreateContainerConfigError`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Source: `pkg/kubelet/kubelet_pods.go` (`RestartingAllContainers`).
const RESTARTING_ALL: &str = "RestartingAllContainers";
const RESTARTING_ALL_MESSAGE: &str = "The container is removed because RestartAllContainers in place";

/// The name before the ids of containers, as upstream's `docker://`.
pub const RUNTIME: &str = "trireme";

/// The status of a container; `over`: the pod's phase is final.
pub fn status(pod: &Pod, defined: &Defined, observed: &Observed, known: &Known, over: bool) -> Value {
    let name = &defined.container.name;
    let past = observed.latest_past(name);
    // What still runs of before a restart of all containers is shown as long as it does.
    let latest = observed.latest(name).or(past.filter(|run| run.is_running()));
    let before = observed.runs_of(name).nth(usize::from(latest.is_some()));
    let mut state = state(pod, defined, latest, known, over);
    if latest.is_none() && past.is_some() && !known.waiting.contains_key(name) {
        state = json!({"waiting": {"reason": RESTARTING_ALL, "message": RESTARTING_ALL_MESSAGE}});
    }
    let mut last = before.map(|run| {
        let mut last = terminated(run, known);
        if past.is_some_and(|past| past.id == run.id) {
            last["reason"] = json!(RESTARTING_ALL);
            last["message"] = json!(RESTARTING_ALL_MESSAGE);
        }
        last
    });
    // While a container waits for its next run, the one that ended is its last state.
    if state["waiting"].is_object()
        && let Some(run) = latest.filter(|run| run.is_over())
    {
        last = Some(terminated(run, known));
    }
    if known.ending && latest.is_none() && state["waiting"].is_object() {
        state = json!({"waiting": state["waiting"]});
    }
    let running = latest.is_some_and(Run::is_running);
    let started = running && known.started.get(name).copied().unwrap_or(false);
    // A probe that passed a moment before the end still counts: the pod's Ready condition says what clients act on.
    let ready = match defined.role {
        Role::Init => latest.is_some_and(Run::succeeded),
        Role::Ephemeral => false,
        _ => running && started && known.ready.get(name).copied().unwrap_or(false),
    };
    let image = latest.map(|run| run.image.clone()).filter(|image| !image.is_empty());
    let mut status = json!({
        "name": name,
        "state": state,
        "lastState": last.map_or(json!({}), |last| json!({"terminated": last})),
        "ready": ready,
        "restartCount": latest.map(|run| run.attempt).or(past.map(|run| run.attempt + 1)).unwrap_or(0),
        "image": image.or_else(|| defined.container.image.clone()).unwrap_or_default(),
        "imageID": latest.map(|run| run.image_ref.clone()).unwrap_or_default(),
    });
    // Source: `pkg/kubelet/prober/prober_manager.go` (`UpdatePodStatus`), which says nothing of ephemeral containers.
    match defined.role {
        Role::Init => status["started"] = json!(latest.is_some_and(Run::is_running)),
        Role::Ephemeral => {}
        _ => status["started"] = json!(started),
    }
    if let Some(run) = latest {
        status["containerID"] = json!(format!("{RUNTIME}://{}", run.id));
        tell_allotment(&mut status, &defined.container, run, known);
    }
    status
}

/// What a container was given: resources, user and volumes.
/// Source: `kubelet_pods.go` (`convertToAPIContainerStatuses`, with the gates of 1.36).
fn tell_allotment(status: &mut Value, container: &Container, run: &Run, known: &Known) {
    let own = || container.resources.clone().unwrap_or_default();
    let allocated = known.resize.allocated.get(&container.name).cloned();
    let allocated = allocated.unwrap_or_else(own);
    let resources = known.resize.actual.get(&container.name).unwrap_or(&allocated);
    if let Some(requests) = allocated.requests.as_ref().filter(|requests| !requests.is_empty()) {
        status["allocatedResources"] = json!(requests);
    }
    let mut given = json!({});
    for (name, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        if let Some(amounts) = amounts.as_ref().filter(|amounts| !amounts.is_empty()) {
            given[name] = json!(amounts);
        }
    }
    status["resources"] = given;
    if let Some((uid, gid, groups)) = &run.user {
        status["user"] = json!({"linux": {"uid": uid, "gid": gid}});
        if !groups.is_empty() {
            status["user"]["linux"]["supplementalGroups"] = json!(groups);
        }
    }
    let mounts = container.volume_mounts.iter().flatten().map(|mount| {
        let mut told = json!({"name": mount.name, "mountPath": mount.mount_path});
        if mount.read_only == Some(true) {
            told["readOnly"] = json!(true);
            let recursive = match mount.recursive_read_only.as_deref() {
                // If possible: it is, wherever the runtime says so of itself.
                Some("Enabled" | "IfPossible") => "Enabled",
                _ => "Disabled",
            };
            told["recursiveReadOnly"] = json!(recursive);
        }
        told
    });
    let mounts: Vec<Value> = mounts.collect();
    if !mounts.is_empty() {
        status["volumeMounts"] = json!(mounts);
    }
}

fn state(pod: &Pod, defined: &Defined, latest: Option<&Run>, known: &Known, over: bool) -> Value {
    let name = &defined.container.name;
    match latest {
        Some(run) if run.is_running() => json!({"running": {"startedAt": nanoseconds(run.started_at)}}),
        Some(run) if run.is_over() => {
            let again = !known.ending && !over && restart::restarts_in(pod, defined.role, &defined.container, run);
            if !again {
                return json!({"terminated": terminated(run, known)});
            }
            if let Some(waiting) = known.waiting.get(name) {
                return waiting_state(waiting);
            }
            match known.pauses.get(name) {
                Some(pause) => json!({"waiting": {
                    "reason": "CrashLoopBackOff",
                    "message": format!(
                        "back-off {} restarting failed container={name} pod={}_{}({})",
                        duration(pause.seconds),
                        pod.metadata.name.as_deref().unwrap_or(""),
                        pod.metadata.namespace.as_deref().unwrap_or(""),
                        pod.metadata.uid.as_deref().unwrap_or(""),
                    ),
                }}),
                // Between two runs, without a pause: it is as it ended.
                None => json!({"terminated": terminated(run, known)}),
            }
        }
        _ => match known.waiting.get(name) {
            Some(waiting) => waiting_state(waiting),
            None => {
                let has_init = pod
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.init_containers.iter().flatten().count() > 0);
                let reason = if has_init {
                    "PodInitializing"
                } else {
                    "ContainerCreating"
                };
                json!({"waiting": {"reason": reason}})
            }
        },
    }
}

fn waiting_state(waiting: &Waiting) -> Value {
    let mut state = json!({"waiting": {"reason": waiting.reason}});
    if !waiting.message.is_empty() {
        state["waiting"]["message"] = json!(waiting.message);
    }
    state
}

fn terminated(run: &Run, known: &Known) -> Value {
    let reason = match (&*run.reason, run.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let mut terminated = json!({
        "exitCode": run.exit_code, "reason": reason, "startedAt": nanoseconds(run.started_at),
        "finishedAt": nanoseconds(run.finished_at), "containerID": format!("{RUNTIME}://{}", run.id),
    });
    let words = known.last_words.get(&run.id).filter(|words| !words.is_empty());
    if let Some(message) = words.or(Some(&run.message)).filter(|message| !message.is_empty()) {
        terminated["message"] = json!(message);
    }
    terminated
}

/// Seconds as Go writes durations: `10s`, `1m20s`, `5m0s`.
fn duration(seconds: u64) -> String {
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_was_given_is_told() {
        let check = |container: Value, user, expect: Value| {
            let container: Container = serde_json::from_value(container).unwrap();
            let run = Run { user, ..Run::default() };
            let mut status = json!({});
            tell_allotment(&mut status, &container, &run, &Known::default());
            assert_eq!(status, expect, "{container:?}");
        };
        check(json!({"name": "a"}), None, json!({"resources": {}}));
        check(
            json!({
                "name": "a", "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "1"}},
                "volumeMounts": [
                    {"name": "v", "mountPath": "/v"}, {"name": "r", "mountPath": "/r", "readOnly": true},
                    {"name": "e", "mountPath": "/e", "readOnly": true, "recursiveReadOnly": "Enabled"},
                ],
            }),
            Some((1, 2, vec![2, 3])),
            json!({
                "allocatedResources": {"cpu": "10m"},
                "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "1"}},
                "user": {"linux": {"uid": 1, "gid": 2, "supplementalGroups": [2, 3]}},
                "volumeMounts": [
                    {"name": "v", "mountPath": "/v"},
                    {"name": "r", "mountPath": "/r", "readOnly": true, "recursiveReadOnly": "Disabled"},
                    {"name": "e", "mountPath": "/e", "readOnly": true, "recursiveReadOnly": "Enabled"},
                ],
            }),
        );
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (seconds, expect) in [(10, "10s"), (80, "1m20s"), (300, "5m0s")] {
            assert_eq!(duration(seconds), expect);
        }
    }
}
