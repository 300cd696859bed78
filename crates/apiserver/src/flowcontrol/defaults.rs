//! The FlowSchemas and PriorityLevelConfigurations that every cluster begins with.
//!
//! Source: `k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go`.

use api::Value;
use serde_json::json;

use super::AUTOUPDATE;

/// They always have this spec.
pub fn mandatory() -> Vec<Value> {
    let nobody_waits = json!({"type": "Reject"});
    vec![
        level(
            "exempt",
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        ),
        level("catch-all", limited(5, 0, nobody_waits)),
        schema(
            "exempt",
            "exempt",
            1,
            None,
            json!([everything(groups(&["system:masters"]))]),
        ),
        schema("catch-all", "catch-all", 10_000, USER, json!([everything(everybody())])),
    ]
}

/// They keep this spec until a person edits them.
pub fn suggested() -> Vec<Value> {
    let queue = |queues: u32, hand: u32| json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}});
    let kube_system =
        || json!([{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}]);
    let leases = |verbs: Value| json!({"verbs": verbs, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]});
    let probes = json!([{"subjects": everybody(), "nonResourceRules":
        [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}]);
    let mut electors = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    electors
        .as_array_mut()
        .expect("invariant: a list")
        .extend(kube_system().as_array().cloned().unwrap_or_default());
    let elections = json!([{"subjects": electors, "resourceRules": [leases(json!(["get", "create", "update"]))]}]);
    let nodes = json!([{"subjects": groups(&["system:nodes"]), "resourceRules": [
        {"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "namespaces": ["*"], "clusterScope": true},
        leases(json!(["*"]))]}]);
    let all_of = |subjects: Value| json!([everything(subjects)]);
    vec![
        level("system", limited(30, 33, queue(64, 6))),
        level("node-high", limited(40, 25, queue(64, 6))),
        level("leader-election", limited(10, 0, queue(16, 4))),
        level("workload-high", limited(40, 50, queue(128, 6))),
        level("workload-low", limited(100, 90, queue(128, 6))),
        level("global-default", limited(20, 50, queue(128, 6))),
        schema("probes", "exempt", 2, None, probes),
        schema("system-leader-election", "leader-election", 100, USER, elections),
        schema("system-node-high", "node-high", 400, USER, nodes),
        schema("system-nodes", "system", 500, USER, all_of(groups(&["system:nodes"]))),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            NAMESPACE,
            all_of(users(&["system:kube-controller-manager"])),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            NAMESPACE,
            all_of(users(&["system:kube-scheduler"])),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            NAMESPACE,
            all_of(kube_system()),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            USER,
            all_of(groups(&["system:serviceaccounts"])),
        ),
        schema("global-default", "global-default", 9900, USER, all_of(everybody())),
    ]
}

const USER: Option<&str> = Some("ByUser");
const NAMESPACE: Option<&str> = Some("ByNamespace");

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec,
    })
}

fn level(name: &str, spec: Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

fn limited(shares: u32, lendable_percent: u32, response: Value) -> Value {
    json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": lendable_percent, "limitResponse": response}})
}

fn schema(name: &str, level: &str, precedence: u32, distinguisher: Option<&str>, rules: Value) -> Value {
    let mut spec =
        json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules});
    if let Some(distinguisher) = distinguisher {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object("FlowSchema", name, spec)
}

fn groups(names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| json!({"kind": "Group", "group": {"name": name}}))
        .collect()
}

fn users(names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| json!({"kind": "User", "user": {"name": name}}))
        .collect()
}

fn everybody() -> Value {
    groups(&["system:unauthenticated", "system:authenticated"])
}

/// All that the subjects do.
fn everything(subjects: Value) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}
