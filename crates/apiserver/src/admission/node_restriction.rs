//! NodeRestriction: a kubelet writes its own Node, its own pods' status and its own Lease, and nothing beside.
//!
//! Source: `plugin/pkg/admission/noderestriction/admission.go`.

use api::{GroupResource, Status, Value, meta};
use futures::future::BoxFuture;
use serde_json::Map;

use crate::authorization::node_of;
use crate::pipeline::{Operation, Plugin, Review};

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Labels of the reserved domains that a kubelet may set on its Node.
/// Source: `pkg/kubelet/apis/well_known_labels.go`.
const OWN_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/windows-build",
    "node.kubernetes.io/exclude-from-external-load-balancers-by-kubelet",
];
/// Domains whose labels a kubelet may set.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The plug-in.
pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(check(review, object, old)))
    }
}

fn check(review: &Review, object: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let Some(node) = node_of(&review.user) else {
        return Ok(());
    };
    let null = Value::Null;
    let (object, old) = (object.unwrap_or(&null), old.unwrap_or(&null));
    let about = (
        &*review.resource.group,
        &*review.resource.resource,
        &*review.subresource,
    );
    let verdict = match about {
        ("", "pods", "") => pod(review, node, object, old),
        ("", "pods", "status") => pod_status(node, object, old),
        ("", "pods", "eviction") => eviction(review, node),
        ("", "pods", subresource) => Err(format!("unexpected pod subresource {subresource:?}")),
        ("", "nodes", "" | "status") => node_object(review, node, object, old),
        ("", "serviceaccounts", "token") => token(review, node, object),
        ("coordination.k8s.io", "leases", "") => lease(review, node, object),
        ("storage.k8s.io", "csinodes", "") => csi_node(review, node, object),
        _ => Ok(()),
    };
    verdict.map_err(|why| review.forbidden(&why))
}

fn pod(review: &Review, node: &str, pod: &Value, old: &Value) -> Result<(), String> {
    match review.operation {
        Operation::Create => mirror_pod(node, pod),
        Operation::Delete if old["spec"]["nodeName"] == node => Ok(()),
        Operation::Delete => Err(format!(
            "node {node:?} can only delete pods with spec.nodeName set to itself"
        )),
        other => Err(format!(
            "unexpected operation {other:?}, node {node:?} can only create and delete mirror pods"
        )),
    }
}

