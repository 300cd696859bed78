//! Cluster IPs: which a Service has, asks for and gets.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::json;

use api::field::{Error, Path};
use api::{Status, Value, meta};

use tokio::time::Instant;

use super::ranges::usable;
use super::{Allocator, Given, Reservation, invalid};
use crate::metrics::Scope;

/// Addresses at the start of a range that are given out last, so that people can choose fixed ones from them
/// (upstream's `ipallocator`, `calculateRangeOffset`: between 16 and 256, a sixteenth of the range, none of a tiny one).
const STATIC_BAND_MIN: u64 = 16;
const STATIC_BAND_MAX: u64 = 256;
const STATIC_BAND_PART: u64 = 16;

fn static_band(range: Ipv4Net) -> u32 {
    match 1_u64 << (32 - range.prefix_len()) {
        size if size <= STATIC_BAND_MIN => 0,
        size => (size / STATIC_BAND_PART).clamp(STATIC_BAND_MIN, STATIC_BAND_MAX) as u32,
    }
}

fn needs_one(service: &Value) -> bool {
    service["spec"]["type"] != "ExternalName" && service["spec"]["clusterIP"] != "None"
}

/// The addresses that a Service has.
pub(super) fn of(service: &Value) -> Vec<Ipv4Addr> {
    if !needs_one(service) {
        return Vec::new();
    }
    let listed = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    let first = service["spec"]["clusterIP"].as_str();
    let texts = listed.filter_map(Value::as_str).chain(first);
    let mut all: Vec<Ipv4Addr> = Vec::new();
    for address in texts.filter_map(|text| text.parse().ok()) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

// === impl Allocator ===

impl Allocator {
    /// Completes a Service's address and families; reserves the address when it has none yet.
    pub(super) fn give_addresses(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        reservation: &mut Reservation,
    ) -> Result<(), Status> {
        if service["spec"]["type"] == "ExternalName" {
            // The strategy took the addresses away, the write gives them back.
            return Ok(());
        }
        normalize(service, old);
        check_families(service).map_err(|error| invalid(service, error))?;
        if service["spec"]["clusterIP"] == "None" {
            service["spec"]["clusterIPs"] = json!(["None"]);
            set_family(service);
            return Ok(());
        }
        let chosen = service["spec"]["clusterIP"].as_str().unwrap_or("").to_owned();
        let address = match &*chosen {
            "" => self.any_address(service, reservation)?,
            // An address that is there cannot be changed: validation refuses that, so nothing is taken for it.
            text if !old.map(of).unwrap_or_default().is_empty() => {
                parse(text).map_err(|error| invalid(service, error))?
            }
            text => {
                let address = parse(text).map_err(|error| invalid(service, error))?;
                self.one_address(address, reservation).map_err(|why| {
                    let path = Path::new("spec").child("clusterIPs");
                    let why = format!("failed to allocate IP {address}: {why}");
                    invalid(service, Error::invalid(&path, json!([text]), why))
                })?;
                address
            }
        };
        service["spec"]["clusterIP"] = address.to_string().into();
        service["spec"]["clusterIPs"] = json!([address.to_string()]);
        set_family(service);
        Ok(())
    }

    fn one_address(&self, address: Ipv4Addr, reservation: &mut Reservation) -> Result<(), String> {
        let began = Instant::now();
        let Some(range) = self.ranges.lock().giving_one(address) else {
            return Err("the provided network does not match the current range".into());
        };
        let given = self.reserve(Given::Address(address), reservation);
        self.metrics.address(range, Scope::Static, given, began.elapsed());
        match given {
            true => Ok(()),
            false => Err("provided IP is already allocated".into()),
        }
    }

    /// From the first range that has one. Upstream tries the ranges in no order.
    fn any_address(&self, service: &Value, reservation: &mut Reservation) -> Result<Ipv4Addr, Status> {
        let ranges = self.ranges.lock().giving();
        let make = |number| Given::Address(Ipv4Addr::from(number));
        let found = ranges.into_iter().find_map(|range| {
            let began = Instant::now();
            let found = self.reserve_any(usable(range), static_band(range), make, reservation);
            self.metrics
                .address(range, Scope::Dynamic, found.is_some(), began.elapsed());
            found
        });
        let found = found.ok_or_else(|| {
            let name = api::field::quote(meta::name(service));
            Status::internal(format!(
                "failed to allocate a serviceIP for Service {name}: range is full"
            ))
        })?;
        Ok(found.into())
    }
}

fn parse(text: &str) -> Result<Ipv4Addr, Error> {
    text.parse().map_err(|_| {
        let path = Path::new("spec").child("clusterIPs").index(0);
        Error::invalid(
            &path,
            text,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        )
    })
}

/// `clusterIP` and `clusterIPs` say the same, whichever of them the client wrote; what an update leaves out is kept.
fn normalize(service: &mut Value, old: Option<&Value>) {
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
    if text(service).is_empty() && needs_one(old) && (list(service).is_empty() || !changed_list) {
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
