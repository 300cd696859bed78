//! The slices a service should have, against those it has. Pure.
//!
//! Source of the rules: `staging/src/k8s.io/endpointslice/reconciler.go`. Slices keep the endpoints they have; what is new
//! fills the fullest slices first, so that a change touches as few slices as possible.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::Value;
use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use client::{Meta, resources};
use jiff::Timestamp;
use serde_json::{Map, json};

use crate::backends::{Family, LAST_CHANGE, MANAGED_BY, SERVICE_NAME, Service, counts, hostname, target_port};
use crate::owners::controller_reference;
use crate::pods::is_ready;
use crate::views::Pod;

/// Endpoints of one slice. Source: the default of `--max-endpoints-per-slice`.
pub(super) const ENDPOINTS_MAX: usize = 100;
/// This controller.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Create(Value),
    Edit { name: String, edit: Value },
    Delete { name: String, uid: String },
}

// === impl Action ===

impl Action {
    /// The same, telling what made it necessary; without anything the annotation goes.
    pub(super) fn with_trigger(mut self, trigger: Option<Timestamp>) -> Action {
        let text = trigger.map(|at| at.to_string());
        match &mut self {
            Action::Create(body) => {
                if let Some(text) = text {
                    body["metadata"]["annotations"][LAST_CHANGE] = text.into();
                }
            }
            Action::Edit { edit, .. } => edit["metadata"]["annotations"][LAST_CHANGE] = text.into(),
            Action::Delete { .. } => {}
        }
        self
    }
}

/// Compares wish and slices. `zone` tells the zone of a node.
pub(super) fn decide(
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    zone: impl Fn(&str) -> Option<String>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let families = service.families();
    for slice in slices
        .iter()
        .filter(|slice| !families.iter().any(|family| family.as_str() == slice.address_type))
    {
        actions.push(delete(slice));
    }
    for family in families {
        let existing: Vec<&EndpointSlice> = slices
            .iter()
            .map(|slice| &**slice)
            .filter(|slice| slice.address_type == family.as_str())
            .collect();
        actions.extend(reconcile(
            service,
            family,
            wanted(service, pods, family, &zone),
            &existing,
        ));
    }
    actions
}

/// Endpoints by the ports they have (pods may have different numbers for a named port).
type ByPorts = BTreeMap<String, (Value, Vec<Value>)>;

fn wanted(service: &Service, pods: &[Arc<Pod>], family: Family, zone: &impl Fn(&str) -> Option<String>) -> ByPorts {
    let mut wanted = ByPorts::new();
    for pod in pods.iter().filter(|pod| counts(pod, true)) {
        let Some(address) = family.address(pod) else { continue };
        let ports = Value::Array(
            service
                .spec
                .ports
                .iter()
                .filter_map(|port| {
                    let number = target_port(pod, port)?;
                    let mut value = json!({"name": port.name, "port": number, "protocol": protocol(&port.protocol)});
                    if let Some(app_protocol) = &port.app_protocol {
                        value["appProtocol"] = app_protocol.as_str().into();
                    }
                    Some(value)
                })
                .collect(),
        );
        let serving = is_ready(pod);
        let terminating = pod.metadata.is_deleting();
        let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
        let mut endpoint = json!({
            "addresses": [address],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "targetRef": {
                "kind": "Pod", "namespace": pod.metadata.namespace(), "name": pod.metadata.name(), "uid": pod.metadata.uid(),
            },
        });
        if !pod.spec.node_name.is_empty() {
            endpoint["nodeName"] = pod.spec.node_name.as_str().into();
            if let Some(zone) = zone(&pod.spec.node_name) {
                endpoint["zone"] = zone.into();
            }
        }
        if let Some(hostname) = hostname(service, pod) {
            endpoint["hostname"] = hostname.into();
        }
        if let Some(hints) = hints(service, &endpoint) {
            endpoint["hints"] = hints;
        }
        wanted
            .entry(ports.to_string())
            .or_insert_with(|| (ports, Vec::new()))
            .1
            .push(endpoint);
    }
    wanted
}

