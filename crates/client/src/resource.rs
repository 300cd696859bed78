//! Names of resources as they stand in paths, and the ones that components use by name.

use std::borrow::Cow;
use std::fmt;

use api::GroupResource;

/// A resource: where it is in the API and what its objects are called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// The group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version, such as `v1`.
    pub version: Cow<'static, str>,
    /// The plural, such as `pods`.
    pub plural: Cow<'static, str>,
    /// The kind, such as `Pod`.
    pub kind: Cow<'static, str>,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// A resource known when this was written.
    pub const fn new(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
        namespaced: bool,
    ) -> Resource {
        Resource {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
            kind: Cow::Borrowed(kind),
            namespaced,
        }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource whatever its version.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.group.to_string(),
            resource: self.plural.to_string(),
        }
    }

    /// The path of one object (or, without a name, of the collection), without a query. An empty namespace names the
    /// objects of all namespaces, or those that are in none.
    pub fn path(&self, namespace: &str, name: Option<&str>, subresource: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            push_segment(&mut path, namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        for part in [name, subresource].into_iter().flatten() {
            path.push('/');
            push_segment(&mut path, part);
        }
        path
    }
}

impl fmt::Display for Resource {
    /// `deployments.apps`, or `pods` for the core group.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.plural)
        } else {
            write!(f, "{}.{}", self.plural, self.group)
        }
    }
}

/// Appends one segment of a path, with what may not stand there escaped. A subresource such as `proxy/path` is given
/// in segments of its own by whoever needs that.
fn push_segment(path: &mut String, segment: &str) {
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => path.push(byte as char),
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
}

/// The resources that components of this project name.
#[allow(missing_docs)]
pub mod resources {
    use super::Resource;

    pub const CONFIG_MAPS: Resource = Resource::new("", "v1", "configmaps", "ConfigMap", true);
    pub const ENDPOINTS: Resource = Resource::new("", "v1", "endpoints", "Endpoints", true);
    pub const EVENTS: Resource = Resource::new("", "v1", "events", "Event", true);
    pub const LIMIT_RANGES: Resource = Resource::new("", "v1", "limitranges", "LimitRange", true);
    pub const NAMESPACES: Resource = Resource::new("", "v1", "namespaces", "Namespace", false);
    pub const NODES: Resource = Resource::new("", "v1", "nodes", "Node", false);
    pub const PERSISTENT_VOLUME_CLAIMS: Resource =
        Resource::new("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true);
    pub const PERSISTENT_VOLUMES: Resource = Resource::new("", "v1", "persistentvolumes", "PersistentVolume", false);
    pub const PODS: Resource = Resource::new("", "v1", "pods", "Pod", true);
    pub const POD_TEMPLATES: Resource = Resource::new("", "v1", "podtemplates", "PodTemplate", true);
    pub const REPLICATION_CONTROLLERS: Resource =
        Resource::new("", "v1", "replicationcontrollers", "ReplicationController", true);
    pub const RESOURCE_QUOTAS: Resource = Resource::new("", "v1", "resourcequotas", "ResourceQuota", true);
    pub const SECRETS: Resource = Resource::new("", "v1", "secrets", "Secret", true);
    pub const SERVICE_ACCOUNTS: Resource = Resource::new("", "v1", "serviceaccounts", "ServiceAccount", true);
    pub const SERVICES: Resource = Resource::new("", "v1", "services", "Service", true);

    pub const CONTROLLER_REVISIONS: Resource =
        Resource::new("apps", "v1", "controllerrevisions", "ControllerRevision", true);
    pub const DAEMON_SETS: Resource = Resource::new("apps", "v1", "daemonsets", "DaemonSet", true);
    pub const DEPLOYMENTS: Resource = Resource::new("apps", "v1", "deployments", "Deployment", true);
    pub const REPLICA_SETS: Resource = Resource::new("apps", "v1", "replicasets", "ReplicaSet", true);
    pub const STATEFUL_SETS: Resource = Resource::new("apps", "v1", "statefulsets", "StatefulSet", true);

    pub const JOBS: Resource = Resource::new("batch", "v1", "jobs", "Job", true);
    pub const CRON_JOBS: Resource = Resource::new("batch", "v1", "cronjobs", "CronJob", true);

    pub const LEASES: Resource = Resource::new("coordination.k8s.io", "v1", "leases", "Lease", true);
    pub const ENDPOINT_SLICES: Resource =
        Resource::new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true);
    pub const EVENTS_V1: Resource = Resource::new("events.k8s.io", "v1", "events", "Event", true);
    pub const INGRESSES: Resource = Resource::new("networking.k8s.io", "v1", "ingresses", "Ingress", true);
    pub const IP_ADDRESSES: Resource = Resource::new("networking.k8s.io", "v1", "ipaddresses", "IPAddress", false);
    pub const SERVICE_CIDRS: Resource = Resource::new("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", false);
    pub const NETWORK_POLICIES: Resource =
        Resource::new("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true);
    pub const RUNTIME_CLASSES: Resource = Resource::new("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", false);
    pub const POD_DISRUPTION_BUDGETS: Resource =
        Resource::new("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true);
    pub const PRIORITY_CLASSES: Resource =
        Resource::new("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false);
    pub const CSI_DRIVERS: Resource = Resource::new("storage.k8s.io", "v1", "csidrivers", "CSIDriver", false);
    pub const CSI_NODES: Resource = Resource::new("storage.k8s.io", "v1", "csinodes", "CSINode", false);
    pub const STORAGE_CLASSES: Resource =
        Resource::new("storage.k8s.io", "v1", "storageclasses", "StorageClass", false);
    pub const VOLUME_ATTACHMENTS: Resource =
        Resource::new("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", false);

    pub const CERTIFICATE_SIGNING_REQUESTS: Resource = Resource::new(
        "certificates.k8s.io",
        "v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        false,
    );
    pub const TOKEN_REVIEWS: Resource =
        Resource::new("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", false);
    pub const SUBJECT_ACCESS_REVIEWS: Resource = Resource::new(
        "authorization.k8s.io",
        "v1",
        "subjectaccessreviews",
        "SubjectAccessReview",
        false,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let pods = resources::PODS;
        let leases = resources::LEASES;
        let nodes = resources::NODES;
        for (got, expect) in [
            (pods.path("", None, None), "/api/v1/pods"),
            (pods.path("a", None, None), "/api/v1/namespaces/a/pods"),
            (
                pods.path("a", Some("b"), Some("status")),
                "/api/v1/namespaces/a/pods/b/status",
            ),
            (
                leases.path("a", Some("b"), None),
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
            ),
            (nodes.path("ignored", Some("n"), None), "/api/v1/nodes/n"),
            (
                pods.path("a", Some("../x?y"), None),
                "/api/v1/namespaces/a/pods/..%2Fx%3Fy",
            ),
        ] {
            assert_eq!(got, expect);
        }
    }

    #[test]
    fn names() {
        assert_eq!(resources::PODS.to_string(), "pods");
        assert_eq!(resources::DEPLOYMENTS.to_string(), "deployments.apps");
        assert_eq!(resources::DEPLOYMENTS.api_version(), "apps/v1");
    }
}
