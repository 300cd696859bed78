//! What the pods of each node use, and what belongs to the node itself.
//!
//! Source: `plugin/pkg/auth/authorizer/node/graph.go` and `graph_populator.go`; of the secrets of volumes
//! `pkg/api/v1/persistentvolume/util.go`.
//! Invariant: `uses` counts, for each node, the pods bound to it that refer to an object; a pod that is deleted, or
//! terminal, still counts until it is gone, as upstream.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use api::{GroupResource, Value};
use tokio::time::Instant;

use crate::cluster::{Change, Changes, Cluster, Object};
use crate::metrics::shared;

/// A resource, a namespace and a name. No two groups have resources of the same name here.
pub(crate) type Used = (&'static str, Box<str>, Box<str>);

/// Which node reaches which object.
pub(super) struct Graph {
    pods: Box<dyn Changes>,
    volumes: Box<dyn Changes>,
    slices: Box<dyn Changes>,
    attachments: Box<dyn Changes>,
    /// Per pod (namespace, name): its node and what it uses.
    pod_uses: HashMap<(Box<str>, Box<str>), (Box<str>, Vec<Used>)>,
    /// Per object: how many pods of which node use it.
    uses: HashMap<Used, BTreeMap<Box<str>, usize>>,
    /// What each volume that has a claim leads to.
    bound: HashMap<Box<str>, Bound>,
    /// The volumes that need a secret (namespace, name).
    volumes_of_secret: HashMap<(Box<str>, Box<str>), HashSet<Box<str>>>,
    /// The node of each slice of devices that is of one, and of each attachment.
    slice_nodes: HashMap<Box<str>, Box<str>>,
    attachment_nodes: HashMap<Box<str>, Box<str>>,
}

/// A volume's claim, and the secrets that a kubelet needs to mount it; each with its namespace.
struct Bound {
    claim: (Box<str>, Box<str>),
    secrets: Vec<(Box<str>, Box<str>)>,
}

// === impl Graph ===

impl Graph {
    /// Follows pods, volumes, slices and attachments from now on.
    pub(super) fn new(cluster: &dyn Cluster) -> Graph {
        let follow = |group: &str, resource: &str| {
            cluster.changes(&GroupResource {
                group: group.into(),
                resource: resource.into(),
            })
        };
        Graph {
            pods: follow("", "pods"),
            volumes: follow("", "persistentvolumes"),
            slices: follow("resource.k8s.io", "resourceslices"),
            attachments: follow("storage.k8s.io", "volumeattachments"),
            pod_uses: HashMap::new(),
            uses: HashMap::new(),
            bound: HashMap::new(),
            volumes_of_secret: HashMap::new(),
            slice_nodes: HashMap::new(),
            attachment_nodes: HashMap::new(),
        }
    }

    /// Whether the node may reach the object, by all that is committed now.
    pub(super) fn reaches(&mut self, node: &str, resource: &'static str, namespace: &str, name: &str) -> bool {
        self.drain();
        match resource {
            "persistentvolumes" => self.mounts(node, name),
            "secrets" if !self.count(node, resource, namespace, name) => {
                let volumes = self.volumes_of_secret.get(&(namespace.into(), name.into()));
                volumes.is_some_and(|volumes| volumes.iter().any(|volume| self.mounts(node, volume)))
            }
            "secrets" => true,
            "resourceslices" => self.slice_nodes.get(name).is_some_and(|owner| **owner == *node),
            "volumeattachments" => self.attachment_nodes.get(name).is_some_and(|owner| **owner == *node),
            _ => self.count(node, resource, namespace, name),
        }
    }

    fn drain(&mut self) {
        while let Some(change) = self.pods.try_next() {
            match change {
                Change::Reset(pods) => {
                    self.pod_uses.clear();
                    self.uses.clear();
                    pods.iter().for_each(|pod| self.add(pod));
                }
                Change::Changed { old, new } => {
                    if let Some(pod) = old {
                        timed("DeletePod", || self.remove(&pod));
                    }
                    if let Some(pod) = new {
                        timed("AddPod", || self.add(&pod));
                    }
                }
            }
        }
        while let Some(change) = self.volumes.try_next() {
            match change {
                Change::Reset(volumes) => {
                    self.bound.clear();
                    self.volumes_of_secret.clear();
                    volumes.iter().for_each(|volume| self.bind(volume));
                }
                Change::Changed { old, new } => {
                    if let Some(volume) = old {
                        timed("DeletePV", || self.unbind(volume.name()));
                    }
                    if let Some(volume) = new {
                        timed("AddPV", || self.bind(&volume));
                    }
                }
            }
        }
        let words = ("AddResourceSlice", "DeleteResourceSlice");
        of_nodes(&mut *self.slices, &mut self.slice_nodes, words);
        let words = ("AddVolumeAttachment", "DeleteVolumeAttachment");
        of_nodes(&mut *self.attachments, &mut self.attachment_nodes, words);
    }

    /// Whether a pod of the node uses the claim of that volume.
    fn mounts(&self, node: &str, volume: &str) -> bool {
        self.bound.get(volume).is_some_and(|bound| {
            let (namespace, claim) = &bound.claim;
            self.count(node, "persistentvolumeclaims", namespace, claim)
        })
    }

    fn bind(&mut self, volume: &Object) {
        let Some(bound) = bound(&volume.value()) else { return };
        for secret in &bound.secrets {
            let volumes = self.volumes_of_secret.entry(secret.clone()).or_default();
            volumes.insert(volume.name().into());
        }
        self.bound.insert(volume.name().into(), bound);
    }

    fn unbind(&mut self, volume: &str) {
        for secret in self.bound.remove(volume).into_iter().flat_map(|bound| bound.secrets) {
            if let Some(volumes) = self.volumes_of_secret.get_mut(&secret) {
                volumes.remove(volume);
                if volumes.is_empty() {
                    self.volumes_of_secret.remove(&secret);
                }
            }
        }
    }

    fn add(&mut self, pod: &Object) {
        let value = pod.value();
        let node = value["spec"]["nodeName"].as_str().unwrap_or("");
        if node.is_empty() {
            return;
        }
        let used = used_by(&value, pod.namespace(), pod.name());
        for object in &used {
            *self
                .uses
                .entry(object.clone())
                .or_default()
                .entry(node.into())
                .or_default() += 1;
        }
        self.pod_uses
            .insert((pod.namespace().into(), pod.name().into()), (node.into(), used));
    }

    fn remove(&mut self, pod: &Object) {
        let Some((node, used)) = self.pod_uses.remove(&(pod.namespace().into(), pod.name().into())) else {
            return;
        };
        for object in used {
            let Some(nodes) = self.uses.get_mut(&object) else {
                continue;
            };
            if let Some(count) = nodes.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.uses.remove(&object);
            }
        }
    }

    fn count(&self, node: &str, resource: &'static str, namespace: &str, name: &str) -> bool {
        let key = (resource, namespace.into(), name.into());
        self.uses.get(&key).is_some_and(|nodes| nodes.contains_key(node))
    }
}

