//! The conditions of a pod that the kubelet answers for.

use client::k8s_openapi::api::core::v1::{Pod, PodCondition};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Known, time};
use crate::observed::{Observed, Run};
use crate::plan::{Defined, Role, defined};
use crate::restart;

/// The condition of a pod whose containers are all started anew.
const RESTARTING_ALL: &str = "AllContainersRestarting";

/// All conditions, each with the time of its last change.
pub fn conditions(pod: &Pod, observed: &Observed, known: &Known, phase: &str, now: Timestamp) -> Vec<Value> {
    let containers = defined(pod);
    let over = matches!(phase, "Succeeded" | "Failed");
    // What was initialized stays so while its init containers run again.
    let initialized = if !observed.past.is_empty() && phase != "Succeeded" && is_true(pod, "Initialized") {
        Verdict::yes()
    } else {
        initialized(&containers, observed, known, phase)
    };
    let containers_ready = containers_ready(&containers, observed, known, phase, over);
    let ready = ready(pod, &containers_ready);
    let sandbox = observed
        .ready_sandbox()
        .is_some_and(|s| host_network(pod) || !s.ips.is_empty());
    let all = [
        ("PodReadyToStartContainers", Verdict::of(sandbox)),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    let restarting = restart::may_restart_all(pod).then(|| (RESTARTING_ALL, restarting_all(pod, observed, phase)));
    let mut told: Vec<Value> = all
        .into_iter()
        .chain(restarting)
        .map(|(kind, verdict)| verdict.condition(pod, kind, now))
        .collect();
    let resize = [
        ("PodResizePending", &known.resize.pending),
        ("PodResizeInProgress", &known.resize.in_progress),
    ];
    for (kind, state) in resize {
        match state {
            Some((reason, message)) => {
                let verdict = Verdict {
                    holds: true,
                    reason: reason.clone(),
                    message: message.clone(),
                };
                told.push(verdict.condition(pod, kind, now));
            }
            // There is none, unless an earlier one is left: a patch has to say so.
            None if has(pod, kind) => told.push(json!({"type": kind, "$patch": "delete"})),
            None => {}
        }
    }
    told
}

/// Source: `pkg/kubelet/status/generate.go` (`GenerateAllContainersRestartingCondition`).
fn restarting_all(pod: &Pod, observed: &Observed, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => Verdict::no("PodCompleted", ""),
        "Failed" => Verdict::no("PodFailed", ""),
        _ if restart::is_restarting_all(pod, observed) => Verdict {
            holds: true,
            reason: "RestartAllContainersStarted".into(),
            message: "container exited with restart policy rule".into(),
        },
        _ => Verdict::of(false),
    }
}

fn conditions_of(pod: &Pod) -> impl Iterator<Item = &PodCondition> {
    pod.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

fn has(pod: &Pod, kind: &str) -> bool {
    conditions_of(pod).any(|condition| condition.type_ == kind)
}

fn is_true(pod: &Pod, kind: &str) -> bool {
    conditions_of(pod).any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether a condition holds, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Verdict {
    holds: bool,
    reason: String,
    message: String,
}

// === impl Verdict ===

impl Verdict {
    fn yes() -> Verdict {
        Verdict {
            holds: true,
            ..Verdict::default()
        }
    }

    fn of(holds: bool) -> Verdict {
        Verdict {
            holds,
            ..Verdict::default()
        }
    }

    fn no(reason: &str, message: impl Into<String>) -> Verdict {
        Verdict {
            holds: false,
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn condition(self, pod: &Pod, kind: &str, now: Timestamp) -> Value {
        let status = if self.holds { "True" } else { "False" };
        let old = pod
            .status
            .as_ref()
            .and_then(|s| s.conditions.as_ref())
            .into_iter()
            .flatten()
            .find(|c| c.type_ == kind);
        let since = old
            .filter(|old| old.status == status)
            .and_then(|old| old.last_transition_time.as_ref());
        let mut condition = json!({
            "type": kind, "status": status, "lastProbeTime": null,
            "lastTransitionTime": time(since.map_or(now, |since| since.0)),
        });
        // `null` takes out what an earlier state said.
        condition["reason"] = if self.reason.is_empty() {
            Value::Null
        } else {
            json!(self.reason)
        };
        condition["message"] = if self.message.is_empty() {
            Value::Null
        } else {
            json!(self.message)
        };
        if let Some(generation) = pod.metadata.generation {
            condition["observedGeneration"] = json!(generation);
        }
        condition
    }
}

fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

fn initialized(containers: &[Defined], observed: &Observed, known: &Known, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict {
            reason: "PodCompleted".into(),
            ..Verdict::yes()
        };
    }
    let main_ran = containers
        .iter()
        .any(|defined| defined.role == Role::Main && observed.latest(&defined.container.name).is_some());
    if main_ran {
        return Verdict::yes();
    }
    let mut missing = Vec::new();
    for defined in containers.iter().filter(|defined| defined.role.is_init()) {
        let name = defined.container.name.as_str();
        let latest = observed.latest(name);
        let done = match defined.role {
            Role::Init => latest.is_some_and(Run::succeeded),
            _ => latest.is_some_and(Run::is_running) && known.started.get(name) == Some(&true),
        };
        if !done {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(
        "ContainersNotInitialized",
        format!("containers with incomplete status: [{}]", missing.join(" ")),
    )
}

fn containers_ready(containers: &[Defined], observed: &Observed, known: &Known, phase: &str, over: bool) -> Verdict {
    if over {
        let reason = if phase == "Succeeded" {
            "PodCompleted"
        } else {
            "PodFailed"
        };
        return Verdict::no(reason, "");
    }
    let mut unready = Vec::new();
    for defined in containers.iter().filter(|defined| defined.role.serves()) {
        let name = defined.container.name.as_str();
        let running = observed.latest(name).is_some_and(Run::is_running);
        let passed = |map: &std::collections::BTreeMap<String, bool>| map.get(name).copied().unwrap_or(false);
        if !(running && passed(&known.started) && passed(&known.ready)) {
            unready.push(name);
        }
    }
    match unready.is_empty() {
        true => Verdict::yes(),
        false => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            Verdict::no("ContainersNotReady", message)
        }
    }
}

/// Ready: the containers are, and so are all readiness gates.
fn ready(pod: &Pod, containers_ready: &Verdict) -> Verdict {
    if !containers_ready.holds {
        return containers_ready.clone();
    }
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_ref())
        .into_iter()
        .flatten();
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut messages = Vec::new();
    for gate in gates {
        let kind = &gate.condition_type;
        match conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == *kind)
        {
            None => messages.push(format!(
                "corresponding condition of pod readiness gate \"{kind}\" does not exist."
            )),
            Some(condition) if condition.status != "True" => messages.push(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    match messages.is_empty() {
        true => Verdict::yes(),
        false => Verdict::no("ReadinessGatesNotReady", messages.join(", ")),
    }
}
