//! All names of the cluster, as a map from a Service to the records below its name.
//!
//! Source of the rules: <https://github.com/kubernetes/dns/blob/master/docs/specification.md> (version 1.1.0), and CoreDNS'
//! kubernetes plugin where the specification leaves room (SRV at a service's own name, dashed addresses as host names,
//! pod names without a check that the pod exists, an answer for `ns.dns`).
//!
//! Invariant: `pointers` holds exactly the reverse names of the entries in `services`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::catalog::ServiceWithSlices;
use crate::views::{ObjectName, Protocol, ServiceKind};

/// Version of the specification that is followed; the text of `dns-version.<domain>`.
pub const SPECIFICATION_VERSION: &str = "1.1.0";

/// What stands at a name, whatever type was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Not one of our names.
    Outside,
    /// One of our names, and nothing there: NXDOMAIN. Holds the zone that says so.
    Missing(String),
    /// The name exists. Empty records mean: ask for another type.
    Exists(Box<Records>),
}

/// The records at one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// The zone the name is in.
    pub zone: String,
    /// Whether the name is the zone itself (SOA and NS).
    pub apex: bool,
    /// A and AAAA.
    pub addresses: Vec<IpAddr>,
    /// SRV.
    pub services: Vec<ServiceRecord>,
    /// CNAME.
    pub alias: Option<String>,
    /// TXT.
    pub text: Option<String>,
    /// PTR.
    pub pointers: Vec<String>,
}

/// An SRV record and the addresses of its target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRecord {
    /// Port.
    pub port: u16,
    /// Target, a full name without the final dot.
    pub target: String,
    /// The target's addresses.
    pub addresses: Vec<IpAddr>,
}

/// What the zone depends on besides Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneConfig {
    /// The cluster's domain, lower case without a final dot: `cluster.local`.
    pub domain: String,
    /// Address of this server, at `ns.dns.<domain>`.
    pub server: Ipv4Addr,
    /// Ranges whose reverse names are ours: services and pods.
    pub networks: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    protocol: Protocol,
    number: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Host {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<Port>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    /// Cluster addresses; empty for headless Services.
    addresses: Vec<IpAddr>,
    ports: BTreeSet<Port>,
    alias: Option<String>,
    /// Ready endpoints by the name below the Service's.
    hosts: BTreeMap<String, Host>,
    headless: bool,
}

/// The names.
#[derive(Debug)]
pub struct Zone {
    config: ZoneConfig,
    /// By namespace, then by name.
    services: HashMap<String, HashMap<String, Entry>>,
    pointers: HashMap<IpAddr, BTreeSet<String>>,
}

impl Zone {
    /// The ranges whose reverse names are ours are these from now on.
    pub fn set_networks(&mut self, networks: Vec<IpNet>) {
        self.config.networks = networks;
    }

    /// A zone without Services.
    pub fn new(config: ZoneConfig) -> Self {
        Self {
            config,
            services: HashMap::new(),
            pointers: HashMap::new(),
        }
    }

    /// The cluster's domain.
    pub fn domain(&self) -> &str {
        &self.config.domain
    }

    /// Address of this server.
    pub fn server(&self) -> Ipv4Addr {
        self.config.server
    }

    /// Takes a Service as it is now; `None` when it is gone.
    pub fn set(&mut self, name: &ObjectName, found: Option<&ServiceWithSlices>) {
        if let Some(namespace) = self.services.get_mut(&name.namespace) {
            let old = namespace.remove(&name.name);
            if namespace.is_empty() {
                self.services.remove(&name.namespace);
            }
            for (address, pointer) in old.iter().flat_map(|old| self.reverse(name, old)).collect::<Vec<_>>() {
                if let Some(pointers) = self.pointers.get_mut(&address) {
                    pointers.remove(&pointer);
                    if pointers.is_empty() {
                        self.pointers.remove(&address);
                    }
                }
            }
        }
        let Some(entry) = found.and_then(entry) else { return };
        for (address, pointer) in self.reverse(name, &entry) {
            self.pointers.entry(address).or_default().insert(pointer);
        }
        self.services
            .entry(name.namespace.clone())
            .or_default()
            .insert(name.name.clone(), entry);
    }

    /// What stands at a name, given as its labels in lower case from left to right.
    pub fn resolve(&self, labels: &[String]) -> Node {
        let domain: Vec<&str> = self.config.domain.split('.').collect();
        if let Some(address) = reverse_address(labels) {
            return self.resolve_reverse(address, labels);
        }
        let Some(split) = labels.len().checked_sub(domain.len()) else {
            return Node::Outside;
        };
        if labels[split..].iter().map(String::as_str).ne(domain) {
            return Node::Outside;
        }
        let inner: Vec<&str> = labels[..split].iter().map(String::as_str).collect();
        match self.resolve_inner(&inner) {
            Some(mut records) => {
                records.zone = self.config.domain.clone();
                Node::Exists(Box::new(records))
            }
            None => Node::Missing(self.config.domain.clone()),
        }
    }

