//! The change of a table, and what one frontend has to do with it: which endpoint keeps which index.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::Range;

use super::{Backend, Frontend, ServiceChain, Wanted};
use crate::views::Protocol;

/// A change of the table, in the order in which it has to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Make the whole table anew first.
    pub rebuild: bool,
    /// Elements of the service map to delete.
    pub remove_services: Vec<Frontend>,
    /// Elements of the endpoint map to delete.
    pub remove_endpoints: Vec<(Frontend, u32)>,
    /// Chains to make, by their number of endpoints. To be committed before the rest of the change.
    pub add_chains: Range<u32>,
    /// Elements of the service map to add.
    pub add_services: Vec<(Frontend, ServiceChain)>,
    /// Elements of the endpoint map to add.
    pub add_endpoints: Vec<(Frontend, u32, Backend)>,
    /// Chains with affinity to make, before the rest of the change as well.
    pub add_affinity_chains: Vec<ServiceChain>,
    /// Endpoints that clients may stay with, to add.
    pub add_affinities: Vec<(Frontend, Backend)>,
    /// The same, to delete.
    pub remove_affinities: Vec<(Frontend, Backend)>,
    /// Addresses that may meet themselves, to add.
    pub add_hairpins: Vec<Ipv4Addr>,
    /// The same, to delete.
    pub remove_hairpins: Vec<Ipv4Addr>,
    /// Whether the DNS address becomes ours (`true`) or somebody else's; absent: as before.
    pub own_dns: Option<bool>,
    /// A UDP port leads elsewhere than before: once this is written, flows that go where it led have to be cut.
    pub udp_moved: bool,
}

impl Delta {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn sort(&mut self) {
        self.remove_services.sort_unstable();
        self.remove_endpoints.sort_unstable();
        self.add_services.sort_unstable();
        self.add_endpoints.sort_unstable();
        self.add_affinities.sort_unstable();
    }
}

/// A frontend as it was written. Without endpoints, nothing was.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// By their index.
    pub(super) backends: Vec<Backend>,
    pub(super) affinity_seconds: Option<u32>,
}

impl Written {
    pub(super) fn chain(&self) -> ServiceChain {
        ServiceChain {
            size: self.backends.len() as u32,
            affinity_seconds: self.affinity_seconds,
        }
    }

    pub(super) fn become_like(&self, wanted: &Wanted) -> Written {
        let backends = reindex(&self.backends, &wanted.backends);
        let affinity_seconds = wanted.affinity_seconds.filter(|_| !backends.is_empty());
        Written {
            backends,
            affinity_seconds,
        }
    }

    /// The endpoints that clients may stay with.
    pub(super) fn affinities(&self) -> BTreeSet<Backend> {
        let backends = self.backends.iter().copied();
        if self.affinity_seconds.is_some() {
            backends.collect()
        } else {
            BTreeSet::new()
        }
    }
}

/// The endpoints in their new order: who stays keeps its index where it can, holes are filled by who is new and then by
/// the last ones.
fn reindex(old: &[Backend], wanted: &BTreeSet<Backend>) -> Vec<Backend> {
    let present: BTreeSet<Backend> = old.iter().copied().collect();
    let mut added = wanted
        .iter()
        .copied()
        .filter(|backend| !present.contains(backend))
        .collect::<Vec<_>>()
        .into_iter();
    let mut new = old.to_vec();
    let holes: Vec<usize> = (0..old.len()).filter(|&index| !wanted.contains(&old[index])).collect();
    // From the last hole to the first, so that what is moved into a hole is never itself a hole.
    for hole in holes.into_iter().rev() {
        match added.next() {
            Some(backend) => new[hole] = backend,
            None => {
                new.swap_remove(hole);
            }
        }
    }
    new.extend(added);
    new
}

/// Adds what makes a frontend that was written so into one that is written so.
pub(super) fn diff(frontend: Frontend, old: &Written, new: &Written, delta: &mut Delta) {
    for index in 0..old.backends.len().max(new.backends.len()) {
        let (before, after) = (old.backends.get(index), new.backends.get(index));
        if before == after {
            continue;
        }
        if before.is_some() {
            delta.remove_endpoints.push((frontend, index as u32));
        }
        if let Some(after) = after {
            delta.add_endpoints.push((frontend, index as u32, *after));
        }
    }
    if old.chain() != new.chain() {
        if !old.backends.is_empty() {
            delta.remove_services.push(frontend);
        }
        if !new.backends.is_empty() {
            delta.add_services.push((frontend, new.chain()));
        }
    }
    let (before, after) = (old.affinities(), new.affinities());
    delta
        .remove_affinities
        .extend(before.difference(&after).map(|backend| (frontend, *backend)));
    delta
        .add_affinities
        .extend(after.difference(&before).map(|backend| (frontend, *backend)));
    if frontend.protocol == Protocol::Udp {
        let staying: BTreeSet<&Backend> = new.backends.iter().collect();
        let came = old.backends.is_empty() && !new.backends.is_empty();
        delta.udp_moved |= came || old.backends.iter().any(|backend| !staying.contains(backend));
    }
}
