//! The rules of this node's pods as they were written, and the smallest change that makes them what they should be.
//!
//! The shape: each pod that a policy selects is isolated, and its address leads to a chain of what its policies allow. Pods
//! with the same rights share the chain, chains share the sets of addresses behind selectors. So one more replica is four
//! elements, a pod elsewhere an element for each selector that selects it, and a policy the chains of the pods it selects.
//!
//! Invariants: of a pod whose object is not known nothing is allowed; a chain is there exactly while a pod has it; before
//! [`Plan::enforce`] nothing is planned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::Direction;
use super::cluster::{Cluster, DNS_NAMESPACE, DNS_PORT, DNS_PROTOCOLS, Known};
use super::delta::{ChainId, Delta, Line, PeerMatch, PortMatch};
use super::grants::{Grant, Grants, Policy, union};
use super::selections::{Key, Selections, SetId};
use super::views::{Labels, PeerView, PodView, PolicyView, PortView};
use crate::views::{ObjectName, Protocol};

/// Whether there is anything to enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// There was never a policy.
    Idle,
    /// There are policies, and what they are about is not all known yet.
    Learning,
    /// Policies are enforced.
    Enforcing,
}

/// What was written, and what should be.
#[derive(Debug)]
pub struct Plan {
    stage: Stage,
    cluster: Cluster,
    policies: HashMap<String, BTreeMap<String, Policy>>,
    /// This node's pods, by their sandboxes.
    subjects: HashMap<String, Subject>,
    sandboxes: HashMap<ObjectName, BTreeSet<String>>,
    chains: Chains,
    selections: Selections,
    dirty: BTreeSet<String>,
    /// Those that went and were written.
    gone: Vec<Subject>,
    /// Nothing was planned since policies are enforced, but a daemon before may have left rules.
    is_new: bool,
}

#[derive(Debug)]
struct Subject {
    pod: ObjectName,
    address: Ipv4Addr,
    chains: [Option<ChainId>; 2],
    dns: BTreeSet<Protocol>,
}

#[derive(Debug, Default)]
struct Chains {
    by_grants: HashMap<Direction, BTreeMap<Arc<Grants>, ChainId>>,
    entries: BTreeMap<ChainId, Chain>,
    next: u32,
}

#[derive(Debug)]
struct Chain {
    grants: Arc<Grants>,
    lines: Arc<Vec<Line>>,
    users: usize,
    is_written: bool,
}

// === impl Plan ===

impl Plan {
    /// Nothing known, nothing written. `dns_address`: where the cluster's own DNS answers.
    pub fn new(dns_address: Option<Ipv4Addr>) -> Plan {
        Plan {
            stage: Stage::Idle,
            cluster: Cluster::new(dns_address),
            policies: HashMap::new(),
            subjects: HashMap::new(),
            sandboxes: HashMap::new(),
            chains: Chains::default(),
            selections: Selections::default(),
            dirty: BTreeSet::new(),
            gone: Vec::new(),
            is_new: false,
        }
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// There is a policy: what it is about is being asked for.
    pub fn learn(&mut self) {
        if self.stage == Stage::Idle {
            self.stage = Stage::Learning;
        }
    }

    /// All pods, namespaces and policies are known.
    pub fn enforce(&mut self) {
        if self.stage != Stage::Enforcing {
            (self.stage, self.is_new) = (Stage::Enforcing, true);
            self.dirty.extend(self.subjects.keys().cloned());
        }
    }

    /// Says what a policy means now; none: it is gone.
    pub fn set_policy(&mut self, name: &ObjectName, view: Option<&PolicyView>) {
        let of_namespace = self.policies.entry(name.namespace.clone()).or_default();
        match view {
            Some(view) => {
                of_namespace.insert(name.name.clone(), Policy::of(view));
            }
            None => {
                of_namespace.remove(&name.name);
                if of_namespace.is_empty() {
                    self.policies.remove(&name.namespace);
                }
            }
        }
        let subjects = self.subjects.iter();
        let there = subjects.filter(|(_, subject)| subject.pod.namespace == name.namespace);
        self.dirty.extend(there.map(|(sandbox, _)| sandbox.clone()));
    }

    /// Says what labels a namespace has now; none: it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) {
        if self.cluster.labels(name) == labels {
            return;
        }
        let before = self.cluster.set_labels(name, labels.cloned());
        self.selections
            .namespace_changed(name, before.as_ref(), labels, &self.cluster);
        if name == DNS_NAMESPACE {
            // Who may ask the cluster's DNS may depend on it.
            self.dirty.extend(self.subjects.keys().cloned());
        }
    }

