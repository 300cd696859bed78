//! What `kubectl get pods` shows.

use api::Value;

use crate::print::{AGE, NAME, NONE, age, human_duration, name, or, seconds, text, wide};
use crate::row::{Columns, PrintContext};
use crate::view::View;

/// The columns.
pub const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Ready", "How many containers are ready, of how many."),
        text("Status", "What the pod is doing, or what keeps it from running."),
        text(
            "Restarts",
            "How often containers were restarted, and when the last time.",
        ),
        AGE,
        wide("IP", "The pod's first address."),
        wide("Node", "The node it runs on."),
        wide("Nominated Node", "The node that is being cleared for it."),
        wide("Readiness Gates", "How many readiness gates are true, of how many."),
    ],
    cells,
};

fn cells(pod: &Value, context: &PrintContext) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(then) if summary.restarts != 0 => {
            format!(
                "{} ({} ago)",
                summary.restarts,
                human_duration(context.now_seconds - then)
            )
        }
        _ => summary.restarts.to_string(),
    };
    let address = pod
        .list("status.podIPs")
        .first()
        .map_or("", |address| address.text("ip"));
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, context),
        or(address, NONE).into(),
        or(pod.text("spec.nodeName"), NONE).into(),
        or(pod.text("status.nominatedNodeName"), NONE).into(),
        readiness_gates(pod).into(),
    ]
}

/// What the containers' states add up to.
struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<i64>,
}

impl Summary {
    fn of(pod: &Value) -> Summary {
        let sidecars = pod.list("spec.initContainers").iter().filter(|c| is_sidecar(c)).count();
        let mut summary = Summary {
            ready: 0,
            containers: pod.list("spec.containers").len() + sidecars,
            reason: or(pod.text("status.reason"), pod.text("status.phase")).into(),
            restarts: 0,
            last_restart: None,
        };
        let gated = |c: &Value| c.text("type") == "PodScheduled" && c.text("reason") == "SchedulingGated";
        if pod.list("status.conditions").iter().any(gated) {
            summary.reason = "SchedulingGated".into();
        }
        let initializing = summary.add_init_containers(pod);
        if !initializing || condition(pod, "Initialized") {
            summary.add_containers(pod);
        }
        summary.add_deletion(pod);
        summary
    }

    /// Returns whether an init container still stands before the containers.
    fn add_init_containers(&mut self, pod: &Value) -> bool {
        let specs = pod.list("spec.initContainers");
        for (index, status) in pod.list("status.initContainerStatuses").iter().enumerate() {
            let sidecar = specs
                .iter()
                .any(|spec| spec.text("name") == status.text("name") && is_sidecar(spec));
            self.add_restarts(status);
            let (waiting, terminated) = (status.at("state.waiting"), status.at("state.terminated"));
            if !terminated.is_null() && terminated.count("exitCode") == 0 {
                continue;
            }
            if sidecar && status.flag("started") {
                self.ready += usize::from(status.flag("ready"));
                continue;
            }
            self.reason = if !terminated.is_null() {
                format!("Init:{}", exit(terminated))
            } else if !matches!(waiting.text("reason"), "" | "PodInitializing") {
                format!("Init:{}", waiting.text("reason"))
            } else {
                format!("Init:{index}/{}", specs.len())
            };
            return true;
        }
        false
    }