/// Whom a ready endpoint is for first, as the service's `trafficDistribution` asks.
/// Source: `staging/src/k8s.io/endpointslice/trafficdist`.
fn hints(service: &Service, endpoint: &Value) -> Option<Value> {
    let same_node = match service.spec.traffic_distribution.as_str() {
        "PreferSameNode" => true,
        "PreferSameZone" | "PreferClose" => false,
        _ => return None,
    };
    if endpoint["conditions"]["ready"] != true {
        return None;
    }
    let mut hints = Map::new();
    if let Some(zone) = endpoint.get("zone") {
        hints.insert("forZones".into(), json!([{"name": zone}]));
    }
    if let Some(node) = endpoint.get("nodeName").filter(|_| same_node) {
        hints.insert("forNodes".into(), json!([{"name": node}]));
    }
    (!hints.is_empty()).then_some(Value::Object(hints))
}

fn protocol(text: &str) -> &str {
    if text.is_empty() { "TCP" } else { text }
}

/// What tells two endpoints apart.
fn identity(endpoint: &Value) -> String {
    format!("{} {}", endpoint["targetRef"]["uid"], endpoint["addresses"][0])
}

fn reconcile(service: &Service, family: Family, mut wanted: ByPorts, existing: &[&EndpointSlice]) -> Vec<Action> {
    let labels = labels(service);
    let mut actions = Vec::new();
    let mut empty_slices: Vec<&EndpointSlice> = Vec::new();
    let mut by_ports: BTreeMap<String, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in existing.iter().filter(|slice| !slice.metadata.is_deleting()) {
        let key = ports_of(slice).to_string();
        if wanted.contains_key(&key) {
            by_ports.entry(key).or_default().push(slice)
        } else {
            empty_slices.push(slice)
        }
    }
    if wanted.is_empty() {
        // A service without endpoints keeps one empty slice, so that readers tell "none" from "not yet".
        let ports = Value::Array(Vec::new());
        match empty_slices.iter().position(|slice| ports_of(slice) == ports) {
            Some(at) => actions.extend(edit(empty_slices.remove(at), &labels, &[], None)),
            None => match empty_slices.pop() {
                Some(slice) => actions.extend(edit(slice, &labels, &[], Some(&ports))),
                None => actions.push(create(service, family, &labels, &ports, &[])),
            },
        }
    }
    for (key, (ports, endpoints)) in std::mem::take(&mut wanted) {
        let slices = by_ports.remove(&key).unwrap_or_default();
        actions.extend(fill(
            service,
            family,
            &labels,
            &ports,
            endpoints,
            slices,
            &mut empty_slices,
        ));
    }
    actions.extend(empty_slices.into_iter().map(delete));
    actions
}

/// Distributes the endpoints of one set of ports over its slices.
fn fill(
    service: &Service,
    family: Family,
    labels: &Map<String, Value>,
    ports: &Value,
    endpoints: Vec<Value>,
    slices: Vec<&EndpointSlice>,
    spare: &mut Vec<&EndpointSlice>,
) -> Vec<Action> {
    let order: Vec<String> = endpoints.iter().map(identity).collect();
    let mut left: HashMap<String, Value> = order.iter().cloned().zip(endpoints).collect();
    let mut plans: Vec<(&EndpointSlice, Vec<Value>)> = Vec::new();
    for slice in slices {
        let have = endpoints_of(slice);
        let kept: Vec<Value> = have
            .iter()
            .filter_map(|endpoint| left.remove(&identity(endpoint)))
            .collect();
        plans.push((slice, kept));
    }
    let mut new: Vec<Value> = order.into_iter().filter_map(|key| left.remove(&key)).collect();
    // The fullest slices with room first: they are changed, the others are left alone.
    let mut by_fill: Vec<usize> = (0..plans.len()).collect();
    by_fill.sort_by_key(|at| {
        let changed = endpoints_of(plans[*at].0).len() != plans[*at].1.len();
        (!changed, std::cmp::Reverse(plans[*at].1.len()))
    });
    for at in by_fill {
        let room = ENDPOINTS_MAX.saturating_sub(plans[at].1.len()).min(new.len());
        plans[at].1.extend(new.drain(..room));
    }
    let mut actions = Vec::new();
    let any_kept = plans.iter().any(|(_, endpoints)| !endpoints.is_empty()) || !new.is_empty();
    for (slice, endpoints) in plans {
        if endpoints.is_empty() && any_kept {
            actions.push(delete(slice));
        } else {
            actions.extend(edit(slice, labels, &endpoints, None));
        }
    }
    for chunk in new.chunks(ENDPOINTS_MAX) {
        match spare.pop() {
            Some(slice) => actions.extend(edit(slice, labels, chunk, Some(ports))),
            None => actions.push(create(service, family, labels, ports, chunk)),
        }
    }
    actions
}

