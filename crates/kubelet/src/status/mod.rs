//! The status of a pod: a plain function from its definition, what the runtime has, and what probes say.
//!
//! Source: `pkg/kubelet/kubelet_pods.go` (`generateAPIPodStatus`, `getPhase`) and `pkg/kubelet/status/generate.go`.

mod conditions;
mod containers;

use std::collections::BTreeMap;

use client::k8s_openapi::api::core::v1::Pod;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::whole::Amounts;
use crate::observed::{Observed, Run};
use crate::plan::{Defined, Pause, Role, defined};
use crate::pod::ResizeTold;
use crate::restart;

pub use containers::Waiting;

/// What is known besides the definition and the runtime's state.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// Containers that passed their startup probe, or have none.
    pub started: BTreeMap<String, bool>,
    /// Containers that passed their readiness probe, or have none.
    pub ready: BTreeMap<String, bool>,
    /// Containers that have to wait after a failure.
    pub pauses: BTreeMap<String, Pause>,
    /// Why a container without a run does not start.
    pub waiting: BTreeMap<String, Waiting>,
    /// Last words of runs, by id.
    pub last_words: BTreeMap<String, String>,
    /// Whether the pod is being ended: nothing starts again, and it is not ready.
    pub ending: bool,
    /// A verdict that stands above the containers: `Failed` with reason and message (rejected, evicted).
    pub verdict: Option<(String, String)>,
    /// What there is to tell of a resize.
    pub resize: ResizeTold,
}

/// The whole status that the kubelet answers for. Conditions of others are not in it: the patch merges by type.
pub fn status(pod: &Pod, observed: &Observed, known: &Known, now: Timestamp) -> Value {
    let phase = phase(pod, observed, known);
    let mut status = Map::new();
    let over = matches!(phase, "Succeeded" | "Failed");
    status.insert("phase".into(), json!(phase));
    if let Some((reason, message)) = &known.verdict {
        status.insert("reason".into(), json!(reason));
        status.insert("message".into(), json!(message));
    }
    let old = pod.status.as_ref();
    let start = old.and_then(|old| old.start_time.as_ref()).map_or(now, |time| time.0);
    status.insert("startTime".into(), json!(time(start)));
    if let Some(host) = known.host_ips.first() {
        status.insert("hostIP".into(), json!(host));
        let all: Vec<Value> = known.host_ips.iter().map(|ip| json!({"ip": ip})).collect();
        status.insert("hostIPs".into(), json!(all));
    }
    let ips = pod_ips(pod, observed, known);
    if let Some(first) = ips.first() {
        status.insert("podIP".into(), json!(first));
        let all: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        status.insert("podIPs".into(), json!(all));
    }
    let lists = [
        ("initContainerStatuses", Role::Init.list()),
        ("containerStatuses", Role::Main.list()),
        ("ephemeralContainerStatuses", Role::Ephemeral.list()),
    ];
    let containers = defined(pod);
    for (field, list) in lists {
        let of = containers.iter().filter(|defined| defined.role.list() == list);
        let list: Vec<Value> = of
            .map(|defined| containers::status(pod, defined, observed, known, over))
            .collect();
        if !list.is_empty() {
            status.insert(field.into(), Value::Array(list));
        }
    }
    if let Some(whole) = &known.resize.whole {
        let mut resources = Map::new();
        for (name, amounts) in [("requests", &whole.requests), ("limits", &whole.limits)] {
            if !amounts.is_empty() {
                resources.insert(name.into(), written(amounts));
            }
        }
        status.insert("resources".into(), Value::Object(resources));
        if !whole.allocated.is_empty() {
            status.insert("allocatedResources".into(), written(&whole.allocated));
        }
    }
    let conditions = conditions::conditions(pod, observed, known, phase, now);
    status.insert("conditions".into(), Value::Array(conditions));
    if let Some(generation) = pod.metadata.generation {
        status.insert("observedGeneration".into(), json!(generation));
    }
    Value::Object(status)
}

/// Amounts as they are written.
fn written(amounts: &Amounts) -> Value {
    let entries = amounts.iter();
    Value::Object(
        entries
            .map(|(name, amount)| (name.clone(), json!(amount.to_string())))
            .collect(),
    )
}

/// `metav1.Time` on the wire.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Nanoseconds of the runtime as `metav1.Time`; `null` for never.
fn nanoseconds(at: i64) -> Value {
    match Timestamp::from_nanosecond(at.into()) {
        Ok(at) if at.as_second() > 0 => json!(time(at)),
        _ => Value::Null,
    }
}

fn pod_ips(pod: &Pod, observed: &Observed, known: &Known) -> Vec<String> {
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    if host_network {
        return known.host_ips.clone();
    }
    let current = observed
        .ready_sandbox()
        .map(|sandbox| sandbox.ips.clone())
        .filter(|ips| !ips.is_empty());
    // A pod that ends keeps the address it had: endpoints still name it.
    let old = || {
        let status = pod.status.as_ref()?;
        let ips = status.pod_ips.as_ref()?;
        Some(ips.iter().map(|ip| ip.ip.clone()).collect::<Vec<_>>())
    };
    current.or_else(old).unwrap_or_default()
}

