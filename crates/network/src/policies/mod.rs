//! Network policies: from NetworkPolicies, pods and namespaces to packet rules of this node's pods.
//!
//! [`grants`] says what a policy allows, [`plan`] which of this node's pods have which policies and turns that into the
//! smallest change ([`delta`]) of what was written before, [`selections`] keeps the addresses behind each selector, [`rules`]
//! spells a change out for nftables, [`kernel`] commits it, [`watch`] learns from the API what is to be done.
//!
//! What is judged is the connection and not the packet: who began it, before any translation, and where it really goes. Both
//! directions of a connection so have one verdict, Services are judged by their endpoints, and a changed policy holds for
//! connections that exist, too (upstream leaves that to the implementation).
//!
//! Upstream's exceptions: a pod cannot be kept from itself, nor from its own node, nor its node from it ("Network Policies" of
//! the documentation). Pods in the node's network are the node: they are neither selected nor peers. What pods do without a
//! connection that the kernel can make out is forbidden as soon as a policy selects them, but for questions to the cluster's
//! own DNS, which is not tracked: it counts as a pod of `kube-system` with CoreDNS' label and port names ([`cluster`]).
//!
//! A pod is isolated before its first container starts: [`crate::attachments`] waits for its rules. As long as its object is
//! not known, nothing is allowed to it.
//!
//! Not judged: IPv6, which pods do not have.

pub mod cluster;
pub mod delta;
pub mod grants;
pub mod kernel;
pub mod objects;
pub mod plan;
pub mod rules;
pub mod selections;
pub mod views;
pub(crate) mod watch;

/// What a policy is about, seen from the pod that it selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Connections to the pod.
    Ingress,
    /// Connections that the pod begins.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// As the API writes it.
    pub fn parse(text: &str) -> Option<Direction> {
        Self::ALL.into_iter().find(|direction| direction.label() == text)
    }

    /// As the API writes it.
    pub fn label(self) -> &'static str {
        match self {
            Direction::Ingress => "Ingress",
            Direction::Egress => "Egress",
        }
    }

    /// Its place where something is kept for each direction.
    pub(crate) fn place(self) -> usize {
        self as usize
    }
}
