//! What a user is told of a service that is accepted but hardly meant.
//!
//! Source: `pkg/api/service/warnings.go`.

use api::Value;
use api::field::Path;
use api::validation::{cidr_warnings, ip_warnings};

use crate::view::View;

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// Of a new or changed service.
pub fn of(service: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if api::meta::annotation(service, TOPOLOGY_HINTS).is_some() {
        warnings.push(format!(
            "annotation {TOPOLOGY_HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
    }
    let spec = service.at("spec");
    let (kind, address) = (spec.text("type"), spec.text("clusterIP"));
    let headless = kind == "ClusterIP" && address == "None";
    let external = !spec.list("externalIPs").is_empty();
    if kind != "ExternalName" && !matches!(address, "" | "None") {
        each(spec, "clusterIPs", ip_warnings, &mut warnings);
    }
    let mut tell = |said: bool, what: &str| {
        if said {
            warnings.push(what.into());
        }
    };
    tell(
        headless && !spec.text("loadBalancerIP").is_empty(),
        "spec.loadBalancerIP is ignored for headless services",
    );
    tell(
        headless && external,
        "spec.externalIPs is ignored for headless services",
    );
    tell(
        headless && spec.text("sessionAffinity") != "None",
        "spec.SessionAffinity is ignored for headless services",
    );
    each(spec, "externalIPs", ip_warnings, &mut warnings);
    if external && !headless && kind != "ExternalName" {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    if !spec.text("loadBalancerIP").is_empty() {
        warnings.extend(ip_warnings(
            &Path::new("spec.loadBalancerIP"),
            spec.text("loadBalancerIP"),
        ));
    }
    each(spec, "loadBalancerSourceRanges", cidr_warnings, &mut warnings);
    if kind == "ExternalName" && external {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if kind != "ExternalName" && !spec.text("externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    warnings
}

/// Of a status that somebody writes.
pub fn of_status(service: &Value) -> Vec<String> {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let points = service.list("status.loadBalancer.ingress").iter().enumerate();
    points
        .flat_map(|(index, point)| ip_warnings(&path.index(index), point.text("ip")))
        .collect()
}

fn each(spec: &Value, list: &str, rule: fn(&Path, &str) -> Vec<String>, warnings: &mut Vec<String>) {
    for (index, text) in spec.texts(list).enumerate() {
        warnings.extend(rule(&Path::new("spec").child(list).index(index), text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::yaml;

    #[test]
    fn addresses_of_a_balancer() {
        let status = "status: {loadBalancer: {ingress: [{ip: 1.2.3.4}, {ip: 1.2.3.04}, {hostname: a.b}]}}";
        let told = of_status(&yaml(status));
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("status.loadBalancer.ingress[1]: "), "{told:?}");
    }

    #[test]
    fn what_is_ignored_or_old() {
        let told = of(&yaml(
            "spec: {type: ClusterIP, clusterIP: None, externalIPs: [1.2.3.4], sessionAffinity: ClientIP, externalName: a.b,
              trafficDistribution: PreferClose}",
        ));
        assert_eq!(
            told,
            [
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ]
        );
    }
}
