//! Services: from Services and EndpointSlices to packet rules.
//!
//! [`rotation`] says which endpoints take new connections, [`plan`] turns that into the smallest change of what was
//! written before, [`rules`] spells a change out for nftables, [`kernel`] commits it and finds out when somebody else
//! touched the table.
//!
//! What is served today: cluster addresses over IPv4 (TCP, UDP, SCTP), hairpin, `internalTrafficPolicy`, the fallback to
//! terminating endpoints. `sessionAffinity: ClientIP` is served *without* affinity; node ports, external addresses and load
//! balancers are not served (see `docs/compatibility.md`).

pub mod kernel;
pub mod plan;
pub mod rotation;
pub mod rules;

use std::net::Ipv4Addr;

use crate::views::Protocol;

/// What a client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// Cluster address.
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
