//! The pods behind a service, as both controllers of endpoints see them. Pure, but for the indexes at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Value;
use client::Metadata;
use client::informer::{Delta, Informer};
use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use client::queue::WorkQueue;
use client::{Meta, resources, view_kind};
use serde::Deserialize;

use crate::context::{Context, Name, name_of};
use crate::pods::is_terminal;
use crate::views::{Pod, condition};

/// A service, as far as its endpoints are concerned.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub metadata: Metadata,
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    pub selector: Option<BTreeMap<String, String>>,
    pub ports: Vec<ServicePort>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    pub ip_families: Vec<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub publish_not_ready_addresses: bool,
    pub traffic_distribution: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServicePort {
    pub name: String,
    pub port: i32,
    pub protocol: String,
    pub app_protocol: Option<String>,
    /// A number or a container port's name; absent: the service's own port.
    pub target_port: Value,
}

view_kind!(Service, resources::SERVICES);

impl Service {
    /// Whether endpoints are made for it: it selects pods and is not just a DNS alias.
    pub(crate) fn is_managed(&self) -> bool {
        self.spec.selector.is_some() && self.spec.kind != "ExternalName"
    }

    pub(crate) fn is_headless(&self) -> bool {
        matches!(self.spec.cluster_ip.as_str(), "None" | "")
    }

    /// Whether it selects pods with these labels. An empty selector selects all pods of the namespace.
    pub(crate) fn selects(&self, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.as_ref();
        self.spec.selector.as_ref().is_some_and(|selector| {
            selector
                .iter()
                .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        })
    }

    /// The families of addresses it uses.
    pub(crate) fn families(&self) -> Vec<Family> {
        if self.spec.ip_families.is_empty() {
            let v6 = self.spec.cluster_ip.contains(':');
            return vec![if v6 { Family::V6 } else { Family::V4 }];
        }
        self.spec
            .ip_families
            .iter()
            .map(|family| if family == "IPv6" { Family::V6 } else { Family::V4 })
            .collect()
    }
}

/// Which service an endpoint slice is of.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who writes an endpoint slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What last made the endpoints change, for those who measure how long that takes.
pub(crate) const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The service of a slice of that manager.
pub(crate) fn service_of<'a>(slice: &'a EndpointSlice, manager: &str) -> Option<&'a str> {
    let is_its = slice.metadata.label(MANAGED_BY) == Some(manager);
    slice.metadata.label(SERVICE_NAME).filter(|_| is_its)
}

/// Tells of the services whose slices by that manager change.
pub(crate) fn watch_slices(
    context: &Context,
    slices: &Informer<EndpointSlice>,
    manager: &'static str,
    queue: &WorkQueue<Name>,
) {
    let queue = queue.clone();
    context.watch(slices, move |delta| {
        if let Some(slice) = delta.object()
            && let Some(service) = service_of(slice, manager)
        {
            queue.add((slice.metadata.namespace().to_string(), service.to_string()));
        }
    });
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// As endpoint slices call it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// The pod's address of this family.
    pub(crate) fn address(self, pod: &Pod) -> Option<&str> {
        let all = pod
            .status
            .pod_ips
            .iter()
            .map(|ip| ip.ip.as_str())
            .chain(std::iter::once(pod.status.pod_ip.as_str()));
        all.filter(|ip| !ip.is_empty())
            .find(|ip| ip.contains(':') == (self == Family::V6))
    }
}

/// The number a service's port has on a pod; `None` when the pod has no port of that name. Source: `FindPort`.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        Value::Number(number) if number.as_i64() != Some(0) => i32::try_from(number.as_i64()?).ok(),
        Value::String(name) if !name.is_empty() => {
            let sidecars = pod
                .spec
                .init_containers
                .iter()
                .filter(|container| container.restart_policy == "Always");
            let ports = pod
                .spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| &container.ports);
            let protocol = |text: &str| {
                if text.is_empty() {
                    "TCP".to_string()
                } else {
                    text.to_string()
                }
            };
            let mut matching =
                ports.filter(|one| one.name == *name && protocol(&one.protocol) == protocol(&port.protocol));
            matching.next().map(|one| one.container_port)
        }
        _ => Some(port.port),
    }
}

/// Whether the pod can be an endpoint at all. Source: `ShouldPodBeInEndpoints`.
pub(crate) fn counts(pod: &Pod, terminating_too: bool) -> bool {
    let has_address = !pod.status.pod_ip.is_empty() || !pod.status.pod_ips.is_empty();
    !is_terminal(pod) && has_address && (terminating_too || !pod.metadata.is_deleting())
}

/// The pod's name in DNS, when the service is the one that gives it.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == service.metadata.name();
    named.then(|| pod.spec.hostname.clone())
}

/// Whether a change of a pod can change endpoints. Source: `podEndpointsChanged`.
fn matters(old: &Pod, new: &Pod) -> bool {
    let ready = |pod: &Pod| condition(&pod.status.conditions, "Ready").map(|ready| ready.status.clone());
    let ips = |pod: &Pod| -> Vec<String> {
        std::iter::once(pod.status.pod_ip.clone())
            .chain(pod.status.pod_ips.iter().map(|ip| ip.ip.clone()))
            .collect()
    };
    ready(old) != ready(new)
        || ips(old) != ips(new)
        || is_terminal(old) != is_terminal(new)
        || old.metadata.is_deleting() != new.metadata.is_deleting()
        || old.metadata.labels != new.metadata.labels
        || old.spec.node_name != new.spec.node_name
        || (&old.spec.hostname, &old.spec.subdomain) != (&new.spec.hostname, &new.spec.subdomain)
}

/// Asks for work on services for the news about them and about their pods.
pub(crate) fn watch(context: &Context, services: &Informer<Service>, pods: &Informer<Pod>, queue: &WorkQueue<Name>) {
    context.watch(services, {
        let queue = queue.clone();
        move |delta| {
            if let Some(service) = delta.object() {
                queue.add(name_of(&**service));
            }
        }
    });
    context.watch(pods, {
        let (queue, services) = (queue.clone(), services.clone());
        move |delta| {
            let pods: Vec<Arc<Pod>> = match delta {
                Delta::Updated { old, new } if matters(&old, &new) => vec![old, new],
                Delta::Added(pod) | Delta::Deleted(pod) => vec![pod],
                _ => return,
            };
            let namespace = pods[0].metadata.namespace();
            let services = services.list_namespace(namespace);
            let concerned = services
                .iter()
                .filter(|service| pods.iter().any(|pod| service.selects(pod)));
            concerned.for_each(|service| queue.add(name_of(&**service)));
        }
    });
}

/// The pods that a service selects.
pub(crate) fn selected(service: &Service, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let mut pods = pods.list_namespace(service.metadata.namespace());
    pods.retain(|pod| service.selects(pod));
    pods
}
