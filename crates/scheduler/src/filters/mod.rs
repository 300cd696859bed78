//! Which nodes a pod can go to. Filters run in upstream's order, and a node is out at the first that says no.
//!
//! Source of order and texts: `pkg/scheduler/apis/config/v1/default_plugins.go` and the plug-ins' own files.

pub mod affinity;
pub mod fit;
pub mod ports;
pub mod taints;

use std::fmt;

use crate::cluster::Node;
use crate::pod::Pod;

/// Why a node is out: the words of upstream's plug-ins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The node was cordoned.
    Unschedulable,
    /// Another node is named.
    NodeName,
    /// A taint is not tolerated.
    Taints,
    /// Selector or affinity do not match.
    Affinity,
    /// A port of the node is taken.
    Ports,
    /// The node's limit on pods is reached.
    TooManyPods,
    /// There is not enough left of a resource.
    Insufficient(Box<str>),
}

impl Reason {
    /// Whether pods would have to go elsewhere to change the verdict: what preemption cannot help with.
    pub fn is_unresolvable(&self) -> bool {
        matches!(
            self,
            Reason::Unschedulable | Reason::NodeName | Reason::Taints | Reason::Affinity
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Unschedulable => "node(s) were unschedulable",
            Reason::NodeName => "node(s) didn't match the requested node name",
            Reason::Taints => "node(s) had untolerated taint(s)",
            Reason::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Reason::Ports => "node(s) didn't have free ports for the requested pod ports",
            Reason::TooManyPods => "Too many pods",
            Reason::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
        })
    }
}

/// The reasons why the pod cannot go to the node; none when it can.
pub fn filter(pod: &Pod, node: &Node) -> Vec<Reason> {
    if node.unschedulable && !taints::tolerates_unschedulable(pod) {
        return vec![Reason::Unschedulable];
    }
    if taints::untolerated(pod, node).is_some() {
        return vec![Reason::Taints];
    }
    if !pod.constraints.match_node(node) {
        return vec![Reason::Affinity];
    }
    if ports::conflict(&pod.ports, &node.ports) {
        return vec![Reason::Ports];
    }
    fit::insufficient(pod, node)
}

/// Whether the pod can go to the node, without the reasons.
pub fn passes(pod: &Pod, node: &Node) -> bool {
    filter(pod, node).is_empty()
}
