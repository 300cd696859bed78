//! The addresses behind selectors: one set for each selector that a chain of this node looks at, shared by all of them.
//!
//! A change of a pod asks only the selectors that could select it: those of its own namespace, and those over namespaces.
//!
//! Invariants: a selection is there exactly while somebody uses it; its members are those of all known pods; what changed of
//! one that is written is noted until [`Selections::flush`] tells it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::cluster::{Cluster, Known};
use super::delta::Delta;
use super::views::{Labels, Namespaces, PodPeer};
use crate::views::Protocol;

/// A set in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId {
    /// Whether its members have ports.
    pub has_ports: bool,
    /// Number; never used twice.
    pub number: u32,
}

/// A member of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// A pod's address.
    pub address: Ipv4Addr,
    /// A port of it, in sets of ports.
    pub port: Option<u16>,
}

/// What is selected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// The addresses of pods.
    Pods(Arc<PodPeer>),
    /// The ports of all pods that are called so.
    Ports(Protocol, String),
}

/// All selections that are used.
#[derive(Debug, Default)]
pub struct Selections {
    by_key: HashMap<Key, SetId>,
    entries: BTreeMap<SetId, Selection>,
    of_namespace: HashMap<String, BTreeSet<SetId>>,
    of_all: BTreeSet<SetId>,
    /// Members that changed, and whether they were there before.
    touched: BTreeMap<(SetId, Member), bool>,
    fresh: BTreeSet<SetId>,
    next: u32,
}

#[derive(Debug)]
struct Selection {
    key: Key,
    users: usize,
    /// How many pods each member is of: two have an address while one takes it over from another.
    members: HashMap<Member, usize>,
    is_written: bool,
}

// === impl Key ===

impl Key {
    fn members(&self, pod: &Known, namespace: &str, labels: Option<&Labels>) -> Vec<Member> {
        match self {
            Key::Pods(peer) if !peer.selects(pod, namespace, labels) => Vec::new(),
            Key::Pods(_) => {
                let addresses = pod.addresses().into_iter();
                addresses.map(|address| Member { address, port: None }).collect()
            }
            Key::Ports(protocol, name) => {
                let ports = pod.view.ports.iter();
                let ports = ports.filter(|port| port.protocol == *protocol && port.name == *name);
                let ports: BTreeSet<u16> = ports.map(|port| port.port).collect();
                let pairs = pod.addresses().into_iter().flat_map(|address| {
                    ports.iter().map(move |port| Member {
                        address,
                        port: Some(*port),
                    })
                });
                pairs.collect()
            }
        }
    }
}

impl PodPeer {
    /// Whether a pod of a namespace with these labels is one of them. A namespace that is not known is none.
    pub fn selects(&self, pod: &Known, namespace: &str, labels: Option<&Labels>) -> bool {
        let there = match &self.namespaces {
            Namespaces::Own(own) => own == namespace,
            Namespaces::Selected(selector) => labels.is_some_and(|labels| selector.matches(labels)),
        };
        there && self.pods.matches(&pod.view.labels)
    }
}

// === impl Selections ===

impl Selections {
    /// The set of what is selected, for one more user.
    pub fn acquire(&mut self, key: Key, cluster: &Cluster) -> SetId {
        if let Some(id) = self.by_key.get(&key) {
            let entry = self.entries.get_mut(id).expect("invariant: each key has its entry");
            entry.users += 1;
            return *id;
        }
        let id = SetId {
            has_ports: matches!(key, Key::Ports(..)),
            number: self.next,
        };
        self.next += 1;
        let mut members = HashMap::new();
        let mut add = |namespace: &str| {
            let labels = cluster.labels(namespace);
            for pod in cluster.pods_of(namespace) {
                for member in key.members(pod, namespace, labels) {
                    *members.entry(member).or_default() += 1;
                }
            }
        };
        match own_namespace(&key) {
            Some(namespace) => {
                add(namespace);
                self.of_namespace.entry(namespace.to_owned()).or_default().insert(id);
            }
            None => {
                cluster.namespaces_with_pods().for_each(add);
                self.of_all.insert(id);
            }
        }
        let selection = Selection {
            key: key.clone(),
            users: 1,
            members,
            is_written: false,
        };
        self.entries.insert(id, selection);
        self.by_key.insert(key, id);
        self.fresh.insert(id);
        id
    }