/// The pod's phase.
fn phase(pod: &Pod, observed: &Observed, known: &Known) -> &'static str {
    if known.verdict.is_some() {
        return "Failed";
    }
    let restarts = |defined: &Defined, run: &Run| {
        !known.ending && restart::restarts_in(pod, defined.role, &defined.container, run)
    };
    let containers = defined(pod);
    for defined in containers.iter().filter(|defined| defined.role == Role::Init) {
        match observed.latest(&defined.container.name) {
            Some(run) if run.succeeded() => {}
            Some(run) if run.is_over() && !restarts(defined, run) => return "Failed",
            None if observed.latest_past(&defined.container.name).is_some() => {}
            _ if has_started(&containers, observed) => {}
            _ => return "Pending",
        }
    }
    // A sidecar that runs keeps the pod running until it is ended too; one that is over counts for nothing.
    let sidecars = containers.iter().filter(|defined| defined.role == Role::Sidecar);
    let mut running = sidecars
        .filter(|defined| observed.latest(&defined.container.name).is_some_and(Run::is_running))
        .count();
    let (mut stopped, mut failed, mut unknown) = (0, 0, 0);
    for defined in containers.iter().filter(|defined| defined.role == Role::Main) {
        match observed.latest(&defined.container.name) {
            Some(run) if run.is_running() => running += 1,
            Some(run) if run.is_over() => {
                if restarts(defined, run) {
                    running += 1; // It waits for its turn: to users the pod runs.
                } else {
                    stopped += 1;
                    failed += usize::from(!run.succeeded());
                }
            }
            // With the others it is about to start anew.
            None if observed.latest_past(&defined.container.name).is_some() && !known.ending => running += 1,
            _ => unknown += 1,
        }
    }
    match (running, stopped, failed, unknown) {
        (_, _, _, waiting) if waiting > 0 && !known.ending => "Pending",
        (1.., ..) => "Running",
        (0, 0, ..) if known.ending => old_phase(pod),
        (0, 1.., 0, _) => "Succeeded",
        (0, 1.., ..) => "Failed",
        _ => "Pending",
    }
}

fn has_started(containers: &[Defined], observed: &Observed) -> bool {
    let mut own = containers.iter().filter(|defined| defined.role == Role::Main);
    own.any(|defined| observed.latest(&defined.container.name).is_some())
}

