//! NodeRestriction: a kubelet writes its own Node, its own pods' status and its own Lease, and nothing beside.
//!
//! Source: `plugin/pkg/admission/noderestriction/admission.go`.

mod pods;

use std::sync::Arc;

use api::{GroupResource, Status, Value, meta};
use futures::future::BoxFuture;

use super::certificates;
use crate::authorization::node_of;
use crate::cluster::Object;
use crate::pipeline::{Authorizer, Operation, Plugin, Review, Step};

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

/// Signers whose certificates speak for a node.
const NODE_SIGNERS: [&str; 2] = [
    "kubernetes.io/kubelet-serving",
    "kubernetes.io/kube-apiserver-client-kubelet",
];

/// The plug-in.
pub struct NodeRestriction(Arc<dyn Authorizer>);

impl NodeRestriction {
    /// A plug-in that asks this authorizer for whom roles make exceptions.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> NodeRestriction {
        NodeRestriction(authorizer)
    }
}

/// Why a request is refused.
enum Refusal {
    /// It is forbidden.
    Forbidden(String),
    /// What it is about is not there, and the like.
    Other(Status),
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal::Forbidden(why)
    }
}

impl Refusal {
    /// An object of the core group, or the 404 that it is not there.
    fn look_up(review: &Review, resource: &str, namespace: &str, name: &str) -> Result<Arc<Object>, Refusal> {
        let found = review.cluster.get(&core(resource), namespace, name);
        found.ok_or_else(|| Refusal::Other(Status::not_found(&core(resource), name)))
    }
}

fn core(resource: &str) -> GroupResource {
    GroupResource {
        group: String::new(),
        resource: resource.into(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Validate
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
        Box::pin(check(review, &*self.0, object, old))
    }
}

async fn check(
    review: &Review,
    authorizer: &dyn Authorizer,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
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
        ("", "pods", "") => pods::pod(review, node, object, old),
        ("", "pods", "status") => pods::pod_status(review, node, object, old),
        ("", "pods", "eviction") => pods::eviction(review, node, object),
        ("", "pods", subresource) => {
            let why = format!("unexpected pod subresource {subresource:?}, only 'status' and 'eviction' are allowed");
            Err(why.into())
        }
        ("", "nodes", _) => node_object(review, node, object, old),
        ("", "persistentvolumeclaims", "status") => claim_status(review, node, object, old),
        ("", "persistentvolumeclaims", _) => Err("may only update PVC status".to_owned().into()),
        ("", "serviceaccounts", "token") => pods::token(review, authorizer, node, object).await,
        ("coordination.k8s.io", "leases", _) => lease(review, node, object),
        ("storage.k8s.io", "csinodes", _) => csi_node(review, node, object),
        ("resource.k8s.io", "resourceslices", _) => resource_slice(review, node, object, old),
        ("certificates.k8s.io", "certificatesigningrequests", "") => certificate(review, node, object),
        _ => Ok(()),
    };
    verdict.map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => review.forbidden(&why),
        Refusal::Other(status) => status,
    })
}

/// Of a claim, a node tells only how large it is and how its growing goes.
fn claim_status(review: &Review, node: &str, claim: &Value, old: &Value) -> Result<(), Refusal> {
    if review.operation != Operation::Update {
        return Err(format!("unexpected operation {:?}", review.operation.as_str()).into());
    }
    let rest = |claim: &Value| {
        let mut rest = claim.clone();
        for (part, fields) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            (
                "status",
                &[
                    "capacity",
                    "conditions",
                    "allocatedResources",
                    "allocatedResourceStatuses",
                ][..],
            ),
        ] {
            if let Some(part) = rest.get_mut(part).and_then(Value::as_object_mut) {
                part.retain(|field, _| !fields.contains(&field.as_str()));
            }
        }
        rest
    };
    if rest(claim) != rest(old) {
        let why =
            format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions");
        return Err(why.into());
    }
    Ok(())
}

/// What the authorizer cannot see: of whom a new slice is, and each slice of a collection that is deleted.
fn resource_slice(review: &Review, node: &str, slice: &Value, old: &Value) -> Result<(), Refusal> {
    let (slice, verb) = match review.operation {
        Operation::Create => (slice, "create"),
        Operation::Delete => (old, "delete"),
        _ => return Ok(()),
    };
    if slice["spec"]["nodeName"] != node {
        return Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node").into());
    }
    Ok(())
}

/// Certificates that speak for a node are only for that node.
fn certificate(review: &Review, node: &str, request: &Value) -> Result<(), Refusal> {
    let signer = request["spec"]["signerName"].as_str().unwrap_or("");
    if review.operation != Operation::Create || !NODE_SIGNERS.contains(&signer) {
        return Ok(());
    }
    match certificates::common_name(request) {
        None => Err("unable to parse csr: PEM block type must be CERTIFICATE REQUEST"
            .to_owned()
            .into()),
        Some(name) if name == review.user.name => Ok(()),
        Some(_) => Err(format!("can only create a node CSR with CN=system:node:{node}").into()),
    }
}

fn node_object(review: &Review, node: &str, object: &Value, old: &Value) -> Result<(), Refusal> {
    let name = if review.name.is_empty() {
        meta::name(object)
    } else {
        &review.name
    };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}").into());
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
                )
                .into());
            }
            if object["metadata"]["ownerReferences"]
                .as_array()
                .is_some_and(|owners| !owners.is_empty())
            {
                return Err(format!("node {node:?} is not allowed to set ownerReferences").into());
            }
            Ok(())
        }
        Operation::Update => {
            if object["spec"].get("taints") != old["spec"].get("taints") {
                return Err(format!("node {node:?} is not allowed to modify taints").into());
            }
            if object["metadata"].get("ownerReferences") != old["metadata"].get("ownerReferences") {
                return Err(format!("node {node:?} is not allowed to modify ownerReferences").into());
            }
            let mut changed: Vec<&str> = labels(object)
                .filter(|(key, value)| old["metadata"]["labels"].get(key) != Some(value))
                .chain(labels(old).filter(|(key, _)| object["metadata"]["labels"].get(key).is_none()))
                .map(|(key, _)| key)
                .filter(|key| !may_label(key))
                .collect();
            changed.sort_unstable();
            if !changed.is_empty() {
                return Err(format!("is not allowed to modify labels: {}", changed.join(", ")).into());
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

fn lease(review: &Review, node: &str, lease: &Value) -> Result<(), Refusal> {
    if review.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace").into());
    }
    let name = if review.operation == Operation::Create {
        meta::name(lease)
    } else {
        &review.name
    };
    if name != node {
        return Err("can only access node lease with the same name as the requesting node"
            .to_owned()
            .into());
    }
    Ok(())
}

fn csi_node(review: &Review, node: &str, object: &Value) -> Result<(), Refusal> {
    let name = if review.operation == Operation::Create {
        meta::name(object)
    } else {
        &review.name
    };
    if name != node {
        return Err("can only access CSINode with the same name as the requesting node"
            .to_owned()
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