    /// Says what a pod of the cluster is now; none: it is gone.
    pub fn set_pod(&mut self, name: &ObjectName, view: Option<PodView>) {
        let before = self.cluster.get(name).map(|known| known.view.clone());
        if before.as_deref() == view.as_ref() {
            return;
        }
        let same_labels = before.as_ref().map(|view| &view.labels) == view.as_ref().map(|view| &view.labels);
        let pod = view.map(|view| Known {
            attached: self.attached(name),
            view: Arc::new(view),
        });
        self.replace(name, pod);
        if !same_labels {
            self.dirty
                .extend(self.sandboxes.get(name).into_iter().flatten().cloned());
        }
    }

    /// A sandbox of this node has an address, and is a pod's.
    pub fn attach(&mut self, sandbox: &str, pod: ObjectName, address: Ipv4Addr) {
        let same = |subject: &Subject| subject.pod == pod && subject.address == address;
        if self.subjects.get(sandbox).is_some_and(same) {
            return;
        }
        self.detach(sandbox);
        self.sandboxes
            .entry(pod.clone())
            .or_default()
            .insert(sandbox.to_owned());
        let subject = Subject {
            pod: pod.clone(),
            address,
            chains: [None; 2],
            dns: BTreeSet::new(),
        };
        self.subjects.insert(sandbox.to_owned(), subject);
        self.dirty.insert(sandbox.to_owned());
        self.attached_changed(&pod);
    }

    /// A sandbox of this node is about to lose its address.
    pub fn detach(&mut self, sandbox: &str) {
        let Some(subject) = self.subjects.remove(sandbox) else {
            return;
        };
        if let Some(sandboxes) = self.sandboxes.get_mut(&subject.pod) {
            sandboxes.remove(sandbox);
            if sandboxes.is_empty() {
                self.sandboxes.remove(&subject.pod);
            }
        }
        self.dirty.remove(sandbox);
        self.attached_changed(&subject.pod);
        if subject.is_isolated() {
            self.gone.push(subject);
        }
    }

    /// Whether there may be something to write.
    pub fn is_dirty(&self) -> bool {
        let changed = self.is_new || !self.dirty.is_empty() || !self.gone.is_empty() || self.selections.is_changed();
        self.stage == Stage::Enforcing && changed
    }

    /// The change from what was written to what should be; from here on it counts as written. When writing it fails, the next
    /// thing to write is [`Plan::rebuild`].
    pub fn plan(&mut self) -> Delta {
        let mut delta = Delta::default();
        if self.stage != Stage::Enforcing {
            return delta;
        }
        self.is_new = false;
        for mut subject in std::mem::take(&mut self.gone) {
            self.lead(&mut subject, [None, None], &mut delta);
        }
        for sandbox in std::mem::take(&mut self.dirty) {
            let Some(mut subject) = self.subjects.remove(&sandbox) else {
                continue;
            };
            let wanted = Direction::ALL.map(|direction| self.wanted(&subject.pod, direction));
            self.lead(&mut subject, wanted, &mut delta);
            self.subjects.insert(sandbox, subject);
        }
        self.chains.sweep(&mut self.selections, &mut delta);
        self.selections.flush(&mut delta);
        delta
    }

    /// Everything that should be there, as a change of a table in which nothing is.
    pub fn rebuild(&mut self) -> Delta {
        let _ = self.plan();
        let mut delta = Delta {
            add_sets: self.selections.all(),
            ..Delta::default()
        };
        let chains = self.chains.entries.iter();
        delta.add_chains = chains.map(|(id, chain)| (*id, chain.lines.clone())).collect();
        let mut subjects: Vec<&Subject> = self.subjects.values().collect();
        subjects.sort_by_key(|subject| subject.address);
        for subject in subjects {
            for direction in Direction::ALL {
                delta.lead(direction, subject.address, None, subject.chains[direction.place()]);
            }
            if subject.is_isolated() {
                delta.add_selves.push(subject.address);
            }
            let dns = subject.dns.iter().map(|protocol| (subject.address, *protocol));
            delta.add_dns.extend(dns);
        }
        delta
    }

