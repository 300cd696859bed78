//! The names that a quota may limit, and which resource each of them is about.

use api::GroupResource;

/// What is counted of services, besides their number.
const SERVICES: [&str; 3] = ["services", "services.nodeports", "services.loadbalancers"];
/// What is counted of claims, in all and by storage class.
const CLAIMS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
/// Between a storage class and what is counted of its claims.
pub(crate) const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// After a device class.
pub(crate) const DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// Before a device class, in the name under which pods ask for its devices.
pub(crate) const IMPLICIT: &str = "deviceclass.resource.kubernetes.io/";
/// What is counted of pods that have not ended, besides huge pages and extended resources.
const PODS: [&str; 10] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// Core resources whose number has a name of its own, from before there was `count/`.
const OLD_COUNTS: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

/// `count/deployments.apps`: the number of a resource's objects.
pub fn count_name(resource: &GroupResource) -> String {
    format!("count/{resource}")
}

/// Whether a quota may be about the resource at all. Upstream ignores events: there are always more of them.
pub fn is_tracked(resource: &GroupResource) -> bool {
    resource.resource != "events" || !matches!(&*resource.group, "" | "events.k8s.io")
}

/// Whether a quota's limit of that name is about objects of the resource.
pub fn tracks(resource: &GroupResource, name: &str) -> bool {
    if let Some(counted) = name.strip_prefix("count/") {
        return is_tracked(resource) && counted == resource.to_string();
    }
    match (&*resource.group, &*resource.resource) {
        ("", "pods") => PODS.contains(&name) || is_huge_pages(name) || is_extended(name),
        ("", "services") => SERVICES.contains(&name),
        ("", "persistentvolumeclaims") => {
            CLAIMS.contains(&name)
                || name
                    .split_once(STORAGE_CLASS)
                    .is_some_and(|(_, counted)| CLAIMS.contains(&counted))
        }
        ("resource.k8s.io", "resourceclaims") => name.ends_with(DEVICE_CLASS) || is_extended(name),
        ("", plural) => OLD_COUNTS.contains(&plural) && name == plural,
        _ => false,
    }
}

/// The resources that a limit of that name is about: none, where nothing counts it; two, where claims take the devices that pods
/// ask for by name.
pub fn tracked_by(name: &str) -> Vec<GroupResource> {
    let of = |group: &str, resource: &str| GroupResource {
        group: group.into(),
        resource: resource.into(),
    };
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some(of(group, resource)).filter(is_tracked).into_iter().collect();
    }
    if OLD_COUNTS.contains(&name) {
        return vec![of("", name)];
    }
    let known = [
        of("", "services"),
        of("", "persistentvolumeclaims"),
        of("", "pods"),
        of("resource.k8s.io", "resourceclaims"),
    ];
    known.into_iter().filter(|resource| tracks(resource, name)).collect()
}

fn is_huge_pages(name: &str) -> bool {
    name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-")
}

/// `requests.example.com/gpu`, `requests.deviceclass.resource.kubernetes.io/gpu`. Limits of extended resources are their requests
/// and have no name.
fn is_extended(name: &str) -> bool {
    name.strip_prefix("requests.").is_some_and(is_extended_resource)
}

/// Whether pods ask for it as for an extended resource: under a name of somebody else's, or under that of a DeviceClass.
pub(crate) fn is_extended_resource(name: &str) -> bool {
    !is_native(name) || name.starts_with(IMPLICIT)
}

/// Whether a resource's name is one of Kubernetes' own.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_about_its_resources() {
        for (name, expect) in [
            ("pods", Some("pods")),
            ("requests.cpu", Some("pods")),
            ("limits.ephemeral-storage", Some("pods")),
            ("hugepages-2Mi", Some("pods")),
            ("requests.hugepages-2Mi", Some("pods")),
            ("requests.example.com/gpu", Some("pods resourceclaims.resource.k8s.io")),
            (
                "requests.deviceclass.resource.kubernetes.io/gpu",
                Some("pods resourceclaims.resource.k8s.io"),
            ),
            ("requests.other.kubernetes.io/gpu", None),
            ("example.com/gpu", None),
            ("count/pods", Some("pods")),
            ("count/deployments.apps", Some("deployments.apps")),
            ("count/widgets.example.com", Some("widgets.example.com")),
            ("count/events", None),
            ("count/events.events.k8s.io", None),
            ("configmaps", Some("configmaps")),
            ("secrets", Some("secrets")),
            ("services.nodeports", Some("services")),
            ("requests.storage", Some("persistentvolumeclaims")),
            (
                "gold.storageclass.storage.k8s.io/requests.storage",
                Some("persistentvolumeclaims"),
            ),
            ("gold.storageclass.storage.k8s.io/cpu", None),
            (
                "gpu.deviceclass.resource.k8s.io/devices",
                Some("resourceclaims.resource.k8s.io"),
            ),
            ("limits.storage", None),
            ("x", None),
        ] {
            let resources: Vec<String> = tracked_by(name).iter().map(ToString::to_string).collect();
            assert_eq!(resources.join(" "), expect.unwrap_or(""), "{name}");
        }
    }
}
