//! What a node may write, as a table.

use super::super::testing::World;
use super::*;
use crate::pipeline::{Decision, RuleSet};
use crate::request::{Attributes, UserInfo};
use futures::executor::block_on;
use serde_json::json;
use std::sync::Arc;

/// The authorizer of a cluster whose role grants one audience.
struct Rights;

impl Authorizer for Rights {
    fn authorize<'a>(&'a self, _: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        let decision = match (&*attributes.verb, &*attributes.resource, &*attributes.name) {
            ("request-serviceaccounts-token-audience", "granted", "sa") => Decision::Allow(String::new()),
            _ => Decision::NoOpinion(String::new()),
        };
        decision.now()
    }

    fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
        RuleSet::default()
    }
}

fn run(operation: Operation, what: &str, name: &str, object: Value, old: Value) -> Result<(), String> {
    let world = World::new(&[
        (
            "pods",
            json!({"metadata": {"name": "own", "namespace": "ns", "uid": "u1"}, "spec": {
                "nodeName": "a", "serviceAccountName": "sa", "volumes": [
                    {"name": "t", "projected": {"sources": [
                        {"serviceAccountToken": {"path": "t"}}, {"serviceAccountToken": {"path": "v", "audience": "vault"}},
                    ]}},
                    {"name": "c", "csi": {"driver": "inline"}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "claim"}},
                ],
            }}),
        ),
        (
            "csidrivers.storage.k8s.io",
            json!({"metadata": {"name": "inline"}, "spec": {"tokenRequests": [{"audience": "of-inline"}]}}),
        ),
        (
            "csidrivers.storage.k8s.io",
            json!({"metadata": {"name": "disk"}, "spec": {"tokenRequests": [{"audience": "of-disk"}]}}),
        ),
        (
            "persistentvolumeclaims",
            json!({"metadata": {"name": "claim", "namespace": "ns"}, "spec": {"volumeName": "pv"}}),
        ),
        (
            "persistentvolumes",
            json!({"metadata": {"name": "pv"}, "spec": {"csi": {"driver": "disk"}}}),
        ),
        ("nodes", json!({"metadata": {"name": "a", "uid": "n1"}})),
        (
            "pods",
            json!({"metadata": {"name": "other", "namespace": "ns", "uid": "u2"}, "spec": {"nodeName": "b", "serviceAccountName": "sa"}}),
        ),
    ]);
    let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (group, namespace) = match resource {
        "leases" => ("coordination.k8s.io", LEASE_NAMESPACE),
        "nodes" => ("", ""),
        "resourceslices" => ("resource.k8s.io", ""),
        "certificatesigningrequests" => ("certificates.k8s.io", ""),
        _ => ("", "ns"),
    };
    let mut review = world.review(operation, group, resource, subresource, namespace, name);
    review.user = Arc::new(UserInfo::new("system:node:a", ["system:nodes"]));
    let some = |value: Value| Some(value).filter(|value| !value.is_null());
    let (object, old) = (some(object), some(old));
    let verdict = block_on(check(&review, &Rights, object.as_ref(), old.as_ref()));
    verdict.map_err(|status| status.message)
}

/// A request of a node for a serving certificate.
fn csr(name: &str) -> Value {
    use base64::Engine as _;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = parameters.serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::engine::general_purpose::STANDARD.encode(pem);
    json!({"metadata": {"name": "csr"}, "spec": {"signerName": "kubernetes.io/kubelet-serving", "request": request}})
}