    /// One user fewer; the last one's set is removed.
    pub fn release(&mut self, id: SetId, delta: &mut Delta) {
        let entry = self.entries.get_mut(&id).expect("invariant: who releases has acquired");
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        let entry = self.entries.remove(&id).expect("invariant: it was there just now");
        self.by_key.remove(&entry.key);
        self.fresh.remove(&id);
        self.of_all.remove(&id);
        if let Some(namespace) = own_namespace(&entry.key)
            && let Some(ids) = self.of_namespace.get_mut(namespace)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.of_namespace.remove(namespace);
            }
        }
        if entry.is_written {
            delta.remove_sets.push(id);
        }
    }

    /// A pod of a namespace with these labels changed.
    pub fn pod_changed(&mut self, namespace: &str, labels: Option<&Labels>, old: Option<&Known>, new: Option<&Known>) {
        let own = self.of_namespace.get(namespace).into_iter().flatten();
        let ids: Vec<SetId> = own.chain(&self.of_all).copied().collect();
        for id in ids {
            self.change(id, (namespace, labels, old), (namespace, labels, new));
        }
    }

    /// The labels of a namespace changed.
    pub fn namespace_changed(
        &mut self,
        namespace: &str,
        old: Option<&Labels>,
        new: Option<&Labels>,
        cluster: &Cluster,
    ) {
        for id in self.of_all.clone() {
            let Some(Selection {
                key: Key::Pods(peer), ..
            }) = self.entries.get(&id)
            else {
                continue;
            };
            let Namespaces::Selected(selector) = &peer.namespaces else {
                continue;
            };
            let there = |labels: Option<&Labels>| labels.is_some_and(|labels| selector.matches(labels));
            if there(old) != there(new) {
                for pod in cluster.pods_of(namespace) {
                    self.change(id, (namespace, old, Some(pod)), (namespace, new, Some(pod)));
                }
            }
        }
    }

    /// Whether anything is to be told.
    pub fn is_changed(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Tells what changed since the last call.
    pub fn flush(&mut self, delta: &mut Delta) {
        for id in std::mem::take(&mut self.fresh) {
            let entry = self.entries.get_mut(&id).expect("invariant: who is fresh is there");
            entry.is_written = true;
            delta.add_sets.push((id, entry.sorted()));
        }
        for ((id, member), was) in std::mem::take(&mut self.touched) {
            let Some(entry) = self.entries.get(&id) else { continue };
            match (was, entry.members.contains_key(&member)) {
                (false, true) => delta.add_members.push((id, member)),
                (true, false) => delta.remove_members.push((id, member)),
                _ => {}
            }
        }
    }

    /// All sets as they are.
    pub fn all(&self) -> Vec<(SetId, Vec<Member>)> {
        self.entries.iter().map(|(id, entry)| (*id, entry.sorted())).collect()
    }

    fn change(
        &mut self,
        id: SetId,
        (namespace, labels, old): (&str, Option<&Labels>, Option<&Known>),
        (_, new_labels, new): (&str, Option<&Labels>, Option<&Known>),
    ) {
        let entry = self.entries.get_mut(&id).expect("invariant: each listed set is there");
        let before = old
            .map(|pod| entry.key.members(pod, namespace, labels))
            .unwrap_or_default();
        let after = new
            .map(|pod| entry.key.members(pod, namespace, new_labels))
            .unwrap_or_default();
        if before == after {
            return;
        }
        let (touched, note) = (&mut self.touched, entry.is_written);
        let mut touch = |member: Member, was: bool| {
            if note {
                touched.entry((id, member)).or_insert(was);
            }
        };
        // Added first, so that what stays is never counted down to nothing.
        for member in after {
            let count = entry.members.entry(member).or_default();
            touch(member, *count > 0);
            *count += 1;
        }
        for member in before {
            touch(member, true);
            let count = entry.members.get_mut(&member).expect("invariant: it was counted");
            *count -= 1;
            if *count == 0 {
                entry.members.remove(&member);
            }
        }
    }
}

impl Selection {
    fn sorted(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.members.keys().copied().collect();
        members.sort_unstable();
        members
    }
}

fn own_namespace(key: &Key) -> Option<&str> {
    match key {
        Key::Pods(peer) => match &peer.namespaces {
            Namespaces::Own(namespace) => Some(namespace),
            Namespaces::Selected(_) => None,
        },
        Key::Ports(..) => None,
    }
}