    /// Numbers of chains and sets, for figures.
    pub fn size(&self) -> (usize, usize) {
        (self.chains.entries.len(), self.selections.all().len())
    }

    fn attached(&self, pod: &ObjectName) -> Vec<Ipv4Addr> {
        let sandboxes = self.sandboxes.get(pod).into_iter().flatten();
        sandboxes
            .filter_map(|sandbox| Some(self.subjects.get(sandbox)?.address))
            .collect()
    }

    fn attached_changed(&mut self, name: &ObjectName) {
        if let Some(known) = self.cluster.get(name) {
            let pod = Known {
                view: known.view.clone(),
                attached: self.attached(name),
            };
            self.replace(name, Some(pod));
        }
    }

    fn replace(&mut self, name: &ObjectName, pod: Option<Known>) {
        let before = self.cluster.set(name, pod);
        let (after, labels) = (self.cluster.get(name), self.cluster.labels(&name.namespace));
        self.selections
            .pod_changed(&name.namespace, labels, before.as_ref(), after);
    }

    /// What a pod's policies allow in a direction; none: it is not isolated.
    fn wanted(&self, pod: &ObjectName, direction: Direction) -> Option<Grants> {
        let Some(known) = self.cluster.get(pod) else {
            return Some(Grants::new());
        };
        let policies = self.policies.get(&pod.namespace)?.values();
        let selecting = policies.filter(|policy| policy.pods.matches(&known.view.labels));
        let mut grants = selecting.filter_map(|policy| policy.grants.get(&direction)).peekable();
        grants.peek()?;
        Some(union(grants))
    }

    fn lead(&mut self, subject: &mut Subject, wanted: [Option<Grants>; 2], delta: &mut Delta) {
        let was_isolated = subject.is_isolated();
        let mut dns = BTreeSet::new();
        for (direction, wanted) in Direction::ALL.into_iter().zip(wanted) {
            if let Some(grants) = &wanted
                && direction == Direction::Egress
            {
                dns = self.dns(grants);
            }
            let after = wanted.map(|grants| {
                self.chains
                    .acquire(direction, grants, &mut self.selections, &self.cluster)
            });
            let place = &mut subject.chains[direction.place()];
            let before = std::mem::replace(place, after);
            self.chains.release(before);
            delta.lead(direction, subject.address, before, after);
        }
        match (was_isolated, subject.is_isolated()) {
            (false, true) => delta.add_selves.push(subject.address),
            (true, false) => delta.remove_selves.push(subject.address),
            _ => {}
        }
        let address = subject.address;
        let before = std::mem::replace(&mut subject.dns, dns);
        let pairs = |protocols: Vec<Protocol>| protocols.into_iter().map(move |protocol| (address, protocol));
        delta
            .remove_dns
            .extend(pairs(before.difference(&subject.dns).copied().collect()));
        delta
            .add_dns
            .extend(pairs(subject.dns.difference(&before).copied().collect()));
    }

    /// How the cluster's own DNS may be asked by whom that is allowed.
    fn dns(&self, grants: &Grants) -> BTreeSet<Protocol> {
        let Some(dns) = self.cluster.dns() else {
            return BTreeSet::new();
        };
        let labels = self.cluster.labels(DNS_NAMESPACE);
        let allowed = |protocol: &Protocol| {
            grants
                .iter()
                .any(|grant| grant.reaches(dns, DNS_NAMESPACE, labels, *protocol, DNS_PORT))
        };
        DNS_PROTOCOLS.into_iter().filter(allowed).collect()
    }
}

impl Subject {
    fn is_isolated(&self) -> bool {
        self.chains.iter().any(Option::is_some)
    }
}