/// A pod that is ended before anything of it ran keeps its phase.
fn old_phase(pod: &Pod) -> &'static str {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Running") => "Failed",
        Some("Succeeded") => "Succeeded",
        Some("Failed") => "Failed",
        _ => "Pending",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{RunState, Sandbox};

    fn pod(policy: &str, init: &[&str]) -> Pod {
        let init: Vec<Value> = init.iter().map(|name| json!({"name": name, "image": "x"})).collect();
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "generation": 2},
            "spec": {"restartPolicy": policy, "initContainers": init,
                "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]},
        }))
        .unwrap()
    }

    fn observed(text: &str) -> Observed {
        let mut observed = Observed::default();
        observed.sandboxes.push(Sandbox {
            id: "s".into(),
            ready: true,
            ips: vec!["10.244.0.7".into()],
            attempt: 0,
        });
        for (at, word) in text.split_whitespace().enumerate() {
            let (name, state) = word.split_once(':').unwrap();
            let exit_code = i32::from(state == "fail");
            let state = if state == "run" {
                RunState::Running
            } else {
                RunState::Exited
            };
            observed.runs.insert(
                0,
                Run {
                    id: format!("id{at}"),
                    name: name.into(),
                    sandbox: "s".into(),
                    state,
                    exit_code,
                    attempt: observed.runs_of(name).count() as u32,
                    started_at: 1_800_000_000_000_000_000,
                    finished_at: 1_800_000_001_000_000_000,
                    ..Run::default()
                },
            );
        }
        observed
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    #[test]
    fn phases() {
        for (policy, init, state, expect) in [
            ("Always", &[][..], "", "Pending"),
            ("Always", &[], "a:run", "Pending"),
            ("Always", &[], "a:run b:run", "Running"),
            ("Always", &[], "a:fail b:run", "Running"),
            ("Always", &[], "a:ok b:ok", "Running"),
            ("Never", &[], "a:ok b:ok", "Succeeded"),
            ("Never", &[], "a:ok b:fail", "Failed"),
            ("Never", &[], "a:ok b:run", "Running"),
            ("OnFailure", &[], "a:ok b:fail", "Running"),
            ("Always", &["i"], "", "Pending"),
            ("Always", &["i"], "i:fail", "Pending"),
            ("Never", &["i"], "i:fail", "Failed"),
            ("Always", &["i"], "i:ok a:run b:run", "Running"),
        ] {
            let got = phase(&pod(policy, init), &observed(state), &Known::default());
            assert_eq!(got, expect, "{policy} {init:?} {state}");
        }
    }

    #[test]
    fn sidecars_keep_a_pod_running_and_count_for_nothing_else() {
        let mut pod = pod("Never", &["s"]);
        let spec = pod.spec.as_mut().unwrap();
        spec.init_containers.as_mut().unwrap()[0].restart_policy = Some("Always".into());
        for (state, expect, initialized) in [
            ("s:run", "Pending", ("False", json!("ContainersNotInitialized"))),
            ("s:run a:run b:run", "Running", ("True", json!(null))),
            ("s:fail a:run b:run", "Running", ("True", json!(null))),
            ("s:run a:ok b:ok", "Running", ("True", json!(null))),
            ("s:fail a:ok b:ok", "Succeeded", ("True", json!("PodCompleted"))),
            ("s:ok a:ok b:fail", "Failed", ("True", json!(null))),
        ] {
            let status = status(&pod, &observed(state), &Known::default(), now());
            let condition = status["conditions"].as_array().unwrap();
            let condition = condition.iter().find(|c| c["type"] == "Initialized").unwrap();
            let told = (condition["status"].as_str().unwrap(), condition["reason"].clone());
            assert_eq!(
                (status["phase"].as_str().unwrap(), told),
                (expect, initialized),
                "{state}"
            );
        }
    }

    #[test]
    fn ephemeral_containers_stand_beside_the_pod() {
        let mut pod = pod("Always", &[]);
        let spec = pod.spec.as_mut().unwrap();
        let ephemeral = json!([{"name": "e", "image": "x", "targetContainerName": "a"}]);
        spec.ephemeral_containers = serde_json::from_value(ephemeral).unwrap();
        let known = Known {
            started: [("a".into(), true), ("b".into(), true)].into(),
            ready: [("a".into(), true), ("b".into(), true)].into(),
            ..Known::default()
        };
        for (state, word) in [
            ("a:run b:run", "waiting"),
            ("a:run b:run e:run", "running"),
            ("a:run b:run e:fail", "terminated"),
        ] {
            let status = status(&pod, &observed(state), &known, now());
            assert_eq!(status["phase"], "Running", "{state}");
            let conditions = status["conditions"].as_array().unwrap();
            assert!(
                conditions.iter().all(|c| c["status"] == "True"),
                "{state} {conditions:?}"
            );
            let told = &status["ephemeralContainerStatuses"][0];
            assert!(told["state"][word].is_object(), "{state} {told}");
            assert_eq!(
                (&told["ready"], &told["started"]),
                (&json!(false), &Value::Null),
                "{state}"
            );
        }
    }

    #[test]
    fn a_running_pod_tells_all_that_clients_read() {
        let known = Known {
            host_ips: vec!["10.243.0.10".into()],
            started: [("a".into(), true), ("b".into(), true)].into(),
            ready: [("a".into(), true), ("b".into(), false)].into(),
            ..Known::default()
        };
        let status = status(&pod("Always", &[]), &observed("a:fail a:run b:run"), &known, now());
        assert_eq!(
            (&status["phase"], &status["podIP"], &status["hostIP"]),
            (&json!("Running"), &json!("10.244.0.7"), &json!("10.243.0.10"))
        );
        let a = &status["containerStatuses"][0];
        assert_eq!(
            (&a["ready"], &a["started"], &a["restartCount"]),
            (&json!(true), &json!(true), &json!(1))
        );
        assert!(a["state"]["running"].is_object());
        assert_eq!(a["lastState"]["terminated"]["exitCode"], 1);
        let condition = |kind: &str| {
            let all = status["conditions"].as_array().unwrap();
            all.iter()
                .find(|c| c["type"] == kind)
                .cloned()
                .unwrap_or_else(|| panic!("{kind}"))
        };
        assert_eq!(condition("Initialized")["status"], "True");
        assert_eq!(condition("PodReadyToStartContainers")["status"], "True");
        assert_eq!(condition("ContainersReady")["status"], "False");
        assert_eq!(
            condition("ContainersReady")["message"],
            "containers with unready status: [b]"
        );
        assert_eq!(condition("Ready")["reason"], "ContainersNotReady");
        assert_eq!(condition("Ready")["observedGeneration"], 2);
    }

    #[test]
    fn what_waits_says_for_what() {
        let mut known = Known::default();
        known.waiting.insert(
            "a".into(),
            Waiting {
                reason: "ErrImagePull".into(),
                message: "no such image".into(),
            },
        );
        let status = status(&pod("Always", &[]), &observed(""), &known, now());
        assert_eq!(
            status["containerStatuses"][0]["state"]["waiting"],
            json!({"reason": "ErrImagePull", "message": "no such image"})
        );
        assert_eq!(
            status["containerStatuses"][1]["state"]["waiting"],
            json!({"reason": "ContainerCreating"})
        );
    }
}
