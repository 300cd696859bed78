//! Cluster IPs: given to Services when they are written, taken back when they go.
//!
//! One table in memory, filled from the replica at start. A write *reserves* before it commits and keeps the reservation
//! when the commit happened, so two writes that race never get the same address. Invariant: every address that a stored
//! Service has is in the table. With several servers on one store, each follows what the others write, and a key for each
//! address that is given, written with the Service, lets one of two writes within the same moment win.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/service/{storage/alloc.go,ipallocator}`.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use serde_json::json;
use store::{Guard, Operation, Put, Stamp, Transaction};

use api::field::{Error, Path};
use api::{Status, Value, meta};

use crate::cluster::{Change, Changes, Cluster};
use crate::registry::Kind;
use crate::storage::Storage;

/// Addresses at the start of the range that are given out last, so that people can choose fixed ones from them
/// (upstream: `calculateRangeOffset`: between 16 and 256, a sixteenth of the range).
const STATIC_BAND_MIN: u32 = 16;
const STATIC_BAND_MAX: u32 = 256;
/// How many addresses are tried at random before the range is searched from there on.
const RANDOM_TRIES: usize = 8;

/// Below it stands a key for each address that a write has given, with the Service that has it. Older ones have none.
/// Upstream's allocator keeps its bitmap under that name; no kind does.
const CLAIMS: &str = "/registry/ranges/serviceips";

/// First and longest wait before a store that did not answer is asked again what became of a write.
const SETTLE_RETRY_INITIAL: std::time::Duration = std::time::Duration::from_millis(100);
const SETTLE_RETRY_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// The addresses of one range and who has them.
pub struct Addresses {
    range: Ipv4Net,
    random: base::Random,
    /// Owner (`namespace/name`) by address, how often it is reserved included: an address is free when it is not here.
    taken: Mutex<HashMap<Ipv4Addr, String>>,
    /// What other servers write, when there are any.
    others: Mutex<Option<Box<dyn Changes>>>,
}

/// What one write reserved, and what it gives back when it happens. Dropped without [`Reservation::keep`], the reserved
/// addresses are free again.
#[must_use]
#[derive(Debug)]
pub struct Reservation {
    addresses: Option<Arc<Addresses>>,
    /// The Service (`namespace/name`).
    owner: String,
    reserved: Vec<Ipv4Addr>,
    released: Vec<Ipv4Addr>,
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Addresses")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl Reservation {
    /// Nothing is reserved.
    pub fn none() -> Reservation {
        Reservation {
            addresses: None,
            owner: String::new(),
            reserved: Vec::new(),
            released: Vec::new(),
        }
    }

    /// A deletion (`gone`) gives back what the Service had.
    pub fn releasing(addresses: &Arc<Addresses>, kind: &Kind, service: &Value, gone: bool) -> Reservation {
        if !gone || !is_services(kind) {
            return Reservation::none();
        }
        Reservation {
            addresses: Some(addresses.clone()),
            owner: owner(service),
            reserved: Vec::new(),
            released: addresses_of(service),
        }
    }

    /// Puts into the write that nobody else gives these addresses, whichever server is asked.
    pub fn claim(&self, transaction: &mut Transaction) {
        let key = |address: &Ipv4Addr| Bytes::from(format!("{CLAIMS}/{address}"));
        for address in &self.reserved {
            transaction.guards.push(Guard::Absent(key(address)));
            transaction.operations.push(Operation::Put(Put {
                key: key(address),
                value: self.owner.clone().into(),
                expires_at_ms: None,
                stamp: Stamp::default(),
            }));
        }
        let released = self.released.iter().map(|address| Operation::Delete(key(address)));
        transaction.operations.extend(released);
    }

    /// The write happened: what was reserved stays taken, what it gave back is free.
    pub fn keep(mut self) {
        self.reserved.clear();
        if let Some(addresses) = &self.addresses {
            addresses.free_of(&self.owner, &self.released);
        }
    }
}

