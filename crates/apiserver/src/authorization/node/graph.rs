//! What the pods of each node use.
//!
//! Source: `plugin/pkg/auth/authorizer/node/graph.go` and `graph_populator.go`.
//! Invariant: `uses` counts, for each node, the pods bound to it that refer to an object; a pod that is deleted, or
//! terminal, still counts until it is gone, as upstream.

use std::collections::{BTreeMap, HashMap, HashSet};

use api::{GroupResource, Value};

use crate::cluster::{Change, Changes, Cluster, Object};

/// A resource of the core group, a namespace and a name.
pub(crate) type Used = (&'static str, Box<str>, Box<str>);

/// Which node reaches which object.
pub(super) struct Graph {
    pods: Box<dyn Changes>,
    volumes: Box<dyn Changes>,
    slices: Box<dyn Changes>,
    /// Per pod (namespace, name): its node and what it uses.
    pod_uses: HashMap<(Box<str>, Box<str>), (Box<str>, Vec<Used>)>,
    /// Per object: how many pods of which node use it.
    uses: HashMap<Used, BTreeMap<Box<str>, usize>>,
    /// The claim of each volume.
    claims: HashMap<Box<str>, (Box<str>, Box<str>)>,
    /// The node of each slice of devices that is of one.
    slice_nodes: HashMap<Box<str>, Box<str>>,
}

// === impl Graph ===

impl Graph {
    /// Follows pods, volumes and slices from now on.
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
            pod_uses: HashMap::new(),
            uses: HashMap::new(),
            claims: HashMap::new(),
            slice_nodes: HashMap::new(),
        }
    }

    /// Whether the node may reach the object, by all that is committed now.
    pub(super) fn reaches(&mut self, node: &str, resource: &'static str, namespace: &str, name: &str) -> bool {
        self.drain();
        match resource {
            "persistentvolumes" => match self.claims.get(name) {
                Some((namespace, claim)) => self.count(node, "persistentvolumeclaims", namespace, claim),
                None => false,
            },
            "resourceslices" => self.slice_nodes.get(name).is_some_and(|owner| **owner == *node),
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
                        self.remove(&pod);
                    }
                    if let Some(pod) = new {
                        self.add(&pod);
                    }
                }
            }
        }
        while let Some(change) = self.volumes.try_next() {
            match change {
                Change::Reset(volumes) => {
                    self.claims = volumes.iter().filter_map(claim_of).collect();
                }
                Change::Changed { old, new } => {
                    if let Some(volume) = old {
                        self.claims.remove(volume.name());
                    }
                    self.claims.extend(new.and_then(|volume| claim_of(&volume)));
                }
            }
        }
        while let Some(change) = self.slices.try_next() {
            match change {
                Change::Reset(slices) => {
                    self.slice_nodes = slices.iter().filter_map(node_of_slice).collect();
                }
                Change::Changed { old, new } => {
                    if let Some(slice) = old {
                        self.slice_nodes.remove(slice.name());
                    }
                    self.slice_nodes.extend(new.and_then(|slice| node_of_slice(&slice)));
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

fn claim_of(volume: &std::sync::Arc<Object>) -> Option<(Box<str>, (Box<str>, Box<str>))> {
    let value = volume.value();
    let claim = &value["spec"]["claimRef"];
    Some((
        volume.name().into(),
        (claim["namespace"].as_str()?.into(), claim["name"].as_str()?.into()),
    ))
}

fn node_of_slice(slice: &std::sync::Arc<Object>) -> Option<(Box<str>, Box<str>)> {
    Some((slice.name().into(), slice.value()["spec"]["nodeName"].as_str()?.into()))
}

/// All that a pod gives its node access to, each once. A pod that is its own kubelet's mirror gives no access to anything.
fn used_by(pod: &Value, namespace: &str, name: &str) -> Vec<Used> {
    let mut used = vec![("pods", namespace.into(), name.into())];
    if api::meta::annotation(pod, "kubernetes.io/config.mirror").is_none() {
        used.extend(references(pod, namespace, name));
    }
    used
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
