//! The rules of a service.
//!
//! Source: `validateService` and what it calls in `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::Value;
use api::field::Path;
use api::validation::{
    cidr_legacy, dns1123_label, dns1123_subdomain, ip_legacy, labels, parse_ip_sloppy, qualified_name,
};
use serde_json::json;

use super::strategy::{has_external_policy, needs_cluster_ip, needs_health_check};
use crate::check::At;
use crate::core::pod::validate_port;
use crate::view::View;

/// How long a client can stick to an endpoint: a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
const HINTS_ANNOTATION: &str = "service.kubernetes.io/topology-aware-hints";
const MODE_ANNOTATION: &str = "service.kubernetes.io/topology-mode";
const RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Everything that holds for a service; `old` is null for a new one.
pub fn service(service: &At, old: &Value) {
    topology_annotations(service);
    let spec = service.get("spec");
    let old_spec = old.at("spec");
    let kind = spec.value.text("type");
    let headless = is_headless(spec.value);
    if spec.get("ports").is_empty() && !headless && kind != "ExternalName" {
        spec.get("ports").missing("");
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let first = spec.get("clusterIPs");
        let first = first.elsewhere(first.path.index(0), first.value);
        first.invalid_as("None", format!("may not be set to 'None' for {kind} services"));
    }
    if kind == "ExternalName" {
        external_name(&spec);
    }
    ports(&spec);
    let selector = spec.get("selector");
    selector.extend(labels(selector.value, &selector.path));
    affinity(&spec);
    cluster_ips(&spec, old_spec);
    external_ips(&spec, old_spec);
    spec.get("type")
        .required_one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    port_conflicts(&spec);
    source_ranges(service, old);
    load_balancer(&spec);
    policies(&spec);
}

fn topology_annotations(service: &At) {
    let annotation = |key: &str| api::meta::annotation(service.value, key);
    if let (Some(mode), Some(hints)) = (annotation(MODE_ANNOTATION), annotation(HINTS_ANNOTATION))
        && mode != hints
    {
        let annotations = service.get("metadata.annotations");
        let at = annotations.elsewhere(annotations.path.key(MODE_ANNOTATION), annotations.value);
        let detail = format!("must match annotations[{HINTS_ANNOTATION}] when both are specified");
        at.invalid_as(mode, detail);
    }
}

/// Whether the service has no address and its pods are asked for directly.
pub fn is_headless(spec: &Value) -> bool {
    matches!(spec.list("clusterIPs"), [only] if only == "None")
}

fn external_name(spec: &At) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let field = spec.get(field);
        if !field.is_empty() {
            field.forbidden("may not be set for ExternalName services");
        }
    }
    let name = spec.get("externalName");
    let text = name.text().strip_suffix('.').unwrap_or(name.text());
    if text.is_empty() {
        name.missing("");
    }
    for message in dns1123_subdomain(text).into_iter().filter(|_| !text.is_empty()) {
        name.invalid_as(text, message);
    }
}

fn ports(spec: &At) {
    let all = spec.items("ports");
    let mut names = BTreeSet::new();
    for port in &all {
        let name = port.get("name");
        if name.is_empty() {
            if all.len() > 1 {
                name.missing("");
            }
        } else {
            name.check(dns1123_label(name.text()));
            name.unique(&mut names);
        }
        validate_number(&port.get("port"));
        port.get("protocol").required_one_of(&["SCTP", "TCP", "UDP"]);
        validate_port(&port.get("targetPort"));
        let protocol = port.get("appProtocol");
        if protocol.is_set() {
            protocol.check(qualified_name(protocol.text()));
        }
    }
}

fn validate_number(port: &At) {
    let number = port.number().unwrap_or(0);
    for message in api::validation::port_number(number) {
        port.invalid_as(number, message);
    }
}

