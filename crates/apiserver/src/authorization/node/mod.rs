//! The Node authorizer: a kubelet reaches what the pods on its node use, and nothing else.
//!
//! Source: `plugin/pkg/auth/authorizer/node/node_authorizer.go` and `graph_populator.go`. What is left to the role
//! `system:node` (whose rules do not depend on the node) is answered from that role's rules.
//! Which object is whose is the [`graph`]'s to know.

mod graph;

use std::collections::HashSet;

use api::Value;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::Rule;
use crate::cluster::Cluster;
use crate::pipeline::{Authorizer, Decision, RuleSet};
use crate::request::{Attributes, UserInfo};
use graph::Graph;
pub(crate) use graph::references;

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
    graph: Mutex<Graph>,
    /// The rules of `system:node` that need no look at the object.
    rules: Vec<Rule>,
}

// === impl NodeAuthorizer ===

impl NodeAuthorizer {
    /// Follows pods from now on. `node_role` is the bootstrap ClusterRole `system:node`.
    pub fn new(cluster: &dyn Cluster, node_role: &Value) -> NodeAuthorizer {
        let guarded = |rule: &Rule| {
            let groups: HashSet<&str> = rule.groups.iter().map(String::as_str).collect();
            rule.resources.iter().any(|resource| is_guarded(&groups, resource))
        };
        NodeAuthorizer {
            graph: Mutex::new(Graph::new(cluster)),
            rules: Rule::of_role(node_role)
                .into_iter()
                .filter(|rule| !guarded(rule))
                .collect(),
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
        if self
            .graph
            .lock()
            .reaches(node, resource, &attributes.namespace, &attributes.name)
        {
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
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        self.decide(user, attributes).now()
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
    fn decide(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
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
            ("resource.k8s.io", "resourceclaims", "") => {
                self.by_pod(node, "resourceclaims", attributes, &["get"], ONLY_GET)
            }
            ("storage.k8s.io", "volumeattachments", "") => {
                self.by_pod(node, "volumeattachments", attributes, &["get"], ONLY_GET)
            }
            _ if self.rules.iter().any(|rule| rule.allows(attributes)) => Decision::Allow(String::new()),
            _ => no(String::new()),
        }
    }

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
    let mut terms = attributes.field_selector.iter();
    terms.any(|term| term.equal && term.field == "spec.nodeName" && term.value == node)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::World;
    use api::selector::FieldSelector;
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
            "resourceClaims": [{"name": "d", "resourceClaimName": "device"}, {"name": "t", "resourceClaimTemplateName": "x"},
                {"name": "u", "resourceClaimTemplateName": "x"}],
        }, "status": {"resourceClaimStatuses": [{"name": "t", "resourceClaimName": "made"}, {"name": "u"}]}})
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
            field_selector: FieldSelector::parse(words.get(5).copied().unwrap_or(""))
                .unwrap_or_default()
                .requirements()
                .to_vec(),
            is_resource: true,
            ..Attributes::default()
        };
        let user = UserInfo::new("system:node:a", [NODES_GROUP]);
        matches!(authorizer.decide(&user, &attributes), Decision::Allow(_))
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
                json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "ns", "name": "claim"},
                    "csi": {"nodeStageSecretRef": {"namespace": "storage", "name": "stage"},
                        "nodePublishSecretRef": {"name": "publish"},
                        "controllerPublishSecretRef": {"namespace": "storage", "name": "controllers"}}}}),
            ),
            (
                "persistentvolumes",
                json!({"metadata": {"name": "else"}, "spec": {"claimRef": {"namespace": "ns", "name": "unused"},
                    "azureFile": {"secretName": "elsewhere", "secretNamespace": "storage"}}}),
            ),
            (
                "volumeattachments.storage.k8s.io",
                json!({"metadata": {"name": "own"}, "spec": {"nodeName": "a"}}),
            ),
            (
                "volumeattachments.storage.k8s.io",
                json!({"metadata": {"name": "other"}, "spec": {"nodeName": "b"}}),
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
            ("get - secrets storage stage", true),
            ("get - secrets ns publish", true),
            ("get - secrets storage controllers", false),
            ("get - secrets storage elsewhere", false),
            ("get storage.k8s.io volumeattachments - own", true),
            ("get storage.k8s.io volumeattachments - other", false),
            ("list storage.k8s.io volumeattachments - -", false),
            ("patch storage.k8s.io volumeattachments/status - own", false),
            ("get resource.k8s.io resourceclaims ns device", true),
            ("get resource.k8s.io resourceclaims ns made", true),
            ("update resource.k8s.io resourceclaims ns device", false),
            ("get resource.k8s.io resourceclaims/status ns device", false),
            ("create - serviceaccounts/token ns sa", true),
            ("create - serviceaccounts/token ns other", false),
            ("get - pods ns own", true),
            ("get - pods ns other", false),
            ("list - pods - - spec.nodeName=a", true),
            ("watch - pods - - spec.nodeName==a", true),
            ("list - pods - - spec.nodeName=b", false),
            ("list - pods - - spec.nodeName!=a", false),
            (r"list - pods - - metadata.name=x\,spec.nodeName\=a", false),
            ("list - pods - - status.phase=Running,spec.nodeName=a", true),
            ("deletecollection - pods - - spec.nodeName=a", false),
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
        assert!(!allowed(&authorizer, "get - secrets storage stage"));
        world.put("pods", pod("own", "b"));
        assert!(!allowed(&authorizer, "get - secrets ns volume-secret"));
        world.put("pods", pod("two", "a"));
        assert!(allowed(&authorizer, "get - secrets ns volume-secret"));
        assert!(allowed(&authorizer, "get - secrets storage stage"));
        world.remove("persistentvolumes", "", "pv");
        assert!(!allowed(&authorizer, "get - secrets storage stage"));
        world.remove("volumeattachments.storage.k8s.io", "", "own");
        assert!(!allowed(&authorizer, "get storage.k8s.io volumeattachments - own"));
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
