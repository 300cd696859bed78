//! The Node authorizer: a kubelet reaches what the pods on its node use, and nothing else.
//!
//! Source: `plugin/pkg/auth/authorizer/node/node_authorizer.go` and `graph_populator.go`. What is left to the role
//! `system:node` (whose rules do not depend on the node) is answered from that role's rules.
//! Invariant: `uses` counts, for each node, the pods bound to it that refer to an object; a pod that is deleted, or
//! terminal, still counts until it is gone, as upstream.

use std::collections::{BTreeMap, HashMap, HashSet};

use api::{GroupResource, Value};
use parking_lot::Mutex;

use super::Rule;
use crate::cluster::{Change, Changes, Cluster, Object};
use crate::pipeline::{Authorizer, Decision, RuleSet};
use crate::request::{Attributes, UserInfo};

/// The group of all kubelets.
pub(crate) const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";
const READ: &[&str] = &["get", "list", "watch"];
const ONLY_READ: &str = "can only read resources of this type";
const ONLY_GET: &str = "can only get individual resources of this type";

/// The node that a user is, when it is a kubelet's.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    let node = user.name.strip_prefix(NODE_USER_PREFIX)?;
    (!node.is_empty() && user.is_in(NODES_GROUP)).then_some(node)
}

/// The Node authorizer.
pub struct NodeAuthorizer {
    state: Mutex<State>,
    /// The rules of `system:node` that need no look at the object.
    rules: Vec<Rule>,
}

/// A resource of the core group, a namespace and a name.
pub(crate) type Used = (&'static str, Box<str>, Box<str>);

struct State {
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

// === impl NodeAuthorizer ===

impl NodeAuthorizer {
    /// Follows pods from now on. `node_role` is the bootstrap ClusterRole `system:node`.
    pub fn new(cluster: &dyn Cluster, node_role: &Value) -> NodeAuthorizer {
        let core = |resource: &str| GroupResource {
            group: String::new(),
            resource: resource.into(),
        };
        let guarded = |rule: &Rule| {
            let groups: HashSet<&str> = rule.groups.iter().map(String::as_str).collect();
            rule.resources.iter().any(|resource| is_guarded(&groups, resource))
        };
        NodeAuthorizer {
            state: Mutex::new(State {
                pods: cluster.changes(&core("pods")),
                volumes: cluster.changes(&core("persistentvolumes")),
                slices: cluster.changes(&GroupResource {
                    group: "resource.k8s.io".into(),
                    resource: "resourceslices".into(),
                }),
                pod_uses: HashMap::new(),
                uses: HashMap::new(),
                claims: HashMap::new(),
                slice_nodes: HashMap::new(),
            }),
            rules: Rule::of_role(node_role)
                .into_iter()
                .filter(|rule| !guarded(rule))
                .collect(),
        }
    }

    fn uses(&self, node: &str, resource: &'static str, namespace: &str, name: &str) -> bool {
        let mut state = self.state.lock();
        state.drain();
        match resource {
            "persistentvolumes" => match state.claims.get(name) {
                Some((namespace, claim)) => state.count(node, "persistentvolumeclaims", namespace, claim),
                None => false,
            },
            "resourceslices" => state.slice_nodes.get(name).is_some_and(|owner| **owner == *node),
            _ => state.count(node, resource, namespace, name),
        }
    }

    /// Allows the verbs on what the node's pods use; `only` is what to say of others.
    fn by_pod(
        &self,
        node: &str,
        resource: &'static str,
        attributes: &Attributes,
        verbs: &[&str],
        only: &str,
    ) -> Decision {
        if !verbs.contains(&&*attributes.verb) {
            return no(only.into());
        }
        self.related(node, resource, attributes)
    }

    fn related(&self, node: &str, resource: &'static str, attributes: &Attributes) -> Decision {
        if attributes.name.is_empty() {
            return no("No Object name found".into());
        }
        if self.uses(node, resource, &attributes.namespace, &attributes.name) {
            return Decision::Allow(String::new());
        }
        no(format!("no relationship found between node '{node}' and this object"))
    }
}

/// Whether the graph or the node's name decides, in place of the role's rules.
fn is_guarded(groups: &HashSet<&str>, resource: &str) -> bool {
    let core = [
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "persistentvolumes",
        "serviceaccounts",
        "pods",
        "nodes",
    ];
    let core_subresources = ["persistentvolumeclaims/status", "serviceaccounts/token"];
    (groups.contains("") && (core.contains(&resource) || core_subresources.contains(&resource)))
        || (groups.contains("coordination.k8s.io") && resource == "leases")
        || (groups.contains("storage.k8s.io") && matches!(resource, "csinodes" | "volumeattachments"))
        || (groups.contains("resource.k8s.io") && matches!(resource, "resourceclaims" | "resourceslices"))
}

fn no(reason: String) -> Decision {
    Decision::NoOpinion(reason)
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        let Some(node) = node_of(user) else {
            return no(String::new());
        };
        if !attributes.is_resource {
            return no(String::new());
        }
        let about = (&*attributes.group, &*attributes.resource, &*attributes.subresource);
        match about {
            ("", "secrets", "") => self.by_pod(node, "secrets", attributes, READ, ONLY_READ),
            ("", "configmaps", "") => self.by_pod(node, "configmaps", attributes, READ, ONLY_READ),
            ("", "persistentvolumeclaims", "") => {
                self.by_pod(node, "persistentvolumeclaims", attributes, &["get"], ONLY_GET)
            }
            ("", "persistentvolumeclaims", "status") => {
                let only = "can only get/update/patch this type";
                self.by_pod(node, "persistentvolumeclaims", attributes, &["update", "patch"], only)
            }
            ("", "persistentvolumes", "") => self.by_pod(node, "persistentvolumes", attributes, &["get"], ONLY_GET),
            ("", "serviceaccounts", "token") => {
                let only = "can only create tokens for individual service accounts";
                self.by_pod(node, "serviceaccounts", attributes, &["create"], only)
            }
            ("", "serviceaccounts", "") => self.by_pod(node, "serviceaccounts", attributes, &["get"], ONLY_GET),
            ("", "pods", "") => self.pods(node, attributes),
            ("", "nodes", "") => own_node(node, attributes),
            ("coordination.k8s.io", "leases", "") => lease(node, attributes),
            ("storage.k8s.io", "csinodes", "") => own_name(node, attributes, "CSINode"),
            ("resource.k8s.io", "resourceslices", "") => self.slices(node, attributes),
            _ if self.rules.iter().any(|rule| rule.allows(attributes)) => Decision::Allow(String::new()),
            _ => no(String::new()),
        }
    }

    fn rules(&self, user: &UserInfo, _namespace: &str) -> RuleSet {
        if node_of(user).is_none() {
            return RuleSet::default();
        }
        RuleSet {
            incomplete: true,
            evaluation_error: "node authorizer does not support user rule resolution".into(),
            ..RuleSet::default()
        }
    }
}

impl NodeAuthorizer {
    /// A node sees its own pods: by name when the pod is bound to it, in lists with the selector that says so.
    fn pods(&self, node: &str, attributes: &Attributes) -> Decision {
        match &*attributes.verb {
            "create" | "delete" => Decision::Allow(String::new()),
            "list" | "watch" if selects_node(node, attributes) => Decision::Allow(String::new()),
            "list" | "watch" if attributes.name.is_empty() => {
                no("can only list/watch pods with spec.nodeName field selector".into())
            }
            "get" | "list" | "watch" => self.related(node, "pods", attributes),
            _ => no(String::new()),
        }
    }

    /// A node sees and changes the slices of its own devices; of whom a new one is, NodeRestriction looks at.
    fn slices(&self, node: &str, attributes: &Attributes) -> Decision {
        match &*attributes.verb {
            "create" => Decision::Allow(String::new()),
            "get" | "update" | "patch" | "delete" => self.related(node, "resourceslices", attributes),
            "list" | "watch" | "deletecollection" if selects_node(node, attributes) => Decision::Allow(String::new()),
            "list" | "watch" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector".into())
            }
            _ => no(String::new()),
        }
    }
}