impl Reservation {
    /// After a write whose outcome is unknown: asks the store until it knows, and frees what nobody has. The replica
    /// fails only when it has ended, and then addresses do not matter any more.
    pub async fn settle(mut self, storage: &Storage) {
        let reserved = std::mem::take(&mut self.reserved);
        let released = std::mem::take(&mut self.released);
        let Some(addresses) = self.addresses.clone() else {
            return;
        };
        let mut backoff = base::Backoff::new(SETTLE_RETRY_INITIAL, SETTLE_RETRY_MAX);
        while let Err(error) = storage.consistent().await {
            if matches!(error, store::ReplicaError::Closed) {
                return;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
        let services = api::GroupResource {
            group: String::new(),
            resource: "services".into(),
        };
        let stored = Cluster::list(storage, &services, None);
        let stored: HashSet<Ipv4Addr> = stored
            .iter()
            .flat_map(|service| addresses_of(&service.value()))
            .collect();
        let free: Vec<Ipv4Addr> = reserved
            .into_iter()
            .chain(released)
            .filter(|address| !stored.contains(address))
            .collect();
        addresses.free(&free);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(addresses) = &self.addresses {
            addresses.free_of(&self.owner, &self.reserved);
        }
    }
}

/// The last usable address is excluded like the first: upstream leaves out network and broadcast.
fn usable(range: Ipv4Net) -> std::ops::Range<u32> {
    let first = u32::from(range.network()) + 1;
    first..u32::from(range.broadcast()).max(first)
}

fn is_services(kind: &Kind) -> bool {
    kind.row.group.is_empty() && kind.row.plural == "services"
}

fn needs_address(service: &Value) -> bool {
    service["spec"]["type"] != "ExternalName" && service["spec"]["clusterIP"] != "None"
}

/// The addresses that a Service has.
fn addresses_of(service: &Value) -> Vec<Ipv4Addr> {
    let listed = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    let mut all: Vec<Ipv4Addr> = listed
        .filter_map(Value::as_str)
        .filter_map(|text| text.parse().ok())
        .collect();
    if let Some(first) = service["spec"]["clusterIP"].as_str().and_then(|text| text.parse().ok())
        && !all.contains(&first)
    {
        all.push(first);
    }
    all
}

fn owner(service: &Value) -> String {
    format!("{}/{}", meta::namespace(service), meta::name(service))
}

/// Service types whose effect is not there yet (`docs/compatibility.md`).
const UNSUPPORTED_TYPES: [&str; 2] = ["NodePort", "LoadBalancer"];

impl Addresses {
    /// A table for a range in which nothing is taken.
    pub fn new(range: Ipv4Net, random: base::Random) -> Addresses {
        Addresses {
            range,
            random,
            taken: Mutex::default(),
            others: Mutex::new(None),
        }
    }

    /// Takes what a stored Service has (at start).
    pub fn recover(&self, service: &Value) {
        let mut taken = self.taken.lock();
        for address in addresses_of(service) {
            taken.insert(address, owner(service));
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
        let kept = new.map(addresses_of).unwrap_or_default();
        if let Some(old) = old {
            let mut gone = addresses_of(old);
            gone.retain(|address| !kept.contains(address));
            self.free_of(&owner(old), &gone);
        }
        if let Some(new) = new {
            self.recover(new);
        }
    }

    /// Whether somebody has the address.
    pub fn is_taken(&self, address: Ipv4Addr) -> bool {
        self.taken.lock().contains_key(&address)
    }

    /// Before a Service is written: completes its addresses and families, and reserves what is new.
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
            .map_err(|error| Status::invalid(&kind.group_kind(), meta::name(service), &[error]))
    }

    fn begin_service(
        self: &Arc<Self>,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Reservation, Error> {
        let spec_path = Path::new("spec");
        let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
        let had: Vec<Ipv4Addr> = old
            .filter(|old| needs_address(old))
            .map(addresses_of)
            .unwrap_or_default();
        if UNSUPPORTED_TYPES.contains(&&*kind) {
            let why = format!(
                "services of type {kind} are not available in this version of Trireme, see docs/compatibility.md"
            );
            return Err(Error::forbidden(&spec_path.child("type"), why));
        }
        let mut reservation = Reservation {
            addresses: Some(self.clone()),
            owner: owner(service),
            reserved: vec![],
            released: vec![],
        };
        if kind == "ExternalName" {
            // The strategy takes the addresses away, the write gives them back.
            reservation.released = if dry_run { vec![] } else { had };
            return Ok(reservation);
        }
        normalize_addresses(service, old);
        check_families(service)?;
        if service["spec"]["clusterIP"] == "None" {
            service["spec"]["clusterIPs"] = json!(["None"]);
            set_family(service);
            reservation.released = had;
            return Ok(reservation);
        }
        let chosen = service["spec"]["clusterIP"].as_str().unwrap_or("").to_owned();
        let address = match &*chosen {
            "" => self.reserve_any(&owner(service), &mut reservation)?,
            text => {
                let invalid = |why: String| Error::invalid(&spec_path.child("clusterIPs"), json!([text]), why);
                let address: Ipv4Addr = text.parse().map_err(|_| {
                    Error::invalid(
                        &spec_path.child("clusterIPs").index(0),
                        text,
                        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    )
                })?;
                // An address that is there cannot be changed: validation refuses that, so nothing is taken for it.
                if had.is_empty() {
                    self.reserve(address, &owner(service), &mut reservation)
                        .map_err(|why| invalid(format!("failed to allocate IP {address}: {why}")))?;
                }
                address
            }
        };
        service["spec"]["clusterIP"] = address.to_string().into();
        service["spec"]["clusterIPs"] = json!([address.to_string()]);
        set_family(service);
        reservation.released = had.into_iter().filter(|old| *old != address).collect();
        if dry_run {
            reservation.released.clear();
        }
        Ok(reservation)
    }

    fn free(&self, addresses: &[Ipv4Addr]) {
        let mut taken = self.taken.lock();
        for address in addresses {
            taken.remove(address);
        }
    }

    /// Frees what this Service has; somebody else may have it by now.
    fn free_of(&self, owner: &str, addresses: &[Ipv4Addr]) {
        let mut taken = self.taken.lock();
        for address in addresses {
            if taken.get(address).is_some_and(|taker| taker == owner) {
                taken.remove(address);
            }
        }
    }

    fn reserve(&self, address: Ipv4Addr, owner: &str, reservation: &mut Reservation) -> Result<(), String> {
        if !usable(self.range).contains(&u32::from(address)) {
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                self.range
            ));
        }
        match self.taken.lock().entry(address) {
            std::collections::hash_map::Entry::Occupied(_) => Err("provided IP is already allocated".into()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(owner.into());
                reservation.reserved.push(address);
                Ok(())
            }
        }
    }

    /// Any free address: from the upper band while there are some, then from the static one.
    fn reserve_any(&self, owner: &str, reservation: &mut Reservation) -> Result<Ipv4Addr, Error> {
        let all = usable(self.range);
        let band = (all.len() as u32 / 16)
            .clamp(STATIC_BAND_MIN, STATIC_BAND_MAX)
            .min(all.len() as u32);
        let split = all.start + band;
        let mut taken = self.taken.lock();
        let found = self
            .search(split..all.end, &taken)
            .or_else(|| self.search(all.start..split, &taken));
        let Some(address) = found else {
            let why = "failed to allocate a serviceIP: range is full";
            return Err(Error::internal(&Path::new("spec").child("clusterIPs"), why));
        };
        taken.insert(address, owner.into());
        reservation.reserved.push(address);
        Ok(address)
    }

    fn search(&self, band: std::ops::Range<u32>, taken: &HashMap<Ipv4Addr, String>) -> Option<Ipv4Addr> {
        let free = |address: &u32| !taken.contains_key(&Ipv4Addr::from(*address));
        let draw = || self.random.range(u64::from(band.start)..u64::from(band.end)) as u32;
        if band.is_empty() {
            return None;
        }
        let mut last = draw();
        for _ in 0..RANDOM_TRIES {
            if free(&last) {
                return Some(last.into());
            }
            last = draw();
        }
        (last..band.end).chain(band.start..last).find(free).map(Ipv4Addr::from)
    }
}

/// `clusterIP` and `clusterIPs` say the same, whichever of them the client wrote; what an update leaves out is kept.
fn normalize_addresses(service: &mut Value, old: Option<&Value>) {
    let text = |value: &Value| value["spec"]["clusterIP"].as_str().unwrap_or("").to_owned();
    let list = |value: &Value| value["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    let Some(old) = old else {
        if text(service).is_empty() {
            if let Some(first) = list(service).first().cloned() {
                service["spec"]["clusterIP"] = first;
            }
        } else if list(service).is_empty() {
            service["spec"]["clusterIPs"] = json!([text(service)]);
        }
        return;
    };
    let changed_one = text(service) != text(old);
    let changed_list = list(service) != list(old);
    if text(service).is_empty() && needs_address(old) && (list(service).is_empty() || !changed_list) {
        // A replace without addresses keeps them (upstream: patchAllocatedValues).
        service["spec"]["clusterIP"] = text(old).into();
        service["spec"]["clusterIPs"] = Value::Array(list(old));
    } else if (changed_one && !changed_list) || (list(service).is_empty() && !text(service).is_empty()) {
        service["spec"]["clusterIPs"] = json!([text(service)]);
    }
}

fn check_families(service: &Value) -> Result<(), Error> {
    let spec = Path::new("spec");
    if service["spec"]["ipFamilyPolicy"] == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        return Err(Error::invalid(&spec.child("ipFamilyPolicy"), "RequireDualStack", why));
    }
    let families = service["spec"]["ipFamilies"].as_array().into_iter().flatten();
    for (index, family) in families.filter_map(Value::as_str).enumerate() {
        if family == "IPv6" {
            let path = spec.child("ipFamilies").index(index);
            return Err(Error::invalid(&path, family, "not configured on this cluster"));
        }
    }
    Ok(())
}

