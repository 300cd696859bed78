//! The flow schemas and priority levels that every API server has from its start, as data.
//!
//! Mandatory objects are always there and always the same (the `exempt` level's shares apart): the rules here refuse to
//! change them, and the API server brings them back. Suggested ones are made once and kept up to date for as long as their
//! annotation [`AUTO_UPDATE`] is `true`.
//!
//! Source: `k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go`.

use std::sync::LazyLock;

use api::Value;
use serde_json::json;

use crate::view::View;

/// Whether the server keeps an object's spec up to date.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// An object of the start.
pub struct Bootstrap {
    /// In normal form with its defaults, without what the server sets (uid, times).
    pub object: Value,
    /// Whether it is always there and always the same.
    pub mandatory: bool,
}

static OBJECTS: LazyLock<Vec<Bootstrap>> = LazyLock::new(|| {
    let mut objects = levels();
    objects.extend(schemas());
    objects
});

/// All of them: priority levels first, then the schemas that name them, in upstream's order.
pub fn objects() -> &'static [Bootstrap] {
    &OBJECTS
}

/// The mandatory object of a kind and name.
pub fn mandatory(kind: &str, name: &str) -> Option<&'static Value> {
    let same = |object: &Value| object.text("kind") == kind && object.text("metadata.name") == name;
    let found = OBJECTS.iter().find(|b| b.mandatory && same(&b.object))?;
    Some(&found.object)
}

fn object(kind: &str, name: &str, spec: Value, mandatory: bool) -> Bootstrap {
    Bootstrap {
        object: json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
            "spec": spec,
            "status": {},
        }),
        mandatory,
    }
}

/// How a level queues: (queues, hand, length of a queue); `None` refuses at once.
type Queues = Option<(i64, i64, i64)>;

/// (name, shares, percent that others may borrow, queues, mandatory).
const LEVELS: [(&str, i64, i64, Queues, bool); 7] = [
    ("catch-all", 5, 0, None, true),
    ("system", 30, 33, Some((64, 6, 50)), false),
    ("node-high", 40, 25, Some((64, 6, 50)), false),
    ("leader-election", 10, 0, Some((16, 4, 50)), false),
    ("workload-high", 40, 50, Some((128, 6, 50)), false),
    ("workload-low", 100, 90, Some((128, 6, 50)), false),
    ("global-default", 20, 50, Some((128, 6, 50)), false),
];

fn levels() -> Vec<Bootstrap> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let kind = "PriorityLevelConfiguration";
    let mut levels = vec![object(kind, "exempt", exempt, true)];
    for (name, shares, lendable, queues, mandatory) in LEVELS {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand, length)) => json!({
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length},
            }),
        };
        let limited = json!({
            "nominalConcurrencyShares": shares,
            "lendablePercent": lendable,
            "limitResponse": response,
        });
        levels.push(object(
            kind,
            name,
            json!({"type": "Limited", "limited": limited}),
            mandatory,
        ));
    }
    levels
}

fn schema(name: &str, level: &str, precedence: i64, method: &str, rule: Value) -> Bootstrap {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    });
    if !method.is_empty() {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    let mandatory = ["exempt", "catch-all"].contains(&name);
    object("FlowSchema", name, spec, mandatory)
}

const BY_USER: &str = "ByUser";
const BY_NAMESPACE: &str = "ByNamespace";

fn schemas() -> Vec<Bootstrap> {
    let manager = || user("system:kube-controller-manager");
    let scheduler = || user("system:kube-scheduler");
    let everybody = || [group("system:unauthenticated"), group("system:authenticated")];
    let electing = |resources: &[&str]| on(&["get", "create", "update"], "", resources);
    let leases = || on(&["get", "create", "update"], "coordination.k8s.io", &["leases"]);
    vec![
        schema("exempt", "exempt", 1, "", everything(&[group("system:masters")])),
        schema(
            "probes",
            "exempt",
            2,
            "",
            json!({"subjects": everybody(), "nonResourceRules": [
                {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}),
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            BY_USER,
            json!({"subjects": [manager(), scheduler(), account("*")], "resourceRules": [leases()]}),
        ),
        // Ahead of the next one, which would take the controllers' endpoints for an election.
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            BY_USER,
            json!({"subjects": [manager(), account("endpoint-controller"), account("endpointslicemirroring-controller")],
                "resourceRules": [electing(&["endpoints"])]}),
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            BY_USER,
            json!({"subjects": [account("*")], "resourceRules": [electing(&["endpoints", "configmaps"]), leases()]}),
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            BY_USER,
            json!({"subjects": [group("system:nodes")], "resourceRules": [
                in_cluster(on(&["*"], "", &["nodes", "nodes/status"])),
                on(&["*"], "coordination.k8s.io", &["leases"])]}),
        ),
        schema(
            "system-nodes",
            "system",
            500,
            BY_USER,
            everything(&[group("system:nodes")]),
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            BY_NAMESPACE,
            everything(&[manager()]),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            BY_NAMESPACE,
            everything(&[scheduler()]),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            BY_NAMESPACE,
            everything(&[account("*")]),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            BY_USER,
            everything(&[group("system:serviceaccounts")]),
        ),
        schema(
            "global-default",
            "global-default",
            9900,
            BY_USER,
            everything(&everybody()),
        ),
        schema("catch-all", "catch-all", 10_000, BY_USER, everything(&everybody())),
    ]
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

/// A service account of `kube-system`, or all of them.
fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})
}

fn on(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]})
}

fn in_cluster(mut rule: Value) -> Value {
    rule["clusterScope"] = true.into();
    rule
}

fn everything(subjects: &[Value]) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [in_cluster(on(&["*"], "*", &["*"]))],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}
