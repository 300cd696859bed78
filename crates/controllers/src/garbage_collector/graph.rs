//! Who owns whom in the whole cluster, and what each piece of news makes worth a look. Pure.
//!
//! Source of the rules: `pkg/controller/garbagecollector/graph_builder.go`. Invariants: `dependents` of a node are exactly
//! the nodes that name its uid as an owner; an owner that was named but not seen is a *virtual* node until it is seen or
//! the server says that it is not there.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use client::Metadata;
use client::Resource;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// The finalizer of an object that waits for its dependents to be deleted.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents are to stay.
pub(super) const ORPHAN: &str = "orphan";
/// Uids of objects that are known to be gone; each saves a question to the server. Source: upstream's cache of 500; ours is
/// larger, for owners of thousands.
const ABSENT_MAX: usize = 8192;

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Work {
    /// Whether this object (by uid) is to be deleted, or what it waits for has happened.
    Delete(String),
    /// The dependents of this object are to lose it.
    Orphan(String),
    /// This object names that owner, which is in another namespace: people are to hear of it.
    Misplaced { dependent: String, owner: String },
}

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// `None` for one that was only named.
    pub resource: Option<Resource>,
    /// As the object, or whoever named it, says.
    pub api_version: String,
    pub kind: String,
    /// For a virtual node the namespace of whoever named it; the object itself may be in none.
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub dependents: BTreeSet<String>,
    pub deleting: bool,
}

impl Node {
    pub(super) fn is_virtual(&self) -> bool {
        self.resource.is_none()
    }

    fn holds(&self, finalizer: &str) -> bool {
        self.deleting && self.finalizers.iter().any(|one| one == finalizer)
    }

    /// Waits for its dependents.
    pub(super) fn is_foreground(&self) -> bool {
        self.holds(FOREGROUND)
    }

    fn is_orphaning(&self) -> bool {
        self.holds(ORPHAN)
    }

    /// Whether the node's deletion keeps that owner from going.
    pub(super) fn blocks(&self, owner: &str) -> bool {
        self.owners
            .iter()
            .any(|one| one.uid == owner && one.block_owner_deletion == Some(true))
    }
}

/// The graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    absent: HashSet<String>,
    absent_order: VecDeque<String>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub(super) fn is_absent(&self, uid: &str) -> bool {
        self.absent.contains(uid)
    }

    /// The server said that no object has this uid.
    pub(super) fn note_absent(&mut self, uid: &str) {
        if self.absent.insert(uid.to_string()) {
            self.absent_order.push_back(uid.to_string());
            if self.absent_order.len() > ABSENT_MAX
                && let Some(oldest) = self.absent_order.pop_front()
            {
                self.absent.remove(&oldest);
            }
        }
    }

    /// The nodes that were only named and are not seen.
    pub(super) fn virtual_nodes(&self) -> Vec<Work> {
        let nodes = self.nodes.values().filter(|node| node.is_virtual());
        nodes.map(|node| Work::Delete(node.uid.clone())).collect()
    }

    /// An object was seen, new or changed.
    pub(super) fn observe(&mut self, resource: &Resource, meta: &Metadata) -> Vec<Work> {
        let uid = meta.uid.clone().unwrap_or_default();
        let mut work = Vec::new();
        if uid.is_empty() {
            return work;
        }
        let before = self.nodes.remove(&uid);
        let node = Node {
            resource: Some(resource.clone()),
            api_version: resource.api_version(),
            kind: resource.kind.to_string(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: uid.clone(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            dependents: before.as_ref().map(|node| node.dependents.clone()).unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        };
        let was_virtual = before.as_ref().is_some_and(Node::is_virtual);
        let (was_foreground, was_orphaning) = before
            .as_ref()
            .map_or((false, false), |node| (node.is_foreground(), node.is_orphaning()));
        if was_virtual {
            // Some of those that named it may have named it wrongly (another kind, name or namespace).
            let wrongly = |uid: &&String| {
                let dependent = self.nodes.get(*uid);
                dependent.is_some_and(|one| {
                    let reference = one.owners.iter().find(|owner| owner.uid == node.uid);
                    reference.is_some_and(|reference| !names(reference, &one.namespace, &node))
                })
            };
            let dependents = node.dependents.iter().filter_map(|uid| self.nodes.get(uid));
            work.extend(dependents.filter_map(|dependent| misplaced(dependent, &node)));
            work.extend(node.dependents.iter().filter(wrongly).cloned().map(Work::Delete));
        }
        let old_owners = before.map(|node| node.owners).unwrap_or_default();
        work.extend(self.link(&node, &old_owners));
        if node.is_orphaning() && !was_orphaning {
            work.push(Work::Orphan(uid.clone()));
        }
        if node.is_foreground() && !was_foreground {
            work.extend(node.dependents.iter().cloned().map(Work::Delete));
            work.push(Work::Delete(uid.clone()));
        }
        self.nodes.insert(uid, node);
        work
    }

    /// Brings the owners' side up to date with what the node names.
    fn link(&mut self, node: &Node, old_owners: &[OwnerReference]) -> Vec<Work> {
        let mut work = Vec::new();
        for old in old_owners {
            let now = node.owners.iter().find(|owner| owner.uid == old.uid);
            let unblocked =
                old.block_owner_deletion == Some(true) && now.is_none_or(|now| now.block_owner_deletion != Some(true));
            if now.is_none() {
                self.unlink(&old.uid, &node.uid);
            }
            if (now.is_none() || unblocked) && self.nodes.get(&old.uid).is_some_and(Node::is_foreground) {
                work.push(Work::Delete(old.uid.clone()));
            }
        }
        for owner in node
            .owners
            .iter()
            .filter(|owner| !old_owners.iter().any(|old| old.uid == owner.uid))
        {
            match self.nodes.get_mut(&owner.uid) {
                Some(found) => {
                    found.dependents.insert(node.uid.clone());
                    let mismatch = !found.is_virtual() && !names(owner, &node.namespace, found);
                    if mismatch {
                        work.extend(misplaced(node, found));
                    }
                    if mismatch || found.is_foreground() {
                        work.push(Work::Delete(node.uid.clone()));
                    }
                }
                None => {
                    let named = Node {
                        resource: None,
                        api_version: owner.api_version.clone(),
                        kind: owner.kind.clone(),
                        namespace: node.namespace.clone(),
                        name: owner.name.clone(),
                        uid: owner.uid.clone(),
                        resource_version: String::new(),
                        owners: Vec::new(),
                        finalizers: Vec::new(),
                        dependents: BTreeSet::from([node.uid.clone()]),
                        deleting: false,
                    };
                    self.nodes.insert(owner.uid.clone(), named);
                    work.push(Work::Delete(owner.uid.clone()));
                }
            }
        }
        work
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(node) = self.nodes.get_mut(owner) {
            node.dependents.remove(dependent);
            if node.is_virtual() && node.dependents.is_empty() {
                self.nodes.remove(owner);
            }
        }
    }

    /// An object is not there any more, or never was.
    pub(super) fn gone(&mut self, uid: &str) -> Vec<Work> {
        self.note_absent(uid);
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        let mut work: Vec<Work> = node.dependents.iter().cloned().map(Work::Delete).collect();
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(Node::is_foreground) {
                work.push(Work::Delete(owner.uid.clone()));
            }
        }
        work
    }
}