fn endpoints_of(slice: &EndpointSlice) -> Vec<Value> {
    slice
        .endpoints
        .iter()
        .flatten()
        .map(|one| serde_json::to_value(one).expect("invariant: an endpoint is a tree"))
        .collect()
}

/// The slice's ports in the form they are made in here.
fn ports_of(slice: &EndpointSlice) -> Value {
    let ports = slice.ports.iter().flatten().map(|port| {
        let mut value = json!({
            "name": port.name.as_deref().unwrap_or(""), "port": port.port, "protocol": port.protocol.as_deref().unwrap_or("TCP"),
        });
        if let Some(app_protocol) = &port.app_protocol {
            value["appProtocol"] = app_protocol.as_str().into();
        }
        value
    });
    Value::Array(ports.collect())
}

/// The service's labels, and what says whose the slice is.
fn labels(service: &Service) -> Map<String, Value> {
    let own = service.metadata.labels.iter().flatten();
    let reserved = [SERVICE_NAME, MANAGED_BY, HEADLESS];
    let mut labels: Map<String, Value> = own
        .filter(|(key, _)| !reserved.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    labels.insert(SERVICE_NAME.into(), service.metadata.name().into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.is_headless() {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels
}

fn create(
    service: &Service,
    family: Family,
    labels: &Map<String, Value>,
    ports: &Value,
    endpoints: &[Value],
) -> Action {
    let name = service.metadata.name();
    Action::Create(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{name}-"), "namespace": service.metadata.namespace(), "labels": labels,
            "ownerReferences": [controller_reference(&resources::SERVICES, &service.metadata)],
        },
        "addressType": family.as_str(), "endpoints": endpoints, "ports": ports,
    }))
}

fn delete(slice: &EndpointSlice) -> Action {
    Action::Delete {
        name: slice.metadata.name().into(),
        uid: slice.metadata.uid().into(),
    }
}

/// The edit of a slice, when it differs.
fn edit(
    slice: &EndpointSlice,
    labels: &Map<String, Value>,
    endpoints: &[Value],
    ports: Option<&Value>,
) -> Option<Action> {
    let mut edit = json!({});
    if endpoints_of(slice) != endpoints {
        edit["endpoints"] = endpoints.into();
    }
    if let Some(ports) = ports.filter(|ports| **ports != ports_of(slice)) {
        edit["ports"] = ports.clone();
    }
    let current = slice.metadata.labels.clone().unwrap_or_default();
    let mut changed: Map<String, Value> = labels
        .iter()
        .filter(|(key, value)| current.get(*key).map(String::as_str) != value.as_str())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for gone in current.keys().filter(|key| !labels.contains_key(*key)) {
        changed.insert(gone.clone(), Value::Null);
    }
    if !changed.is_empty() {
        edit["metadata"]["labels"] = Value::Object(changed);
    }
    if edit == json!({}) {
        return None;
    }
    edit["metadata"]["resourceVersion"] = slice.metadata.resource_version().into();
    Some(Action::Edit {
        name: slice.metadata.name().into(),
        edit,
    })
}
