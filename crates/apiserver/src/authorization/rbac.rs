//! Role-based access control over the roles and bindings in the replica.
//!
//! State is kept by following the four resources; a verdict first drains what was committed. Invariant: `by_subject`
//! holds exactly the bindings of `bindings`, under each of their subjects.

use std::collections::HashMap;
use std::sync::Arc;

use api::{GroupResource, Value};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::Rule;
use crate::cluster::{Change, Changes, Cluster, Object};
use crate::pipeline::{Authorizer, Decision, RuleSet};
use crate::request::{Attributes, UserInfo};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The RBAC authorizer.
pub struct Rbac {
    state: Mutex<State>,
}

/// A namespace and a name; the namespace of cluster-wide objects is empty.
type Key = (Box<str>, Box<str>);

struct State {
    roles: Followed,
    cluster_roles: Followed,
    role_bindings: Followed,
    cluster_role_bindings: Followed,
    rules: HashMap<Key, Arc<[Rule]>>,
    bindings: HashMap<Key, Arc<Binding>>,
    /// Namespace (empty for cluster-wide bindings) and subject, to bindings in the order of their arrival.
    by_subject: HashMap<Key, Vec<Arc<Binding>>>,
}

struct Followed(Box<dyn Changes>);

struct Binding {
    namespace: Box<str>,
    name: Box<str>,
    /// The role; its namespace is empty for a ClusterRole.
    role: Key,
    subjects: Vec<Subject>,
}

struct Subject {
    /// `u` and the user's name, or `g` and the group's.
    key: Box<str>,
    /// How the verdict names the subject: `Group "x"`.
    words: String,
}

/// A rule that holds for a user, and why.
struct Held<'a> {
    rule: &'a Rule,
    binding: &'a Binding,
    subject: &'a Subject,
}

// === impl Rbac ===

impl Rbac {
    /// Follows roles and bindings from now on.
    pub fn new(cluster: &dyn Cluster) -> Rbac {
        let follow = |resource: &str| {
            Followed(cluster.changes(&GroupResource {
                group: GROUP.into(),
                resource: resource.into(),
            }))
        };
        let state = State {
            roles: follow("roles"),
            cluster_roles: follow("clusterroles"),
            role_bindings: follow("rolebindings"),
            cluster_role_bindings: follow("clusterrolebindings"),
            rules: HashMap::new(),
            bindings: HashMap::new(),
            by_subject: HashMap::new(),
        };
        Rbac {
            state: Mutex::new(state),
        }
    }

    /// All rules that hold for a user in a namespace (cluster-wide ones alone when it is empty).
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut state = self.state.lock();
        state.drain();
        state.visit(user, namespace, |held| {
            rules.push(held.rule.clone());
            true
        });
        rules
    }

    /// The rules of a role that a binding names. `None`: there is no such role.
    pub fn rules_of_role(&self, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        let mut state = self.state.lock();
        state.drain();
        state.rules.get(&(namespace.into(), name.into())).cloned()
    }
}

impl Authorizer for Rbac {
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        self.decide(user, attributes).now()
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> RuleSet {
        let rules = self.rules_of(user, namespace);
        RuleSet {
            resource_rules: rules.iter().filter_map(Rule::to_resource_rule).collect(),
            non_resource_rules: rules.iter().filter_map(Rule::to_non_resource_rule).collect(),
            incomplete: false,
            evaluation_error: String::new(),
        }
    }
}

impl Rbac {
    fn decide(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        tracing::trace!(target: "walk", "whether they may");
        let mut state = self.state.lock();
        state.drain();
        let mut reason = None;
        state.visit(user, &attributes.namespace, |held| {
            let allowed = held.rule.allows(attributes);
            if allowed {
                reason = Some(held.words());
            }
            !allowed
        });
        match reason {
            Some(reason) => Decision::Allow(reason),
            None => Decision::NoOpinion(String::new()),
        }
    }
}

// === impl State ===

impl State {
    fn drain(&mut self) {
        for (followed, namespaced) in [(&mut self.roles, true), (&mut self.cluster_roles, false)] {
            while let Some(change) = followed.0.try_next() {
                match change {
                    Change::Reset(objects) => {
                        self.rules.retain(|key, _| key.0.is_empty() == namespaced);
                        self.rules
                            .extend(objects.iter().map(|object| (key_of(object), rules_of(object))));
                    }
                    Change::Changed { new: Some(object), .. } => {
                        self.rules.insert(key_of(&object), rules_of(&object));
                    }
                    Change::Changed { old, new: None } => {
                        if let Some(object) = old {
                            self.rules.remove(&key_of(&object));
                        }
                    }
                }
            }
        }
        for namespaced in [true, false] {
            loop {
                let followed = if namespaced {
                    &mut self.role_bindings
                } else {
                    &mut self.cluster_role_bindings
                };
                match followed.0.try_next() {
                    None => break,
                    Some(Change::Reset(objects)) => {
                        let gone = |key: &&Key| key.0.is_empty() != namespaced;
                        let keys: Vec<Key> = self.bindings.keys().filter(gone).cloned().collect();
                        keys.iter().for_each(|key| self.unbind(key));
                        objects.iter().for_each(|object| self.bind(object));
                    }
                    Some(Change::Changed { old, new }) => {
                        if let Some(object) = old {
                            self.unbind(&key_of(&object));
                        }
                        if let Some(object) = new {
                            self.bind(&object);
                        }
                    }
                }
            }
        }
    }