/// Whether a list is asked for with the field selector that names the node.
fn selects_node(node: &str, attributes: &Attributes) -> bool {
    let wanted = format!("spec.nodeName={node}");
    let selected = attributes.field_selector.replace("==", "=");
    selected.split(',').any(|requirement| requirement == wanted)
}

/// A node reads its own Node only. Which one it writes, NodeRestriction looks at.
fn own_node(node: &str, attributes: &Attributes) -> Decision {
    match (&*attributes.verb, &*attributes.name) {
        ("create" | "update" | "patch", _) => Decision::Allow(String::new()),
        ("get" | "list" | "watch", name) if name == node => Decision::Allow(String::new()),
        ("get" | "list" | "watch", "") => no(format!("node '{node}' cannot read all nodes, only its own Node object")),
        ("get" | "list" | "watch", name) => no(format!("node '{node}' cannot read '{name}', only its own Node object")),
        _ => no(String::new()),
    }
}

fn lease(node: &str, attributes: &Attributes) -> Decision {
    match &*attributes.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return no("can only get, create, update, patch, or delete a node lease".into()),
    }
    if attributes.namespace != LEASE_NAMESPACE {
        return no(format!(
            "can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"
        ));
    }
    // The body of a create names the lease; NodeRestriction looks into it.
    if attributes.name != node && !(attributes.verb == "create" && attributes.name.is_empty()) {
        return no("can only access node lease with the same name as the requesting node".into());
    }
    Decision::Allow(String::new())
}

fn own_name(node: &str, attributes: &Attributes, kind: &str) -> Decision {
    match &*attributes.verb {
        "create" | "get" | "update" | "patch" | "delete" => {}
        _ => return no(format!("can only get, create, update, patch, or delete a {kind}")),
    }
    if attributes.name != node && !(attributes.verb == "create" && attributes.name.is_empty()) {
        return no(format!(
            "can only access {kind} with the same name as the requesting node"
        ));
    }
    Decision::Allow(String::new())
}

// === impl State ===

impl State {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::World;
    use serde_json::json;

