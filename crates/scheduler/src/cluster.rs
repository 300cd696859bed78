//! The nodes and what is taken on them: the state that decisions are taken from.
//!
//! Invariant: `requested`, `scored` and `ports` of a node are the sums over its `pods`, those that were assumed to be
//! there and not yet seen bound included.

use std::collections::HashMap;
use std::sync::Arc;

use crate::filters::ports::HostPort;
use crate::pod::Pod;
use crate::resources::Resources;
use crate::view::{NodeView, Taint};

/// A node and what is taken on it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: HashMap<Box<str>, Box<str>>,
    /// What keeps pods away.
    pub taints: Vec<Taint>,
    /// Whether it was cordoned.
    pub unschedulable: bool,
    /// What there is.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub pods_max: i64,
    /// What its kubelet says it can do.
    pub features: Vec<String>,
    /// What its pods ask for.
    pub requested: Resources,
    /// What the scores count for its pods.
    pub scored: Resources,
    /// The ports that are taken.
    pub ports: Vec<HostPort>,
    /// The pods that take room, by uid.
    pub pods: HashMap<Arc<str>, Arc<Pod>>,
}

// === impl Node ===

impl Node {
    /// A node without pods.
    pub fn of_view(view: &NodeView) -> Node {
        let allocatable = &view.status.allocatable;
        let pods_max = allocatable.get("pods").and_then(|text| text.parse().ok()).unwrap_or(0);
        Node {
            name: (&*view.metadata.name).into(),
            labels: view
                .metadata
                .labels
                .iter()
                .map(|(key, value)| ((&**key).into(), (&**value).into()))
                .collect(),
            taints: view.spec.taints.clone(),
            unschedulable: view.spec.unschedulable,
            allocatable: Resources::of_quantities(allocatable),
            pods_max,
            features: view.status.declared_features.clone(),
            ..Node::default()
        }
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(|value| &**value)
    }

    /// Whether the other is the same to every filter, its pods apart.
    fn looks_like(&self, other: &Node) -> bool {
        self.labels == other.labels
            && self.taints == other.taints
            && self.unschedulable == other.unschedulable
            && self.allocatable == other.allocatable
            && self.pods_max == other.pods_max
            && self.features == other.features
    }

    /// Counts a pod on the node.
    pub(crate) fn add(&mut self, pod: &Arc<Pod>) {
        if self.pods.insert(pod.uid.clone(), pod.clone()).is_none() {
            self.requested.add(&pod.requests);
            self.scored.add(&pod.scored);
            self.ports.extend(pod.ports.iter().cloned());
        }
    }

