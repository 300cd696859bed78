//! Resizing a pod in place: whether it fits, and which of its containers have to be changed how. Plain functions (D7).
//!
//! What a container was given stands in its status: that is the allocation, which outlives the kubelet. As long as a resize
//! waits, everything here goes by it and not by the definition.
//! Source: KEP-1287, `pkg/kubelet/allocation/allocation_manager.go`, `pkg/kubelet/lifecycle/predicate.go` for the texts.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity as Exact;
use client::k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use client::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use rpc::cri::LinuxContainerResources;
use serde_json::{Value, json};

use crate::config::whole;
use crate::plan::{Role, defined};

/// What can be resized.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Whether the pod's definition asks for something else than its containers were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It does not.
    #[default]
    Nothing,
    /// There is room for it.
    Fits,
    /// There is none now, and why.
    Deferred(String),
    /// The node is too small, and by what.
    Infeasible(String),
}

// === impl Outcome ===

impl Outcome {
    /// The reason and message of the condition of a resize that waits.
    pub fn pending(&self) -> Option<(&'static str, &str)> {
        match self {
            Outcome::Nothing | Outcome::Fits => None,
            Outcome::Deferred(why) => Some(("Deferred", why)),
            Outcome::Infeasible(why) => Some(("Infeasible", why)),
        }
    }
}

/// What becomes of the pod's wish, given the other pods of the node and what the node has for all.
pub fn assess(pod: &Pod, others: &[Arc<Pod>], allocatable: &BTreeMap<String, Exact>) -> Outcome {
    if !is_wanted(pod) {
        return Outcome::Nothing;
    }
    for name in RESOURCES {
        let Some(capacity) = allocatable.get(name).map(|amount| number(name, amount)) else {
            continue;
        };
        let requested = requests(pod, name);
        if requested > capacity {
            return Outcome::Infeasible(format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            ));
        }
        let used: i64 = others.iter().map(|other| requests(&allocated(other), name)).sum();
        // Less than before fits, however full the node is.
        if requested + used > capacity && requested > requests(&allocated(pod), name) {
            return Outcome::Deferred(format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            ));
        }
    }
    Outcome::Fits
}

/// The pod with what it and its containers were given in place of what its definition asks for.
pub fn allocated(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    let given: BTreeMap<String, ResourceRequirements> = statuses(&pod)
        .filter_map(|status| Some((status.name.clone(), status.resources.clone()?)))
        .collect();
    let whole = pod.status.as_ref().and_then(|status| status.resources.clone());
    if let Some(spec) = &mut pod.spec {
        for container in spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
        {
            let Some(given) = given.get(&container.name) else {
                continue;
            };
            let own = container.resources.get_or_insert_default();
            for name in RESOURCES {
                take(&mut own.requests, &given.requests, name);
                take(&mut own.limits, &given.limits, name);
            }
        }
        if let (Some(own), Some(given)) = (&mut spec.resources, whole) {
            // The status tells of resources too that the pod leaves to its containers.
            for name in RESOURCES {
                for (own, given) in [(&mut own.requests, &given.requests), (&mut own.limits, &given.limits)] {
                    if own.as_ref().is_some_and(|own| own.contains_key(name)) {
                        take(own, given, name);
                    }
                }
            }
        }
    }
    pod
}

/// The larger of two sets of limits of a pod's group, in each part; nothing where one is without limit.
pub fn wider(a: &LinuxContainerResources, b: &LinuxContainerResources) -> LinuxContainerResources {
    let larger = |a: i64, b: i64| if a == 0 || b == 0 { 0 } else { a.max(b) };
    LinuxContainerResources {
        cpu_quota: larger(a.cpu_quota, b.cpu_quota),
        cpu_period: larger(a.cpu_period, b.cpu_period),
        memory_limit_in_bytes: larger(a.memory_limit_in_bytes, b.memory_limit_in_bytes),
        ..LinuxContainerResources::default()
    }
}

/// Whether two sets of limits are the same in the kernel.
pub fn is_same(a: &LinuxContainerResources, b: &LinuxContainerResources) -> bool {
    let key = |of: &LinuxContainerResources| (of.cpu_shares, of.cpu_quota, of.cpu_period, of.memory_limit_in_bytes);
    key(a) == key(b)
}

/// Whether the container's own policy wants it started anew for such a change.
pub fn needs_restart(container: &Container, from: &LinuxContainerResources, to: &LinuxContainerResources) -> bool {
    let restarts = |name: &str| {
        let policy = container
            .resize_policy
            .iter()
            .flatten()
            .find(|own| own.resource_name == name);
        policy.is_some_and(|own| own.restart_policy == "RestartContainer")
    };
    let cpu = |of: &LinuxContainerResources| (of.cpu_shares, of.cpu_quota);
    cpu(from) != cpu(to) && restarts("cpu")
        || from.memory_limit_in_bytes != to.memory_limit_in_bytes && restarts("memory")
}

/// The summary that stands in the events. Source: `pkg/kubelet/events/resize.go` (`podResizeMessage`).
pub fn message(words: &str, pod: &Pod, error: &str) -> String {
    let list = |init: bool| -> Vec<Value> {
        let all = defined(pod);
        let own = all
            .iter()
            .filter(|d| d.role.is_init() == init && d.role != Role::Ephemeral);
        own.map(|d| json!({"name": d.container.name, "resources": d.container.resources.clone().unwrap_or_default()}))
            .collect()
    };
    let mut parts = Vec::new();
    for (field, containers) in [("initContainers", list(true)), ("containers", list(false))] {
        if !containers.is_empty() {
            parts.push(format!("\"{field}\":{}", Value::from(containers)));
        }
    }
    parts.push(format!("\"generation\":{}", pod.metadata.generation.unwrap_or(0)));
    if !error.is_empty() {
        parts.push(format!("\"error\":{}", json!(error)));
    }
    format!("{words}: {{{}}}", parts.join(","))
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status
        .flat_map(|s| [&s.container_statuses, &s.init_container_statuses])
        .flatten()
        .flatten()
}

