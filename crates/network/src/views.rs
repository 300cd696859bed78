//! What the network needs to know of Services and EndpointSlices, and nothing more.
//!
//! The views are what all planning works on, so that a test writes four fields instead of a Service. Conversion from the
//! API's types is here too, with the defaults that EndpointSlice documents for absent conditions.

use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// A Service or slice with this label is served by somebody else (upstream: kube-proxy's informers leave it out).
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectName {
    /// From both parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As the API writes it; an absent protocol is TCP.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The label of SRV names, without its underscore.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// How a Service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// By these cluster addresses; ClusterIP, NodePort and LoadBalancer alike.
    Cluster(Vec<IpAddr>),
    /// By its endpoints' addresses only (`clusterIP: None`).
    Headless,
    /// By another name.
    External(String),
    /// Not yet: no address was allocated.
    Pending,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty when it is the only one.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port that clients use.
    pub port: u16,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// Which.
    pub name: ObjectName,
    /// How it is reached.
    pub kind: ServiceKind,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`: only endpoints of the client's node.
    pub local_only: bool,
    /// The service rules are somebody else's (DNS is still ours).
    pub foreign_proxy: bool,
}

/// A port of the endpoints of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port it belongs to.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port that the endpoint listens on; absent means "all ports", which no proxy can serve.
    pub port: Option<u16>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// Its addresses; the first one is used, the others are aliases (API: "consumers should use the first").
    pub addresses: Vec<IpAddr>,
    /// Takes new connections.
    pub ready: bool,
    /// Would take them if it were not terminating.
    pub serving: bool,
    /// Is shutting down.
    pub terminating: bool,
    /// Its name below the Service's.
    pub hostname: Option<String>,
    /// The node it runs on.
    pub node: Option<String>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceView {
    /// Which.
    pub name: ObjectName,
    /// Its Service, in the same namespace.
    pub service: String,
    /// Endpoints.
    pub endpoints: Vec<EndpointView>,
    /// Ports, the same for all of them.
    pub ports: Vec<SlicePort>,
}

impl ServiceView {
    /// From the API's type; `None` for an object without a name, which no server sends.
    pub fn from_api(service: &Service) -> Option<Self> {
        let name = ObjectName::new(service.metadata.namespace.clone()?, service.metadata.name.clone()?);
        let labels = service.metadata.labels.as_ref();
        let foreign_proxy = labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL));
        let empty = Default::default();
        let spec = service.spec.as_ref().unwrap_or(&empty);
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            Some(ServicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: u16::try_from(port.port).ok()?,
            })
        });
        Some(Self {
            name,
            kind: service_kind(spec),
            ports: ports.collect(),
            local_only: spec.internal_traffic_policy.as_deref() == Some("Local"),
            foreign_proxy,
        })
    }
}

fn service_kind(spec: &k8s_openapi::api::core::v1::ServiceSpec) -> ServiceKind {
    if spec.type_.as_deref() == Some("ExternalName") {
        return ServiceKind::External(spec.external_name.clone().unwrap_or_default());
    }
    let listed = spec.cluster_ips.iter().flatten().map(String::as_str);
    let addresses: Vec<&str> = match spec.cluster_ips.as_ref().is_some_and(|list| !list.is_empty()) {
        true => listed.collect(),
        false => spec.cluster_ip.as_deref().into_iter().collect(),
    };
    if addresses.first() == Some(&"None") {
        return ServiceKind::Headless;
    }
    let addresses: Vec<IpAddr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
    match addresses.is_empty() {
        true => ServiceKind::Pending,
        false => ServiceKind::Cluster(addresses),
    }
}

impl SliceView {
    /// From the API's type; `None` for a slice that belongs to no Service or holds names instead of addresses.
    pub fn from_api(slice: &EndpointSlice) -> Option<Self> {
        let name = ObjectName::new(slice.metadata.namespace.clone()?, slice.metadata.name.clone()?);
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.clone();
        if slice.address_type == "FQDN" {
            return None;
        }
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some(SlicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: port.port.and_then(|port| u16::try_from(port).ok()),
            })
        });
        let endpoints = slice.endpoints.iter().flatten().map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            // API documentation of EndpointConditions: an absent `ready` is true, `serving` is `ready`, `terminating` false.
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            EndpointView {
                addresses: endpoint
                    .addresses
                    .iter()
                    .filter_map(|address| address.parse().ok())
                    .collect(),
                ready,
                serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
                terminating: conditions
                    .and_then(|conditions| conditions.terminating)
                    .unwrap_or(false),
                hostname: endpoint.hostname.clone().filter(|name| !name.is_empty()),
                node: endpoint.node_name.clone(),
            }
        });
        Some(Self {
            name,
            service,
            endpoints: endpoints.collect(),
            ports: ports.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_of_every_kind() {
        let check = |spec: serde_json::Value, expect: ServiceKind| {
            let object = json!({"metadata": {"namespace": "a", "name": "b"}, "spec": spec});
            let service: Service = serde_json::from_value(object).unwrap();
            assert_eq!(ServiceView::from_api(&service).unwrap().kind, expect, "{spec}");
        };
        let address: IpAddr = "10.96.0.7".parse().unwrap();
        check(json!({"clusterIP": "10.96.0.7"}), ServiceKind::Cluster(vec![address]));
        check(
            json!({"type": "NodePort", "clusterIPs": ["10.96.0.7"]}),
            ServiceKind::Cluster(vec![address]),
        );
        check(
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            ServiceKind::Headless,
        );
        check(
            json!({"type": "ExternalName", "externalName": "x.org"}),
            ServiceKind::External("x.org".to_owned()),
        );
        check(json!({}), ServiceKind::Pending);
    }

    #[test]
    fn absent_conditions_mean_ready() {
        let check = |conditions: serde_json::Value, expect: (bool, bool, bool)| {
            let object = json!({
                "metadata": {"namespace": "a", "name": "s", "labels": {"kubernetes.io/service-name": "b"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.244.0.2"], "conditions": conditions}],
            });
            let slice: EndpointSlice = serde_json::from_value(object).unwrap();
            let endpoint = SliceView::from_api(&slice).unwrap().endpoints.remove(0);
            assert_eq!(
                (endpoint.ready, endpoint.serving, endpoint.terminating),
                expect,
                "{conditions}"
            );
        };
        check(json!({}), (true, true, false));
        check(json!({"ready": false}), (false, false, false));
        check(
            json!({"ready": false, "serving": true, "terminating": true}),
            (false, true, true),
        );
    }

    #[test]
    fn slices_without_a_service_or_with_names_are_left_out() {
        let slice = |labels: serde_json::Value, kind: &str| -> EndpointSlice {
            let object = json!({"metadata": {"namespace": "a", "name": "s", "labels": labels}, "addressType": kind, "endpoints": []});
            serde_json::from_value(object).unwrap()
        };
        assert_eq!(SliceView::from_api(&slice(json!({}), "IPv4")), None);
        assert_eq!(
            SliceView::from_api(&slice(json!({"kubernetes.io/service-name": "b"}), "FQDN")),
            None
        );
        assert!(SliceView::from_api(&slice(json!({"kubernetes.io/service-name": "b"}), "IPv4")).is_some());
    }
}
