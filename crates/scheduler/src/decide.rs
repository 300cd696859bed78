//! One decision: a pod and a snapshot of the nodes give a node, or the reasons why there is none.
//!
//! Source: `pkg/scheduler/schedule_one.go`; of the words: `pkg/scheduler/framework/types.go` (`FitError`).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use base::random::Random;

use crate::cluster::{Cluster, Node};
use crate::filters::{self, Reason};
use crate::pod::Pod;
use crate::scores;

/// Below this many nodes all of them are looked at.
const NODES_LOOKED_AT_MIN: usize = 100;
/// The least share of nodes to find, in percent.
const SHARE_MIN: usize = 5;

/// Why a pod has no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// For how many nodes each reason holds.
    pub reasons: BTreeMap<Reason, usize>,
    /// A reason that lies in the pod alone.
    pub own: Option<&'static str>,
    /// The nodes to which it could go if other pods left.
    pub resolvable: Vec<Arc<str>>,
}

// === impl Unschedulable ===

impl Unschedulable {
    /// The text of the condition and the event. `after`: what was said of making room.
    pub fn message(&self, after: &str) -> String {
        if self.nodes == 0 && self.own.is_none() {
            return "no nodes available to schedule pods".into();
        }
        let mut text = match self.own {
            Some(own) => format!("0/{} nodes are available: {own}.", self.nodes),
            None => told(self.nodes, &self.reasons),
        };
        if !after.is_empty() {
            text.push(' ');
            text.push_str(after);
        }
        text
    }
}

/// How many nodes each reason holds for, in the order of the texts. Source: `FitError.Error`.
pub(crate) fn told<R: Display>(nodes: usize, reasons: &BTreeMap<R, usize>) -> String {
    let mut parts: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    match parts.is_empty() {
        true => format!("0/{nodes} nodes are available:"),
        false => format!("0/{nodes} nodes are available: {}.", parts.join(", ")),
    }
}

/// Finds nodes for pods, looking at them in turn so that none is preferred for its place in the list.
pub struct Decider {
    random: Random,
    next: usize,
}

// === impl Decider ===

impl Decider {
    /// A decider that breaks ties with that randomness.
    pub fn new(random: Random) -> Decider {
        Decider { random, next: 0 }
    }

    /// The node for the pod.
    ///
    /// # Errors
    /// Why there is none.
    pub fn decide(&mut self, pod: &Pod, cluster: &Cluster) -> Result<Arc<str>, Unschedulable> {
        tracing::trace!(target: "walk", pod = %pod.key.name, "a node is chosen");
        let nodes = cluster.nodes();
        let mut why = Unschedulable {
            nodes: nodes.len(),
            own: pod.unsupported,
            ..Unschedulable::default()
        };
        if why.own.is_some() {
            return Err(why);
        }
        let mut feasible: Vec<&Node> = Vec::new();
        let mut look = |node: &'_ Node| match filters::filter_beside(pod, node, cluster.nominated(&node.name)) {
            Ok(()) => true,
            Err(refusal) => {
                for reason in refusal.reasons {
                    *why.reasons.entry(reason).or_default() += 1;
                }
                if refusal.resolvable {
                    why.resolvable.push(node.name.clone());
                }
                false
            }
        };
        // Where room was made for it, it goes if it can. The others are counted below, and this one with them.
        if !pod.nominated.is_empty()
            && let Some(node) = cluster.node(&pod.nominated)
            && filters::filter_beside(pod, node, cluster.nominated(&node.name)).is_ok()
        {
            return Ok(node.name.clone());
        }
        if let Some(mut names) = pod.constraints.only_nodes() {
            names.sort_unstable();
            names.dedup();
            let known: Vec<&Node> = names.iter().filter_map(|name| cluster.node(name)).collect();
            feasible.extend(known.iter().copied().filter(|node| look(node)));
            let others = nodes.len() - known.len();
            if others > 0 {
                why.reasons.insert(Reason::NotNamed, others);
            }
        } else {
            let enough = nodes_to_find(nodes.len());
            let mut looked = 0;
            for at in 0..nodes.len() {
                let node = &nodes[(self.next + at) % nodes.len()];
                looked += 1;
                if look(node) {
                    feasible.push(node);
                    if feasible.len() >= enough {
                        break;
                    }
                }
            }
            if !nodes.is_empty() {
                self.next = (self.next + looked) % nodes.len();
            }
        }
        match &feasible[..] {
            [] => Err(why),
            [one] => Ok(one.name.clone()),
            many => Ok(self.best(&scores::scores(pod, many), many)),
        }
    }

    /// The node with the highest score; any of them when there are several.
    fn best(&self, scores: &[i64], nodes: &[&Node]) -> Arc<str> {
        let top = scores.iter().copied().max().unwrap_or(0);
        let best: Vec<&Arc<str>> = nodes
            .iter()
            .zip(scores)
            .filter(|(_, s)| **s == top)
            .map(|(n, _)| &n.name)
            .collect();
        best[self.random.index(best.len())].clone()
    }
}

