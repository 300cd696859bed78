//! What Services are given from ranges: cluster IPs ([`addresses`], from what [`ranges`] says) and node ports ([`ports`]).
//! Given when they are written, taken back when they go.
//!
//! One table in memory, filled from the replica at start. A write *reserves* before it commits and keeps the reservation
//! when the commit happened, so two writes that race never get the same thing. Invariant: everything that a stored
//! Service has is in the table. With several servers on one store, each follows what the others write, and an object for
//! each address ([`objects`]) and a key for each port, written with the Service, let one of two writes within the same
//! moment win. [`repair`] keeps Services and IPAddresses together, [`port_repair`] Services and those keys, [`default_range`] the
//! ServiceCIDR of the flags.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/service/{storage/alloc.go,ipallocator,portallocator}`.

mod addresses;
mod default_range;
mod objects;
mod port_repair;
mod ports;
mod ranges;
mod repair;
mod reservation;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::Ipv4Net;
use parking_lot::Mutex;

use api::field::Error;
use api::{GroupKind, Status, Value, meta};

use crate::cluster::{Change, Changes, Cluster};
use crate::metrics::AllocationMetrics;
use crate::registry::Kind;
use crate::server::Server;
use ranges::{Ranges, usable};

pub use default_range::default_service_cidr;
pub use reservation::Reservation;

/// Below it stands a key for each port that is given, with the Service that has it. Upstream's allocators keep their bitmaps
/// under such names; no kind does.
const CLAIMED_PORTS: &str = "/registry/ranges/servicenodeports/";
/// Where keys of addresses stand that older versions wrote.
const CLAIMED_ADDRESSES: &str = "/registry/ranges/serviceips/";
/// How many are tried at random before the range is searched from there on.
const RANDOM_TRIES: usize = 8;

/// The node ports of a server that is not told otherwise (upstream: `DefaultServiceNodePortRange`).
pub const NODE_PORTS_DEFAULT: Range<u16> = 30_000..32_768;

/// Something that one Service at a time has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Given {
    /// A cluster IP.
    Address(Ipv4Addr),
    /// A port of every node, of all protocols.
    Port(u16),
}

/// The key that stands for a port. Versions before the first IPAddress had one for each address too.
fn claim(given: Given) -> Bytes {
    Bytes::from(match given {
        Given::Address(address) => format!("{CLAIMED_ADDRESSES}{address}"),
        Given::Port(port) => format!("{CLAIMED_PORTS}{port}"),
    })
}

/// What can be given, and who has it.
pub struct Allocator {
    default_range: Ipv4Net,
    ranges: Mutex<Ranges>,
    node_ports: Range<u16>,
    random: base::Random,
    /// Where IPAddresses are, which others than Services may have.
    cluster: Arc<dyn Cluster>,
    /// Owner (`namespace/name`): free is what is not here.
    taken: Mutex<HashMap<Given, String>>,
    /// What other servers write, when there are any.
    others: Mutex<Option<Box<dyn Changes>>>,
    metrics: AllocationMetrics,
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator")
            .field("default_range", &self.default_range)
            .field("node_ports", &self.node_ports)
            .finish_non_exhaustive()
    }
}

/// Starts what keeps ServiceCIDRs, Services and IPAddresses as they should be.
pub fn maintain(server: &Arc<Server>, client: &client::Client, shutdown: &base::Shutdown) {
    default_range::start(server, client, shutdown);
    repair::start(server, client, shutdown);
    port_repair::start(server, client, shutdown);
}

fn is_services(kind: &Kind) -> bool {
    kind.row.group.is_empty() && kind.row.plural == "services"
}

fn owner(service: &Value) -> String {
    format!("{}/{}", meta::namespace(service), meta::name(service))
}

/// What a Service has.
fn given_to(service: &Value) -> Vec<Given> {
    let addresses = addresses::of(service).into_iter().map(Given::Address);
    let ports = ports::of(service).into_iter().map(Given::Port);
    addresses.chain(ports).collect()
}

/// One field of the Service is why.
fn invalid(service: &Value, error: Error) -> Status {
    let kind = GroupKind {
        group: String::new(),
        kind: "Service".into(),
    };
    Status::invalid(&kind, meta::name(service), &[error])
}

// === impl Allocator ===

impl Allocator {
    /// A table of what is given from the ranges of a cluster; nothing is yet.
    pub fn new(
        default_range: Ipv4Net,
        node_ports: Range<u16>,
        random: base::Random,
        cluster: Arc<dyn Cluster>,
    ) -> Allocator {
        Allocator {
            default_range,
            ranges: Mutex::new(Ranges::follow(default_range, &*cluster)),
            node_ports,
            random,
            cluster,
            taken: Mutex::default(),
            others: Mutex::new(None),
            metrics: AllocationMetrics::default(),
        }
    }

    /// What is given is counted here.
    pub fn metrics(&self) -> &AllocationMetrics {
        &self.metrics
    }

    /// Brings gauges up to date.
    pub fn measure(&self) {
        let ranges = self.ranges.lock().giving();
        let taken = self.taken.lock();
        let in_range = |range: Ipv4Net| {
            let held = taken.keys().filter(|given| match given {
                Given::Address(address) => range.contains(address),
                Given::Port(_) => false,
            });
            (range, held.count(), usable(range).len())
        };
        let ranges: Vec<(Ipv4Net, usize, usize)> = ranges.into_iter().map(in_range).collect();
        let ports = taken.keys().filter(|given| matches!(given, Given::Port(_))).count();
        self.metrics.measured(&ranges, (ports, self.node_ports.len()));
    }