/// Brings the nodes of objects that name one in `spec.nodeName` up to date; the words are upstream's for metrics.
fn of_nodes(changes: &mut dyn Changes, nodes: &mut HashMap<Box<str>, Box<str>>, words: (&'static str, &'static str)) {
    let node_of = |object: &Arc<Object>| {
        let node = object.value()["spec"]["nodeName"].as_str()?.into();
        Some((Box::<str>::from(object.name()), node))
    };
    while let Some(change) = changes.try_next() {
        match change {
            Change::Reset(all) => *nodes = all.iter().filter_map(node_of).collect(),
            Change::Changed { old, new } => {
                if let Some(object) = old {
                    timed(words.1, || nodes.remove(object.name()));
                }
                timed(words.0, || nodes.extend(new.as_ref().and_then(node_of)));
            }
        }
    }
}

fn timed<T>(operation: &'static str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    shared().authorizers.graph_changed(operation, began.elapsed());
    done
}

/// What a volume leads to, when it has a claim.
fn bound(volume: &Value) -> Option<Bound> {
    let spec = volume["spec"].as_object()?;
    let claim = &spec.get("claimRef")?;
    let claim: (Box<str>, Box<str>) = (claim["namespace"].as_str()?.into(), claim["name"].as_str()?.into());
    let mut secrets = Vec::new();
    let mut add = |namespace: &Value, name: &Value| {
        // Older volumes name no namespace: then it is the claim's.
        let namespace = namespace.as_str().filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or(&claim.0);
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            secrets.push((namespace.into(), name.into()));
        }
    };
    // What CSI's controllers need is not for kubelets.
    const SEEN_BY_KUBELETS: [&str; 4] = [
        "secretRef",
        "nodePublishSecretRef",
        "nodeStageSecretRef",
        "nodeExpandSecretRef",
    ];
    for (kind, source) in spec.iter().filter(|(_, source)| source.is_object()) {
        for field in SEEN_BY_KUBELETS {
            add(&source[field]["namespace"], &source[field]["name"]);
        }
        if kind == "azureFile" {
            add(&source["secretNamespace"], &source["secretName"]);
        }
    }
    Some(Bound { claim, secrets })
}

