//! What policies need to know of pods and NetworkPolicies, and nothing more.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;

use api::Value;
use api::selector::LabelSelector;
use ipnet::Ipv4Net;

use super::Direction;
use crate::views::{ObjectName, Protocol};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A label selector. Two are equal when they are written alike.
#[derive(Debug, Clone)]
pub struct Selector {
    parsed: LabelSelector,
    text: String,
}

// === impl Selector ===

impl Selector {
    /// Selects everything.
    pub fn everything() -> Selector {
        Selector::from(LabelSelector::everything())
    }

    /// Reads the object form. One that cannot be read selects nothing: one bad object must not end its neighbours' watch.
    pub fn of(selector: &Value) -> Selector {
        Selector::from(LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing()))
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.parsed.matches(|key| labels.get(key).map(String::as_str))
    }
}

impl From<LabelSelector> for Selector {
    fn from(parsed: LabelSelector) -> Selector {
        // What selects nothing is written like what selects everything.
        let text = match parsed.is_nothing() {
            true => "(nothing)".to_owned(),
            false => parsed.to_string(),
        };
        Selector { parsed, text }
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Selector) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Selector) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Selector) -> Ordering {
        self.text.cmp(&other.text)
    }
}

/// A named port of a pod's containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// Name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Which.
    pub name: ObjectName,
    /// Labels.
    pub labels: Labels,
    /// Its addresses as its status tells.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether its addresses are its own: it is not in the node's network, and has not ended.
    pub is_peer: bool,
    /// Ports with names.
    pub ports: Vec<NamedPort>,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyView {
    /// Which.
    pub name: ObjectName,
    /// The pods of its namespace that it is about.
    pub pods: Selector,
    /// For each direction that it is about, what it allows.
    pub rules: BTreeMap<Direction, Vec<RuleView>>,
}

/// A rule: traffic of one of the peers on one of the ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleView {
    /// None: anyone. A list without elements is one whose elements could not be read, and allows nobody.
    pub peers: Option<Vec<PeerView>>,
    /// None: any port.
    pub ports: Option<Vec<PortView>>,
}

/// Who a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerView {
    /// Pods.
    Pods(Arc<PodPeer>),
    /// Addresses.
    Block(Arc<Block>),
}

/// Pods by labels and namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodPeer {
    /// Where they are.
    pub namespaces: Namespaces,
    /// Which ones.
    pub pods: Selector,
}

/// Namespaces of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Namespaces {
    /// The policy's own.
    Own(String),
    /// Those with such labels.
    Selected(Selector),
}

/// A range of addresses, with gaps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The range.
    pub range: Ipv4Net,
    /// What is left out of it.
    pub except: Vec<Ipv4Net>,
}

impl Block {
    /// Whether an address is in the range and in no gap.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.range.contains(&address) && !self.except.iter().any(|gap| gap.contains(&address))
    }
}

/// The ports a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortView {
    /// All of a protocol.
    All(Protocol),
    /// From the first to the last.
    Numbers(Protocol, u16, u16),
    /// The one that the connection's target calls so.
    Named(Protocol, String),
}
