//! The ranges of cluster addresses: the one that the node was started with, and those that ServiceCIDRs name. Each has a
//! route, a rule against what leads nowhere, and reverse names that nobody else is asked for.
//!
//! A range counts as long as its ServiceCIDR is there, ready or not: Services may have addresses of it.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use client::informer::Delta;
use ipnet::{IpNet, Ipv4Net};
use sys::netlink::{Family, Messages, Socket};
use sys::netlink_route as route;
use sys::netns::NetworkNamespace;

use crate::node::{NodeNetwork, service_route};
use crate::objects::ServiceCidrObject;

/// What is known of the ranges.
#[derive(Debug)]
pub(crate) struct Ranges {
    first: Ipv4Net,
    cluster_network: Ipv4Net,
    node_address: Ipv4Addr,
    by_name: BTreeMap<String, Vec<Ipv4Net>>,
    changed: bool,
}

// === impl Ranges ===

impl Ranges {
    pub(crate) fn new(network: &NodeNetwork) -> Ranges {
        Ranges {
            first: network.service_network,
            cluster_network: network.cluster_network,
            node_address: network.node_address,
            by_name: BTreeMap::new(),
            changed: false,
        }
    }

    /// Takes news; true for the news that all ServiceCIDRs are known.
    pub(crate) fn take(&mut self, delta: Delta<ServiceCidrObject>) -> bool {
        match delta {
            Delta::Added(cidr) | Delta::Updated { new: cidr, .. } => self.set(cidr.name(), cidr.ranges()),
            Delta::Deleted(cidr) => self.set(cidr.name(), Vec::new()),
            Delta::Synced => return true,
        }
        false
    }

    fn set(&mut self, name: &str, mut ranges: Vec<Ipv4Net>) {
        ranges.retain(|range| {
            let taken = range.contains(&self.cluster_network)
                || self.cluster_network.contains(range)
                || range.contains(&self.node_address);
            if taken {
                tracing::warn!(name, %range, "addresses of pods and nodes are no cluster addresses: the range is left out");
            }
            !taken
        });
        let before = self.service_networks();
        match ranges.is_empty() {
            true => self.by_name.remove(name),
            false => self.by_name.insert(name.to_owned(), ranges),
        };
        self.changed |= self.service_networks() != before;
    }

    /// Whether there are other ranges than at the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The ranges of cluster addresses, each once.
    pub(crate) fn service_networks(&self) -> Vec<Ipv4Net> {
        let mut all = vec![self.first];
        for range in self.by_name.values().flatten() {
            if !all.contains(range) {
                all.push(*range);
            }
        }
        all
    }

    /// All ranges whose names are the cluster's.
    pub(crate) fn networks(&self) -> Vec<IpNet> {
        let mut all: Vec<IpNet> = self.service_networks().into_iter().map(IpNet::from).collect();
        all.push(self.cluster_network.into());
        all
    }
}

/// The routes to the ranges in a node's namespace.
#[derive(Debug)]
pub(crate) struct Routes {
    socket: Socket,
    node_address: Ipv4Addr,
    /// What is there: [`crate::node::setup`] has made the first one.
    present: Vec<Ipv4Net>,
    wanted: Vec<Ipv4Net>,
}

// === impl Routes ===

impl Routes {
    pub(crate) fn open(namespace: &NetworkNamespace, network: &NodeNetwork) -> io::Result<Routes> {
        Ok(Routes {
            socket: namespace.run(|| Socket::open(Family::Route))??,
            node_address: network.node_address,
            present: vec![network.service_network],
            wanted: vec![network.service_network],
        })
    }

    /// The routes lead to these from the next [`Self::sync`] on.
    pub(crate) fn want(&mut self, ranges: Vec<Ipv4Net>) {
        self.wanted = ranges;
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        for range in self.wanted.clone() {
            if !self.present.contains(&range) {
                let mut messages = Messages::new();
                route::put_route(&mut messages, &service_route(range, self.node_address));
                self.socket.transact(messages)?;
                self.present.push(range);
            }
        }
        for range in self.present.clone() {
            if !self.wanted.contains(&range) {
                let mut messages = Messages::new();
                route::delete_route(&mut messages, &service_route(range, self.node_address));
                if let Err(error) = self.socket.transact(messages) {
                    // Somebody else has removed it.
                    tracing::debug!(%range, %error, "the route to a range that is gone");
                }
                self.present.retain(|present| *present != range);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_and_go() {
        let mut ranges = Ranges::new(&NodeNetwork {
            node_address: Ipv4Addr::new(10, 243, 0, 1),
            pod_network: "10.244.0.0/24".parse().unwrap(),
            cluster_network: "10.244.0.0/16".parse().unwrap(),
            service_network: "10.96.0.0/12".parse().unwrap(),
            dns_address: None,
        });
        for (name, named, changed, expect) in [
            ("kubernetes", vec!["10.96.0.0/12"], false, vec!["10.96.0.0/12"]),
            ("a", vec!["10.1.0.0/24"], true, vec!["10.96.0.0/12", "10.1.0.0/24"]),
            ("b", vec!["10.1.0.0/24"], false, vec!["10.96.0.0/12", "10.1.0.0/24"]),
            ("a", vec![], false, vec!["10.96.0.0/12", "10.1.0.0/24"]),
            // Addresses of pods, and of nodes.
            (
                "c",
                vec!["10.244.7.0/24", "10.243.0.0/16"],
                false,
                vec!["10.96.0.0/12", "10.1.0.0/24"],
            ),
            ("b", vec![], true, vec!["10.96.0.0/12"]),
            ("kubernetes", vec![], false, vec!["10.96.0.0/12"]),
        ] {
            ranges.set(name, named.iter().map(|range| range.parse().unwrap()).collect());
            assert_eq!(ranges.take_changed(), changed, "{name} {named:?}");
            let all: Vec<String> = ranges.service_networks().iter().map(ToString::to_string).collect();
            assert_eq!(all, expect, "{name} {named:?}");
            assert_eq!(ranges.networks().len(), all.len() + 1);
        }
    }
}
