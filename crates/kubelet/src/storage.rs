//! Whether a pod uses more of the node's disk than it may: a plain function (D7).
//!
//! Source: `pkg/kubelet/eviction/eviction_manager.go` (`localStorageEviction`) and `helpers.go` for the texts.

use std::collections::BTreeMap;

use api::quantity::Quantity as Exact;
use client::k8s_openapi::api::core::v1::{Container, Pod};
use client::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The resource.
const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// What a pod takes up, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its `emptyDir` volumes, by name.
    pub empty_dirs: BTreeMap<String, u64>,
    /// Its containers with their logs, by name.
    pub containers: BTreeMap<String, u64>,
}

/// Whether a pod has any limit, so that measuring it makes sense.
pub fn is_limited(pod: &Pod) -> bool {
    size_limits(pod).next().is_some() || containers(pod).any(|container| limit(container).is_some())
}

/// Why a pod is to be evicted, in upstream's words.
pub fn verdict(pod: &Pod, usage: &Usage) -> Option<String> {
    for (name, limit) in size_limits(pod) {
        if usage.empty_dirs.get(name).is_some_and(|used| exceeds(*used, &limit)) {
            return Some(format!(
                "Usage of EmptyDir volume {} exceeds the limit {}. ",
                api::field::quote(name),
                api::field::quote(&limit.to_string())
            ));
        }
    }
    let total: u64 = usage.containers.values().sum::<u64>() + on_disk(pod, usage);
    if let Some(limit) = pod_limit(pod).filter(|limit| exceeds(total, limit)) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    containers(pod).find_map(|container| {
        let limit = limit(container)?;
        let used = usage.containers.get(&container.name)?;
        exceeds(*used, &limit).then(|| {
            format!(
                "Container {} exceeded its local ephemeral storage limit {}. ",
                container.name,
                api::field::quote(&limit.to_string())
            )
        })
    })
}

fn exceeds(used: u64, limit: &Exact) -> bool {
    i64::try_from(used).unwrap_or(i64::MAX) > limit.value()
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

/// `emptyDir` volumes with a limit of their own.
fn size_limits(pod: &Pod) -> impl Iterator<Item = (&str, Exact)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        let limit = positive(volume.empty_dir.as_ref()?.size_limit.as_ref()?)?;
        Some((volume.name.as_str(), limit))
    })
}

/// What volumes take up on the disk: not those in memory.
fn on_disk(pod: &Pod, usage: &Usage) -> u64 {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let disk = volumes.filter(|volume| {
        let medium = volume.empty_dir.as_ref().and_then(|own| own.medium.as_deref());
        medium.unwrap_or("").is_empty()
    });
    disk.filter_map(|volume| usage.empty_dirs.get(&volume.name)).sum()
}

fn limit(container: &Container) -> Option<Exact> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    positive(limits.get(EPHEMERAL_STORAGE)?)
}

/// What the pod's containers may use together: their sum, or what an init container may alone.
/// Source: `k8s.io/component-helpers/resource` (`PodLimits`).
fn pod_limit(pod: &Pod) -> Option<Exact> {
    let spec = pod.spec.as_ref()?;
    let mut sum: Option<Exact> = None;
    for own in spec.containers.iter().filter_map(limit) {
        match &mut sum {
            Some(sum) => sum.add(&own),
            None => sum = Some(own),
        }
    }
    let init = spec.init_containers.iter().flatten().filter_map(limit);
    init.chain(sum).max_by_key(Exact::value)
}

fn positive(quantity: &Quantity) -> Option<Exact> {
    Exact::parse(&quantity.0).ok().filter(|quantity| quantity.sign() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn usage(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect()
    }

    fn check(spec: Value, empty_dirs: &[(&str, u64)], containers: &[(&str, u64)], expect: Option<&str>) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        assert!(is_limited(&pod), "{spec}");
        let usage = Usage {
            empty_dirs: usage(empty_dirs),
            containers: usage(containers),
        };
        assert_eq!(verdict(&pod, &usage).as_deref(), expect, "{spec} {usage:?}");
    }

    #[test]
    fn who_uses_too_much_is_told_how() {
        let volume = |medium: &str| {
            let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi", "medium": medium}}]);
            json!({"containers": [{"name": "a"}], "volumes": volumes})
        };
        let too_much = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
        check(volume(""), &[("v", 1 << 20)], &[], None);
        check(volume(""), &[("v", (1 << 20) + 1)], &[], Some(too_much));
        check(volume("Memory"), &[("v", 2 << 20)], &[], Some(too_much));
        let limited = |name: &str| json!({"name": name, "resources": {"limits": {"ephemeral-storage": "1Mi"}}});
        let one = || json!({"containers": [limited("a"), {"name": "b"}], "volumes": [{"name": "v", "emptyDir": {}}]});
        let whole = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
        check(one(), &[("v", 1)], &[("a", 1 << 19), ("b", 1)], None);
        check(one(), &[("v", 1 << 20)], &[("a", 1)], Some(whole));
        check(one(), &[], &[("a", 2 << 20)], Some(whole));
        let two = json!({"containers": [limited("a"), limited("b")]});
        let own = "Container a exceeded its local ephemeral storage limit \"1Mi\". ";
        check(two, &[], &[("a", 3 << 19), ("b", 1)], Some(own));
    }

    #[test]
    fn without_limits_nothing_is_measured() {
        let spec = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]});
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        assert!(!is_limited(&pod));
    }
}
