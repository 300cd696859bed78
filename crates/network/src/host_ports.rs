//! Host ports: ports of the node that lead to one pod (`hostPort` and `hostIP` of a container's ports).
//!
//! A host port is a frontend of the service table like any other, with the pod as its only endpoint. Its pod's link decides
//! how long it lives: [`HostPorts::publish`] comes after the link and before the first container, [`HostPorts::withdraw`]
//! before the link goes. Both are orders, taken one after the other; their futures are ready when the rules say so.
//!
//! Invariants: what was published is in the links' record, so a restarted daemon hands all of it over before its first rules
//! are written; `hostIP` absent or `0.0.0.0` means every address of the node and its loopback address, as upstream's `portmap`
//! has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::attachments::Attachments;
use crate::orders::{Change, Ended, Orders, Sender};
use crate::services::{Backend, Frontend, Wanted};
use crate::views::{ObjectName, Protocol};

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Protocol.
    pub protocol: Protocol,
    /// The node's address; unspecified for all of them.
    pub address: Ipv4Addr,
    /// The port there.
    pub port: u16,
    /// The port in the pod.
    pub target: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.number();
        write!(formatter, "{protocol} {} {} {}", self.address, self.port, self.target)
    }
}

impl FromStr for HostPort {
    type Err = ();

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        let protocol = word()?.parse().map_err(drop)?;
        Ok(Self {
            protocol: Protocol::of_number(protocol).ok_or(())?,
            address: word()?.parse().map_err(drop)?,
            port: word()?.parse().map_err(drop)?,
            target: word()?.parse().map_err(drop)?,
        })
    }
}

/// What a pod's host ports want of the table.
fn frontends(node: Ipv4Addr, pod: Ipv4Addr, ports: &[HostPort]) -> BTreeMap<Frontend, Wanted> {
    let mut frontends = BTreeMap::new();
    for port in ports {
        let addresses = match port.address {
            Ipv4Addr::UNSPECIFIED => vec![node, Ipv4Addr::LOCALHOST],
            one => vec![one],
        };
        for address in addresses {
            let frontend = Frontend {
                address,
                protocol: port.protocol,
                port: port.port,
            };
            let backend = Backend {
                address: pod,
                port: port.target,
            };
            frontends.insert(frontend, Wanted::from(BTreeSet::from([backend])));
        }
    }
    frontends
}

/// Publishes host ports.
#[derive(Debug, Clone)]
pub struct HostPorts {
    node: Ipv4Addr,
    orders: Sender,
}

// === impl HostPorts ===

impl HostPorts {
    /// The host ports of the node with that address, and what its agent has to take. Orders that are there when the agent
    /// starts are in its first rules.
    pub fn new(node: Ipv4Addr) -> (Self, Orders) {
        let (orders, receiver) = Orders::channel();
        (Self { node, orders }, receiver)
    }

    /// Tells the same agent of pods.
    pub fn attachments(&self) -> Attachments {
        Attachments::new(self.orders.clone())
    }

    /// Leads the node's ports to the pod. `owner` names the pod's sandbox. The order is given at once; the answer comes when
    /// it is written.
    pub fn publish(
        &self,
        owner: &str,
        pod: Ipv4Addr,
        ports: &[HostPort],
    ) -> impl Future<Output = Result<(), Ended>> + Send + use<> {
        self.order(owner, frontends(self.node, pod, ports))
    }

    /// Takes a pod's ports away.
    pub fn withdraw(&self, owner: &str) -> impl Future<Output = Result<(), Ended>> + Send + use<> {
        self.order(owner, BTreeMap::new())
    }

    fn order(
        &self,
        owner: &str,
        frontends: BTreeMap<Frontend, Wanted>,
    ) -> impl Future<Output = Result<(), Ended>> + Send + use<> {
        // Services have a namespace, sandboxes none: their names never meet.
        let owner = ObjectName::new("", owner);
        self.orders.give(Change::HostPorts { owner, frontends })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Ipv4Addr = Ipv4Addr::new(10, 243, 0, 10);
    const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);

    fn port(protocol: Protocol, address: Ipv4Addr) -> HostPort {
        HostPort {
            protocol,
            address,
            port: 80,
            target: 8080,
        }
    }

    #[test]
    fn no_address_means_all_of_the_nodes() {
        let addresses = |address| {
            let frontends = frontends(NODE, POD, &[port(Protocol::Udp, address)]);
            let backends = frontends.values().flat_map(|wanted| &wanted.backends);
            assert!(
                backends
                    .into_iter()
                    .all(|backend| (backend.address, backend.port) == (POD, 8080))
            );
            let addresses = frontends.keys().map(|frontend| {
                assert_eq!((frontend.protocol, frontend.port), (Protocol::Udp, 80));
                frontend.address
            });
            addresses.collect::<Vec<_>>()
        };
        assert_eq!(addresses(Ipv4Addr::UNSPECIFIED), [NODE, Ipv4Addr::LOCALHOST]);
        assert_eq!(addresses(Ipv4Addr::LOCALHOST), [Ipv4Addr::LOCALHOST]);
        assert_eq!(addresses(NODE), [NODE]);
    }

    #[test]
    fn a_port_is_read_as_it_was_written() {
        for port in [port(Protocol::Tcp, NODE), port(Protocol::Sctp, Ipv4Addr::UNSPECIFIED)] {
            assert_eq!(port.to_string().parse(), Ok(port));
        }
        for wrong in [
            "",
            "6 10.0.0.1 80",
            "6 10.0.0.1 80 99999",
            "1 10.0.0.1 80 80",
            "6 x 80 80",
        ] {
            assert_eq!(wrong.parse::<HostPort>(), Err(()), "{wrong}");
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_an_agent_that_ended() {
        let (ports, orders) = HostPorts::new(NODE);
        let answer = ports.publish("a", POD, &[port(Protocol::Tcp, NODE)]);
        drop(orders);
        assert_eq!(answer.await, Err(Ended));
        assert_eq!(ports.withdraw("a").await, Err(Ended));
    }
}
