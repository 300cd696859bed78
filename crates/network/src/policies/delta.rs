//! The change of the rules of policies, in the steps in which it has to be written.
//!
//! A transaction is atomic, a packet is not (`services::rules` tells more): whatever a packet is led to has to be there
//! before, and stays until nothing leads there any more. So a change is up to three transactions, and most are one.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::Direction;
use super::selections::{Member, SetId};
use super::views::Block;
use crate::views::Protocol;

/// A chain: what one or several pods are allowed in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId {
    /// Direction.
    pub direction: Direction,
    /// Number; never used twice.
    pub number: u32,
}

/// A rule of a chain: what matches both is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who.
    pub peer: PeerMatch,
    /// What of it.
    pub port: PortMatch,
}

/// The other side of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMatch {
    /// Anyone.
    Anyone,
    /// Whose address is in the set.
    Set(SetId),
    /// Whose address is in the block.
    Block(Arc<Block>),
}

/// The target's protocol and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortMatch {
    /// Any protocol.
    Any,
    /// Any port of it.
    Protocol(Protocol),
    /// From the first to the last.
    Range(Protocol, u16, u16),
    /// The set has the target's address with its port.
    Set(Protocol, SetId),
}

/// A change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// The first step: sets with what is in them.
    pub add_sets: Vec<(SetId, Vec<Member>)>,
    /// The first step: chains with their rules.
    pub add_chains: Vec<(ChainId, Arc<Vec<Line>>)>,
    /// The second step: elements of sets that were there.
    pub remove_members: Vec<(SetId, Member)>,
    /// The same, to add.
    pub add_members: Vec<(SetId, Member)>,
    /// The second step: addresses that lead to no chain any more, or to another one.
    pub remove_leads: Vec<(Direction, Ipv4Addr)>,
    /// Addresses that lead to a chain.
    pub add_leads: Vec<(Direction, Ipv4Addr, ChainId)>,
    /// Addresses that are no longer isolated.
    pub release: Vec<(Direction, Ipv4Addr)>,
    /// Addresses that are isolated: what no chain allows them is forbidden.
    pub isolate: Vec<(Direction, Ipv4Addr)>,
    /// Addresses that are isolated in no direction any more, and so need no right to reach themselves.
    pub remove_selves: Vec<Ipv4Addr>,
    /// Addresses that may reach themselves although they are isolated.
    pub add_selves: Vec<Ipv4Addr>,
    /// Who may no longer ask the cluster's own DNS, and how.
    pub remove_dns: Vec<(Ipv4Addr, Protocol)>,
    /// Who may.
    pub add_dns: Vec<(Ipv4Addr, Protocol)>,
    /// The last step: chains that nothing leads to.
    pub remove_chains: Vec<ChainId>,
    /// The last step: sets that no rule looks at.
    pub remove_sets: Vec<SetId>,
}

impl Delta {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Notes that an address was isolated, or led to a chain, in one direction and now is in another way.
    pub(super) fn lead(
        &mut self,
        direction: Direction,
        address: Ipv4Addr,
        before: Option<ChainId>,
        after: Option<ChainId>,
    ) {
        if before == after {
            return;
        }
        if before.is_some() {
            self.remove_leads.push((direction, address));
        } else {
            self.isolate.push((direction, address));
        }
        match after {
            Some(chain) => self.add_leads.push((direction, address, chain)),
            None => self.release.push((direction, address)),
        }
    }
}