/// What a kubelet shows of a static pod may not reach for anything of the cluster.
fn mirror_pod(node: &str, pod: &Value) -> Result<(), String> {
    if meta::annotation(pod, MIRROR).is_none() {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return Err(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    let owners = pod["metadata"]["ownerReferences"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    match owners {
        [] => {}
        [owner] if owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node => {
            if owner["controller"] != true {
                return Err(format!(
                    "node {node:?} can only create pods with a controller owner reference set to itself"
                ));
            }
            if owner["blockOwnerDeletion"] == true {
                return Err(format!(
                    "node {node:?} must not set blockOwnerDeletion on an owner reference"
                ));
            }
        }
        [_] => {
            return Err(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        _ => {
            return Err(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    }
    if pod["spec"]["serviceAccountName"]
        .as_str()
        .is_some_and(|name| !name.is_empty())
    {
        return Err(format!(
            "node {node:?} can not create pods that reference a service account"
        ));
    }
    for (field, words) in [
        ("secret", "secrets"),
        ("configMap", "configmaps"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
    ] {
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let refers = |volume: &Value| {
            let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
            volume[field].is_object() || sources.clone().any(|source| source[field].is_object())
        };
        if volumes.clone().any(refers) {
            return Err(format!("node {node:?} can not create pods that reference {words}"));
        }
    }
    Ok(())
}

fn pod_status(node: &str, pod: &Value, old: &Value) -> Result<(), String> {
    if old["spec"]["nodeName"] != node {
        return Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let empty = Value::Object(Map::new());
    let labels = |pod: &Value| pod["metadata"].get("labels").cloned().unwrap_or_else(|| empty.clone());
    if labels(pod) != labels(old) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    Ok(())
}

fn eviction(review: &Review, node: &str) -> Result<(), String> {
    let pods = GroupResource {
        group: String::new(),
        resource: "pods".into(),
    };
    match review.cluster.get(&pods, &review.namespace, &review.name) {
        Some(pod) if pod.value()["spec"]["nodeName"] != node => Err(format!(
            "node {node:?} can only evict pods with spec.nodeName set to itself"
        )),
        _ => Ok(()),
    }
}

fn node_object(review: &Review, node: &str, object: &Value, old: &Value) -> Result<(), String> {
    let name = if review.name.is_empty() {
        meta::name(object)
    } else {
        &review.name
    };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    match review.operation {
        Operation::Create => {
            let bad: Vec<&str> = labels(object)
                .filter(|(key, _)| !may_label(key))
                .map(|(key, _)| key)
                .collect();
            if !bad.is_empty() {
                return Err(format!(
                    "node {node:?} is not allowed to set the following labels: {}",
                    bad.join(", ")
                ));
            }
            if object["metadata"]["ownerReferences"]
                .as_array()
                .is_some_and(|owners| !owners.is_empty())
            {
                return Err(format!("node {node:?} is not allowed to set ownerReferences"));
            }
            Ok(())
        }
        Operation::Update => {
            if object["spec"].get("taints") != old["spec"].get("taints") {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            if object["metadata"].get("ownerReferences") != old["metadata"].get("ownerReferences") {
                return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let mut changed: Vec<&str> = labels(object)
                .filter(|(key, value)| old["metadata"]["labels"].get(key) != Some(value))
                .chain(labels(old).filter(|(key, _)| object["metadata"]["labels"].get(key).is_none()))
                .map(|(key, _)| key)
                .filter(|key| !may_label(key))
                .collect();
            changed.sort_unstable();
            if !changed.is_empty() {
                return Err(format!("is not allowed to modify labels: {}", changed.join(", ")));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn labels(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let labels = object["metadata"]["labels"].as_object();
    labels.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_in = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|head| head.ends_with('.'));
    if !is_in("kubernetes.io") && !is_in("k8s.io") {
        return true;
    }
    if is_in("node-restriction.kubernetes.io") {
        return false;
    }
    OWN_LABELS.contains(&key) || OWN_DOMAINS.iter().any(|own| is_in(own))
}

fn token(review: &Review, node: &str, request: &Value) -> Result<(), String> {
    let bound = &request["spec"]["boundObjectRef"];
    if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || bound["name"].as_str().is_none_or(str::is_empty) {
        return Err("node requested token not bound to a pod".into());
    }
    let uid = bound["uid"].as_str().unwrap_or("");
    if uid.is_empty() {
        return Err("node requested token with a pod binding without a uid".into());
    }
    let pods = GroupResource {
        group: String::new(),
        resource: "pods".into(),
    };
    let name = bound["name"].as_str().unwrap_or("");
    let Some(pod) = review.cluster.get(&pods, &review.namespace, name) else {
        return Err(format!("pod {name:?} not found"));
    };
    if pod.uid() != uid {
        return Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    let pod = pod.value();
    if pod["spec"]["nodeName"] != node {
        return Err("node requested token bound to a pod scheduled on a different node".into());
    }
    if pod["spec"]["serviceAccountName"] != *review.name {
        return Err(format!("service account {:?} is not used by pod {name:?}", review.name));
    }
    Ok(())
}

fn lease(review: &Review, node: &str, lease: &Value) -> Result<(), String> {
    if review.namespace != LEASE_NAMESPACE {
        return Err(format!(
            "can only access leases in the {LEASE_NAMESPACE:?} system namespace"
        ));
    }
    let name = if review.operation == Operation::Create {
        meta::name(lease)
    } else {
        &review.name
    };
    if name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn csi_node(review: &Review, node: &str, object: &Value) -> Result<(), String> {
    let name = if review.operation == Operation::Create {
        meta::name(object)
    } else {
        &review.name
    };
    if name != node {
        return Err("can only access CSINode with the same name as the requesting node".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use crate::request::UserInfo;
    use serde_json::json;
    use std::sync::Arc;

    fn run(operation: Operation, what: &str, name: &str, object: Value, old: Value) -> Result<(), String> {
        let world = World::new(&[
            (
                "pods",
                json!({"metadata": {"name": "own", "namespace": "ns", "uid": "u1"}, "spec": {"nodeName": "a", "serviceAccountName": "sa"}}),
            ),
            (
                "pods",
                json!({"metadata": {"name": "other", "namespace": "ns", "uid": "u2"}, "spec": {"nodeName": "b", "serviceAccountName": "sa"}}),
            ),
        ]);
        let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
        let (group, namespace) = match resource {
            "leases" => ("coordination.k8s.io", LEASE_NAMESPACE),
            "nodes" => ("", ""),
            _ => ("", "ns"),
        };
        let mut review = world.review(operation, group, resource, subresource, namespace, name);
        review.user = Arc::new(UserInfo::new("system:node:a", ["system:nodes"]));
        let some = |value: Value| Some(value).filter(|value| !value.is_null());
        check(&review, some(object).as_ref(), some(old).as_ref()).map_err(|status| status.message)
    }

    #[test]
    fn a_node_writes_what_is_its_own() {
        use Operation::*;
        let on = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
        let labelled = |key: &str| json!({"metadata": {"name": "a", "labels": {key: "x"}}, "spec": {}});
        let mirror =
            |node: &str| json!({"metadata": {"name": "p", "annotations": {MIRROR: "1"}}, "spec": {"nodeName": node}});
        let bare = || json!({"metadata": {"name": "a"}, "spec": {}});
        let bound = |pod: &str, uid: &str| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}});
        for (operation, what, name, object, old, expect) in [
            (Create, "pods", "p", mirror("a"), Value::Null, ""),
            (
                Create,
                "pods",
                "p",
                mirror("b"),
                Value::Null,
                "can only create pods with spec.nodeName set to itself",
            ),
            (Create, "pods", "p", on("a"), Value::Null, "can only create mirror pods"),
            (Delete, "pods", "p", Value::Null, on("a"), ""),
            (
                Delete,
                "pods",
                "p",
                Value::Null,
                on("b"),
                "can only delete pods with spec.nodeName set to itself",
            ),
            (Update, "pods/status", "p", on("a"), on("a"), ""),
            (
                Update,
                "pods/status",
                "p",
                on("b"),
                on("b"),
                "can only update pod status",
            ),
            (
                Update,
                "pods/status",
                "p",
                json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "a"}}),
                on("a"),
                "cannot update labels through pod status",
            ),
            (Create, "nodes", "", bare(), Value::Null, ""),
            (
                Create,
                "nodes",
                "",
                json!({"metadata": {"name": "b"}}),
                Value::Null,
                "is not allowed to modify node \"b\"",
            ),
            (
                Create,
                "nodes",
                "",
                labelled("node-role.kubernetes.io/master"),
                Value::Null,
                "is not allowed to set the following labels",
            ),
            (Create, "nodes", "", labelled("kubernetes.io/hostname"), Value::Null, ""),
            (
                Update,
                "nodes",
                "a",
                labelled("foo.node-restriction.kubernetes.io/x"),
                bare(),
                "is not allowed to modify labels",
            ),
            (
                Update,
                "nodes",
                "a",
                bare(),
                labelled("x.k8s.io/y"),
                "is not allowed to modify labels",
            ),
            (Update, "nodes", "a", labelled("example.com/x"), bare(), ""),
            (
                Update,
                "nodes",
                "a",
                json!({"metadata": {"name": "a"}, "spec": {"taints": []}}),
                bare(),
                "is not allowed to modify taints",
            ),
            (
                Update,
                "nodes",
                "a",
                json!({"metadata": {"name": "a", "ownerReferences": [{}]}, "spec": {}}),
                bare(),
                "is not allowed to modify ownerReferences",
            ),
            (
                Create,
                "serviceaccounts/token",
                "sa",
                bound("own", "u1"),
                Value::Null,
                "",
            ),
            (
                Create,
                "serviceaccounts/token",
                "sa",
                bound("own", "u9"),
                Value::Null,
                "does not match the UID in record",
            ),
            (
                Create,
                "serviceaccounts/token",
                "sa",
                bound("other", "u2"),
                Value::Null,
                "on a different node",
            ),
            (
                Create,
                "serviceaccounts/token",
                "sa",
                json!({"spec": {}}),
                Value::Null,
                "not bound to a pod",
            ),
            (
                Create,
                "serviceaccounts/token",
                "else",
                bound("own", "u1"),
                Value::Null,
                "is not used by pod",
            ),
            (
                Create,
                "leases",
                "",
                json!({"metadata": {"name": "a"}}),
                Value::Null,
                "",
            ),
            (
                Update,
                "leases",
                "b",
                json!({"metadata": {"name": "b"}}),
                Value::Null,
                "same name as the requesting node",
            ),
            (Create, "pods/eviction", "own", json!({}), Value::Null, ""),
            (
                Create,
                "pods/eviction",
                "other",
                json!({}),
                Value::Null,
                "can only evict pods",
            ),
        ] {
            let got = run(operation, what, name, object.clone(), old)
                .err()
                .unwrap_or_default();
            assert_eq!(
                got.is_empty(),
                expect.is_empty(),
                "{operation:?} {what} {object}: {got}"
            );
            assert!(got.contains(expect), "{operation:?} {what} {object}: {got}");
        }
    }

    #[test]
    fn others_are_not_restricted() {
        let world = World::new(&[]);
        let review = world.review(Operation::Delete, "", "pods", "", "ns", "p");
        assert!(check(&review, None, Some(&json!({"spec": {"nodeName": "b"}}))).is_ok());
    }
}