fn is_wanted(pod: &Pod) -> bool {
    let given = allocated(pod);
    let (before, after) = (defined(&given), defined(pod));
    let mut containers = before.iter().zip(&after);
    containers.any(|(before, after)| differ(before.container.resources.as_ref(), after.container.resources.as_ref()))
        || differ(whole::own(&given), whole::own(pod))
}

fn differ(before: Option<&ResourceRequirements>, after: Option<&ResourceRequirements>) -> bool {
    let none = ResourceRequirements::default();
    let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
    RESOURCES.iter().any(|name| {
        amount(&before.requests, name) != amount(&after.requests, name)
            || amount(&before.limits, name) != amount(&after.limits, name)
    })
}

type List = Option<BTreeMap<String, Quantity>>;

fn take(own: &mut List, given: &List, name: &str) {
    match given.as_ref().and_then(|given| given.get(name)) {
        Some(amount) => drop(own.get_or_insert_default().insert(name.to_owned(), amount.clone())),
        None => {
            if let Some(own) = own {
                own.remove(name);
            }
        }
    }
}

fn amount(list: &List, name: &str) -> Option<i64> {
    let exact = Exact::parse(&list.as_ref()?.get(name)?.0).ok()?;
    Some(number(name, &exact))
}

/// CPU in thousandths, memory in bytes, as upstream's messages have it.
fn number(name: &str, amount: &Exact) -> i64 {
    match name {
        "cpu" => amount.milli_value(),
        _ => amount.value(),
    }
}

/// What a pod asks for as a whole.
fn requests(pod: &Pod, name: &str) -> i64 {
    whole::requests(pod).get(name).map_or(0, |amount| number(name, amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(wants: &str, has: &str) -> Pod {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "1Mi"}});
        let status = json!({
            "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "resources": resources(has),
        });
        serde_json::from_value(json!({
            "metadata": {"generation": 3},
            "spec": {"containers": [{"name": "a", "resources": resources(wants)}]},
            "status": {"containerStatuses": [status]},
        }))
        .unwrap()
    }

    #[test]
    fn a_wish_is_weighed_against_the_node_and_the_others() {
        let allocatable = [("cpu".to_owned(), Exact::parse("2").unwrap())].into();
        let small = "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000";
        let full = "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000";
        for (wants, has, others, expect) in [
            ("500m", "0.5", "1", Outcome::Nothing),
            ("1", "500m", "1", Outcome::Fits),
            ("1500m", "500m", "1", Outcome::Deferred(full.into())),
            ("3", "500m", "0", Outcome::Infeasible(small.into())),
            // The others take too much already: less is welcome.
            ("400m", "500m", "1900m", Outcome::Fits),
        ] {
            // What the other wants does not count, but what it has.
            let other = Arc::new(pod("7", others));
            let outcome = assess(&pod(wants, has), &[other], &allocatable);
            assert_eq!(outcome, expect, "{wants} {has} {others}");
        }
    }

    #[test]
    fn what_was_given_counts_while_a_wish_waits() {
        let given = allocated(&pod("2", "1"));
        let resources = given.spec.unwrap().containers[0].resources.clone().unwrap();
        assert_eq!(resources.requests.unwrap()["cpu"].0, "1");
    }

    #[test]
    fn a_whole_pod_may_be_resized() {
        let pod = |wants: Value, has: Value| -> Pod {
            let spec = json!({"containers": [{"name": "a"}], "resources": wants});
            serde_json::from_value(json!({"spec": spec, "status": {"resources": has}})).unwrap()
        };
        let allocatable = [("cpu".to_owned(), Exact::parse("2").unwrap())].into();
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        // What the pod leaves to its containers is none of its wishes.
        let more = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}});
        for (wants, has, expect) in [
            (cpu("1"), cpu("1"), Outcome::Nothing),
            (cpu("1"), more, Outcome::Nothing),
            (cpu("1500m"), cpu("1"), Outcome::Fits),
            (
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}),
                cpu("1"),
                Outcome::Fits,
            ),
            (cpu("1"), json!(null), Outcome::Nothing),
        ] {
            let outcome = assess(&pod(wants.clone(), has.clone()), &[], &allocatable);
            assert_eq!(outcome, expect, "{wants} {has}");
        }
    }

    #[test]
    fn the_containers_policy_decides() {
        let container: Container = serde_json::from_value(json!({"name": "a", "resizePolicy": [
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"},
        ]}))
        .unwrap();
        let of = |cpu_shares, memory_limit_in_bytes| LinuxContainerResources {
            cpu_shares,
            memory_limit_in_bytes,
            ..LinuxContainerResources::default()
        };
        assert!(!needs_restart(&container, &of(1, 1), &of(2, 1)));
        assert!(needs_restart(&container, &of(1, 1), &of(1, 2)));
        assert!(is_same(&of(1, 1), &of(1, 1)) && !is_same(&of(1, 1), &of(1, 2)));
    }

    #[test]
    fn events_sum_up() {
        assert_eq!(
            message("Pod resize started", &pod("2", "1"), ""),
            "Pod resize started: {\"containers\":[{\"name\":\"a\",\"resources\":{\"requests\":{\"cpu\":\"2\",\
             \"memory\":\"1Mi\"}}}],\"generation\":3}"
        );
    }
}