/// How many nodes that fit are enough: all of a small cluster, a twentieth of a very large one.
fn nodes_to_find(nodes: usize) -> usize {
    if nodes < NODES_LOOKED_AT_MIN {
        return nodes.max(1);
    }
    let share = 50_usize.saturating_sub(nodes / 125).max(SHARE_MIN);
    (nodes * share / 100).max(NODES_LOOKED_AT_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{NodeView, PodView};
    use serde_json::{Value, json};

    fn cluster(nodes: &[Value]) -> Cluster {
        let mut cluster = Cluster::default();
        for node in nodes {
            cluster.put_node(&serde_json::from_value::<NodeView>(node.clone()).unwrap());
        }
        cluster
    }

    fn node(name: &str, cpu: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": spec, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}})
    }

    fn decide(spec: Value, cluster: &Cluster) -> Result<String, String> {
        let pod =
            Pod::of_view(&serde_json::from_value::<PodView>(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap());
        let verdict = Decider::new(Random::seeded(1)).decide(&pod, cluster);
        verdict.map(|node| node.to_string()).map_err(|why| why.message(""))
    }

    #[test]
    fn verdicts_and_their_words() {
        let tainted = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
        let cluster = cluster(&[
            node("a", "1", json!({})),
            node("b", "4", json!({"unschedulable": true})),
            node("c", "4", tainted),
        ]);
        let asks = |cpu: &str| json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]});
        let on = |name: &str| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]},
            ]}}}})
        };
        for (spec, expect) in [
            (asks("500m"), Ok("a")),
            (
                asks("2"),
                Err(
                    "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.",
                ),
            ),
            (
                json!({"nodeSelector": {"x": "y"}, "tolerations": [{"operator": "Exists"}]}),
                Err("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."),
            ),
            (on("a"), Ok("a")),
            (
                on("b"),
                Err(
                    "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].",
                ),
            ),
            (
                on("none"),
                Err("0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity]."),
            ),
            (
                json!({"resourceClaims": [{}]}),
                Err("0/3 nodes are available: resource claims are not supported by this version."),
            ),
        ] {
            assert_eq!(
                decide(spec.clone(), &cluster).as_deref().map_err(|e| &**e),
                expect,
                "{spec}"
            );
        }
        assert_eq!(
            decide(asks("1"), &Cluster::default()).unwrap_err(),
            "no nodes available to schedule pods"
        );
    }

    #[test]
    fn a_large_cluster_is_not_searched_whole() {
        for (nodes, expect) in [(1, 1), (99, 99), (100, 100), (1000, 420), (5000, 500), (20_000, 1000)] {
            assert_eq!(nodes_to_find(nodes), expect, "{nodes}");
        }
    }

    #[test]
    fn nodes_take_turns() {
        let nodes: Vec<Value> = (0..500).map(|n| node(&format!("n{n}"), "4", json!({}))).collect();
        let cluster = cluster(&nodes);
        let pod = Pod::of_view(&PodView::default());
        let mut decider = Decider::new(Random::seeded(1));
        let chosen: std::collections::BTreeSet<Arc<str>> =
            (0..200).map(|_| decider.decide(&pod, &cluster).unwrap()).collect();
        assert!(chosen.len() > 100, "{}", chosen.len());
    }
}
