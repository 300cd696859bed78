//! The table of services as it was written, and the smallest change that makes it what it should be.
//!
//! The shape (design, section 6): one map from (address, protocol, port) to the chain of all services with that many
//! endpoints, and one map from (address, protocol, port, index) to the endpoint. The chain for K endpoints draws a number
//! below K and looks the endpoint up. Removing an endpoint moves the last index into the hole, so it costs a handful of map
//! elements whatever K is, and no chain is made or walked for it.
//!
//! Invariants: of a frontend with K endpoints the indexes 0 to K-1 are written and no others; the chain for K exists
//! before a frontend has K endpoints and from then on (`rules` says why it stays); a frontend without endpoints is not
//! written at all, and is therefore rejected like any unallocated address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::Ipv4Net;

use super::{Backend, Frontend};
use crate::views::{ObjectName, Protocol};

/// Chains for fewer endpoints than this are there from the start. A chain that nothing leads to costs the kernel nothing.
const CHAINS_MIN: u32 = 65;

/// What decides besides the services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanConfig {
    /// The addresses of this node's pods: only these can meet themselves through a service.
    pub pod_network: Ipv4Net,
    /// The address this node's own DNS server answers on, while no endpoints of somebody else do.
    pub dns_address: Option<Ipv4Addr>,
}

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
    pub add_services: Vec<(Frontend, u32)>,
    /// Elements of the endpoint map to add.
    pub add_endpoints: Vec<(Frontend, u32, Backend)>,
    /// Addresses that may meet themselves, to add.
    pub add_hairpins: Vec<Ipv4Addr>,
    /// The same, to delete.
    pub remove_hairpins: Vec<Ipv4Addr>,
    /// Whether the DNS address becomes ours (`true`) or somebody else's; absent: as before.
    pub own_dns: Option<bool>,
    /// An endpoint left a UDP port: once this is written, flows that still go to it have to be cut.
    pub udp_left: bool,
}

impl Delta {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn sort(&mut self) {
        self.remove_services.sort_unstable();
        self.remove_endpoints.sort_unstable();
        self.add_services.sort_unstable();
        self.add_endpoints.sort_unstable();
    }
}

/// What was written, and what each Service wants.
#[derive(Debug)]
pub struct Table {
    config: PlanConfig,
    wanted: HashMap<ObjectName, BTreeMap<Frontend, BTreeSet<Backend>>>,
    /// Services that claim a frontend. Two do while one is replaced by another with the same address; the one whose name
    /// sorts first has it, so that every node decides alike.
    claims: HashMap<Frontend, BTreeSet<ObjectName>>,
    written: HashMap<Frontend, Vec<Backend>>,
    /// There are chains for all sizes below this.
    chains_end: u32,
    hairpin_users: HashMap<Ipv4Addr, usize>,
    own_dns: bool,
    dirty: BTreeSet<Frontend>,
}