impl Grant {
    /// Whether it allows a connection to that port of a pod of a namespace with these labels.
    pub fn reaches(
        &self,
        pod: &Known,
        namespace: &str,
        labels: Option<&Labels>,
        protocol: Protocol,
        port: u16,
    ) -> bool {
        let there = match &self.peer {
            None => true,
            Some(PeerView::Pods(peer)) => peer.selects(pod, namespace, labels),
            Some(PeerView::Block(block)) => pod.addresses().iter().any(|address| block.contains(*address)),
        };
        there
            && match &self.port {
                None => true,
                Some(PortView::All(of)) => *of == protocol,
                Some(PortView::Numbers(of, first, last)) => *of == protocol && (*first..=*last).contains(&port),
                Some(PortView::Named(of, name)) => {
                    let mut ports = pod.view.ports.iter();
                    *of == protocol
                        && ports.any(|known| known.protocol == protocol && known.name == *name && known.port == port)
                }
            }
    }
}

// === impl Chains ===

impl Chains {
    fn acquire(
        &mut self,
        direction: Direction,
        grants: Grants,
        selections: &mut Selections,
        cluster: &Cluster,
    ) -> ChainId {
        let known = self.by_grants.entry(direction).or_default();
        if let Some(id) = known.get(&grants) {
            let chain = self.entries.get_mut(id).expect("invariant: each chain has its entry");
            chain.users += 1;
            return *id;
        }
        let id = ChainId {
            direction,
            number: self.next,
        };
        self.next += 1;
        let grants = Arc::new(grants);
        let lines = grants.iter().map(|grant| line(grant, selections, cluster)).collect();
        let chain = Chain {
            grants: grants.clone(),
            lines: Arc::new(lines),
            users: 1,
            is_written: false,
        };
        known.insert(grants, id);
        self.entries.insert(id, chain);
        id
    }

    /// One user fewer. The chain stays until [`Self::sweep`]: somebody else may want it meanwhile.
    fn release(&mut self, id: Option<ChainId>) {
        if let Some(id) = id {
            let chain = self.entries.get_mut(&id).expect("invariant: who releases has acquired");
            chain.users -= 1;
        }
    }

    /// Tells of the chains that are new, and forgets those that nobody uses.
    fn sweep(&mut self, selections: &mut Selections, delta: &mut Delta) {
        let unused: Vec<ChainId> = self
            .entries
            .iter()
            .filter(|(_, chain)| chain.users == 0)
            .map(|(id, _)| *id)
            .collect();
        for id in unused {
            let chain = self.entries.remove(&id).expect("invariant: it was listed just now");
            if let Some(known) = self.by_grants.get_mut(&id.direction) {
                known.remove(&chain.grants);
            }
            for set in chain.lines.iter().flat_map(Line::sets) {
                selections.release(set, delta);
            }
            if chain.is_written {
                delta.remove_chains.push(id);
            }
        }
        for (id, chain) in self.entries.iter_mut().filter(|(_, chain)| !chain.is_written) {
            chain.is_written = true;
            delta.add_chains.push((*id, chain.lines.clone()));
        }
    }
}

impl Line {
    /// The sets that it looks at.
    fn sets(&self) -> impl Iterator<Item = SetId> + use<> {
        let peer = match self.peer {
            PeerMatch::Set(id) => Some(id),
            PeerMatch::Anyone | PeerMatch::Block(_) => None,
        };
        let port = match self.port {
            PortMatch::Set(_, id) => Some(id),
            PortMatch::Any | PortMatch::Protocol(_) | PortMatch::Range(..) => None,
        };
        peer.into_iter().chain(port)
    }
}

fn line(grant: &Grant, selections: &mut Selections, cluster: &Cluster) -> Line {
    let peer = match &grant.peer {
        None => PeerMatch::Anyone,
        Some(PeerView::Pods(pods)) => PeerMatch::Set(selections.acquire(Key::Pods(pods.clone()), cluster)),
        Some(PeerView::Block(block)) => PeerMatch::Block(block.clone()),
    };
    let port = match &grant.port {
        None => PortMatch::Any,
        Some(PortView::All(protocol)) => PortMatch::Protocol(*protocol),
        Some(PortView::Numbers(protocol, first, last)) => PortMatch::Range(*protocol, *first, *last),
        Some(PortView::Named(protocol, name)) => {
            let key = Key::Ports(*protocol, name.clone());
            PortMatch::Set(*protocol, selections.acquire(key, cluster))
        }
    };
    Line { peer, port }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
