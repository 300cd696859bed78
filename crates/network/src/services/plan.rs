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

use ipnet::Ipv4Net;

use super::delta::{Delta, Written, diff};
use super::{Backend, Frontend, ServiceChain, Wanted};
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

/// What was written, and what each Service wants.
#[derive(Debug)]
pub struct Table {
    config: PlanConfig,
    wanted: HashMap<ObjectName, BTreeMap<Frontend, Wanted>>,
    /// Services that claim a frontend. Two do while one is replaced by another with the same address; the one whose name
    /// sorts first has it, so that every node decides alike.
    claims: HashMap<Frontend, BTreeSet<ObjectName>>,
    written: HashMap<Frontend, Written>,
    /// There are chains for all sizes below this.
    chains_end: u32,
    /// The chains with affinity that there are.
    affinity_chains: BTreeSet<ServiceChain>,
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
            affinity_chains: BTreeSet::new(),
            hairpin_users: HashMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Says what a Service wants now; empty when it is gone.
    pub fn set(&mut self, service: &ObjectName, frontends: BTreeMap<Frontend, Wanted>) {
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
        for (frontend, wanted) in &frontends {
            if before.get(frontend) != Some(wanted) {
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
            let new = wanted.map(|wanted| old.become_like(wanted)).unwrap_or_default();
            diff(frontend, &old, &new, &mut delta);
            largest = largest.max(new.backends.len() as u32);
            if new.affinity_seconds.is_some() && self.affinity_chains.insert(new.chain()) {
                delta.add_affinity_chains.push(new.chain());
            }
            for (backends, change) in [(&old.backends, -1), (&new.backends, 1)] {
                for backend in backends
                    .iter()
                    .filter(|backend| self.config.pod_network.contains(&backend.address))
                {
                    *hairpins.entry(backend.address).or_default() += change;
                }
            }
            if !new.backends.is_empty() {
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
            udp_moved: true,
            ..Delta::default()
        };
        for (frontend, written) in &self.written {
            diff(*frontend, &Written::default(), written, &mut delta);
        }
        // Nothing leads to the chains of affinities that are no longer wanted, so this is the time to forget them.
        self.affinity_chains = self
            .written
            .values()
            .filter(|it| it.affinity_seconds.is_some())
            .map(Written::chain)
            .collect();
        delta.add_affinity_chains = self.affinity_chains.iter().copied().collect();
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
        self.written.get(frontend).map_or(&[], |written| &written.backends)
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

    fn chain(size: u32) -> ServiceChain {
        ServiceChain {
            size,
            affinity_seconds: None,
        }
    }

    fn want(frontend: Frontend, lasts: &[u8]) -> BTreeMap<Frontend, Wanted> {
        BTreeMap::from([(
            frontend,
            lasts.iter().map(|last| backend(*last)).collect::<BTreeSet<_>>().into(),
        )])
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
            add_services: vec![(frontend(7), chain(2))],
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
            add_services: vec![(frontend(7), chain(2))],
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
    fn affinity_has_chains_of_its_own_and_lists_its_endpoints() {
        let mut table = table();
        let mut frontends = want(frontend(7), &[1, 2]);
        frontends
            .values_mut()
            .for_each(|wanted| wanted.affinity_seconds = Some(60));
        table.set(&name("x"), frontends);
        let delta = table.plan();
        let sticky = ServiceChain {
            size: 2,
            affinity_seconds: Some(60),
        };
        assert_eq!(delta.add_affinity_chains, [sticky]);
        assert_eq!(delta.add_services, [(frontend(7), sticky)]);
        assert_eq!(
            delta.add_affinities,
            [(frontend(7), backend(1)), (frontend(7), backend(2))]
        );
        table.set(&name("x"), want(frontend(7), &[1, 2]));
        let delta = table.plan();
        assert_eq!(
            (delta.remove_services, delta.add_services),
            (vec![frontend(7)], vec![(frontend(7), chain(2))])
        );
        assert_eq!(
            delta.remove_affinities,
            [(frontend(7), backend(1)), (frontend(7), backend(2))]
        );
        assert!(delta.remove_endpoints.is_empty() && delta.add_endpoints.is_empty());
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
        assert!(delta.udp_moved);
    }

    /// The kernel's side: applies a delta strictly, as nftables does.
    #[derive(Default, Debug, PartialEq)]
    struct Kernel {
        chains: BTreeSet<u32>,
        services: BTreeMap<Frontend, u32>,
        affinities: BTreeSet<(Frontend, Backend)>,
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
            for (frontend, chain) in &delta.add_services {
                assert!(self.chains.contains(&chain.size));
                assert!(self.services.insert(*frontend, chain.size).is_none());
            }
            for affinity in &delta.remove_affinities {
                assert!(self.affinities.remove(affinity));
            }
            for affinity in &delta.add_affinities {
                assert!(self.affinities.insert(*affinity));
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
            steps in prop::collection::vec((0u8..4, 0u8..4, prop::collection::btree_set(1u8..9, 0..6), any::<bool>()), 1..40)
        ) {
            let mut table = table();
            let mut kernel = Kernel::default();
            kernel.apply(&table.rebuild());
            for (service, address, lasts, affinity) in steps {
                let lasts: Vec<u8> = lasts.into_iter().collect();
                let mut frontends = if lasts.is_empty() { BTreeMap::new() } else { want(frontend(address), &lasts) };
                frontends.values_mut().for_each(|wanted| wanted.affinity_seconds = affinity.then_some(10));
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
