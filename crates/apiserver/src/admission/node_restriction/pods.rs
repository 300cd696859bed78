//! What a kubelet may do to pods, and for which pods it gets tokens.

use api::{GroupResource, Value, meta};
use serde_json::Map;

use super::{Refusal, core, list};
use crate::authorization::node_references;
use crate::pipeline::{Authorizer, Operation, Review};
use crate::request::Attributes;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// The verb by which a role lets a node ask for tokens of an audience that no volume names.
const REQUEST_AUDIENCE: &str = "request-serviceaccounts-token-audience";

pub(super) fn pod(review: &Review, node: &str, pod: &Value, old: &Value) -> Result<(), Refusal> {
    match review.operation {
        Operation::Create => mirror_pod(review, node, pod),
        Operation::Delete if old["spec"]["nodeName"] == node => Ok(()),
        Operation::Delete => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself").into()),
        other => Err(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            other.as_str()
        )
        .into()),
    }
}

/// What a kubelet shows of a static pod may not reach for anything of the cluster.
fn mirror_pod(review: &Review, node: &str, pod: &Value) -> Result<(), Refusal> {
    if meta::annotation(pod, MIRROR).is_none() {
        let why = format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods");
        return Err(why.into());
    }
    if pod["spec"]["nodeName"] != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself").into());
    }
    let owners: Vec<&Value> = list(&pod["metadata"]["ownerReferences"]).collect();
    let owner = match owners[..] {
        [owner] => owner,
        [] => return Err(format!("node {node:?} can only create pods with an owner reference set to itself").into()),
        _ => {
            let why = format!("node {node:?} can only create pods with a single owner reference set to itself");
            return Err(why.into());
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself").into());
    }
    if owner["controller"] != true {
        let why = format!("node {node:?} can only create pods with a controller owner reference set to itself");
        return Err(why.into());
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference").into());
    }
    let found = Refusal::look_up(review, "nodes", "", node)?;
    let given = owner["uid"].as_str().unwrap_or("");
    if given != found.uid() {
        return Err(format!("node {node} UID mismatch: expected {given} got {}", found.uid()).into());
    }
    match api_reference(pod) {
        Ok(None) => Ok(()),
        Ok(Some(words)) => Err(format!("node {node:?} can not create pods that reference {words}").into()),
        Err(why) => Err(format!("error checking mirror pod for API references: {why}").into()),
    }
}

