//! Which endpoints take new connections of a Service.
//!
//! Upstream's rule (`pkg/proxy/topology.go`, CategorizeEndpoints; KEP-1669): the ready ones; when there is none, those that
//! terminate but still serve, because a refused connection is worse than one that may be cut. With
//! `internalTrafficPolicy: Local` both rules look at this node's endpoints only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Backend, Frontend, Wanted};
use crate::catalog::ServiceWithSlices;
use crate::views::{EndpointView, ServiceKind, ServicePort};

/// The endpoints of each address and port of a Service. A port without endpoints is listed with none.
pub fn rotation(found: &ServiceWithSlices, node: &str) -> BTreeMap<Frontend, Wanted> {
    let service = &found.service;
    let ServiceKind::Cluster(addresses) = &service.kind else {
        return BTreeMap::new();
    };
    if service.foreign_proxy {
        return BTreeMap::new();
    }
    let mut frontends = BTreeMap::new();
    for port in &service.ports {
        let wanted = Wanted {
            backends: backends(found, port, node),
            affinity_seconds: service.affinity_seconds,
        };
        for address in addresses {
            // IPv6 joins here, as a table of its own.
            let IpAddr::V4(address) = *address else { continue };
            frontends.insert(
                Frontend {
                    address,
                    protocol: port.protocol,
                    port: port.port,
                },
                wanted.clone(),
            );
        }
    }
    frontends
}

fn backends(found: &ServiceWithSlices, port: &ServicePort, node: &str) -> BTreeSet<Backend> {
    let eligible = |endpoint: &EndpointView| !found.service.local_only || endpoint.node.as_deref() == Some(node);
    let pick = |wanted: fn(&EndpointView) -> bool| {
        let mut backends = BTreeSet::new();
        for slice in &found.slices {
            let target = slice.ports.iter().find(|candidate| {
                candidate.name == port.name && candidate.protocol == port.protocol && candidate.port.is_some()
            });
            let Some(target) = target.and_then(|target| target.port) else {
                continue;
            };
            for endpoint in slice
                .endpoints
                .iter()
                .filter(|endpoint| eligible(endpoint) && wanted(endpoint))
            {
                if let Some(IpAddr::V4(address)) = endpoint.addresses.first() {
                    backends.insert(Backend {
                        address: *address,
                        port: target,
                    });
                }
            }
        }
        backends
    };
    let ready = pick(|endpoint| endpoint.ready);
    match ready.is_empty() {
        false => ready,
        true => pick(|endpoint| endpoint.serving && endpoint.terminating),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::{ObjectName, Protocol, ServiceView, SlicePort, SliceView};
    use std::sync::Arc;

    /// `states` lists endpoints 10.244.0.1, .2, ...: `r`eady, `t`erminating but serving, `d`ead; capital: on this node.
    fn found(states: &str, local_only: bool) -> ServiceWithSlices {
        let endpoints = states.chars().enumerate().map(|(place, state)| EndpointView {
            addresses: vec![IpAddr::from([10, 244, 0, place as u8 + 1])],
            ready: state.eq_ignore_ascii_case(&'r'),
            serving: !state.eq_ignore_ascii_case(&'d'),
            terminating: state.eq_ignore_ascii_case(&'t'),
            hostname: None,
            node: Some(if state.is_uppercase() { "here" } else { "there" }.to_owned()),
        });
        let port = ServicePort {
            name: "web".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
        };
        ServiceWithSlices {
            service: Arc::new(ServiceView {
                name: ObjectName::new("a", "x"),
                kind: ServiceKind::Cluster(vec![IpAddr::from([10, 96, 0, 7])]),
                ports: vec![port],
                local_only,
                affinity_seconds: None,
                foreign_proxy: false,
            }),
            slices: vec![Arc::new(SliceView {
                name: ObjectName::new("a", "x-1"),
                service: "x".to_owned(),
                endpoints: endpoints.collect(),
                ports: vec![
                    SlicePort {
                        name: "other".to_owned(),
                        protocol: Protocol::Tcp,
                        port: Some(1),
                    },
                    SlicePort {
                        name: "web".to_owned(),
                        protocol: Protocol::Tcp,
                        port: Some(8080),
                    },
                ],
            })],
        }
    }

    #[test]
    fn ready_first_terminating_only_when_nothing_else_is_left() {
        let check = |states: &str, local_only: bool, expect: &[u8]| {
            let rotation = rotation(&found(states, local_only), "here");
            let backends = &rotation.values().next().expect("one port").backends;
            let last: Vec<u8> = backends.iter().map(|backend| backend.address.octets()[3]).collect();
            assert_eq!(last, expect, "{states} {local_only}");
            assert!(backends.iter().all(|backend| backend.port == 8080));
        };
        check("rrr", false, &[1, 2, 3]);
        check("rtd", false, &[1]);
        check("ttd", false, &[1, 2]);
        check("ddd", false, &[]);
        check("", false, &[]);
        check("rRr", true, &[2]);
        check("rTd", true, &[2]);
        check("rrr", true, &[]);
    }

    #[test]
    fn headless_services_have_no_frontends() {
        let mut found = found("r", false);
        Arc::make_mut(&mut found.service).kind = ServiceKind::Headless;
        assert!(rotation(&found, "here").is_empty());
    }
}
