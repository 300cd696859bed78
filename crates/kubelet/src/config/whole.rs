//! What a pod asks for as a whole, and the limits of its control group.
//!
//! Source: `k8s.io/component-helpers/resource/helpers.go` (`PodRequests`, `PodLimits`) and `pkg/kubelet/cm/helpers_linux.go`
//! (`ResourceConfigForPod`).
//!
//! Different from upstream: the group has limits only where the pod itself has resources (`spec.resources`). Elsewhere the
//! containers' own limits add up to the same, and our shim, which lives in the pod's group, would count against them. The
//! groups of pods weigh the same, as do those of the classes above them: a weight by requests needs both.

use std::collections::BTreeMap;

use api::quantity::Quantity as Exact;
use client::k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use rpc::cri;

use super::resources::{List, amount, cpu_quota, exact};
use crate::plan::{Role, defined};

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Exact>;

/// Requests or limits of resources.
pub(super) type Pick = fn(&ResourceRequirements) -> &List;

/// What the pod says for itself as a whole.
pub fn own(pod: &Pod) -> Option<&ResourceRequirements> {
    let own = pod.spec.as_ref()?.resources.as_ref()?;
    let is_set = [&own.requests, &own.limits]
        .iter()
        .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()));
    is_set.then_some(own)
}

/// What the pod asks for: of its containers, unless it says so itself, with what its runtime class costs.
pub fn requests(pod: &Pod) -> Amounts {
    let mut total = with_own(pod, |resources| &resources.requests);
    add(&mut total, &overhead(pod));
    total
}

/// What the pod may have at most; some containers may be without limit all the same.
pub fn limits(pod: &Pod) -> Amounts {
    let mut total = with_own(pod, |resources| &resources.limits);
    let mut overhead = overhead(pod);
    overhead.retain(|name, _| total.get(name).is_some_and(|amount| !amount.is_zero()));
    add(&mut total, &overhead);
    total
}

/// The limits that hold for the pod: those of resources that it limits itself, or that all of its containers limit.
pub fn declared_limits(pod: &Pod) -> Amounts {
    let all = defined(pod);
    let is_limited = |name: &str| {
        let limit = |resources: &Option<ResourceRequirements>| {
            let amount = resources.as_ref().and_then(|own| amount(&own.limits, name));
            amount.is_some_and(|amount| !amount.is_zero())
        };
        let whole = pod.spec.as_ref().is_some_and(|spec| limit(&spec.resources));
        let mut containers = all.iter().filter(|defined| defined.role != Role::Ephemeral);
        whole || containers.all(|defined| limit(&defined.container.resources))
    };
    let mut limits = limits(pod);
    limits.retain(|name, _| is_limited(name));
    limits
}

/// The limits of the pod's control group, where it has some.
pub fn group(pod: &Pod) -> Option<cri::LinuxContainerResources> {
    own(pod)?;
    let limits = declared_limits(pod);
    let (cpu_quota, cpu_period) = cpu_quota(limits.get("cpu").map_or(0, Exact::milli_value));
    let memory_limit_in_bytes = limits.get("memory").map_or(0, Exact::value);
    Some(cri::LinuxContainerResources {
        cpu_quota,
        cpu_period,
        memory_limit_in_bytes,
        ..cri::LinuxContainerResources::default()
    })
}

/// A limit of a container: its own, or else its pod's. An init container's is never above its pod's either: the older kind of
/// control groups would refuse it.
pub fn limit_of(pod: &Pod, container: &Container, name: &str) -> Option<Exact> {
    let own_limit = container.resources.as_ref().and_then(|own| amount(&own.limits, name));
    let whole = own(pod)
        .and_then(|own| amount(&own.limits, name))
        .filter(|amount| !amount.is_zero());
    match (own_limit.filter(|amount| !amount.is_zero()), whole) {
        (Some(own), Some(whole)) => Some(own.min(whole)),
        (own, whole) => own.or(whole),
    }
}

fn overhead(pod: &Pod) -> Amounts {
    exact(&pod.spec.as_ref().and_then(|spec| spec.overhead.clone()))
}