    fn resolve_reverse(&self, address: IpAddr, labels: &[String]) -> Node {
        let zone = labels[labels.len() - 2..].join(".");
        match self.pointers.get(&address) {
            Some(pointers) => Node::Exists(Box::new(Records {
                zone,
                pointers: pointers.iter().cloned().collect(),
                ..Records::default()
            })),
            None if self.config.networks.iter().any(|network| network.contains(&address)) => Node::Missing(zone),
            None => Node::Outside,
        }
    }

    /// `None` when nothing stands there; labels are those before the domain.
    fn resolve_inner(&self, labels: &[&str]) -> Option<Records> {
        let empty = Records::default();
        match labels {
            [] => Some(Records { apex: true, ..empty }),
            ["dns-version"] => Some(Records {
                text: Some(SPECIFICATION_VERSION.to_owned()),
                ..empty
            }),
            ["ns", "dns"] => Some(Records {
                addresses: vec![self.config.server.into()],
                ..empty
            }),
            ["dns" | "svc" | "pod"] => Some(empty),
            [namespace, "svc" | "pod"] => self.services.contains_key(*namespace).then_some(empty),
            [address, _, "pod"] => Some(Records {
                addresses: vec![parse_dashed(address)?],
                ..empty
            }),
            [inner @ .., service, namespace, "svc"] => {
                let entry = self.services.get(*namespace)?.get(*service)?;
                self.resolve_service(inner, entry, &ObjectName::new(*namespace, *service))
            }
            _ => None,
        }
    }

    fn resolve_service(&self, inner: &[&str], entry: &Entry, name: &ObjectName) -> Option<Records> {
        let empty = Records::default();
        let any_port = |_: &Port| true;
        match inner {
            [] if entry.alias.is_some() => Some(Records {
                alias: entry.alias.clone(),
                ..empty
            }),
            // Specification 2.4.1: a headless Service without ready endpoints does not exist.
            [] if entry.headless && entry.hosts.is_empty() => None,
            [] => {
                let services = self.service_records(entry, name, any_port);
                Some(Records {
                    addresses: entry.own_addresses(),
                    services,
                    ..empty
                })
            }
            [protocol] if protocol.starts_with('_') => entry
                .has_port(|port| port.protocol.label() == &protocol[1..])
                .then_some(empty),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let wanted = |candidate: &Port| {
                    candidate.name.eq_ignore_ascii_case(&port[1..]) && candidate.protocol.label() == &protocol[1..]
                };
                let services = self.service_records(entry, name, wanted);
                (!services.is_empty()).then_some(Records { services, ..empty })
            }
            [host] => {
                let found = entry.hosts.get(*host)?;
                Some(Records {
                    addresses: found.addresses.iter().copied().collect(),
                    ..empty
                })
            }
            _ => None,
        }
    }

    fn service_records(&self, entry: &Entry, name: &ObjectName, wanted: impl Fn(&Port) -> bool) -> Vec<ServiceRecord> {
        let mut records = BTreeSet::new();
        for port in entry.ports.iter().filter(|port| wanted(port)) {
            let (target, addresses) = (self.full_name(None, name), entry.addresses.clone());
            records.insert(ServiceRecord {
                port: port.number,
                target,
                addresses,
            });
        }
        if entry.headless {
            for (host, found) in &entry.hosts {
                for port in found.ports.iter().filter(|port| wanted(port)) {
                    let addresses = found.addresses.iter().copied().collect();
                    let target = self.full_name(Some(host), name);
                    records.insert(ServiceRecord {
                        port: port.number,
                        target,
                        addresses,
                    });
                }
            }
        }
        records.into_iter().collect()
    }

    fn full_name(&self, host: Option<&str>, name: &ObjectName) -> String {
        let service = format!("{}.{}.svc.{}", name.name, name.namespace, self.config.domain);
        match host {
            Some(host) => format!("{host}.{service}"),
            None => service,
        }
    }

    /// The reverse names of an entry: cluster addresses, or the endpoints of a headless Service.
    fn reverse(&self, name: &ObjectName, entry: &Entry) -> Vec<(IpAddr, String)> {
        let own = entry
            .addresses
            .iter()
            .map(|address| (*address, self.full_name(None, name)));
        let hosts = entry.hosts.iter().filter(|_| entry.headless).flat_map(|(host, found)| {
            found
                .addresses
                .iter()
                .map(|address| (*address, self.full_name(Some(host), name)))
        });
        own.chain(hosts).collect()
    }
}