    /// The range of the flags.
    pub fn default_range(&self) -> Ipv4Net {
        self.default_range
    }

    /// The node ports that are given.
    fn node_ports(&self) -> &Range<u16> {
        &self.node_ports
    }

    /// Takes a port for a stored Service that has it, if it is free.
    fn hold_port(&self, port: u16, namespace: &str, name: &str) {
        // What the Service gives back meanwhile is given back after this.
        let mut taken = self.taken.lock();
        let service = self.cluster.get(&repair::services(), namespace, name);
        if service.is_some_and(|service| ports::of(&service.value()).contains(&port)) {
            taken
                .entry(Given::Port(port))
                .or_insert_with(|| format!("{namespace}/{name}"));
        }
    }

    /// Takes what a stored Service has (at start).
    pub fn recover(&self, service: &Value) {
        let mut taken = self.taken.lock();
        for given in given_to(service) {
            taken.insert(given, owner(service));
        }
    }

    /// From now on takes into account what other servers write to the same store.
    pub fn follow(&self, services: Box<dyn Changes>) {
        *self.others.lock() = Some(services);
    }

    /// Notes everything that readers of this server see.
    fn catch_up(&self) {
        let mut others = self.others.lock();
        while let Some(change) = others.as_mut().and_then(|services| services.try_next()) {
            match change {
                Change::Reset(all) => all.iter().for_each(|service| self.recover(&service.value())),
                Change::Changed { old, new } => {
                    let old = old.map(|service| service.value());
                    let new = new.map(|service| service.value());
                    self.changed(old.as_ref(), new.as_ref());
                }
            }
        }
    }

    fn changed(&self, old: Option<&Value>, new: Option<&Value>) {
        let kept = new.map(given_to).unwrap_or_default();
        if let Some(old) = old {
            let mut gone = given_to(old);
            gone.retain(|given| !kept.contains(given));
            self.free_of(&owner(old), &gone);
        }
        if let Some(new) = new {
            self.recover(new);
        }
    }

    /// Before a Service is written: completes its addresses, families and ports, and reserves what is new.
    ///
    /// # Errors
    /// What it asks for is not to be had; nothing is reserved then.
    pub fn begin(
        self: &Arc<Self>,
        kind: &Kind,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Reservation, Status> {
        if !is_services(kind) {
            return Ok(Reservation::none());
        }
        self.catch_up();
        self.begin_service(service, old, dry_run)
    }

    fn begin_service(
        self: &Arc<Self>,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Reservation, Status> {
        let mut reservation = Reservation::of(self, service);
        self.give_addresses(service, old, &mut reservation)?;
        self.give_ports(service, old, &mut reservation)?;
        if !dry_run {
            let kept = given_to(service);
            let mut gone = old.map(given_to).unwrap_or_default();
            gone.retain(|given| !kept.contains(given));
            reservation.release(gone);
        }
        Ok(reservation)
    }

    fn free(&self, gone: &[Given]) {
        let mut taken = self.taken.lock();
        for given in gone {
            taken.remove(given);
        }
    }

    /// Frees what this Service has; somebody else may have it by now.
    fn free_of(&self, owner: &str, gone: &[Given]) {
        let mut taken = self.taken.lock();
        for given in gone {
            if taken.get(given).is_some_and(|taker| taker == owner) {
                taken.remove(given);
            }
        }
    }

    /// Whether there is an IPAddress of it, whoever made that.
    fn has_object(&self, given: Given) -> bool {
        match given {
            Given::Address(address) => self
                .cluster
                .get(&objects::ip_addresses(), "", &address.to_string())
                .is_some(),
            Given::Port(_) => false,
        }
    }

    /// Reserves exactly this; false when somebody has it.
    fn reserve(&self, given: Given, reservation: &mut Reservation) -> bool {
        match self.taken.lock().entry(given) {
            Entry::Occupied(_) => false,
            Entry::Vacant(_) if self.has_object(given) => false,
            Entry::Vacant(free) => {
                free.insert(reservation.owner().into());
                reservation.add(given);
                true
            }
        }
    }

    /// Reserves any that is free: from above the static band while there are some, then from it. `None`: the range is full.
    fn reserve_any(
        &self,
        all: Range<u32>,
        static_band: u32,
        make: impl Fn(u32) -> Given,
        reservation: &mut Reservation,
    ) -> Option<u32> {
        let split = all.start + static_band.min(all.len() as u32);
        let mut taken = self.taken.lock();
        let found = self
            .search(split..all.end, &taken, &make)
            .or_else(|| self.search(all.start..split, &taken, &make))?;
        taken.insert(make(found), reservation.owner().into());
        reservation.add(make(found));
        Some(found)
    }

    fn search(&self, band: Range<u32>, taken: &HashMap<Given, String>, make: &impl Fn(u32) -> Given) -> Option<u32> {
        let free = |number: &u32| {
            let given = make(*number);
            !taken.contains_key(&given) && !self.has_object(given)
        };
        let draw = || self.random.range(u64::from(band.start)..u64::from(band.end)) as u32;
        if band.is_empty() {
            return None;
        }
        let mut last = draw();
        for _ in 0..RANDOM_TRIES {
            if free(&last) {
                return Some(last);
            }
            last = draw();
        }
        (last..band.end).chain(band.start..last).find(free)
    }
}

#[cfg(test)]
mod tests;