    fn node_role() -> Value {
        let objects = crate::bootstrap::policy::objects().unwrap();
        objects
            .into_iter()
            .find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == "system:node")
            .unwrap()
    }

    fn pod(name: &str, node: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {
            "nodeName": node, "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "env": [{"valueFrom": {"secretKeyRef": {"name": "env-secret"}}}],
                "envFrom": [{"configMapRef": {"name": "env-map"}}],
            }],
            "volumes": [
                {"name": "s", "secret": {"secretName": "volume-secret"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "projected-map"}}]}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "i", "csi": {"nodePublishSecretRef": {"name": "csi-secret"}}},
            ],
        }})
    }

    fn allowed(authorizer: &NodeAuthorizer, request: &str) -> bool {
        // verb group resource/subresource namespace name [fieldSelector]
        let words: Vec<&str> = request
            .split(' ')
            .map(|word| if word == "-" { "" } else { word })
            .collect();
        let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
        let attributes = Attributes {
            verb: words[0].into(),
            group: words[1].into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: words[3].into(),
            name: words[4].into(),
            field_selector: words.get(5).copied().unwrap_or("").into(),
            is_resource: true,
            ..Attributes::default()
        };
        let user = UserInfo::new("system:node:a", [NODES_GROUP]);
        matches!(authorizer.authorize(&user, &attributes), Decision::Allow(_))
    }

    #[test]
    fn a_node_reaches_what_its_pods_use() {
        let world = World::new(&[
            ("pods", pod("own", "a")),
            (
                "resourceslices.resource.k8s.io",
                json!({"metadata": {"name": "own"}, "spec": {"nodeName": "a"}}),
            ),
            (
                "resourceslices.resource.k8s.io",
                json!({"metadata": {"name": "other"}, "spec": {"nodeName": "b"}}),
            ),
            (
                "persistentvolumes",
                json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "ns", "name": "claim"}}}),
            ),
        ]);
        let authorizer = NodeAuthorizer::new(&world, &node_role());
        for (request, expect) in [
            ("get - secrets ns volume-secret", true),
            ("watch - secrets ns env-secret", true),
            ("get - secrets ns pull", true),
            ("get - secrets ns csi-secret", true),
            ("get - secrets ns another", false),
            ("get - secrets other volume-secret", false),
            ("list - secrets ns -", false),
            ("delete - secrets ns volume-secret", false),
            ("get - configmaps ns env-map", true),
            ("list - configmaps ns projected-map", true),
            ("get - persistentvolumeclaims ns claim", true),
            ("get - persistentvolumes - pv", true),
            ("get - persistentvolumes - other", false),
            ("create - serviceaccounts/token ns sa", true),
            ("create - serviceaccounts/token ns other", false),
            ("get - pods ns own", true),
            ("get - pods ns other", false),
            ("list - pods - - spec.nodeName=a", true),
            ("watch - pods - - spec.nodeName==a", true),
            ("list - pods - - spec.nodeName=b", false),
            ("list - pods - -", false),
            ("patch - pods/status ns own", true),
            ("get coordination.k8s.io leases kube-node-lease a", true),
            ("create coordination.k8s.io leases kube-node-lease -", true),
            ("update coordination.k8s.io leases kube-node-lease b", false),
            ("get coordination.k8s.io leases kube-system a", false),
            ("watch - pods ns own", true),
            ("watch - pods ns other", false),
            ("create - nodes - -", true),
            ("get - nodes - a", true),
            ("watch - nodes - a", true),
            ("get - nodes - b", false),
            ("list - nodes - -", false),
            ("patch - nodes/status - a", true),
            ("create resource.k8s.io resourceslices - -", true),
            ("get resource.k8s.io resourceslices - own", true),
            ("delete resource.k8s.io resourceslices - own", true),
            ("delete resource.k8s.io resourceslices - other", false),
            (
                "deletecollection resource.k8s.io resourceslices - - spec.nodeName=a",
                true,
            ),
            ("list resource.k8s.io resourceslices - -", false),
            ("get resource.k8s.io resourceclaims ns x", false),
            ("list - services - -", true),
            ("delete - nodes - a", false),
            ("create - pods/exec ns own", false),
            ("get apps deployments ns x", false),
        ] {
            assert_eq!(allowed(&authorizer, request), expect, "{request}");
        }
        world.remove("pods", "ns", "own");
        assert!(!allowed(&authorizer, "get - secrets ns volume-secret"));
        world.put("pods", pod("own", "b"));
        assert!(!allowed(&authorizer, "get - secrets ns volume-secret"));
        world.put("pods", pod("two", "a"));
        assert!(allowed(&authorizer, "get - secrets ns volume-secret"));
    }

    #[test]
    fn nobody_else_is_a_node() {
        for (name, groups, expect) in [
            ("system:node:a", vec![NODES_GROUP], Some("a")),
            ("system:node:", vec![NODES_GROUP], None),
            ("system:node:a", vec!["dev"], None),
            ("jane", vec![NODES_GROUP], None),
        ] {
            assert_eq!(node_of(&UserInfo::new(name, groups)), expect, "{name}");
        }
    }
}