impl Entry {
    fn own_addresses(&self) -> Vec<IpAddr> {
        match self.headless {
            false => self.addresses.clone(),
            true => {
                let all: BTreeSet<IpAddr> = self
                    .hosts
                    .values()
                    .flat_map(|host| host.addresses.iter().copied())
                    .collect();
                all.into_iter().collect()
            }
        }
    }

    fn has_port(&self, wanted: impl Fn(&Port) -> bool) -> bool {
        self.ports
            .iter()
            .chain(self.hosts.values().flat_map(|host| host.ports.iter()))
            .any(wanted)
    }
}

fn entry(found: &ServiceWithSlices) -> Option<Entry> {
    let service = &found.service;
    let mut entry = Entry::default();
    match &service.kind {
        ServiceKind::External(name) => {
            entry.alias = Some(name.trim_end_matches('.').to_ascii_lowercase());
            return Some(entry);
        }
        ServiceKind::Pending => return None,
        ServiceKind::Headless => entry.headless = true,
        ServiceKind::Cluster(addresses) => {
            entry.addresses = addresses.clone();
            entry.ports = service
                .ports
                .iter()
                .map(|port| Port {
                    name: port.name.clone(),
                    protocol: port.protocol,
                    number: port.port,
                })
                .collect();
        }
    }
    for slice in &found.slices {
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            for address in &endpoint.addresses {
                let host = endpoint
                    .hostname
                    .clone()
                    .unwrap_or_else(|| dashed(*address))
                    .to_ascii_lowercase();
                let host = entry.hosts.entry(host).or_default();
                host.addresses.insert(*address);
                host.ports.extend(slice.ports.iter().filter_map(|port| {
                    Some(Port {
                        name: port.name.clone(),
                        protocol: port.protocol,
                        number: port.port?,
                    })
                }));
            }
        }
    }
    Some(entry)
}

/// An address as one label.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn parse_dashed(label: &str) -> Option<IpAddr> {
    let v4: Option<Ipv4Addr> = label.replace('-', ".").parse().ok();
    let v6 = || -> Option<Ipv6Addr> { label.replace('-', ":").parse().ok() };
    v4.map(IpAddr::V4).or_else(|| v6().map(IpAddr::V6))
}

