//! Which nodes a pod can go to. Filters run in upstream's order, and a node is out at the first that says no.
//!
//! Source of order and texts: `pkg/scheduler/apis/config/v1/default_plugins.go` and the plug-ins' own files.

pub mod affinity;
pub mod fit;
pub mod ports;
pub mod taints;

use std::fmt;
use std::sync::Arc;

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
    /// The pod's affinity names other nodes: this one was not looked at.
    NotNamed,
    /// A port of the node is taken.
    Ports,
    /// The node's limit on pods is reached.
    TooManyPods,
    /// The node cannot do what the pod needs.
    Features,
    /// There is not enough left of a resource.
    Insufficient(Box<str>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Unschedulable => "node(s) were unschedulable",
            Reason::NodeName => "node(s) didn't match the requested node name",
            Reason::Taints => "node(s) had untolerated taint(s)",
            Reason::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Reason::NotNamed => "node(s) didn't satisfy plugin(s) [NodeAffinity]",
            Reason::Ports => "node(s) didn't have free ports for the requested pod ports",
            Reason::TooManyPods => "Too many pods",
            Reason::Features => "node(s) didn't match Pod's required features",
            Reason::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
        })
    }
}

/// Why a pod cannot go to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// All that the first filter that says no has to say.
    pub reasons: Vec<Reason>,
    /// Whether it could go there if other pods left (upstream's `Unschedulable`, against `UnschedulableAndUnresolvable`).
    pub resolvable: bool,
}

/// Whether the pod can go to the node.
///
/// # Errors
/// Why not.
pub fn filter(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let never = |reason| {
        Err(Refusal {
            reasons: vec![reason],
            resolvable: false,
        })
    };
    if node.unschedulable && !taints::tolerates_unschedulable(pod) {
        return never(Reason::Unschedulable);
    }
    if taints::untolerated(pod, node).is_some() {
        return never(Reason::Taints);
    }
    if !pod.constraints.match_node(node) {
        return never(Reason::Affinity);
    }
    if ports::conflict(&pod.ports, &node.ports) {
        return Err(Refusal {
            reasons: vec![Reason::Ports],
            resolvable: true,
        });
    }
    fit::fits(pod, node)?;
    if !pod
        .features
        .iter()
        .all(|needed| node.features.iter().any(|own| own == needed))
    {
        return never(Reason::Features);
    }
    Ok(())
}

/// Whether the pod can go to the node beside those for whom room is being made there (`rivals`), if they are at least as
/// important. Source: `RunFilterPluginsWithNominatedPods`; upstream filters without them too, for affinity to other pods.
///
/// # Errors
/// Why not.
pub fn filter_beside(pod: &Pod, node: &Node, rivals: &[Arc<Pod>]) -> Result<(), Refusal> {
    let mut before = rivals
        .iter()
        .filter(|rival| rival.priority >= pod.priority && rival.uid != pod.uid)
        .peekable();
    if before.peek().is_none() {
        return filter(pod, node);
    }
    let mut fuller = node.clone();
    before.for_each(|rival| fuller.add(rival));
    filter(pod, &fuller)
}
