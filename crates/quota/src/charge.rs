//! What one object takes of the resources that quotas limit.
//!
//! Sources: the evaluators of `pkg/quota/v1/evaluator/core`.

use std::collections::BTreeMap;

use api::quantity::{Format, Quantity};
use api::{GroupResource, Value};
use jiff::{SignedDuration, Timestamp};

use crate::amounts::{self, Amounts, List};
use crate::names::{DEVICE_CLASS, STORAGE_CLASS, count_name, is_extended_resource};
use crate::scopes::Scopes;

/// Devices that a request for all of them may be given. Source: `resource.AllocationResultsMaxSize`.
const DEVICES_MAX: i64 = 32;
/// The storage class of a claim from before there was a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// An object as quotas see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Charge {
    /// What it takes.
    pub usage: Amounts,
    /// The scopes it is in.
    pub scopes: Scopes,
    /// From then on it only counts as an object: a pod that should be gone is not to keep others from starting.
    pub ends: Option<Timestamp>,
}

impl Charge {
    /// Measures an object of a resource.
    pub fn of(resource: &GroupResource, object: &Value) -> Charge {
        let mut usage = Amounts::from([(count_name(resource), number(1))]);
        let mut ends = None;
        match (&*resource.group, &*resource.resource) {
            // What has ended takes nothing any more, but is still there.
            ("", "pods") if !matches!(object["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) => {
                pod(object, &mut usage);
                ends = end_of(object);
            }
            ("", "services") => service(object, &mut usage),
            ("", "persistentvolumeclaims") => claim(object, &mut usage),
            ("resource.k8s.io", "resourceclaims") => devices(object, &mut usage),
            ("", plural @ ("configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets")) => {
                usage.insert(plural.to_owned(), number(1));
            }
            _ => {}
        }
        Charge {
            usage,
            scopes: Scopes::of(resource, object),
            ends,
        }
    }

    /// What it takes at a time.
    pub fn at(&self, resource: &GroupResource, now: Timestamp) -> Amounts {
        if self.ends.is_some_and(|ends| now > ends) {
            return Amounts::from([(count_name(resource), number(1))]);
        }
        self.usage.clone()
    }
}

fn number(value: i64) -> Quantity {
    Quantity::new(value, Format::DecimalSi)
}

/// The end of a pod that is being deleted, and its grace once more. Source: `QuotaV1Pod`.
fn end_of(pod: &Value) -> Option<Timestamp> {
    let deleted: Timestamp = pod["metadata"]["deletionTimestamp"].as_str()?.parse().ok()?;
    let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64()?;
    deleted.checked_add(SignedDuration::from_secs(grace)).ok()
}

fn pod(pod: &Value, usage: &mut Amounts) {
    usage.insert("pods".into(), number(1));
    usage.extend(of_lists(
        &with_overhead(pod, List::Requests),
        &with_overhead(pod, List::Limits),
    ));
}

/// The amounts of a pod with what its runtime class adds; of limits only where there is one.
fn with_overhead(pod: &Value, list: List) -> Amounts {
    let mut total = amounts::of_pod(pod, list);
    let mut overhead = amounts::amounts(&pod["spec"]["overhead"]);
    if list == List::Limits {
        overhead.retain(|name, _| total.get(name).is_some_and(|amount| !amount.is_zero()));
    }
    amounts::add(&mut total, &overhead);
    total
}

/// Requests and limits under the names that quotas have for them.
pub(crate) fn of_lists(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::new();
    for (name, amount) in requests {
        let plain = matches!(&**name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if plain {
            usage.insert(name.clone(), amount.clone());
        }
        if plain || is_extended_resource(name) {
            usage.insert(format!("requests.{name}"), amount.clone());
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            usage.insert(format!("limits.{name}"), amount.clone());
        }
    }
    usage
}

/// Node ports are counted by what is asked for: they are not given yet.
fn service(service: &Value, usage: &mut Amounts) {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let explicit = |port: &&Value| port["nodePort"].as_i64().is_some_and(|port| port != 0);
    let (node_ports, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => {
            (ports.iter().filter(explicit).count(), 1)
        }
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    usage.insert("services".into(), number(1));
    usage.insert("services.loadbalancers".into(), number(balancers));
    let node_ports = i64::try_from(node_ports).unwrap_or(i64::MAX);
    usage.insert("services.nodeports".into(), number(node_ports));
}

fn claim(claim: &Value, usage: &mut Amounts) {
    let annotated = claim["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    let class = annotated.or(claim["spec"]["storageClassName"].as_str()).unwrap_or("");
    let mut take = |name: &str, amount: Quantity| {
        if !class.is_empty() {
            usage.insert(format!("{class}{STORAGE_CLASS}{name}"), amount.clone());
        }
        usage.insert(name.to_owned(), amount);
    };
    take("persistentvolumeclaims", number(1));
    let storage = |list: &Value| amounts::amounts(list).remove("storage");
    if let Some(mut requested) = storage(&claim["spec"]["resources"]["requests"]) {
        if let Some(allocated) = storage(&claim["status"]["allocatedResources"])
            && allocated > requested
        {
            requested = allocated;
        }
        // Whole bytes, or the quota's own status would not be valid.
        requested.round_up(0);
        take("requests.storage", requested);
    }
}

/// Devices by their class; of alternatives the most of each class.
fn devices(claim: &Value, usage: &mut Amounts) {
    let count = |request: &Value| match request["allocationMode"].as_str() {
        Some("All") => DEVICES_MAX,
        _ => request["count"].as_i64().unwrap_or(1),
    };
    let class = |request: &Value| request["deviceClassName"].as_str().unwrap_or("").to_owned();
    let mut total: BTreeMap<String, i64> = BTreeMap::new();
    for request in claim["spec"]["devices"]["requests"].as_array().into_iter().flatten() {
        let mut most: BTreeMap<String, i64> = BTreeMap::new();
        let exactly = Some(&request["exactly"]).filter(|exactly| exactly.is_object());
        let alternatives = request["firstAvailable"].as_array().into_iter().flatten();
        for one in exactly.into_iter().chain(alternatives) {
            let of_class = most.entry(class(one)).or_default();
            *of_class = count(one).max(*of_class);
        }
        for (class, count) in most {
            let of_class = total.entry(class).or_default();
            *of_class = of_class.saturating_add(count);
        }
    }
    usage.extend(
        total
            .into_iter()
            .map(|(class, count)| (format!("{class}{DEVICE_CLASS}"), number(count))),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(resource: &str, object: Value, expect: Value) {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let resource = GroupResource {
            group: group.into(),
            resource: plural.into(),
        };
        let usage = Charge::of(&resource, &object).usage;
        assert_eq!(usage, amounts::amounts(&expect), "{object}");
    }

    #[test]
    fn pods_take_what_they_ask_for() {
        let spec = json!({"overhead": {"cpu": "100m", "memory": "1Mi"}, "containers": [{"resources": {
            "requests": {"cpu": "1", "hugepages-2Mi": "4Mi", "example.com/gpu": "2", "x.kubernetes.io/y": "1",
                "deviceclass.resource.kubernetes.io/tpu": "3"},
            "limits": {"cpu": "2", "example.com/gpu": "2"}}}]});
        check(
            "pods",
            json!({"spec": spec}),
            json!({"count/pods": "1", "pods": "1", "cpu": "1100m", "requests.cpu": "1100m", "limits.cpu": "2100m",
                "memory": "1Mi", "requests.memory": "1Mi", "hugepages-2Mi": "4Mi", "requests.hugepages-2Mi": "4Mi",
                "requests.example.com/gpu": "2", "requests.deviceclass.resource.kubernetes.io/tpu": "3"}),
        );
        check(
            "pods",
            json!({"spec": spec, "status": {"phase": "Succeeded"}}),
            json!({"count/pods": "1"}),
        );
    }

    #[test]
    fn a_pod_that_should_be_gone_takes_nothing() {
        let resource = GroupResource {
            group: String::new(),
            resource: "pods".into(),
        };
        let pod = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}});
        let charge = Charge::of(&resource, &pod);
        let at = |text: &str| charge.at(&resource, text.parse().unwrap()).contains_key("pods");
        assert!(at("2026-01-01T00:00:30Z"));
        assert!(!at("2026-01-01T00:00:31Z"));
    }

    #[test]
    fn services_claims_and_devices_have_their_own_units() {
        let ports = json!([{"port": 1, "nodePort": 30000}, {"port": 2}]);
        for (kind, allocate, node_ports, balancers) in [
            ("ClusterIP", true, "0", "0"),
            ("NodePort", true, "2", "0"),
            ("LoadBalancer", true, "2", "1"),
            ("LoadBalancer", false, "1", "1"),
        ] {
            check(
                "services",
                json!({"spec": {"type": kind, "ports": ports, "allocateLoadBalancerNodePorts": allocate}}),
                json!({"count/services": "1", "services": "1", "services.nodeports": node_ports,
                    "services.loadbalancers": balancers}),
            );
        }
        check(
            "persistentvolumeclaims",
            json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
                "status": {"allocatedResources": {"storage": "2Gi"}}}),
            json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2Gi",
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
                "gold.storageclass.storage.k8s.io/requests.storage": "2Gi"}),
        );
        check(
            "resourceclaims.resource.k8s.io",
            json!({"spec": {"devices": {"requests": [
                {"exactly": {"deviceClassName": "gpu", "count": 2}},
                {"firstAvailable": [{"deviceClassName": "gpu"}, {"deviceClassName": "tpu", "allocationMode": "All"}]}]}}}),
            json!({"count/resourceclaims.resource.k8s.io": "1", "gpu.deviceclass.resource.k8s.io/devices": "3",
                "tpu.deviceclass.resource.k8s.io/devices": "32"}),
        );
        check("secrets", json!({}), json!({"count/secrets": "1", "secrets": "1"}));
        check("deployments.apps", json!({}), json!({"count/deployments.apps": "1"}));
    }
}
