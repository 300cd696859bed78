//! What policies allow: each rule taken apart into pairs of one peer and one port.
//!
//! Everything is additive, so the policies of a pod come to the set of their pairs, and pods with equal sets share one chain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Direction;
use super::views::{PeerView, PolicyView, PortView, RuleView, Selector};

/// A peer and a port that are allowed together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// None: anyone.
    pub peer: Option<PeerView>,
    /// None: anything, whether it has ports or not.
    pub port: Option<PortView>,
}

impl Grant {
    /// Allows everything.
    pub const ALL: Grant = Grant { peer: None, port: None };
}

/// All that is allowed in one direction; what is not in it is forbidden.
pub type Grants = BTreeSet<Grant>;

/// A policy taken apart.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The pods it is about.
    pub pods: Selector,
    /// What it allows in the directions that it is about.
    pub grants: BTreeMap<Direction, Arc<Grants>>,
}

impl Policy {
    /// From what it means.
    pub fn of(view: &PolicyView) -> Policy {
        let grants = view.rules.iter().map(|(direction, rules)| {
            let all: Grants = rules.iter().flat_map(grants).collect();
            (*direction, Arc::new(all))
        });
        Policy {
            pods: view.pods.clone(),
            grants: grants.collect(),
        }
    }
}

fn grants(rule: &RuleView) -> Vec<Grant> {
    let peers = alternatives(&rule.peers);
    let ports = alternatives(&rule.ports);
    let pairs = peers.iter().flat_map(|peer| {
        ports.iter().map(|port| Grant {
            peer: peer.clone(),
            port: port.clone(),
        })
    });
    pairs.collect()
}

/// What is not restricted is one alternative.
fn alternatives<T: Clone>(list: &Option<Vec<T>>) -> Vec<Option<T>> {
    match list {
        None => vec![None],
        Some(list) => list.iter().cloned().map(Some).collect(),
    }
}

/// The policies' grants together. Who may do everything needs no other.
pub fn union<'a>(policies: impl IntoIterator<Item = &'a Arc<Grants>>) -> Grants {
    let mut all = Grants::new();
    for grants in policies {
        all.extend(grants.iter().cloned());
    }
    if all.contains(&Grant::ALL) {
        all = Grants::from([Grant::ALL]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Protocol;

    #[test]
    fn rules_are_products_and_policies_sums() {
        let ports = [80, 443].map(|port| PortView::Numbers(Protocol::Tcp, port, port));
        let rule = |ports: Option<Vec<PortView>>| RuleView { peers: None, ports };
        assert_eq!(grants(&rule(Some(ports.to_vec()))).len(), 2);
        assert_eq!(grants(&rule(Some(Vec::new()))), []);
        assert_eq!(grants(&rule(None)), [Grant::ALL]);
        let some: Arc<Grants> = Arc::new(grants(&rule(Some(ports.to_vec()))).into_iter().collect());
        let all = Arc::new(Grants::from([Grant::ALL]));
        assert_eq!(union([&some, &some]).len(), 2);
        assert_eq!(union([&some, &all]), Grants::from([Grant::ALL]));
        assert!(union([]).is_empty());
    }
}
