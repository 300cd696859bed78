//! Defaults and what happens around a write of a service. Addresses and node ports are allocated by the API server,
//! between `prepare_*` and `validate_*`.
//!
//! Source: `SetDefaults_Service`, `pkg/registry/core/service/strategy.go` and `pkg/registry/core/service/storage`.

use api::Value;
use api::field::ErrorList;
use serde_json::json;

use super::validation;
use crate::check::Report;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

/// How long a client sticks to an endpoint when nothing is said: three hours.
const AFFINITY_SECONDS_DEFAULT: i64 = 10_800;

/// Services.
pub struct Services;

impl Strategy for Services {
    fn default(&self, object: &mut Value) {
        object.object("spec");
        let spec = &mut object["spec"];
        spec.put_default("type", "ClusterIP");
        affinity(spec);
        for port in spec.elements("ports") {
            port.put_default("protocol", "TCP");
            let unset = match port.at("targetPort") {
                Value::Null => true,
                Value::String(name) => name.is_empty(),
                number => number == 0,
            };
            if unset {
                port.put("targetPort", port.count("port"));
            }
        }
        if has_external_policy(spec) {
            spec.put_default("externalTrafficPolicy", "Cluster");
        }
        if needs_cluster_ip(spec) {
            spec.put_default("internalTrafficPolicy", "Cluster");
        }
        if spec.text("type") == "LoadBalancer" {
            spec.put_default("allocateLoadBalancerNodePorts", true);
            for point in object.elements("status.loadBalancer.ingress") {
                if !point.text("ip").is_empty() {
                    point.put_default("ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({"loadBalancer": {}}));
        let address = object.text("spec.clusterIP").to_string();
        if !address.is_empty() && object.list("spec.clusterIPs").is_empty() {
            object["spec"].put("clusterIPs", json!([address]));
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        if context.subresource == "status" {
            return;
        }
        object.object("spec");
        let old_spec = old.at("spec");
        follow_cluster_ip(&mut object["spec"], old_spec);
        keep_allocated(&mut object["spec"], old_spec);
        drop_by_type(&mut object["spec"], old_spec);
        if object.text("spec.type") != "LoadBalancer" {
            object.put(
                "status",
                json!({"loadBalancer": {}, "conditions": object.at("status.conditions")}),
            );
            if !object.has("status.conditions") {
                object.cut("status.conditions");
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validation::service(&object, &Value::Null))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => validation::status(&object, old),
            _ => {
                validation::update(&object, old);
                validation::service(&object, old);
            }
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        match context.subresource {
            "" => super::warnings::of(object),
            _ => super::warnings::of_status(object),
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn affinity(spec: &mut Value) {
    spec.put_default("sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => drop(spec.cut("sessionAffinityConfig")),
        "ClientIP" if !spec.has("sessionAffinityConfig.clientIP.timeoutSeconds") => {
            let config = json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS_DEFAULT}});
            spec.put("sessionAffinityConfig", config);
        }
        _ => {}
    }
}

/// Whether a service has addresses of its own; all but names of something outside have.
pub fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(spec.text("type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_ports(spec: &Value) -> bool {
    match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.boolean("allocateLoadBalancerNodePorts").unwrap_or(true),
        _ => false,
    }
}

/// Whether the load balancer asks nodes for their health on a port of its own.
pub fn needs_health_check(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

/// Whether a service can be reached from outside of the cluster.
pub fn has_external_policy(spec: &Value) -> bool {
    match spec.text("type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !spec.list("externalIPs").is_empty(),
        _ => false,
    }
}

/// `clusterIP` and the first of `clusterIPs` are one fact; clients that know only the old field change both with it.
fn follow_cluster_ip(spec: &mut Value, old: &Value) {
    let (new, before) = (spec.text("clusterIP").to_string(), old.text("clusterIP"));
    if new == before || spec.list("clusterIPs") != old.list("clusterIPs") {
        return;
    }
    match new.as_str() {
        "" => drop(spec.cut("clusterIPs")),
        _ => spec.put("clusterIPs", json!([new])),
    }
}

/// What was allocated stays when a client does not repeat it.
fn keep_allocated(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        if spec.text("clusterIP").is_empty() {
            spec.copy_from(old, "clusterIP");
        }
        if spec.list("clusterIPs").is_empty() && spec.text("clusterIP") == old.text("clusterIP") {
            spec.copy_from(old, "clusterIPs");
        }
    }
    if needs_node_ports(old) && needs_node_ports(spec) {
        let used: Vec<i64> = spec.list("ports").iter().map(|port| port.count("nodePort")).collect();
        for port in spec.elements("ports").filter(|port| port.count("nodePort") == 0) {
            let same =
                |old: &&Value| old.count("port") == port.count("port") && old.text("protocol") == port.text("protocol");
            let before = old
                .list("ports")
                .iter()
                .find(same)
                .map_or(0, |old| old.count("nodePort"));
            if before != 0 && !used.contains(&before) {
                port.put("nodePort", before);
            }
        }
    }
    if needs_health_check(old) && needs_health_check(spec) && spec.count("healthCheckNodePort") == 0 {
        spec.copy_from(old, "healthCheckNodePort");
    }
}

/// When the type changes, what the old type needed goes, unless the client changed it too.
fn drop_by_type(spec: &mut Value, old: &Value) {
    type Needs = fn(&Value) -> bool;
    let fields: [(Needs, &[&str]); 5] = [
        (
            needs_cluster_ip,
            &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
        ),
        (needs_health_check, &["healthCheckNodePort"]),
        (
            |spec| spec.text("type") == "LoadBalancer",
            &["allocateLoadBalancerNodePorts"],
        ),
        (|spec| spec.text("type") == "LoadBalancer", &["loadBalancerClass"]),
        (has_external_policy, &["externalTrafficPolicy"]),
    ];
    for (needs, fields) in fields {
        let unchanged = spec.at(fields[0]) == old.at(fields[0]);
        if needs(old) && !needs(spec) && unchanged {
            for field in fields {
                spec.cut(field);
            }
        }
    }
    let ports = |spec: &Value| -> Vec<i64> { spec.list("ports").iter().map(|port| port.count("nodePort")).collect() };
    if needs_node_ports(old) && !needs_node_ports(spec) && ports(spec) == ports(old) {
        for port in spec.elements("ports") {
            port.cut("nodePort");
        }
    }
}