fn port_conflicts(spec: &At) {
    let (mut node_ports, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let all = spec.items("ports");
    if spec.value.text("type") == "ClusterIP" {
        for node_port in all.iter().map(|port| port.get("nodePort")) {
            if node_port.number().unwrap_or(0) != 0 {
                node_port.forbidden("may not be used when `type` is 'ClusterIP'");
            }
        }
    }
    for port in &all {
        let node_port = port.get("nodePort");
        let number = node_port.number().unwrap_or(0);
        if number != 0 && !node_ports.insert((port.value.text("protocol"), number)) {
            node_port.duplicate(number);
        }
    }
    for port in &all {
        let (protocol, number) = (port.value.text("protocol"), port.value.count("port"));
        if !ports.insert((protocol, number)) {
            port.duplicate(json!({"port": number, "protocol": protocol}));
        }
    }
}

fn affinity(spec: &At) {
    let kind = spec.get("sessionAffinity");
    kind.required_one_of(&["ClientIP", "None"]);
    let config = spec.get("sessionAffinityConfig");
    let needed = "when session affinity type is ClientIP";
    match kind.text() {
        "None" => config.forbidden_when_set("must not be set when session affinity is None"),
        "ClientIP" => {
            let (client, timeout) = (config.get("clientIP"), config.get("clientIP.timeoutSeconds"));
            if !config.is_set() {
                config.missing(needed);
            } else if !client.is_set() {
                client.missing(needed);
            } else if !timeout.is_set() {
                timeout.missing(needed);
            }
            if timeout
                .number()
                .is_some_and(|seconds| !(1..=AFFINITY_SECONDS_MAX).contains(&seconds))
            {
                timeout.invalid(format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"));
            }
        }
        _ => {}
    }
}

fn cluster_ips(spec: &At, old: &Value) {
    if spec.value.text("type") == "ExternalName" {
        return;
    }
    let list = spec.get("clusterIPs");
    let all = spec.items("clusterIPs");
    let single = spec.value.text("clusterIP");
    match (single, all.first().map(At::text)) {
        ("", Some(_)) => list.invalid("must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => list.missing(""),
        (single, Some(first)) => list.ensure(single == first, "first value must match `clusterIP`"),
    }
    families(spec);
    let old_values: Vec<&str> = old.texts("clusterIPs").collect();
    let mut broken = false;
    for (index, address) in all.iter().enumerate() {
        if index == 0 && address.text() == "None" {
            broken |= all.len() > 1;
            list.ensure(all.len() == 1, "'None' must be the first and only value");
            continue;
        }
        let errors = ip_legacy(&address.path, address.text(), true, &old_values);
        broken |= !errors.is_empty();
        address.extend(errors);
    }
    list.ensure(all.len() <= 2, "may only hold up to 2 values");
    if broken {
        return;
    }
    let parsed: Vec<IpAddr> = all
        .iter()
        .filter_map(|address| parse_ip_sloppy(address.text()))
        .collect();
    if all.len() > 1 {
        let both = parsed.iter().any(IpAddr::is_ipv4) && parsed.iter().any(IpAddr::is_ipv6);
        list.ensure(both, "may specify no more than one IP for each IP family");
    }
    let wanted = spec.value.list("ipFamilies");
    for (index, (address, parsed)) in all.iter().zip(parsed).enumerate().take(wanted.len()) {
        let is = if parsed.is_ipv4() { "IPv4" } else { "IPv6" };
        if let Some(family) = wanted[index]
            .as_str()
            .filter(|family| FAMILIES.contains(family) && *family != is)
        {
            address.invalid(format!(
                "expected an {family} value as indicated by `ipFamilies[{index}]`"
            ));
        }
    }
}

fn families(spec: &At) {
    let mut seen = BTreeSet::new();
    for family in spec.items("ipFamilies") {
        family.one_of(&FAMILIES);
        family.unique(&mut seen);
    }
    let policy = spec.get("ipFamilyPolicy");
    if policy.is_set() {
        policy.one_of(&["PreferDualStack", "RequireDualStack", "SingleStack"]);
    }
}

fn external_ips(spec: &At, old: &Value) {
    let old: Vec<&str> = old.texts("externalIPs").collect();
    for address in spec.items("externalIPs") {
        let errors = ip_legacy(&address.path, address.text(), true, &old);
        match errors.is_empty() {
            true => endpoint_address(&address),
            false => address.extend(errors),
        }
    }
}

/// An address that traffic can be sent to from elsewhere.
pub fn endpoint_address(address: &At) {
    let Some(parsed) = parse_ip_sloppy(address.text()) else {
        return address.invalid("must be a valid IP address");
    };
    let link_local = match parsed {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0) == 0xfe80,
    };
    let link_local_multicast = match parsed {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => (v6.segments()[0] & 0xff0f) == 0xff02,
    };
    if parsed.is_unspecified() {
        address.invalid(format!("may not be unspecified ({})", address.text()));
    }
    if parsed.is_loopback() {
        address.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        address.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        address.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn source_ranges(service: &At, old: &Value) {
    let spec = service.get("spec");
    let balanced = spec.value.text("type") == "LoadBalancer";
    let list = spec.get("loadBalancerSourceRanges");
    // The capital letter is upstream's.
    let path = spec.path.child("LoadBalancerSourceRanges");
    let shown = list.elsewhere(path.clone(), list.value);
    if !list.is_empty() {
        if !balanced {
            shown.forbidden(ONLY_LOAD_BALANCER);
        }
        let old: Vec<&str> = old.texts("spec.loadBalancerSourceRanges").map(str::trim).collect();
        for (index, range) in spec.value.texts("loadBalancerSourceRanges").enumerate() {
            shown.extend(cidr_legacy(&path.index(index), range.trim(), true, &old));
        }
        return;
    }
    let Some(ranges) = api::meta::annotation(service.value, RANGES_ANNOTATION) else {
        return;
    };
    let path = Path::new("metadata").child("annotations").key(RANGES_ANNOTATION);
    let shown = list.elsewhere(path.clone(), list.value);
    if !balanced {
        shown.forbidden(ONLY_LOAD_BALANCER);
    }
    if api::meta::annotation(old, RANGES_ANNOTATION) != Some(ranges) {
        for range in ranges.split(',').map(str::trim).filter(|_| !ranges.trim().is_empty()) {
            shown.extend(cidr_legacy(&path, range, true, &[]));
        }
    }
}

fn load_balancer(spec: &At) {
    let balanced = spec.value.text("type") == "LoadBalancer";
    let (allocate, class) = (spec.get("allocateLoadBalancerNodePorts"), spec.get("loadBalancerClass"));
    if !balanced {
        allocate.forbidden_when_set(ONLY_LOAD_BALANCER);
        class.forbidden_when_set(ONLY_LOAD_BALANCER);
        return;
    }
    if !allocate.is_set() {
        // Upstream leaves `spec` out of this path.
        let path = Path::new("allocateLoadBalancerNodePorts");
        allocate.elsewhere(path, allocate.value).missing("");
    }
    if class.is_set() {
        class.check(qualified_name(class.text()));
    }
}

fn policies(spec: &At) {
    let external = spec.get("externalTrafficPolicy");
    match has_external_policy(spec.value) {
        true => external.required_one_of(&["Cluster", "Local"]),
        false if !external.is_empty() => external.invalid("may only be set for externally-accessible services"),
        false => {}
    }
    let health = spec.get("healthCheckNodePort");
    match (needs_health_check(spec.value), health.number().unwrap_or(0)) {
        (true, 0) => health.missing(""),
        (true, _) => health.port_number(),
        (false, 0) => {}
        (false, _) => {
            health.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
        }
    }
    let internal = spec.get("internalTrafficPolicy");
    if internal.is_set() {
        internal.one_of(&["Cluster", "Local"]);
    } else if needs_cluster_ip(spec.value) {
        internal.missing("");
    }
    let distribution = spec.get("trafficDistribution");
    if distribution.is_set() {
        distribution.one_of(&["PreferClose", "PreferSameZone", "PreferSameNode"]);
    }
}

/// What must not change.
pub fn update(service: &At, old: &Value) {
    let spec = service.get("spec");
    let old = old.at("spec");
    let external = |spec: &Value| spec.text("type") == "ExternalName";
    if !external(spec.value) && !external(old) {
        addresses_stay(&spec, old);
        families_stay(&spec, old);
    }
    let balanced = |spec: &Value| spec.text("type") == "LoadBalancer";
    let class = spec.get("loadBalancerClass");
    if balanced(spec.value) && balanced(old) {
        let same = class.value == old.at("loadBalancerClass");
        class.ensure(same, "may not change once set");
    }
    let health = spec.get("healthCheckNodePort");
    if needs_health_check(spec.value) && needs_health_check(old) && health.value != old.at("healthCheckNodePort") {
        health.forbidden("field is immutable");
    }
}

/// The primary address is for life; a second one may come and go.
fn addresses_stay(spec: &At, old: &Value) {
    if is_headless(spec.value) && is_headless(old) {
        return;
    }
    stays(
        spec,
        old,
        "clusterIPs",
        "primary clusterIP can not be unset",
        "clusterIP",
    );
}

fn families_stay(spec: &At, old: &Value) {
    if is_headless(spec.value) || is_headless(old) {
        return;
    }
    stays(spec, old, "ipFamilies", "primary ipFamily can not be unset", "ipFamily");
}

fn stays(spec: &At, old: &Value, field: &str, unset: &str, what: &str) {
    let list = spec.get(field);
    let (new, old) = (spec.value.list(field), old.list(field));
    let at = |index: usize| list.elsewhere(list.path.index(index), list.value);
    if new.len() == old.len() {
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            // Upstream names the first family whichever differs.
            let index = if field == "ipFamilies" { 0 } else { index };
            at(index).ensure(new == old, "may not change once set");
        }
        return;
    }
    if new.len() < old.len() && spec.value.list("clusterIPs").is_empty() {
        at(0).invalid(unset);
    }
    if let (Some(new), Some(old)) = (new.first(), old.first()) {
        at(0).ensure(new == old, "may not change once set");
    }
    let policy = spec.get("ipFamilyPolicy");
    if new.len() == 1 && old.len() > 1 && policy.text() != "SingleStack" {
        policy.invalid(format!(
            "must be set to 'SingleStack' when releasing the secondary {what}"
        ));
    }
}

/// What a load balancer says of itself.
pub fn status(service: &At, old: &Value) {
    let points = service.get("status.loadBalancer.ingress");
    if service.value.text("spec.type") != "LoadBalancer" {
        if !points.is_empty() {
            points.forbidden("may only be used when `spec.type` is 'LoadBalancer'");
        }
        return;
    }
    let old: Vec<&str> = old
        .list("status.loadBalancer.ingress")
        .iter()
        .map(|point| point.text("ip"))
        .collect();
    for point in service.items("status.loadBalancer.ingress") {
        let (address, mode, name) = (point.get("ip"), point.get("ipMode"), point.get("hostname"));
        if !address.is_empty() {
            address.extend(ip_legacy(&address.path, address.text(), true, &old));
        }
        match (address.is_empty(), mode.is_set()) {
            (false, false) => mode.missing("must be specified when `ip` is set"),
            (true, true) => mode.forbidden("may not be specified when `ip` is not set"),
            (false, true) => mode.one_of(&["Proxy", "VIP"]),
            (true, false) => {}
        }
        if !name.is_empty() {
            name.check(dns1123_subdomain(name.text()));
            let address = parse_ip_sloppy(name.text()).is_some();
            name.ensure(!address, "must be a DNS name, not an IP address");
        }
    }
}
