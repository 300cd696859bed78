//! Requests and limits as the runtime's numbers.
//!
//! Source: `pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/qos/policy.go`.

use std::collections::BTreeMap;

use api::quantity::Quantity as Exact;
use client::k8s_openapi::api::core::v1::{Container, Pod};
use client::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use rpc::cri;

use super::{identity, whole};
use crate::plan::{Role, role_of};

/// The period of the CPU quota, in microseconds.
const CPU_PERIOD_US: i64 = 100_000;
/// The least quota the kernel takes, in microseconds.
const CPU_QUOTA_MIN_US: i64 = 1000;
/// Shares of one CPU.
const SHARES_PER_CPU: i64 = 1024;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
/// What the kernel's out-of-memory killer thinks of a pod with guarantees.
const OOM_GUARANTEED: i64 = -997;
/// And of one without any request.
const OOM_BEST_EFFORT: i64 = 1000;

/// Requests or limits, as they are written.
pub(super) type List = Option<BTreeMap<String, Quantity>>;

pub(super) fn amount(list: &List, name: &str) -> Option<Exact> {
    Exact::parse(&list.as_ref()?.get(name)?.0).ok()
}

/// All amounts of a list that can be read.
pub(super) fn exact(list: &List) -> BTreeMap<String, Exact> {
    let entries = list.iter().flatten();
    entries
        .filter_map(|(name, amount)| Some((name.clone(), Exact::parse(&amount.0).ok()?)))
        .collect()
}

/// The resources of a container. Without a limit of its own it has its pod's.
pub fn resources(pod: &Pod, container: &Container, node_memory_bytes: i64) -> cri::LinuxContainerResources {
    let none = Default::default();
    let wanted = container.resources.as_ref().unwrap_or(&none);
    let limit = |name: &str| whole::limit_of(pod, container, name);
    let limit_cpu = limit("cpu").map(|cpu| cpu.milli_value());
    // A limit alone is a request too.
    let request_cpu = amount(&wanted.requests, "cpu")
        .map(|cpu| cpu.milli_value())
        .or(limit_cpu)
        .unwrap_or(0);
    let limit_memory = limit("memory").map_or(0, |memory| memory.value());
    let mut resources = cri::LinuxContainerResources {
        cpu_shares: shares(request_cpu),
        memory_limit_in_bytes: limit_memory,
        oom_score_adj: oom_score_adj(pod, container, node_memory_bytes),
        ..cri::LinuxContainerResources::default()
    };
    (resources.cpu_quota, resources.cpu_period) = cpu_quota(limit_cpu.unwrap_or(0));
    resources
}

/// Quota and period of a limit in thousandths of a CPU; nothing of nothing.
pub(super) fn cpu_quota(milli_cpu: i64) -> (i64, i64) {
    match milli_cpu {
        1.. => ((milli_cpu * CPU_PERIOD_US / 1000).max(CPU_QUOTA_MIN_US), CPU_PERIOD_US),
        _ => (0, 0),
    }
}

fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu * SHARES_PER_CPU / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// `Guaranteed`, `Burstable` or `BestEffort`, as the API server told at creation.
pub fn qos_class(pod: &Pod) -> &str {
    let told = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    told.filter(|class| !class.is_empty())
        .unwrap_or_else(|| computed_qos_class(pod))
}

/// Source: `pkg/apis/core/v1/helper/qos/qos.go`.
fn computed_qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let containers = containers.map(|container| container.resources.as_ref());
    let (mut any, mut guaranteed) = (false, true);
    // What the pod says for itself as a whole stands for what its containers say.
    let whole = spec.resources.as_ref();
    for wanted in containers.filter(|_| whole.is_none()).chain(whole.map(Some)) {
        let none = Default::default();
        let wanted = wanted.unwrap_or(&none);
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount(&wanted.requests, name), amount(&wanted.limits, name));
            let is_set = |amount: &Option<Exact>| amount.as_ref().is_some_and(|amount| !amount.is_zero());
            any |= is_set(&request) || is_set(&limit);
            guaranteed &= is_set(&limit) && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Which container the kernel ends first when memory runs out.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    const NODE_CRITICAL: i32 = 2_000_001_000;
    match qos_class(pod) {
        _ if priority >= NODE_CRITICAL => OOM_GUARANTEED,
        "Guaranteed" => OOM_GUARANTEED,
        "BestEffort" => OOM_BEST_EFFORT,
        _ => {
            let spare = spare_memory_request(pod);
            let mut request = memory_request(container) + spare;
            if role_of(pod, &container.name) == Some(Role::Sidecar) {
                // A sidecar ends no earlier than those it serves.
                let others = pod.spec.iter().flat_map(|spec| &spec.containers);
                let least = others.map(memory_request).min().unwrap_or(0);
                request = request.max(least + spare);
            }
            let part = 1000 * i128::from(request) / i128::from(node_memory_bytes.max(1));
            i64::try_from(1000 - part)
                .unwrap_or(OOM_BEST_EFFORT - 1)
                .clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
        }
    }
}