/// What to tell when an owner is in a namespace, and not in that of its dependent.
fn misplaced(dependent: &Node, owner: &Node) -> Option<Work> {
    let elsewhere = !owner.namespace.is_empty() && owner.namespace != dependent.namespace;
    elsewhere.then(|| Work::Misplaced {
        dependent: dependent.uid.clone(),
        owner: owner.uid.clone(),
    })
}

/// Whether a reference, made in a namespace, names this very node. An owner is in no namespace or in the same one.
pub(super) fn names(reference: &OwnerReference, namespace: &str, node: &Node) -> bool {
    let group = |api_version: &str| {
        api_version
            .split_once('/')
            .map_or(String::new(), |(group, _)| group.to_string())
    };
    reference.uid == node.uid
        && reference.name == node.name
        && reference.kind == node.kind
        && group(&reference.api_version) == group(&node.api_version)
        && (node.namespace.is_empty() || node.namespace == namespace)
}

/// What an owner of an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It is there.
    Solid,
    /// It is not there.
    Absent,
    /// It waits for its dependents to go.
    Waiting,
}

/// What to do about an object with owners.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// It keeps these owners only (by their place in the list).
    KeepOwners(Vec<usize>),
    /// It goes, with this policy; first its owners stop waiting for it when it waits for somebody who waits itself (a
    /// circle).
    Delete {
        policy: client::Propagation,
        unblock: bool,
    },
}

/// Decides by the states of the owners (in the order of the list). Source: `attemptToDeleteItem`.
pub(super) fn judge(node: &Node, owners: &[OwnerState], dependents_wait: bool) -> Verdict {
    use client::Propagation::{Background, Foreground, Orphan};
    let solid: Vec<usize> = (0..owners.len())
        .filter(|at| owners[*at] == OwnerState::Solid)
        .collect();
    if owners.is_empty() || solid.len() == owners.len() {
        return Verdict::Keep;
    }
    if !solid.is_empty() {
        return Verdict::KeepOwners(solid);
    }
    if owners.contains(&OwnerState::Waiting) && !node.dependents.is_empty() {
        return Verdict::Delete {
            policy: Foreground,
            unblock: dependents_wait,
        };
    }
    let has = |finalizer: &str| node.finalizers.iter().any(|one| one == finalizer);
    let policy = if has(ORPHAN) {
        Orphan
    } else if has(FOREGROUND) {
        Foreground
    } else {
        Background
    };
    Verdict::Delete { policy, unblock: false }
}
