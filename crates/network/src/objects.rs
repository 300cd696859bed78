//! Services and EndpointSlices as the API sends them, with only the fields the network reads (design D3), and what they
//! mean: the defaults that the API documents for absent fields are applied here and nowhere else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use client::{Meta, resources, view_kind};
use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer};

use crate::views::{EndpointView, ObjectName, Protocol, ServiceKind, ServicePort, ServiceView, SlicePort, SliceView};

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// A Service with this label is served by somebody else (upstream: kube-proxy's informers leave it out).
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// `DefaultClientIPServiceAffinitySeconds` of the API: three hours.
const AFFINITY_SECONDS_DEFAULT: u32 = 10_800;

/// A Service.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceObject {
    metadata: Metadata,
    spec: Spec,
    status: Option<ServiceStatus>,
}

/// An EndpointSlice.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceObject {
    metadata: Metadata,
    address_type: String,
    // A list without elements may be null.
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

/// A ServiceCIDR.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidrObject {
    metadata: Metadata,
    spec: ServiceCidrSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceCidrSpec {
    cidrs: Vec<String>,
}

impl ServiceCidrObject {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Its ranges of IPv4.
    pub fn ranges(&self) -> Vec<Ipv4Net> {
        self.spec.cidrs.iter().filter_map(|range| range.parse().ok()).collect()
    }
}

view_kind!(ServiceCidrObject, resources::SERVICE_CIDRS);
view_kind!(ServiceObject, resources::SERVICES);
view_kind!(SliceObject, resources::ENDPOINT_SLICES);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    labels: BTreeMap<String, String>,
}

/// A map without elements may be null.
fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    external_name: Option<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
    health_check_node_port: Option<i32>,
    session_affinity: Option<String>,
    session_affinity_config: Option<AffinityConfig>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientAffinity {
    timeout_seconds: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i32>,
    node_port: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Option<Conditions>,
    hostname: Option<String>,
    node_name: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl Meta for Metadata {
    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }

    /// The network asks nobody for what a Service owns; the references are not kept.
    fn owner_uids(&self) -> Vec<&str> {
        Vec::new()
    }

    fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

impl ServiceObject {
    /// Which one.
    pub fn object_name(&self) -> ObjectName {
        self.metadata.object_name()
    }

    /// What it means.
    pub fn view(&self) -> ServiceView {
        let ports = self.spec.ports.iter().flatten().filter_map(|port| {
            Some(ServicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: port.number()?,
                node_port: port
                    .node_port
                    .and_then(|port| u16::try_from(port).ok())
                    .filter(|port| *port > 0),
            })
        });
        ServiceView {
            name: self.object_name(),
            kind: self.spec.service_kind(),
            ports: ports.collect(),
            external_addresses: self.external_addresses(),
            local_only: self.spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local_only: self.spec.external_traffic_policy.as_deref() == Some("Local"),
            affinity_seconds: self.spec.affinity_seconds(),
            foreign_proxy: self.metadata.label(PROXY_NAME_LABEL).is_some(),
            health_port: self.spec.health_port(),
        }
    }
}

impl Spec {
    /// Source: `NeedsHealthCheck` of `pkg/api/v1/service/util.go`.
    fn health_port(&self) -> Option<u16> {
        let is_asked = self.kind == "LoadBalancer" && self.external_traffic_policy.as_deref() == Some("Local");
        let port = self.health_check_node_port.filter(|_| is_asked)?;
        u16::try_from(port).ok().filter(|port| *port > 0)
    }
}

impl ServiceObject {
    /// A load balancer that ends connections itself (`ipMode: Proxy`) must be gone through.
    fn external_addresses(&self) -> Vec<IpAddr> {
        let status = self.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status
            .and_then(|balancer| balancer.ingress.as_ref())
            .into_iter()
            .flatten();
        let balanced = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        let balanced = balanced.filter_map(|ingress| ingress.ip.as_deref());
        let external = self.spec.external_ips.iter().flatten().map(String::as_str);
        external
            .chain(balanced)
            .filter_map(|address| address.parse().ok())
            .collect()
    }
}

impl SliceObject {
    /// Which one.
    pub fn object_name(&self) -> ObjectName {
        self.metadata.object_name()
    }

    /// What it means; `None` for a slice that belongs to no Service or holds names instead of addresses.
    pub fn view(&self) -> Option<SliceView> {
        let service = self.metadata.label(SERVICE_NAME_LABEL)?.to_owned();
        if self.address_type == "FQDN" {
            return None;
        }
        let ports = self.ports.iter().flatten().filter_map(|port| {
            Some(SlicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: port.number(),
            })
        });
        let endpoints = self.endpoints.iter().flatten().map(Endpoint::view).collect();
        Some(SliceView {
            name: self.object_name(),
            service,
            endpoints,
            ports: ports.collect(),
        })
    }
}

