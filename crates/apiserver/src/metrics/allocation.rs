//! What Services are given, and what is left, under upstream's names.
//!
//! Sources: `metrics.go` of `pkg/registry/core/service/ipallocator`, `.../portallocator` and of the folder `controller` of both.

use std::time::Duration;

use ipnet::Ipv4Net;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::DEFAULT_SECONDS;
use super::names::{Names, name};

/// Who chose what is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whoever wrote the Service.
    Static,
    /// The server.
    Dynamic,
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Scope::Static => "static",
            Scope::Dynamic => "dynamic",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CidrLabels {
    cidr: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CidrScopeLabels {
    cidr: String,
    scope: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TypeLabels {
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ScopeLabels {
    scope: &'static str,
}

/// Counts cluster IPs and node ports. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct AllocationMetrics {
    addresses: Family<CidrLabels, Gauge>,
    free_addresses: Family<CidrLabels, Gauge>,
    address_outcomes: [Family<CidrScopeLabels, Counter>; 2],
    address_seconds: Family<CidrLabels, Histogram, fn() -> Histogram>,
    ports: Gauge,
    free_ports: Gauge,
    port_outcomes: [Family<ScopeLabels, Counter>; 2],
    /// What repair found, and how often it failed.
    findings: Family<TypeLabels, Counter>,
    repairs_failed: Counter,
    port_findings: Family<TypeLabels, Counter>,
    port_repairs_failed: Counter,
}

impl Default for AllocationMetrics {
    fn default() -> AllocationMetrics {
        AllocationMetrics {
            addresses: Family::default(),
            free_addresses: Family::default(),
            address_outcomes: Default::default(),
            address_seconds: Family::new_with_constructor(|| Histogram::new(DEFAULT_SECONDS)),
            ports: Gauge::default(),
            free_ports: Gauge::default(),
            port_outcomes: Default::default(),
            findings: Family::default(),
            repairs_failed: Counter::default(),
            port_findings: Family::default(),
            port_repairs_failed: Counter::default(),
        }
    }
}

impl AllocationMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let ip = |rest: &str| format!("kube_apiserver_clusterip_allocator_{rest}");
        name(
            r,
            &ip("allocated_ips"),
            "Cluster IPs that Services have",
            &self.addresses,
        );
        name(
            r,
            &ip("available_ips"),
            "Cluster IPs that are left",
            &self.free_addresses,
        );
        let [given, refused] = &self.address_outcomes;
        name(r, &ip("allocation"), "Cluster IPs that were given", given);
        name(
            r,
            &ip("allocation_errors"),
            "Cluster IPs that could not be given",
            refused,
        );
        let help = "How long giving a cluster IP took, in seconds";
        name(r, &ip("allocation_duration_seconds"), help, &self.address_seconds);
        let port = |rest: &str| format!("kube_apiserver_nodeport_allocator_{rest}");
        name(
            r,
            &port("allocated_ports"),
            "Node ports that Services have",
            &self.ports,
        );
        name(
            r,
            &port("available_ports"),
            "Node ports that are left",
            &self.free_ports,
        );
        let [given, refused] = &self.port_outcomes;
        name(r, &port("allocation"), "Node ports that were given", given);
        name(
            r,
            &port("allocation_errors"),
            "Node ports that could not be given",
            refused,
        );
        let repair = |rest: &str| format!("apiserver_clusterip_repair_{rest}");
        let help = "What is wrong with cluster IPs, by what it is";
        name(r, &repair("ip_errors"), help, &self.findings);
        let help = "Corrections of cluster IPs that did not succeed";
        name(r, &repair("reconcile_errors"), help, &self.repairs_failed);
        let repair = |rest: &str| format!("apiserver_nodeport_repair_{rest}");
        let help = "What is wrong with node ports, by what it is";
        name(r, &repair("port_errors"), help, &self.port_findings);
        let help = "Corrections of node ports that did not succeed";
        name(r, &repair("reconcile_errors"), help, &self.port_repairs_failed);
    }

    /// Repair found something: `repair`, `duplicate`, `outOfRange`, `leak` or `invalid`, as upstream names it.
    pub fn found(&self, what: &'static str) {
        self.findings.get_or_create(&TypeLabels { r#type: what }).inc();
    }

    /// Repair did not succeed.
    pub fn repair_failed(&self) {
        self.repairs_failed.inc();
    }

    /// Repair of ports found something: `repair`, `duplicate`, `outOfRange` or `leak`, as upstream names it.
    pub fn found_of_ports(&self, what: &'static str) {
        self.port_findings.get_or_create(&TypeLabels { r#type: what }).inc();
    }

    /// Repair of ports did not succeed.
    pub fn port_repair_failed(&self) {
        self.port_repairs_failed.inc();
    }

    /// An address of a range was given, or could not be.
    pub fn address(&self, range: Ipv4Net, scope: Scope, given: bool, took: Duration) {
        let cidr = range.to_string();
        if given {
            let labels = CidrLabels { cidr: cidr.clone() };
            self.address_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        }
        let scope = scope.as_str();
        let labels = CidrScopeLabels { cidr, scope };
        self.address_outcomes[usize::from(!given)].get_or_create(&labels).inc();
    }

    /// A node port was given, or could not be.
    pub fn port(&self, scope: Scope, given: bool) {
        let labels = ScopeLabels { scope: scope.as_str() };
        self.port_outcomes[usize::from(!given)].get_or_create(&labels).inc();
    }

    /// How many addresses of each range, and how many ports, are taken and how many there are.
    pub fn measured(&self, ranges: &[(Ipv4Net, usize, usize)], ports: (usize, usize)) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        // Ranges come and go.
        self.addresses.clear();
        self.free_addresses.clear();
        for (range, taken, all) in ranges {
            let labels = CidrLabels {
                cidr: range.to_string(),
            };
            self.addresses.get_or_create(&labels).set(number(*taken));
            self.free_addresses
                .get_or_create(&labels)
                .set(number(all.saturating_sub(*taken)));
        }
        self.ports.set(number(ports.0));
        self.free_ports.set(number(ports.1.saturating_sub(ports.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_counted_by_range_and_by_who_chose() {
        let metrics = AllocationMetrics::default();
        let range: Ipv4Net = "10.0.0.0/24".parse().unwrap();
        let took = Duration::from_millis(7);
        metrics.address(range, Scope::Dynamic, true, took);
        metrics.address(range, Scope::Static, false, took);
        metrics.port(Scope::Static, true);
        metrics.measured(&[(range, 2, 254)], (3, 10));
        metrics.found("leak");
        metrics.repair_failed();
        metrics.found_of_ports("duplicate");
        metrics.port_repair_failed();
        let mut names = Names::default();
        metrics.register(&mut names);
        let text = names.text();
        for line in [
            r#"kube_apiserver_clusterip_allocator_allocated_ips{cidr="10.0.0.0/24"} 2"#,
            r#"kube_apiserver_clusterip_allocator_available_ips{cidr="10.0.0.0/24"} 252"#,
            r#"kube_apiserver_clusterip_allocator_allocation_total{cidr="10.0.0.0/24",scope="dynamic"} 1"#,
            r#"kube_apiserver_clusterip_allocator_allocation_errors_total{cidr="10.0.0.0/24",scope="static"} 1"#,
            r#"kube_apiserver_clusterip_allocator_allocation_duration_seconds_bucket{le="0.01",cidr="10.0.0.0/24"} 1"#,
            r#"kube_apiserver_clusterip_allocator_allocation_duration_seconds_count{cidr="10.0.0.0/24"} 1"#,
            r#"kube_apiserver_nodeport_allocator_allocated_ports 3"#,
            r#"kube_apiserver_nodeport_allocator_available_ports 7"#,
            r#"kube_apiserver_nodeport_allocator_allocation_total{scope="static"} 1"#,
            r#"apiserver_clusterip_repair_ip_errors_total{type="leak"} 1"#,
            r#"apiserver_clusterip_repair_reconcile_errors_total 1"#,
            r#"apiserver_nodeport_repair_port_errors_total{type="duplicate"} 1"#,
            r#"apiserver_nodeport_repair_reconcile_errors_total 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