fn set_family(service: &mut Value) {
    service["spec"]["ipFamilies"] = json!(["IPv4"]);
    if service["spec"]["ipFamilyPolicy"].as_str().unwrap_or("").is_empty() {
        service["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(range: &str) -> Arc<Addresses> {
        Arc::new(Addresses::new(range.parse().unwrap(), base::Random::seeded(1)))
    }

    fn service(cluster_ip: &str) -> Value {
        json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"type": "ClusterIP", "clusterIP": cluster_ip}})
    }

    fn try_begin(addresses: &Arc<Addresses>, cluster_ip: &str) -> Result<(Value, Reservation), String> {
        let mut object = service(cluster_ip);
        match addresses.begin_service(&mut object, None, false) {
            Ok(reservation) => Ok((object, reservation)),
            Err(error) => Err(api::field::aggregate(&[error])),
        }
    }

    #[test]
    fn addresses_are_given_once_and_come_back() {
        let addresses = table("10.96.0.0/28");
        let mut given = std::collections::BTreeSet::new();
        for _ in 0..14 {
            let (object, reservation) = try_begin(&addresses, "").unwrap();
            assert_eq!(object["spec"]["clusterIPs"][0], object["spec"]["clusterIP"]);
            assert_eq!(object["spec"]["ipFamilies"], json!(["IPv4"]));
            reservation.keep();
            assert!(given.insert(object["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        }
        assert!(try_begin(&addresses, "").unwrap_err().contains("range is full"));
        addresses.free(&["10.96.0.5".parse().unwrap()]);
        let (object, reservation) = try_begin(&addresses, "").unwrap();
        assert_eq!(object["spec"]["clusterIP"], "10.96.0.5");
        drop(reservation);
        assert!(
            !addresses.is_taken("10.96.0.5".parse().unwrap()),
            "a write that did not happen gives it back"
        );
    }

    #[test]
    fn what_another_server_gave_meanwhile_stays_taken() {
        let addresses = table("10.96.0.0/12");
        let (_, reservation) = try_begin(&addresses, "10.96.0.10").unwrap();
        let mut transaction = Transaction::new();
        reservation.claim(&mut transaction);
        let claim = Bytes::from_static(b"/registry/ranges/serviceips/10.96.0.10");
        assert_eq!(transaction.guards, [Guard::Absent(claim.clone())]);
        assert_eq!(transaction.operations[0].key(), &claim);
        let theirs = json!({"metadata": {"name": "b", "namespace": "n"}, "spec": {"clusterIP": "10.96.0.10"}});
        addresses.changed(None, Some(&theirs));
        drop(reservation);
        assert!(
            try_begin(&addresses, "10.96.0.10")
                .unwrap_err()
                .contains("already allocated")
        );
    }

    #[test]
    fn chosen_addresses_are_checked() {
        let addresses = table("10.96.0.0/12");
        try_begin(&addresses, "10.96.0.10").unwrap().1.keep();
        for (chosen, expect) in [
            (
                "10.96.0.10",
                "failed to allocate IP 10.96.0.10: provided IP is already allocated",
            ),
            ("10.0.0.1", "The range of valid IPs is 10.96.0.0/12"),
            ("10.96.0.0", "is not in the valid range"),
            ("::1", "must be a valid IP address"),
        ] {
            let error = try_begin(&addresses, chosen).unwrap_err();
            assert!(error.contains(expect), "{chosen}: {error}");
        }
        let (object, _reservation) = try_begin(&addresses, "None").unwrap();
        assert_eq!(object["spec"]["clusterIPs"], json!(["None"]));
    }

    #[test]
    fn random_addresses_leave_the_static_band_alone() {
        let addresses = table("10.96.0.0/12");
        for _ in 0..200 {
            let (object, reservation) = try_begin(&addresses, "").unwrap();
            let address: Ipv4Addr = object["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
            assert!(address >= Ipv4Addr::new(10, 96, 1, 1), "{address}");
            reservation.keep();
        }
    }

    #[test]
    fn updates_keep_or_give_back() {
        let addresses = table("10.96.0.0/12");
        let (old, reservation) = try_begin(&addresses, "10.96.0.10").unwrap();
        reservation.keep();
        let mut replaced = service("");
        addresses
            .begin_service(&mut replaced, Some(&old), false)
            .unwrap()
            .keep();
        assert_eq!(replaced["spec"]["clusterIP"], "10.96.0.10");
        let mut same = old.clone();
        addresses.begin_service(&mut same, Some(&old), false).unwrap().keep();
        assert_eq!(same, old);
        assert!(addresses.is_taken("10.96.0.10".parse().unwrap()));
        for kind in UNSUPPORTED_TYPES {
            let mut object = service("");
            object["spec"]["type"] = kind.into();
            assert!(addresses.begin_service(&mut object, None, false).is_err(), "{kind}");
        }
    }
}