    fn bind(&mut self, object: &Object) {
        let binding = Arc::new(Binding::of_object(object));
        for subject in &binding.subjects {
            let key = (binding.namespace.clone(), subject.key.clone());
            self.by_subject.entry(key).or_default().push(binding.clone());
        }
        self.bindings.insert(key_of(object), binding);
    }

    fn unbind(&mut self, key: &Key) {
        let Some(binding) = self.bindings.remove(key) else {
            return;
        };
        for subject in &binding.subjects {
            let key = (binding.namespace.clone(), subject.key.clone());
            if let Some(list) = self.by_subject.get_mut(&key) {
                list.retain(|other| !Arc::ptr_eq(other, &binding));
                if list.is_empty() {
                    self.by_subject.remove(&key);
                }
            }
        }
    }

    /// Shows every rule that holds for the user, cluster-wide ones first, until `visit` answers false.
    fn visit(&self, user: &UserInfo, namespace: &str, mut visit: impl FnMut(Held) -> bool) {
        let subjects: Vec<Box<str>> = std::iter::once(format!("u{}", user.name).into())
            .chain(user.groups.iter().map(|group| format!("g{group}").into()))
            .collect();
        let scopes = if namespace.is_empty() {
            &[""][..]
        } else {
            &["", namespace][..]
        };
        for scope in scopes {
            let mut key: Key = ((*scope).into(), "".into());
            for subject in &subjects {
                key.1.clone_from(subject);
                for binding in self.by_subject.get(&key).into_iter().flatten() {
                    let Some(rules) = self.rules.get(&binding.role) else {
                        continue;
                    };
                    let Some(subject) = binding.subjects.iter().find(|own| own.key == *subject) else {
                        continue;
                    };
                    for rule in rules.iter() {
                        if !visit(Held { rule, binding, subject }) {
                            return;
                        }
                    }
                }
            }
        }
    }
}

// === impl Held ===

impl Held<'_> {
    fn words(&self) -> String {
        let (kind, name) = match &*self.binding.namespace {
            "" => ("ClusterRoleBinding", self.binding.name.to_string()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.binding.name)),
        };
        let role_kind = if self.binding.role.0.is_empty() {
            "ClusterRole"
        } else {
            "Role"
        };
        let quote = api::field::quote;
        let (name, role) = (quote(&name), quote(&self.binding.role.1));
        format!(
            "RBAC: allowed by {kind} {name} of {role_kind} {role} to {}",
            self.subject.words
        )
    }
}

// === impl Binding ===

impl Binding {
    fn of_object(object: &Object) -> Binding {
        let value = object.value();
        let reference = &value["roleRef"];
        let text = |value: &Value, field: &str| -> Box<str> { value[field].as_str().unwrap_or("").into() };
        let role_namespace = if reference["kind"] == "Role" {
            object.namespace()
        } else {
            ""
        };
        let subjects = value["subjects"].as_array();
        Binding {
            namespace: object.namespace().into(),
            name: object.name().into(),
            role: (role_namespace.into(), text(reference, "name")),
            subjects: subjects
                .into_iter()
                .flatten()
                .filter_map(|subject| Subject::of_value(subject, object.namespace()))
                .collect(),
        }
    }
}

impl Subject {
    fn of_value(subject: &Value, binding_namespace: &str) -> Option<Subject> {
        let name = subject["name"].as_str()?;
        let quote = api::field::quote;
        Some(match subject["kind"].as_str()? {
            "User" => Subject {
                key: format!("u{name}").into(),
                words: format!("User {}", quote(name)),
            },
            "Group" => Subject {
                key: format!("g{name}").into(),
                words: format!("Group {}", quote(name)),
            },
            "ServiceAccount" => {
                let namespace = subject["namespace"]
                    .as_str()
                    .filter(|n| !n.is_empty())
                    .unwrap_or(binding_namespace);
                Subject {
                    key: format!("usystem:serviceaccount:{namespace}:{name}").into(),
                    words: format!("ServiceAccount {}", quote(&format!("{name}/{namespace}"))),
                }
            }
            _ => return None,
        })
    }
}

fn key_of(object: &Object) -> Key {
    (object.namespace().into(), object.name().into())
}