impl Table {
    /// An empty table, nothing written.
    pub fn new(config: PlanConfig) -> Self {
        Self {
            own_dns: config.dns_address.is_some(),
            config,
            wanted: HashMap::new(),
            claims: HashMap::new(),
            written: HashMap::new(),
            chains_end: CHAINS_MIN,
            hairpin_users: HashMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Says what a Service wants now; empty when it is gone.
    pub fn set(&mut self, service: &ObjectName, frontends: BTreeMap<Frontend, BTreeSet<Backend>>) {
        let before = self.wanted.remove(service).unwrap_or_default();
        for frontend in before.keys().filter(|frontend| !frontends.contains_key(frontend)) {
            if let Some(claimants) = self.claims.get_mut(frontend) {
                claimants.remove(service);
                if claimants.is_empty() {
                    self.claims.remove(frontend);
                }
            }
            self.dirty.insert(*frontend);
        }
        for (frontend, backends) in &frontends {
            if before.get(frontend) != Some(backends) {
                self.claims.entry(*frontend).or_default().insert(service.clone());
                self.dirty.insert(*frontend);
            }
        }
        if !frontends.is_empty() {
            self.wanted.insert(service.clone(), frontends);
        }
    }

    /// The change from what was written to what is wanted; from here on it counts as written. When writing it fails, the
    /// next thing to write is [`Table::rebuild`].
    pub fn plan(&mut self) -> Delta {
        let mut delta = Delta::default();
        let mut largest = 0;
        let mut hairpins: BTreeMap<Ipv4Addr, i64> = BTreeMap::new();
        for frontend in std::mem::take(&mut self.dirty) {
            let wanted = self
                .claims
                .get(&frontend)
                .and_then(|claimants| claimants.first())
                .and_then(|service| self.wanted.get(service)?.get(&frontend));
            let old = self.written.remove(&frontend).unwrap_or_default();
            let new = wanted.map(|wanted| reindex(&old, wanted)).unwrap_or_default();
            diff(frontend, &old, &new, &mut delta);
            largest = largest.max(new.len() as u32);
            for (backends, change) in [(&old, -1), (&new, 1)] {
                for backend in backends
                    .iter()
                    .filter(|backend| self.config.pod_network.contains(&backend.address))
                {
                    *hairpins.entry(backend.address).or_default() += change;
                }
            }
            if !new.is_empty() {
                self.written.insert(frontend, new);
            }
        }
        if largest >= self.chains_end {
            // Doubling: a Service that grows one by one needs a new transaction only now and then.
            let end = (largest + 1).next_power_of_two();
            delta.add_chains = self.chains_end..end;
            self.chains_end = end;
        }
        for (address, change) in hairpins {
            let before = self.hairpin_users.get(&address).copied().unwrap_or(0);
            let after = before.saturating_add_signed(change as isize);
            match after {
                0 => self.hairpin_users.remove(&address),
                _ => self.hairpin_users.insert(address, after),
            };
            match (before, after) {
                (0, 1..) => delta.add_hairpins.push(address),
                (1.., 0) => delta.remove_hairpins.push(address),
                _ => {}
            }
        }
        let own_dns = self.wants_own_dns();
        if own_dns != self.own_dns {
            self.own_dns = own_dns;
            delta.own_dns = Some(own_dns);
        }
        delta.sort();
        delta
    }

    /// Everything that is wanted, as a change that begins by making the table anew. Drops what was planned before.
    pub fn rebuild(&mut self) -> Delta {
        let _ = self.plan();
        // Who left before this process began is unknown, so all UDP flows are looked at.
        let mut delta = Delta {
            rebuild: true,
            udp_left: true,
            ..Delta::default()
        };
        for (frontend, backends) in &self.written {
            diff(*frontend, &[], backends, &mut delta);
        }
        delta.add_chains = 1..self.chains_end;
        delta.add_hairpins = self.hairpin_users.keys().copied().collect();
        delta.add_hairpins.sort_unstable();
        delta.own_dns = self.own_dns.then_some(true);
        delta.sort();
        delta
    }

    /// Number of frontends that have endpoints.
    pub fn len(&self) -> usize {
        self.written.len()
    }

    /// Whether no frontend has endpoints.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Where a new connection to `frontend` may end up; empty means it is rejected.
    pub fn backends(&self, frontend: &Frontend) -> &[Backend] {
        self.written.get(frontend).map_or(&[], Vec::as_slice)
    }

    fn wants_own_dns(&self) -> bool {
        // Only a handful of ports is ever asked of the DNS address.
        let ports = [(Protocol::Udp, 53), (Protocol::Tcp, 53)];
        self.config.dns_address.is_some_and(|address| {
            ports.iter().all(|&(protocol, port)| {
                !self.written.contains_key(&Frontend {
                    address,
                    protocol,
                    port,
                })
            })
        })
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

fn diff(frontend: Frontend, old: &[Backend], new: &[Backend], delta: &mut Delta) {
    for index in 0..old.len().max(new.len()) {
        let (before, after) = (old.get(index), new.get(index));
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
    if old.len() != new.len() {
        if !old.is_empty() {
            delta.remove_services.push(frontend);
        }
        if !new.is_empty() {
            delta.add_services.push((frontend, new.len() as u32));
        }
    }
    if frontend.protocol == Protocol::Udp {
        let staying: BTreeSet<&Backend> = new.iter().collect();
        delta.udp_left |= old.iter().any(|backend| !staying.contains(backend));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> Table {
        Table::new(PlanConfig {
            pod_network: "10.244.0.0/24".parse().unwrap(),
            dns_address: Some(Ipv4Addr::new(10, 96, 0, 10)),
        })
    }

    fn frontend(last: u8) -> Frontend {
        Frontend {
            address: Ipv4Addr::new(10, 96, 0, last),
            protocol: Protocol::Tcp,
            port: 80,
        }
    }

    fn backend(last: u8) -> Backend {
        Backend {
            address: Ipv4Addr::new(10, 244, 0, last),
            port: 8080,
        }
    }

    fn want(frontend: Frontend, lasts: &[u8]) -> BTreeMap<Frontend, BTreeSet<Backend>> {
        BTreeMap::from([(frontend, lasts.iter().map(|last| backend(*last)).collect())])
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("a", name)
    }

    #[test]
    fn a_first_service() {
        let mut table = table();
        table.set(&name("x"), want(frontend(7), &[1, 2]));
        let delta = table.plan();
        let expect = Delta {
            add_services: vec![(frontend(7), 2)],
            add_endpoints: vec![(frontend(7), 0, backend(1)), (frontend(7), 1, backend(2))],
            add_hairpins: vec![backend(1).address, backend(2).address],
            ..Delta::default()
        };
        assert_eq!(delta, expect);
        assert!(table.plan().is_empty());
    }

    #[test]
    fn removing_an_endpoint_moves_the_last_into_the_hole() {
        let mut table = table();
        table.set(&name("x"), want(frontend(7), &[1, 2, 3]));
        table.plan();
        table.set(&name("x"), want(frontend(7), &[2, 3]));
        let expect = Delta {
            remove_services: vec![frontend(7)],
            remove_endpoints: vec![(frontend(7), 0), (frontend(7), 2)],
            add_services: vec![(frontend(7), 2)],
            add_endpoints: vec![(frontend(7), 0, backend(3))],
            remove_hairpins: vec![backend(1).address],
            ..Delta::default()
        };
        assert_eq!(table.plan(), expect);
        assert_eq!(table.backends(&frontend(7)), [backend(3), backend(2)]);
    }

    #[test]
    fn replacing_an_endpoint_touches_one_element() {
        let mut table = table();
        table.set(&name("x"), want(frontend(7), &[1, 2, 3]));
        table.plan();
        table.set(&name("x"), want(frontend(7), &[1, 4, 3]));
        let delta = table.plan();
        assert_eq!(delta.remove_endpoints, [(frontend(7), 1)]);
        assert_eq!(delta.add_endpoints, [(frontend(7), 1, backend(4))]);
        assert!(delta.add_services.is_empty() && delta.remove_services.is_empty());
        assert!(delta.add_chains.is_empty());
    }

    #[test]
    fn chains_come_in_powers_of_two_and_stay() {
        let lasts: Vec<u8> = (1..=70).collect();
        let mut table = table();
        table.set(&name("x"), want(frontend(7), &lasts[..64]));
        assert!(table.plan().add_chains.is_empty());
        table.set(&name("x"), want(frontend(7), &lasts[..65]));
        assert_eq!(table.plan().add_chains, 65..128);
        table.set(&name("x"), want(frontend(7), &lasts));
        assert!(table.plan().add_chains.is_empty());
        table.set(&name("x"), BTreeMap::new());
        table.plan();
        assert_eq!(table.rebuild().add_chains, 1..128);
    }

    #[test]
    fn a_service_without_endpoints_is_not_written() {
        let mut table = table();
        table.set(&name("x"), want(frontend(7), &[]));
        assert!(table.plan().is_empty());
        assert!(table.is_empty());
    }

    #[test]
    fn an_address_taken_over_by_another_service_follows_it() {
        let mut table = table();
        table.set(&name("old"), want(frontend(7), &[1]));
        table.plan();
        table.set(&name("new"), want(frontend(7), &[2]));
        table.set(&name("old"), BTreeMap::new());
        table.plan();
        assert_eq!(table.backends(&frontend(7)), [backend(2)]);
        table.set(&name("new"), BTreeMap::new());
        table.plan();
        assert!(table.is_empty());
    }

    #[test]
    fn dns_is_ours_until_somebody_has_endpoints_for_it() {
        let mut table = table();
        let dns = Frontend {
            address: Ipv4Addr::new(10, 96, 0, 10),
            protocol: Protocol::Udp,
            port: 53,
        };
        assert_eq!(table.rebuild().own_dns, Some(true));
        table.set(&name("kube-dns"), want(dns, &[]));
        assert_eq!(table.plan().own_dns, None);
        table.set(&name("kube-dns"), want(dns, &[9]));
        assert_eq!(table.plan().own_dns, Some(false));
        table.set(&name("kube-dns"), want(dns, &[]));
        let delta = table.plan();
        assert_eq!(delta.own_dns, Some(true));
        assert!(delta.udp_left);
    }

    /// The kernel's side: applies a delta strictly, as nftables does.
    #[derive(Default, Debug, PartialEq)]
    struct Kernel {
        chains: BTreeSet<u32>,
        services: BTreeMap<Frontend, u32>,
        endpoints: BTreeMap<(Frontend, u32), Backend>,
        hairpins: BTreeSet<Ipv4Addr>,
    }

    impl Kernel {
        fn apply(&mut self, delta: &Delta) {
            if delta.rebuild {
                *self = Self {
                    chains: delta.add_chains.clone().collect(),
                    ..Self::default()
                };
            }
            for size in delta.add_chains.clone().filter(|_| !delta.rebuild) {
                assert!(self.chains.insert(size));
            }
            for frontend in &delta.remove_services {
                assert!(self.services.remove(frontend).is_some());
            }
            for key in &delta.remove_endpoints {
                assert!(self.endpoints.remove(key).is_some());
            }
            for (frontend, size) in &delta.add_services {
                assert!(self.chains.contains(size));
                assert!(self.services.insert(*frontend, *size).is_none());
            }
            for (frontend, index, backend) in &delta.add_endpoints {
                assert!(self.endpoints.insert((*frontend, *index), *backend).is_none());
            }
            for address in &delta.add_hairpins {
                assert!(self.hairpins.insert(*address));
            }
            for address in &delta.remove_hairpins {
                assert!(self.hairpins.remove(address));
            }
        }
    }

    proptest! {
        #[test]
        fn any_sequence_of_changes_ends_where_a_rebuild_begins(
            steps in prop::collection::vec((0u8..4, 0u8..4, prop::collection::btree_set(1u8..9, 0..6)), 1..40)
        ) {
            let mut table = table();
            let mut kernel = Kernel::default();
            kernel.apply(&table.rebuild());
            for (service, address, lasts) in steps {
                let lasts: Vec<u8> = lasts.into_iter().collect();
                let frontends = if lasts.is_empty() { BTreeMap::new() } else { want(frontend(address), &lasts) };
                table.set(&name(&service.to_string()), frontends);
                kernel.apply(&table.plan());
                for (frontend, size) in &kernel.services {
                    for index in 0..*size {
                        prop_assert!(kernel.endpoints.contains_key(&(*frontend, index)));
                    }
                }
                prop_assert_eq!(kernel.endpoints.len(), kernel.services.values().map(|size| *size as usize).sum::<usize>());
            }
            let mut fresh = Kernel::default();
            fresh.apply(&table.rebuild());
            prop_assert_eq!(kernel, fresh);
        }
    }
}