/// The address of a reverse name; `None` for other names and for incomplete ones.
fn reverse_address(labels: &[String]) -> Option<IpAddr> {
    let parts: Vec<&str> = labels.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [d, c, b, a, "in-addr", "arpa"] => {
            let octet = |text: &str| text.parse::<u8>().ok();
            Some(IpAddr::from([octet(a)?, octet(b)?, octet(c)?, octet(d)?]))
        }
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let mut value: u128 = 0;
            for nibble in nibbles.iter().rev() {
                let digit = u8::from_str_radix(nibble, 16).ok().filter(|_| nibble.len() == 1)?;
                value = (value << 4) | u128::from(digit);
            }
            Some(IpAddr::V6(Ipv6Addr::from(value)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::{EndpointView, ServicePort, ServiceView, SlicePort, SliceView};
    use std::sync::Arc;

    fn found(name: &str, kind: ServiceKind, endpoints: &[(&str, Option<&str>, bool)]) -> ServiceWithSlices {
        let endpoints = endpoints.iter().map(|(address, hostname, ready)| EndpointView {
            addresses: vec![address.parse().unwrap()],
            ready: *ready,
            serving: true,
            terminating: false,
            hostname: hostname.map(str::to_owned),
            node: None,
        });
        ServiceWithSlices {
            service: Arc::new(ServiceView {
                name: ObjectName::new("default", name),
                kind,
                ports: vec![ServicePort {
                    name: "web".to_owned(),
                    protocol: Protocol::Tcp,
                    port: 80,
                    node_port: None,
                }],
                external_addresses: Vec::new(),
                local_only: false,
                external_local_only: false,
                affinity_seconds: None,
                foreign_proxy: false,
                health_port: None,
            }),
            slices: vec![Arc::new(SliceView {
                name: ObjectName::new("default", format!("{name}-1")),
                service: name.to_owned(),
                endpoints: endpoints.collect(),
                ports: vec![SlicePort {
                    name: "web".to_owned(),
                    protocol: Protocol::Tcp,
                    port: Some(8080),
                }],
            })],
        }
    }

    fn zone() -> Zone {
        let mut zone = Zone::new(ZoneConfig {
            domain: "cluster.local".to_owned(),
            server: Ipv4Addr::new(10, 96, 0, 10),
            networks: vec!["10.96.0.0/12".parse().unwrap(), "10.244.0.0/16".parse().unwrap()],
        });
        let services = [
            found(
                "web",
                ServiceKind::Cluster(vec!["10.96.0.7".parse().unwrap()]),
                &[("10.244.0.2", None, true)],
            ),
            found(
                "db",
                ServiceKind::Headless,
                &[
                    ("10.244.0.3", Some("db-0"), true),
                    ("10.244.0.4", None, true),
                    ("10.244.0.5", None, false),
                ],
            ),
            found("idle", ServiceKind::Headless, &[("10.244.0.9", None, false)]),
            found("away", ServiceKind::External("Example.Org.".to_owned()), &[]),
        ];
        for service in &services {
            zone.set(&service.service.name, Some(service));
        }
        zone
    }

    /// One line that says what stands at a name.
    fn at(zone: &Zone, name: &str) -> String {
        let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
        match zone.resolve(&labels) {
            Node::Outside => "outside".to_owned(),
            Node::Missing(zone) => format!("missing in {zone}"),
            Node::Exists(records) => {
                let mut parts: Vec<String> = records.addresses.iter().map(IpAddr::to_string).collect();
                parts.extend(
                    records
                        .services
                        .iter()
                        .map(|record| format!("{}:{}", record.target, record.port)),
                );
                parts.extend(records.alias);
                parts.extend(records.text);
                parts.extend(records.pointers);
                if records.apex {
                    "apex".to_owned()
                } else {
                    parts.join(" ")
                }
            }
        }
    }

    #[test]
    fn every_form_of_name() {
        let zone = zone();
        let missing = "missing in cluster.local";
        let web = "10.96.0.7 web.default.svc.cluster.local:80";
        let db =
            "10.244.0.3 10.244.0.4 10-244-0-4.db.default.svc.cluster.local:8080 db-0.db.default.svc.cluster.local:8080";
        let check = |name: &str, expect: &str| assert_eq!(at(&zone, name), expect, "{name}");
        check("cluster.local", "apex");
        check("web.default.svc.cluster.local", web);
        check("web.default.svc.cluster.local.svc.cluster.local", missing);
        check("web.other.svc.cluster.local", missing);
        check("absent.default.svc.cluster.local", missing);
        check(
            "_web._tcp.web.default.svc.cluster.local",
            "web.default.svc.cluster.local:80",
        );
        check("_web._udp.web.default.svc.cluster.local", missing);
        check("_tcp.web.default.svc.cluster.local", "");
        check("_udp.web.default.svc.cluster.local", missing);
        check("10-244-0-2.web.default.svc.cluster.local", "10.244.0.2");
        check("db.default.svc.cluster.local", db);
        check("db-0.db.default.svc.cluster.local", "10.244.0.3");
        check("10-244-0-3.db.default.svc.cluster.local", missing);
        check("10-244-0-4.db.default.svc.cluster.local", "10.244.0.4");
        check("10-244-0-5.db.default.svc.cluster.local", missing);
        check("idle.default.svc.cluster.local", missing);
        check("away.default.svc.cluster.local", "example.org");
        check("svc.cluster.local", "");
        check("default.svc.cluster.local", "");
        check("other.svc.cluster.local", missing);
        check("10-1-2-3.default.pod.cluster.local", "10.1.2.3");
        check("2001-db8--1.default.pod.cluster.local", "2001:db8::1");
        check("x.default.pod.cluster.local", missing);
        check("dns-version.cluster.local", "1.1.0");
        check("ns.dns.cluster.local", "10.96.0.10");
        check("7.0.96.10.in-addr.arpa", "web.default.svc.cluster.local");
        check("3.0.244.10.in-addr.arpa", "db-0.db.default.svc.cluster.local");
        check("4.0.244.10.in-addr.arpa", "10-244-0-4.db.default.svc.cluster.local");
        check("8.0.96.10.in-addr.arpa", "missing in in-addr.arpa");
        check("8.8.8.8.in-addr.arpa", "outside");
        check("example.org", "outside");
        check("local", "outside");
        check("notcluster.local", "outside");
    }

    #[test]
    fn a_service_that_goes_leaves_nothing() {
        let mut zone = zone();
        for name in ["web", "db", "idle", "away"] {
            zone.set(&ObjectName::new("default", name), None);
        }
        assert!(zone.services.is_empty());
        assert!(zone.pointers.is_empty());
        assert_eq!(at(&zone, "default.svc.cluster.local"), "missing in cluster.local");
    }

    #[test]
    fn a_headless_service_becomes_missing_with_its_last_endpoint() {
        let mut zone = zone();
        let idle = found("db", ServiceKind::Headless, &[("10.244.0.3", Some("db-0"), false)]);
        zone.set(&idle.service.name, Some(&idle));
        assert_eq!(at(&zone, "db.default.svc.cluster.local"), "missing in cluster.local");
        assert_eq!(at(&zone, "3.0.244.10.in-addr.arpa"), "missing in in-addr.arpa");
    }
}
