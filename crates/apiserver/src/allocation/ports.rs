//! Node ports: which a Service has, asks for and gets, the load balancer's health check port among them.
//!
//! A number is given once, whatever the protocol: two ports of one Service that differ in protocol only share it.

use std::collections::HashMap;

use api::field::{Error, Path};
use api::{Status, Value};

use super::{Allocator, Given, Reservation, invalid};
use crate::metrics::Scope;

/// Ports at the start of the range that are given out last, so that people can choose fixed ones from them (upstream's
/// `portallocator`, `calculateRangeOffset`: between 16 and 128, a thirty-second of the range, none of a tiny one).
const STATIC_BAND_MIN: u32 = 16;
const STATIC_BAND_MAX: u32 = 128;
const STATIC_BAND_PART: u32 = 32;

fn number(value: &Value) -> Option<u16> {
    let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
    number.filter(|number| *number != 0)
}

fn is_published(service: &Value) -> bool {
    matches!(service["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

/// Whether ports that ask for nothing get a number.
fn gives_any(service: &Value) -> bool {
    service["spec"]["type"] == "NodePort" || service["spec"]["allocateLoadBalancerNodePorts"] != false
}

fn needs_health_check(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

fn listed(service: &Value) -> &[Value] {
    service["spec"]["ports"].as_array().map_or(&[], Vec::as_slice)
}

/// The numbers that a Service has.
pub(super) fn of(service: &Value) -> Vec<u16> {
    let published = listed(service).iter().filter(|_| is_published(service));
    let mut all: Vec<u16> = published.filter_map(|port| number(&port["nodePort"])).collect();
    if needs_health_check(service) {
        all.extend(number(&service["spec"]["healthCheckNodePort"]));
    }
    all.sort_unstable();
    all.dedup();
    all
}

// === impl Allocator ===

impl Allocator {
    /// Completes a Service's node ports and reserves those that it had not before.
    pub(super) fn give_ports(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        reservation: &mut Reservation,
    ) -> Result<(), Status> {
        let had = old.map(of).unwrap_or_default();
        if is_published(service) {
            self.give_node_ports(service, old.is_none(), &had, reservation)?;
        }
        if needs_health_check(service) && !old.is_some_and(needs_health_check) {
            self.give_health_check(service, reservation)?;
        }
        Ok(())
    }

    fn give_node_ports(
        &self,
        service: &mut Value,
        created: bool,
        had: &[u16],
        reservation: &mut Reservation,
    ) -> Result<(), Status> {
        // What was asked for comes first, so that nothing of it is drawn for another port.
        for (index, port) in listed(service).iter().enumerate() {
            let Some(asked) = number(&port["nodePort"]) else {
                continue;
            };
            if had.contains(&asked) || reservation.has(Given::Port(asked)) {
                continue;
            }
            self.one_port(asked, reservation).map_err(|why| {
                let path = Path::new("spec").child("ports").index(index).child("nodePort");
                invalid(service, Error::invalid(&path, asked, why))
            })?;
        }
        if !gives_any(service) {
            return Ok(());
        }
        // By the Service's own port: what two protocols of a new Service share.
        let mut shared: HashMap<u64, u16> = HashMap::new();
        let own = |port: &Value| port["port"].as_u64().unwrap_or_default();
        for port in listed(service) {
            if let Some(asked) = number(&port["nodePort"]) {
                shared.entry(own(port)).or_insert(asked);
            }
        }
        let ports = service["spec"]["ports"].as_array_mut();
        for port in ports
            .into_iter()
            .flatten()
            .filter(|port| number(&port["nodePort"]).is_none())
        {
            let given = match shared.get(&own(port)) {
                Some(given) if created => *given,
                _ => self
                    .any_port(reservation)
                    .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?,
            };
            shared.insert(own(port), given);
            port["nodePort"] = given.into();
        }
        Ok(())
    }

    fn give_health_check(&self, service: &mut Value, reservation: &mut Reservation) -> Result<(), Status> {
        let given = match number(&service["spec"]["healthCheckNodePort"]) {
            Some(asked) => self.one_port(asked, reservation).map(|()| asked).map_err(|why| {
                Status::internal(format!(
                    "failed to allocate requested HealthCheck NodePort {asked}: {why}"
                ))
            })?,
            None => self
                .any_port(reservation)
                .ok_or_else(|| Status::internal("failed to allocate a HealthCheck NodePort 0: range is full"))?,
        };
        service["spec"]["healthCheckNodePort"] = given.into();
        Ok(())
    }

    fn one_port(&self, port: u16, reservation: &mut Reservation) -> Result<(), String> {
        let range = &self.node_ports;
        if !range.contains(&port) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start,
                range.end - 1
            ));
        }
        let given = self.reserve(Given::Port(port), reservation);
        self.metrics.port(Scope::Static, given);
        match given {
            true => Ok(()),
            false => Err("provided port is already allocated".into()),
        }
    }

    fn any_port(&self, reservation: &mut Reservation) -> Option<u16> {
        let all = u32::from(self.node_ports.start)..u32::from(self.node_ports.end);
        let band = match all.len() as u32 {
            ..=STATIC_BAND_MIN => 0,
            size => (size / STATIC_BAND_PART).clamp(STATIC_BAND_MIN, STATIC_BAND_MAX),
        };
        let make = |number: u32| Given::Port(number as u16);
        let found = self.reserve_any(all, band, make, reservation);
        self.metrics.port(Scope::Dynamic, found.is_some());
        found.map(|number| number as u16)
    }
}