fn rules_of(object: &Object) -> Arc<[Rule]> {
    Rule::of_role(&object.value()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::World;
    use serde_json::json;

    fn role(namespace: &str, name: &str, verbs: &[&str]) -> Value {
        json!({
            "metadata": {"name": name, "namespace": namespace},
            "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}],
        })
    }

    fn binding(namespace: &str, name: &str, role_kind: &str, role: &str, subject: Value) -> Value {
        json!({
            "metadata": {"name": name, "namespace": namespace}, "roleRef": {"kind": role_kind, "name": role},
            "subjects": [subject],
        })
    }

    fn pods(verb: &str, namespace: &str) -> Attributes {
        let (verb, resource, namespace) = (verb.into(), "pods".into(), namespace.into());
        Attributes {
            verb,
            resource,
            namespace,
            is_resource: true,
            ..Attributes::default()
        }
    }

    const ROLES: &str = "roles.rbac.authorization.k8s.io";
    const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
    const ROLE_BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";
    const CLUSTER_ROLE_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";

    #[test]
    fn bindings_hold_in_their_scope_for_their_subjects() {
        let world = World::new(&[
            (CLUSTER_ROLES, role("", "reader", &["get"])),
            (ROLES, role("a", "writer", &["create"])),
            (
                CLUSTER_ROLE_BINDINGS,
                binding(
                    "",
                    "all",
                    "ClusterRole",
                    "reader",
                    json!({"kind": "Group", "name": "dev"}),
                ),
            ),
            (
                ROLE_BINDINGS,
                binding("a", "w", "Role", "writer", json!({"kind": "User", "name": "jane"})),
            ),
            (
                ROLE_BINDINGS,
                binding(
                    "b",
                    "r",
                    "ClusterRole",
                    "reader",
                    json!({"kind": "ServiceAccount", "name": "sa", "namespace": "a"}),
                ),
            ),
            (
                ROLE_BINDINGS,
                binding("b", "lost", "Role", "nowhere", json!({"kind": "User", "name": "jane"})),
            ),
        ]);
        let rbac = Rbac::new(&world);
        let (jane, account) = (
            UserInfo::new("jane", ["x"]),
            UserInfo::new("system:serviceaccount:a:sa", ["y"]),
        );
        let dev = UserInfo::new("bob", ["dev"]);
        for (user, verb, namespace, expect) in [
            (
                &dev,
                "get",
                "",
                Some("RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"reader\" to Group \"dev\""),
            ),
            (
                &dev,
                "get",
                "b",
                Some("RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"reader\" to Group \"dev\""),
            ),
            (&dev, "create", "a", None),
            (
                &jane,
                "create",
                "a",
                Some("RBAC: allowed by RoleBinding \"w/a\" of Role \"writer\" to User \"jane\""),
            ),
            (&jane, "create", "b", None),
            (&jane, "get", "b", None),
            (
                &account,
                "get",
                "b",
                Some("RBAC: allowed by RoleBinding \"r/b\" of ClusterRole \"reader\" to ServiceAccount \"sa/a\""),
            ),
            (&account, "get", "a", None),
        ] {
            let expect = match expect {
                Some(reason) => Decision::Allow(reason.into()),
                None => Decision::NoOpinion(String::new()),
            };
            assert_eq!(
                rbac.decide(user, &pods(verb, namespace)),
                expect,
                "{} {verb} {namespace}",
                user.name
            );
        }
        assert_eq!(rbac.rules(&jane, "a").resource_rules[0]["verbs"], json!(["create"]));
    }

    #[test]
    fn what_changes_counts_at_once() {
        let world = World::new(&[(CLUSTER_ROLES, role("", "reader", &["get"]))]);
        let rbac = Rbac::new(&world);
        let jane = UserInfo::new("jane", ["dev"]);
        let allowed = |verb: &str| rbac.decide(&jane, &pods(verb, "a")).allows();
        assert!(!allowed("get"));
        let bound = || {
            binding(
                "",
                "b",
                "ClusterRole",
                "reader",
                json!({"kind": "User", "name": "jane"}),
            )
        };
        world.put(CLUSTER_ROLE_BINDINGS, bound());
        assert!(allowed("get") && !allowed("list"));
        world.put(CLUSTER_ROLES, role("", "reader", &["list"]));
        assert!(!allowed("get") && allowed("list"));
        world.put(
            CLUSTER_ROLE_BINDINGS,
            binding("", "b", "ClusterRole", "reader", json!({"kind": "User", "name": "eve"})),
        );
        assert!(!allowed("list"));
        world.put(CLUSTER_ROLE_BINDINGS, bound());
        world.remove(CLUSTER_ROLES, "", "reader");
        assert!(!allowed("list"));
        world.put(CLUSTER_ROLES, role("", "reader", &["list"]));
        world.remove(CLUSTER_ROLE_BINDINGS, "", "b");
        assert!(!allowed("list"));
    }
}
