//! Services: from Services and EndpointSlices to packet rules.
//!
//! [`rotation`] says which endpoints take new connections, [`plan`] turns that into the smallest change ([`delta`]) of what was
//! written before, [`rules`] spells a change out for nftables, [`kernel`] commits it and finds out when somebody else
//! touched the table.
//!
//! What is served today, over IPv4 (TCP, UDP, SCTP): cluster addresses, node ports, external addresses and those of load
//! balancers, both traffic policies, session affinity, hairpin, the fallback to terminating endpoints, and pods' host ports
//! ([`crate::host_ports`]). Nobody answers on a load balancer's health check port.

pub mod delta;
pub mod kernel;
pub mod plan;
pub mod rotation;
pub mod rules;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::views::Protocol;

/// What a client connects to: an address of a Service, its node port, or a pod's host port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// Cluster address, external address, or one of the node's.
    pub address: Ipv4Addr,
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// Where it ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Endpoint address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
}

/// What a Service wants for one of its addresses and ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The endpoints that take new connections.
    pub backends: BTreeSet<Backend>,
    /// How long a client stays with its endpoint, in seconds.
    pub affinity_seconds: Option<u32>,
}

impl From<BTreeSet<Backend>> for Wanted {
    fn from(backends: BTreeSet<Backend>) -> Self {
        Self {
            backends,
            affinity_seconds: None,
        }
    }
}

/// The chain that serves a frontend: shared by all frontends with as many endpoints and the same affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceChain {
    /// Number of endpoints.
    pub size: u32,
    /// How long a client stays with its endpoint, in seconds.
    pub affinity_seconds: Option<u32>,
}