/// All that a pod gives its node access to, each once. A pod that is its own kubelet's mirror gives no access to anything.
fn used_by(pod: &Value, namespace: &str, name: &str) -> Vec<Used> {
    let mut used = vec![("pods", namespace.into(), name.into())];
    if api::meta::annotation(pod, "kubernetes.io/config.mirror").is_none() {
        used.extend(references(pod, namespace, name));
        used.extend(device_claims(pod).map(|claim| ("resourceclaims", namespace.into(), claim.into())));
    }
    used
}

/// The claims of devices that a pod has: by their names, or by those that were made for it.
/// Source: `Name` of `k8s.io/dynamic-resource-allocation/resourceclaim`.
fn device_claims(pod: &Value) -> impl Iterator<Item = &str> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let own = list(&spec["resourceClaims"]).filter_map(|claim| match claim["resourceClaimName"].as_str() {
        Some(name) => Some(name),
        None => {
            let mut made = list(&status["resourceClaimStatuses"]);
            made.find(|made| made["name"] == claim["name"])?["resourceClaimName"].as_str()
        }
    });
    let extended = status["extendedResourceClaimStatus"]["resourceClaimName"].as_str();
    own.chain(extended).filter(|name| !name.is_empty())
}

/// All that a pod refers to, each once.
pub(crate) fn references(pod: &Value, namespace: &str, name: &str) -> HashSet<Used> {
    let mut used = HashSet::new();
    let mut add = |resource: &'static str, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            used.insert((resource, Box::<str>::from(namespace), Box::<str>::from(name)));
        }
    };
    let spec = &pod["spec"];
    add("serviceaccounts", spec["serviceAccountName"].as_str());
    for reference in list(&spec["imagePullSecrets"]) {
        add("secrets", reference["name"].as_str());
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(&spec[field]) {
            for variable in list(&container["env"]) {
                add("secrets", variable["valueFrom"]["secretKeyRef"]["name"].as_str());
                add("configmaps", variable["valueFrom"]["configMapKeyRef"]["name"].as_str());
            }
            for source in list(&container["envFrom"]) {
                add("secrets", source["secretRef"]["name"].as_str());
                add("configmaps", source["configMapRef"]["name"].as_str());
            }
        }
    }
    for volume in list(&spec["volumes"]) {
        add("secrets", volume["secret"]["secretName"].as_str());
        add("configmaps", volume["configMap"]["name"].as_str());
        add(
            "persistentvolumeclaims",
            volume["persistentVolumeClaim"]["claimName"].as_str(),
        );
        if volume["ephemeral"].is_object() {
            let claim = volume["name"].as_str().map(|volume| format!("{name}-{volume}"));
            add("persistentvolumeclaims", claim.as_deref());
        }
        for source in list(&volume["projected"]["sources"]) {
            add("secrets", source["secret"]["name"].as_str());
            add("configmaps", source["configMap"]["name"].as_str());
        }
        // Every other kind of volume names its secret in one of these fields.
        for source in volume.as_object().into_iter().flat_map(|fields| fields.values()) {
            for field in ["secretRef", "nodePublishSecretRef"] {
                add("secrets", source[field]["name"].as_str());
            }
        }
        add("secrets", volume["azureFile"]["secretName"].as_str());
    }
    used
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