fn memory_request(container: &Container) -> i64 {
    let own = container.resources.as_ref();
    own.and_then(|own| amount(&own.requests, "memory"))
        .map_or(0, |memory| memory.value())
}

/// What the pod as a whole asks for beyond what its containers do, for each of them, in bytes.
/// Source: `pkg/kubelet/qos/helpers.go` (`remainingPodMemReqPerContainer`).
fn spare_memory_request(pod: &Pod) -> i64 {
    let whole = whole::own(pod).and_then(|own| amount(&own.requests, "memory"));
    let Some(whole) = whole else { return 0 };
    let spec = pod.spec.iter();
    let containers = spec.map(|spec| spec.containers.len() + spec.init_containers.iter().flatten().count());
    let containers = i64::try_from(containers.sum::<usize>()).unwrap_or(i64::MAX).max(1);
    let together = whole::of_containers(pod, |resources| &resources.requests);
    (whole.value() - together.get("memory").map_or(0, Exact::value)) / containers
}

/// The control group of a pod, below the runtime's root: upstream's names for the cgroupfs driver.
pub fn cgroup_parent(root: &str, pod: &Pod) -> String {
    let (_, _, uid) = identity(pod);
    match qos_class(pod) {
        "Guaranteed" => format!("{root}/kubepods/pod{uid}"),
        class => format!("{root}/kubepods/{}/pod{uid}", class.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(resources: &[Value]) -> Pod {
        let containers: Vec<Value> = resources
            .iter()
            .enumerate()
            .map(|(n, r)| json!({"name": format!("c{n}"), "resources": r}))
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"uid": "u"}, "spec": {"containers": containers},
        }))
        .unwrap()
    }

    #[test]
    fn numbers_are_upstreams() {
        const GIB: i64 = 1 << 30;
        for (wanted, class, shares, quota, memory, oom) in [
            (json!({}), "BestEffort", 2, 0, 0, 1000),
            (
                json!({"limits": {"cpu": "500m", "memory": "1Gi"}}),
                "Guaranteed",
                512,
                50_000,
                GIB,
                -997,
            ),
            (
                json!({"requests": {"cpu": "1", "memory": "1Gi"}}),
                "Burstable",
                1024,
                0,
                0,
                750,
            ),
            (json!({"requests": {"cpu": "1m"}}), "Burstable", 2, 0, 0, 999),
            (json!({"limits": {"cpu": "1m"}}), "Burstable", 2, 1000, 0, 999),
        ] {
            let pod = pod(std::slice::from_ref(&wanted));
            let got = resources(&pod, &pod.spec.as_ref().unwrap().containers[0], 4 * GIB);
            assert_eq!(qos_class(&pod), class, "{wanted}");
            assert_eq!(
                (
                    got.cpu_shares,
                    got.cpu_quota,
                    got.memory_limit_in_bytes,
                    got.oom_score_adj
                ),
                (shares, quota, memory, oom),
                "{wanted}"
            );
        }
    }

    #[test]
    fn one_container_without_limits_takes_the_guarantee() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(qos_class(&pod(&[full.clone(), json!({})])), "Burstable");
        assert_eq!(cgroup_parent("/t", &pod(&[full])), "/t/kubepods/podu");
        assert_eq!(cgroup_parent("/t", &pod(&[json!({})])), "/t/kubepods/besteffort/podu");
    }
}