    /// From here on, restarts of init containers that are done do not count.
    fn add_containers(&mut self, pod: &Value) {
        (self.restarts, self.last_restart) = (0, None);
        let specs = pod.list("spec.initContainers");
        for status in pod.list("status.initContainerStatuses") {
            if specs
                .iter()
                .any(|spec| spec.text("name") == status.text("name") && is_sidecar(spec))
            {
                self.add_restarts(status);
            }
        }
        let mut running = false;
        for status in pod.list("status.containerStatuses").iter().rev() {
            self.add_restarts(status);
            let (waiting, terminated) = (status.at("state.waiting"), status.at("state.terminated"));
            if !waiting.text("reason").is_empty() {
                self.reason = waiting.text("reason").into();
            } else if !terminated.is_null() {
                self.reason = exit(terminated);
            } else if status.flag("ready") && status.has("state.running") {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if condition(pod, "Ready") { "Running" } else { "NotReady" }.into();
        }
    }

    fn add_deletion(&mut self, pod: &Value) {
        if !api::meta::is_deleting(pod) {
            return;
        }
        if pod.text("status.reason") == "NodeLost" {
            self.reason = "Unknown".into();
        } else if !matches!(pod.text("status.phase"), "Succeeded" | "Failed") {
            self.reason = "Terminating".into();
        }
    }

    fn add_restarts(&mut self, status: &Value) {
        self.restarts += status.count("restartCount");
        let ended = seconds(status.text("lastState.terminated.finishedAt"));
        self.last_restart = self.last_restart.max(ended);
    }
}

fn is_sidecar(spec: &Value) -> bool {
    spec.text("restartPolicy") == "Always"
}

fn exit(terminated: &Value) -> String {
    match (terminated.text("reason"), terminated.count("signal")) {
        ("", 0) => format!("ExitCode:{}", terminated.count("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

fn condition(pod: &Value, kind: &str) -> bool {
    let found = pod.list("status.conditions").iter().find(|c| c.text("type") == kind);
    found.is_some_and(|c| c.text("status") == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.list("spec.readinessGates");
    if gates.is_empty() {
        return NONE.into();
    }
    let open = gates
        .iter()
        .filter(|gate| condition(pod, gate.text("conditionType")))
        .count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// (containers of the spec, status) and the cells Ready, Status and Restarts.
    #[test]
    fn the_status_is_what_people_look_for() {
        let context = PrintContext { now_seconds: 3600 };
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let with_init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let with_sidecar =
            json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let running = json!({"ready": true, "state": {"running": {}}});
        let last = json!({"terminated": {"finishedAt": "1970-01-01T00:55:00Z"}});
        for (spec, status, expect) in [
            (&two, json!({"phase": "Pending"}), ["0/2", "Pending", "0"]),
            (
                &two,
                json!({"phase": "Running", "containerStatuses": [running,
                    {"restartCount": 3, "lastState": last, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                ["1/2", "CrashLoopBackOff", "3 (5m ago)"],
            ),
            (
                &two,
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}, running]}),
                ["1/2", "Running", "0"],
            ),
            (
                &two,
                json!({"phase": "Running",
                    "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}, running]}),
                ["1/2", "NotReady", "0"],
            ),
            (
                &two,
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"signal": 9}}}]}),
                ["0/2", "Signal:9", "0"],
            ),
            (
                &two,
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}),
                ["0/2", "ExitCode:2", "0"],
            ),
            (
                &two,
                json!({"phase": "Failed", "reason": "Evicted"}),
                ["0/2", "Evicted", "0"],
            ),
            (
                &two,
                json!({"phase": "Pending",
                    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                ["0/2", "SchedulingGated", "0"],
            ),
            (
                &with_init,
                json!({"phase": "Pending", "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "j", "state": {"running": {}}, "restartCount": 1}]}),
                ["0/1", "Init:1/2", "1"],
            ),
            (
                &with_init,
                json!({"phase": "Pending", "initContainerStatuses": [
                    {"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}, {"name": "j"}]}),
                ["0/1", "Init:CrashLoopBackOff", "0"],
            ),
            (
                &with_init,
                json!({"phase": "Pending", "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 1}}}]}),
                ["0/1", "Init:ExitCode:1", "0"],
            ),
            (
                &with_sidecar,
                json!({"phase": "Running", "containerStatuses": [running], "initContainerStatuses": [
                    {"name": "s", "started": true, "ready": true, "restartCount": 2, "state": {"running": {}}}]}),
                ["2/2", "Running", "2"],
            ),
        ] {
            let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
            let cells = cells(&pod, &context);
            let got: Vec<&str> = cells[1..4].iter().filter_map(Value::as_str).collect();
            assert_eq!(got, expect, "{status}");
        }
    }

    #[test]
    fn deletion_gates_and_addresses_show() {
        let context = PrintContext { now_seconds: 0 };
        for (reason, phase, expect) in [
            ("", "Running", "Terminating"),
            ("NodeLost", "Running", "Unknown"),
            ("", "Succeeded", "Succeeded"),
        ] {
            let pod = json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"},
                "status": {"phase": phase, "reason": reason}});
            assert_eq!(cells(&pod, &context)[2], expect);
        }
        let pod = json!({"spec": {"nodeName": "n", "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]},
            "status": {"podIPs": [{"ip": "10.0.0.2"}], "conditions": [{"type": "x", "status": "True"}]}});
        assert_eq!(
            cells(&pod, &context)[5..],
            [json!("10.0.0.2"), json!("n"), json!("<none>"), json!("1/2")]
        );
    }
}