    /// Takes a pod off the node.
    pub(crate) fn remove(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.requested.subtract(&pod.requests);
        self.scored.subtract(&pod.scored);
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|other| other == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

/// All nodes.
#[derive(Default)]
pub struct Cluster {
    nodes: Vec<Node>,
    /// Where a node is in `nodes`.
    places: HashMap<Arc<str>, usize>,
    /// On which node a pod takes room, by uid.
    homes: HashMap<Arc<str>, Arc<str>>,
    /// Pods on nodes that are not (or no longer) there.
    homeless: HashMap<Arc<str>, Arc<Pod>>,
    /// Pods for which room is being made on a node, by the node.
    nominated: HashMap<Arc<str>, Vec<Arc<Pod>>>,
}

// === impl Cluster ===

impl Cluster {
    /// All nodes, in no order that means anything.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.places.get(name).map(|at| &self.nodes[*at])
    }

    /// Takes a new or changed node. Answers whether it may now take pods that it did not take before.
    pub fn put_node(&mut self, view: &NodeView) -> bool {
        let mut new = Node::of_view(view);
        let at = self.places.get(&new.name).copied();
        if let Some(at) = at {
            if self.nodes[at].looks_like(&new) {
                return false;
            }
            let old = &mut self.nodes[at];
            (new.requested, new.scored) = (std::mem::take(&mut old.requested), std::mem::take(&mut old.scored));
            (new.ports, new.pods) = (std::mem::take(&mut old.ports), std::mem::take(&mut old.pods));
            self.nodes[at] = new;
            return true;
        }
        let name = new.name.clone();
        let waiting: Vec<Arc<Pod>> = self.homeless.values().filter(|pod| pod.node == name).cloned().collect();
        for pod in waiting {
            self.homeless.remove(&pod.uid);
            new.add(&pod);
        }
        self.places.insert(name, self.nodes.len());
        self.nodes.push(new);
        true
    }

    /// Forgets a node; its pods wait for it to come back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.places.remove(name) else { return };
        let node = self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.places.insert(moved.name.clone(), at);
        }
        self.homeless.extend(node.pods);
    }

    /// Counts a pod on its node, as seen or as decided. Replaces what was known of it.
    pub fn put_pod(&mut self, pod: &Arc<Pod>) {
        self.remove_pod(&pod.uid);
        self.homes.insert(pod.uid.clone(), pod.node.clone());
        match self.places.get(&pod.node) {
            Some(at) => self.nodes[*at].add(pod),
            None => drop(self.homeless.insert(pod.uid.clone(), pod.clone())),
        }
    }

    /// Takes a pod off its node. Answers the node.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<str>> {
        let name = self.homes.remove(uid)?;
        match self.places.get(&name) {
            Some(at) => self.nodes[*at].remove(uid),
            None => drop(self.homeless.remove(uid)),
        }
        Some(name)
    }

    /// Notes the node on which room is being made for a pod that waits (`pod.nominated`; empty: none any more).
    pub fn nominate(&mut self, pod: &Arc<Pod>) {
        self.forget_nomination(&pod.uid);
        if !pod.nominated.is_empty() {
            self.nominated
                .entry(pod.nominated.clone())
                .or_default()
                .push(pod.clone());
        }
    }

    /// The pod waits no longer.
    pub fn forget_nomination(&mut self, uid: &str) {
        if self.nominated.is_empty() {
            return;
        }
        self.nominated.retain(|_, pods| {
            pods.retain(|pod| *pod.uid != *uid);
            !pods.is_empty()
        });
    }

    /// The pods for which room is being made on the node.
    pub fn nominated(&self, node: &str) -> &[Arc<Pod>] {
        self.nominated.get(node).map_or(&[], Vec::as_slice)
    }

    /// Whether the pod takes room somewhere.
    pub fn holds(&self, uid: &str) -> bool {
        self.homes.contains_key(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::PodView;
    use serde_json::json;

    fn node(name: &str, cpu: &str) -> NodeView {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "10"}},
        }))
        .unwrap()
    }

    fn pod(uid: &str, node: &str) -> Arc<Pod> {
        let view: PodView = serde_json::from_value(json!({
            "metadata": {"name": uid, "uid": uid},
            "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "1"}}, "ports": [{"hostPort": 80}]}]},
        }))
        .unwrap();
        Arc::new(Pod::of_view(&view))
    }

    fn cpu(cluster: &Cluster, node: &str) -> i64 {
        cluster.node(node).unwrap().requested.milli_cpu
    }

    #[test]
    fn nodes_count_their_pods() {
        let mut cluster = Cluster::default();
        cluster.put_pod(&pod("early", "a"));
        assert!(cluster.put_node(&node("a", "4")));
        assert!(cluster.put_node(&node("b", "4")));
        assert_eq!(cpu(&cluster, "a"), 1000);
        cluster.put_pod(&pod("p", "a"));
        cluster.put_pod(&pod("p", "a"));
        assert_eq!(cpu(&cluster, "a"), 2000);
        cluster.put_pod(&pod("p", "b"));
        assert_eq!((cpu(&cluster, "a"), cpu(&cluster, "b")), (1000, 1000));
        assert_eq!(cluster.remove_pod("p").as_deref(), Some("b"));
        assert_eq!(cluster.remove_pod("p"), None);
        assert!(cluster.node("b").unwrap().ports.is_empty());
    }

    #[test]
    fn a_nomination_moves_and_ends() {
        let mut cluster = Cluster::default();
        let nominated = |node: &str| {
            let mut waiting = Pod::clone(&pod("p", ""));
            waiting.nominated = node.into();
            Arc::new(waiting)
        };
        for (node, on_a, on_b) in [("a", 1, 0), ("b", 0, 1), ("b", 0, 1), ("", 0, 0)] {
            cluster.nominate(&nominated(node));
            assert_eq!(
                (cluster.nominated("a").len(), cluster.nominated("b").len()),
                (on_a, on_b)
            );
        }
    }

    #[test]
    fn a_node_that_comes_back_finds_its_pods() {
        let mut cluster = Cluster::default();
        for name in ["a", "b", "c"] {
            cluster.put_node(&node(name, "4"));
        }
        cluster.put_pod(&pod("p", "a"));
        cluster.remove_node("a");
        assert!(cluster.node("a").is_none() && cluster.node("c").is_some());
        assert_eq!(cluster.nodes().len(), 2);
        cluster.put_node(&node("a", "4"));
        assert_eq!(cpu(&cluster, "a"), 1000);
    }

    #[test]
    fn only_what_matters_is_a_change() {
        let mut cluster = Cluster::default();
        assert!(cluster.put_node(&node("a", "4")));
        assert!(!cluster.put_node(&node("a", "4")));
        cluster.put_pod(&pod("p", "a"));
        assert!(cluster.put_node(&node("a", "5")));
        assert_eq!(cpu(&cluster, "a"), 1000);
    }
}
