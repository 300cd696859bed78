//! Which endpoints take new connections of a Service.
//!
//! Upstream's rule (`pkg/proxy/topology.go`, CategorizeEndpoints; KEP-1669): the ready ones; when there is none, those that
//! terminate but still serve, because a refused connection is worse than one that may be cut. With
//! `internalTrafficPolicy: Local` both rules look at this node's endpoints only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::{Backend, Frontend, Wanted};
use crate::catalog::ServiceWithSlices;
use crate::views::{EndpointView, ServiceKind, ServicePort};

/// The node that rules are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, as endpoints name it.
    pub name: String,
    /// The address that node ports are served on: as kube-proxy's `--nodeport-addresses=primary`, never 127.0.0.1.
    pub address: Ipv4Addr,
}

/// The endpoints of each address and port of a Service, from inside and from outside. A port without endpoints is listed with
/// none.
pub fn rotation(found: &ServiceWithSlices, node: &Node) -> BTreeMap<Frontend, Wanted> {
    let service = &found.service;
    let ServiceKind::Cluster(addresses) = &service.kind else {
        return BTreeMap::new();
    };
    if service.foreign_proxy {
        return BTreeMap::new();
    }
    let mut frontends = BTreeMap::new();
    // IPv6 joins here, as a table of its own.
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    };
    for port in &service.ports {
        let wanted = |local_only| Wanted {
            backends: backends(found, port, &node.name, local_only),
            affinity_seconds: service.affinity_seconds,
        };
        let at = |address, number| Frontend {
            address,
            protocol: port.protocol,
            port: number,
        };
        let outside = service
            .external_addresses
            .iter()
            .filter_map(v4)
            .map(|address| at(address, port.port));
        let outside: Vec<_> = outside
            .chain(port.node_port.map(|number| at(node.address, number)))
            .collect();
        if !outside.is_empty() {
            let wanted = wanted(service.external_local_only);
            frontends.extend(outside.into_iter().map(|frontend| (frontend, wanted.clone())));
        }
        // Whoever names a cluster address as an external one too gets what is served inside.
        let inside = wanted(service.local_only);
        let addresses = addresses.iter().filter_map(v4);
        frontends.extend(addresses.map(|address| (at(address, port.port), inside.clone())));
    }
    frontends
}

fn backends(found: &ServiceWithSlices, port: &ServicePort, node: &str, local_only: bool) -> BTreeSet<Backend> {
    let eligible = |endpoint: &EndpointView| !local_only || endpoint.node.as_deref() == Some(node);
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
            node_port: None,
        };
        ServiceWithSlices {
            service: Arc::new(ServiceView {
                name: ObjectName::new("a", "x"),
                kind: ServiceKind::Cluster(vec![IpAddr::from([10, 96, 0, 7])]),
                ports: vec![port],
                external_addresses: Vec::new(),
                local_only,
                external_local_only: false,
                affinity_seconds: None,
                foreign_proxy: false,
                health_port: None,
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

    fn here() -> Node {
        Node {
            name: "here".to_owned(),
            address: Ipv4Addr::new(172, 30, 0, 1),
        }
    }

    #[test]
    fn ready_first_terminating_only_when_nothing_else_is_left() {
        let check = |states: &str, local_only: bool, expect: &[u8]| {
            let rotation = rotation(&found(states, local_only), &here());
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
        assert!(rotation(&found, &here()).is_empty());
    }

    #[test]
    fn what_leads_there_from_outside_has_a_policy_of_its_own() {
        let mut found = found("rR", false);
        let service = Arc::make_mut(&mut found.service);
        service.ports[0].node_port = Some(30_080);
        service.external_addresses = vec![IpAddr::from([192, 0, 2, 1]), "2001:db8::1".parse().unwrap()];
        let ends = |found: &ServiceWithSlices| {
            let rotation = rotation(found, &here());
            let ends = rotation.iter().map(|(frontend, wanted)| {
                let last: Vec<u8> = wanted
                    .backends
                    .iter()
                    .map(|backend| backend.address.octets()[3])
                    .collect();
                (format!("{}:{}", frontend.address, frontend.port), last)
            });
            ends.collect::<Vec<_>>()
        };
        let expect = |inside: &[u8], outside: &[u8]| {
            [
                ("10.96.0.7:80", inside),
                ("172.30.0.1:30080", outside),
                ("192.0.2.1:80", outside),
            ]
            .map(|(frontend, backends)| (frontend.to_owned(), backends.to_vec()))
        };
        assert_eq!(ends(&found), expect(&[1, 2], &[1, 2]));
        Arc::make_mut(&mut found.service).external_local_only = true;
        assert_eq!(ends(&found), expect(&[1, 2], &[2]));
        Arc::make_mut(&mut found.service).local_only = true;
        Arc::make_mut(&mut found.service).external_local_only = false;
        assert_eq!(ends(&found), expect(&[2], &[1, 2]));
    }
}