fn with_own(pod: &Pod, pick: Pick) -> Amounts {
    let mut total = of_containers(pod, pick);
    let own = own(pod).map(|own| exact(pick(own)));
    total.extend(own.unwrap_or_default());
    total
}

/// Of all containers that run beside each other, or what starting them takes when that is more. Sidecars run beside everything that starts
/// after them.
pub(super) fn of_containers(pod: &Pod, pick: Pick) -> Amounts {
    let (mut together, mut sidecars, mut start) = (Amounts::new(), Amounts::new(), Amounts::new());
    for defined in defined(pod) {
        let mut own = defined
            .container
            .resources
            .as_ref()
            .map(|own| exact(pick(own)))
            .unwrap_or_default();
        match defined.role {
            Role::Main => add(&mut together, &own),
            Role::Sidecar => {
                add(&mut together, &own);
                add(&mut sidecars, &own);
                raise(&mut start, &sidecars);
            }
            Role::Init => {
                add(&mut own, &sidecars);
                raise(&mut start, &own);
            }
            Role::Ephemeral => {}
        }
    }
    raise(&mut together, &start);
    together
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match total.get_mut(name) {
            Some(sum) => sum.add(amount),
            None => drop(total.insert(name.clone(), amount.clone())),
        }
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        if total.get(name).is_none_or(|own| own < amount) {
            total.insert(name.clone(), amount.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap()
    }

    fn words(amounts: &Amounts) -> String {
        let words = amounts.iter().map(|(name, amount)| format!("{name}={amount}"));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_pod_may_speak_for_itself() {
        let asks = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        for (spec, expect) in [
            (json!({"containers": [asks("1"), asks("500m")]}), "cpu=1500m"),
            (
                json!({"containers": [asks("1")], "initContainers": [sidecar, asks("2")]}),
                "cpu=3",
            ),
            (
                json!({"containers": [asks("1")], "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}),
                "cpu=2 memory=1Gi",
            ),
            (json!({"containers": [asks("1")], "overhead": {"cpu": "1"}}), "cpu=2"),
        ] {
            assert_eq!(words(&requests(&pod(spec.clone()))), expect, "{spec}");
        }
    }

    #[test]
    fn limits_hold_when_all_have_some() {
        let limited = json!({"name": "c", "resources": {"limits": {"cpu": "1"}}});
        let free = json!({"name": "d"});
        for (spec, declared) in [
            (json!({"containers": [limited]}), "cpu=1"),
            (json!({"containers": [limited, free]}), ""),
            (
                json!({"containers": [limited, free], "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}),
                "cpu=2 memory=1Gi",
            ),
        ] {
            assert_eq!(words(&declared_limits(&pod(spec.clone()))), declared, "{spec}");
        }
    }

    #[test]
    fn a_group_has_the_pods_limits() {
        let limited = json!({"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}});
        for (spec, expect) in [
            (json!({"containers": [limited]}), None),
            (
                json!({"containers": [{"name": "c"}], "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}),
                Some((200_000, 0)),
            ),
            (
                json!({"containers": [limited], "resources": {"limits": {"memory": "2Gi"}}}),
                Some((100_000, 2 << 30)),
            ),
            (
                json!({"containers": [{"name": "c"}], "resources": {"requests": {"cpu": "1"}}}),
                Some((0, 0)),
            ),
        ] {
            let group = group(&pod(spec.clone()));
            let got = group.map(|group| (group.cpu_quota, group.memory_limit_in_bytes));
            assert_eq!(got, expect, "{spec}");
        }
    }

    #[test]
    fn a_container_without_limit_has_its_pods() {
        let pod = pod(json!({
            "containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "3"}}}],
            "resources": {"limits": {"cpu": "2"}},
        }));
        let of = |name: &str| {
            let all = defined(&pod);
            let found = all.iter().find(|d| d.container.name == name).unwrap();
            limit_of(&pod, &found.container, "cpu").map(|limit| limit.to_string())
        };
        assert_eq!(
            (of("a"), of("b"), of("i")),
            (Some("2".into()), Some("1".into()), Some("2".into()))
        );
    }
}