#[test]
fn a_node_writes_what_is_its_own() {
    use Operation::*;
    let on = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
    let labelled = |key: &str| json!({"metadata": {"name": "a", "labels": {key: "x"}}, "spec": {}});
    let mirror = |node: &str| {
        json!({
            "metadata": {
                "name": "p", "annotations": {"kubernetes.io/config.mirror": "1"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": "n1", "controller": true}],
            },
            "spec": {"nodeName": node},
        })
    };
    let with = |mut object: Value, pointer: &str, value: Value| {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value;
        object
    };
    let claim = |status: Value| json!({"metadata": {"name": "c"}, "spec": {}, "status": status});
    let slice = |node: &str| json!({"metadata": {"name": "s"}, "spec": {"nodeName": node}});
    let asking = |audiences: &[&str]| {
        json!({"spec": {"audiences": audiences,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "own", "uid": "u1"}}})
    };
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
        (
            Create,
            "pods",
            "p",
            with(mirror("a"), "/metadata/ownerReferences", json!([])),
            Value::Null,
            "can only create pods with an owner reference set to itself",
        ),
        (
            Create,
            "pods",
            "p",
            with(mirror("a"), "/metadata/ownerReferences/0/uid", json!("n2")),
            Value::Null,
            "node a UID mismatch: expected n2 got n1",
        ),
        (
            Create,
            "pods",
            "p",
            with(
                mirror("a"),
                "/spec/containers",
                json!([{"envFrom": [{"secretRef": {"name": "s"}}]}]),
            ),
            Value::Null,
            "can not create pods that reference secrets",
        ),
        (
            Create,
            "pods",
            "p",
            with(
                mirror("a"),
                "/spec/resourceClaims",
                json!([{"name": "d", "resourceClaimName": "theirs"}]),
            ),
            Value::Null,
            "can not create pods that reference resourceclaims",
        ),
        (
            Create,
            "pods",
            "p",
            with(
                mirror("a"),
                "/spec/volumes",
                json!([{"name": "v", "csi": {"driver": "x"}}]),
            ),
            Value::Null,
            "can not create pods that reference csidrivers (via CSI volumes)",
        ),
        (
            Create,
            "pods",
            "p",
            with(mirror("a"), "/spec/volumes", json!([{"name": "v", "ephemeral": {}}])),
            Value::Null,
            "can not create pods that reference persistentvolumeclaims (via ephemeral volumes)",
        ),
        (
            Create,
            "pods",
            "p",
            with(
                mirror("a"),
                "/spec/volumes",
                json!([{"name": "v", "projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {"path": "t"}}]}}]),
            ),
            Value::Null,
            "can not create pods that reference serviceaccounts (via projected volumes)",
        ),
        (
            Create,
            "pods",
            "p",
            with(
                mirror("a"),
                "/spec/volumes",
                json!([{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "news": {}}]),
            ),
            Value::Null,
            "error checking mirror pod for API references: unknown volume type for volume  \"w\"",
        ),
        (
            Create,
            "pods/exec",
            "p",
            json!({}),
            Value::Null,
            "unexpected pod subresource \"exec\", only 'status' and 'eviction' are allowed",
        ),
        (
            Update,
            "pods/status",
            "p",
            with(on("a"), "/status", json!({"resourceClaimStatuses": [{"name": "c"}]})),
            with(on("a"), "/status", json!({})),
            "cannot update resource claim statues",
        ),
        (
            Update,
            "pods/status",
            "p",
            with(
                on("a"),
                "/status",
                json!({"extendedResourceClaimStatus": {"resourceClaimName": "c"}}),
            ),
            with(on("a"), "/status", json!({})),
            "cannot update extended resource claim status",
        ),
        (
            Update,
            "persistentvolumeclaims/status",
            "c",
            claim(json!({"phase": "Bound", "capacity": {"storage": "2Gi"}})),
            claim(json!({"phase": "Bound"})),
            "",
        ),
        (
            Update,
            "persistentvolumeclaims/status",
            "c",
            claim(json!({"phase": "Lost"})),
            claim(json!({"phase": "Bound"})),
            "is not allowed to update fields other than status.quantity and status.conditions",
        ),
        (
            Update,
            "persistentvolumeclaims",
            "c",
            claim(json!({})),
            claim(json!({})),
            "may only update PVC status",
        ),
        (Create, "resourceslices", "", slice("a"), Value::Null, ""),
        (
            Create,
            "resourceslices",
            "",
            slice("b"),
            Value::Null,
            "can only create ResourceSlice with the same NodeName",
        ),
        (
            Delete,
            "resourceslices",
            "s",
            Value::Null,
            slice("b"),
            "can only delete ResourceSlice with the same NodeName",
        ),
        (
            Create,
            "certificatesigningrequests",
            "",
            csr("system:node:a"),
            Value::Null,
            "",
        ),
        (
            Create,
            "certificatesigningrequests",
            "",
            csr("system:node:b"),
            Value::Null,
            "can only create a node CSR with CN=system:node:a",
        ),
        (
            Create,
            "certificatesigningrequests",
            "",
            with(csr("system:node:a"), "/spec/request", json!("bm8=")),
            Value::Null,
            "unable to parse csr",
        ),
        (
            Create,
            "certificatesigningrequests",
            "",
            with(csr("anybody"), "/spec/signerName", json!("example.com/other")),
            Value::Null,
            "",
        ),
        (
            Create,
            "serviceaccounts/token",
            "sa",
            asking(&["vault"]),
            Value::Null,
            "",
        ),
        (
            Create,
            "serviceaccounts/token",
            "sa",
            asking(&["of-inline"]),
            Value::Null,
            "",
        ),
        (
            Create,
            "serviceaccounts/token",
            "sa",
            asking(&["of-disk"]),
            Value::Null,
            "",
        ),
        (
            Create,
            "serviceaccounts/token",
            "sa",
            asking(&["granted"]),
            Value::Null,
            "",
        ),
        (
            Create,
            "serviceaccounts/token",
            "sa",
            asking(&["else"]),
            Value::Null,
            "audience \"else\" not found in pod spec volume, system:node:a is not authorized to request tokens for this audience",
        ),
        (
            Create,
            "serviceaccounts/token",
            "sa",
            asking(&["vault", "granted"]),
            Value::Null,
            "node may only request 0 or 1 audiences",
        ),
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
            "sa",
            bound("gone", "u1"),
            Value::Null,
            "pods \"gone\" not found",
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
    let old = json!({"spec": {"nodeName": "b"}});
    assert!(block_on(check(&review, &Rights, None, Some(&old))).is_ok());
}