/// What of the cluster a pod reaches for. Kinds of volumes that are not known may reach for anything.
/// Source: `HasAPIObjectReference` of `pkg/api/pod/util.go`.
fn api_reference(pod: &Value) -> Result<Option<&'static str>, String> {
    /// Volumes that need nothing of the API, and those that do with the words for it.
    const HARMLESS: [&str; 22] = [
        "awsElasticBlockStore",
        "azureDisk",
        "cephfs",
        "cinder",
        "downwardAPI",
        "emptyDir",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "gitRepo",
        "hostPath",
        "image",
        "iscsi",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "storageos",
        "vsphereVolume",
    ];
    const REACHING: [(&str, &str); 7] = [
        ("configMap", "configmaps (via configmap volumes)"),
        ("secret", "secrets (via secret volumes)"),
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    const PROJECTED: [(&str, &str); 5] = [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let words_of = |source: &Value, known: &[(&str, &'static str)]| {
        let found = known.iter().find(|(field, _)| source[*field].is_object());
        found.map(|(_, words)| *words)
    };
    let used = node_references(pod, meta::namespace(pod), meta::name(pod));
    for resource in ["serviceaccounts", "secrets", "configmaps"] {
        if used.iter().any(|(used, ..)| *used == resource) {
            return Ok(Some(resource));
        }
    }
    if list(&pod["spec"]["resourceClaims"]).next().is_some() {
        return Ok(Some("resourceclaims"));
    }
    for volume in list(&pod["spec"]["volumes"]) {
        let name = api::field::quote(volume["name"].as_str().unwrap_or(""));
        if let Some(words) = words_of(volume, &REACHING) {
            return Ok(Some(words));
        }
        if volume["projected"].is_object() {
            for source in list(&volume["projected"]["sources"]) {
                if let Some(words) = words_of(source, &PROJECTED) {
                    return Ok(Some(words));
                }
                if !source["downwardAPI"].is_object() {
                    return Err(format!("unknown source for projected volume {name}"));
                }
            }
        } else if !HARMLESS.iter().any(|field| volume[*field].is_object()) {
            return Err(format!("unknown volume type for volume  {name}"));
        }
    }
    Ok(None)
}

pub(super) fn pod_status(review: &Review, node: &str, pod: &Value, old: &Value) -> Result<(), Refusal> {
    if review.operation != Operation::Update {
        return Err(format!("unexpected operation {:?}", review.operation.as_str()).into());
    }
    if old["spec"]["nodeName"] != node {
        let why = format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself");
        return Err(why.into());
    }
    let empty = Value::Object(Map::new());
    let labels = |pod: &Value| pod["metadata"].get("labels").cloned().unwrap_or_else(|| empty.clone());
    if labels(pod) != labels(old) {
        return Err(format!("node {node:?} cannot update labels through pod status").into());
    }
    let claims = |pod: &Value| -> Vec<Value> { list(&pod["status"]["resourceClaimStatuses"]).cloned().collect() };
    if claims(pod) != claims(old) {
        return Err(format!("node {node:?} cannot update resource claim statues").into());
    }
    let extended = |pod: &Value| pod["status"].get("extendedResourceClaimStatus").cloned();
    if extended(pod) != extended(old) {
        return Err(format!("node {node:?} cannot update extended resource claim status").into());
    }
    Ok(())
}

pub(super) fn eviction(review: &Review, node: &str, eviction: &Value) -> Result<(), Refusal> {
    let name = match &*review.name {
        "" => meta::name(eviction),
        name => name,
    };
    let pod = Refusal::look_up(review, "pods", &review.namespace, name)?;
    if pod.value()["spec"]["nodeName"] != node {
        return Err(format!("node {node} can only evict pods with spec.nodeName set to itself").into());
    }
    Ok(())
}

pub(super) async fn token(
    review: &Review,
    authorizer: &dyn Authorizer,
    node: &str,
    request: &Value,
) -> Result<(), Refusal> {
    let bound = &request["spec"]["boundObjectRef"];
    if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || bound["name"].as_str().is_none_or(str::is_empty) {
        return Err("node requested token not bound to a pod".to_owned().into());
    }
    let uid = bound["uid"].as_str().unwrap_or("");
    if uid.is_empty() {
        return Err("node requested token with a pod binding without a uid"
            .to_owned()
            .into());
    }
    let pod = Refusal::look_up(review, "pods", &review.namespace, bound["name"].as_str().unwrap_or(""))?;
    if pod.uid() != uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(why.into());
    }
    let pod = pod.value();
    if pod["spec"]["nodeName"] != node {
        let why = "node requested token bound to a pod scheduled on a different node".to_owned();
        return Err(why.into());
    }
    audience(review, authorizer, request, &pod).await
}

/// A node gets tokens only for audiences that a volume of the pod names, or that a role grants (KEP-4412).
async fn audience(review: &Review, authorizer: &dyn Authorizer, request: &Value, pod: &Value) -> Result<(), Refusal> {
    let audiences: Vec<&str> = list(&request["spec"]["audiences"]).filter_map(Value::as_str).collect();
    let wanted = match audiences[..] {
        [] => "",
        [one] => one,
        _ => return Err("node may only request 0 or 1 audiences".to_owned().into()),
    };
    if names_audience(review, pod, wanted) {
        return Ok(());
    }
    let attributes = Attributes {
        is_resource: true,
        verb: REQUEST_AUDIENCE.into(),
        version: "v1".into(),
        resource: wanted.into(),
        namespace: review.namespace.clone(),
        name: review.name.clone(),
        ..Attributes::default()
    };
    if authorizer.authorize(&review.user, &attributes).await.allows() {
        return Ok(());
    }
    Err(format!(
        "audience {wanted:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        review.user.name
    )
    .into())
}

/// Whether a volume of the pod asks for tokens of that audience: by itself, or its CSI driver does.
fn names_audience(review: &Review, pod: &Value, wanted: &str) -> bool {
    let is_wanted = |audience: &Value| audience.as_str().unwrap_or("") == wanted;
    let driver_asks = |driver: &Value| {
        let drivers = GroupResource {
            group: "storage.k8s.io".into(),
            resource: "csidrivers".into(),
        };
        let found = driver.as_str().and_then(|name| review.cluster.get(&drivers, "", name));
        found.is_some_and(|driver| {
            list(&driver.value()["spec"]["tokenRequests"]).any(|request| is_wanted(&request["audience"]))
        })
    };
    let claim_asks = |claim: &str| {
        let claim = review
            .cluster
            .get(&core("persistentvolumeclaims"), &review.namespace, claim);
        let volume = claim.and_then(|claim| {
            let claim = claim.value();
            let name = claim["spec"]["volumeName"].as_str()?;
            review.cluster.get(&core("persistentvolumes"), "", name)
        });
        volume.is_some_and(|volume| driver_asks(&volume.value()["spec"]["csi"]["driver"]))
    };
    list(&pod["spec"]["volumes"]).any(|volume| {
        let mut sources = list(&volume["projected"]["sources"]).map(|source| &source["serviceAccountToken"]);
        let ephemeral = volume["ephemeral"].is_object().then(|| {
            let volume = volume["name"].as_str().unwrap_or("");
            format!("{}-{volume}", meta::name(pod))
        });
        sources.any(|token| token.is_object() && is_wanted(&token["audience"]))
            || driver_asks(&volume["csi"]["driver"])
            || volume["persistentVolumeClaim"]["claimName"]
                .as_str()
                .is_some_and(claim_asks)
            || ephemeral.as_deref().is_some_and(claim_asks)
    })
}