impl Metadata {
    pub(crate) fn object_name(&self) -> ObjectName {
        ObjectName::new(self.namespace.clone(), self.name.clone())
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

impl Spec {
    fn service_kind(&self) -> ServiceKind {
        if self.kind == "ExternalName" {
            return ServiceKind::External(self.external_name.clone().unwrap_or_default());
        }
        // `clusterIPs` is the whole truth, `clusterIP` what old clients write.
        let addresses: Vec<&str> = match &self.cluster_ips {
            Some(list) if !list.is_empty() => list.iter().map(String::as_str).collect(),
            _ => self.cluster_ip.as_deref().into_iter().collect(),
        };
        if addresses.first() == Some(&"None") {
            return ServiceKind::Headless;
        }
        let addresses: Vec<IpAddr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        if addresses.is_empty() {
            ServiceKind::Pending
        } else {
            ServiceKind::Cluster(addresses)
        }
    }
}

impl Spec {
    fn affinity_seconds(&self) -> Option<u32> {
        if self.session_affinity.as_deref() != Some("ClientIP") {
            return None;
        }
        let config = self
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref());
        Some(
            config
                .and_then(|config| config.timeout_seconds)
                .unwrap_or(AFFINITY_SECONDS_DEFAULT),
        )
    }
}

impl Port {
    fn number(&self) -> Option<u16> {
        self.port.and_then(|port| u16::try_from(port).ok())
    }
}

impl Endpoint {
    fn view(&self) -> EndpointView {
        let conditions = self.conditions.unwrap_or_default();
        // API documentation of EndpointConditions: an absent `ready` is true, `serving` is `ready`, `terminating` false.
        let ready = conditions.ready.unwrap_or(true);
        EndpointView {
            addresses: self
                .addresses
                .iter()
                .filter_map(|address| address.parse().ok())
                .collect(),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            hostname: self.hostname.clone().filter(|name| !name.is_empty()),
            node: self.node_name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Object;
    use serde_json::{Value, json};

    #[test]
    fn services_of_every_kind() {
        let check = |spec: Value, expect: ServiceKind| {
            let object = json!({"metadata": {"namespace": "a", "name": "b"}, "spec": spec}).to_string();
            assert_eq!(
                ServiceObject::decode(object.as_bytes()).unwrap().view().kind,
                expect,
                "{spec}"
            );
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
    fn ports_have_their_defaults_and_bad_ones_are_left_out() {
        let object = json!({
            "metadata": {"namespace": "a", "name": "b", "labels": {"service.kubernetes.io/service-proxy-name": "x"}},
            "spec": {"clusterIP": "10.96.0.7", "internalTrafficPolicy": "Local",
                     "ports": [{"port": 80}, {"name": "d", "protocol": "UDP", "port": 53}, {"port": 70000}, {"protocol": "X", "port": 1}]},
        });
        let view = ServiceObject::decode(object.to_string().as_bytes()).unwrap().view();
        let ports: Vec<_> = view
            .ports
            .iter()
            .map(|port| (port.name.as_str(), port.protocol, port.port))
            .collect();
        assert_eq!(ports, [("", Protocol::Tcp, 80), ("d", Protocol::Udp, 53)]);
        assert!(view.local_only && view.foreign_proxy);
    }

    #[test]
    fn what_leads_there_from_outside() {
        let object = json!({
            "metadata": {"namespace": "a", "name": "b"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "externalTrafficPolicy": "Local",
                     "externalIPs": ["192.0.2.1", "x"], "ports": [{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 0}]},
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.2"}, {"ip": "192.0.2.3", "ipMode": "VIP"}, {"ip": "192.0.2.4", "ipMode": "Proxy"}, {"hostname": "x.org"},
            ]}},
        });
        let view = ServiceObject::decode(object.to_string().as_bytes()).unwrap().view();
        let addresses: Vec<String> = view.external_addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert!(view.external_local_only && !view.local_only);
        let ports: Vec<_> = view.ports.iter().map(|port| port.node_port).collect();
        assert_eq!(ports, [Some(30080), None]);
    }

    #[test]
    fn affinity_has_a_default() {
        let check = |spec: Value, expect: Option<u32>| {
            let object = json!({"metadata": {"namespace": "a", "name": "b"}, "spec": spec}).to_string();
            assert_eq!(
                ServiceObject::decode(object.as_bytes())
                    .unwrap()
                    .view()
                    .affinity_seconds,
                expect,
                "{spec}"
            );
        };
        check(json!({}), None);
        check(json!({"sessionAffinity": "None"}), None);
        check(json!({"sessionAffinity": "ClientIP"}), Some(10_800));
        let config = json!({"clientIP": {"timeoutSeconds": 5}});
        check(
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}),
            Some(5),
        );
    }

    fn slice(labels: Value, kind: &str, endpoints: Value) -> Option<SliceView> {
        let object = json!({
            "metadata": {"namespace": "a", "name": "s", "labels": labels},
            "addressType": kind, "endpoints": endpoints, "ports": null,
        });
        SliceObject::decode(object.to_string().as_bytes()).unwrap().view()
    }

    #[test]
    fn absent_conditions_mean_ready() {
        let check = |conditions: Value, expect: (bool, bool, bool)| {
            let endpoints = json!([{"addresses": ["10.244.0.2"], "conditions": conditions}]);
            let view = slice(json!({"kubernetes.io/service-name": "b"}), "IPv4", endpoints).unwrap();
            let endpoint = &view.endpoints[0];
            assert_eq!(
                (endpoint.ready, endpoint.serving, endpoint.terminating),
                expect,
                "{conditions}"
            );
        };
        check(json!(null), (true, true, false));
        check(json!({}), (true, true, false));
        check(json!({"ready": false}), (false, false, false));
        check(
            json!({"ready": false, "serving": true, "terminating": true}),
            (false, true, true),
        );
    }

    #[test]
    fn slices_without_a_service_or_with_names_are_left_out() {
        assert_eq!(slice(json!({}), "IPv4", json!(null)), None);
        assert_eq!(
            slice(json!({"kubernetes.io/service-name": "b"}), "FQDN", json!(null)),
            None
        );
        assert!(slice(json!({"kubernetes.io/service-name": "b"}), "IPv4", json!(null)).is_some());
    }
}
