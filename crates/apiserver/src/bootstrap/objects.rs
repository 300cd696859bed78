//! The objects besides the RBAC policy.

use std::net::{IpAddr, Ipv4Addr};

use api::Value;
use serde_json::json;

/// Where the cluster's own Services are.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The cluster IP of the API: the first of the service range.
    pub api_service: Ipv4Addr,
    /// The cluster IP of DNS.
    pub dns_service: Ipv4Addr,
    /// Where pods reach the API server itself.
    pub api_endpoint: (IpAddr, u16),
}

/// Namespaces of the system. `kube-node-lease` holds the kubelets' leases.
pub fn namespaces() -> Vec<Value> {
    let names = ["default", "kube-node-lease", "kube-public", "kube-system"];
    names
        .iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .collect()
}

/// The classes of what must run before all else.
/// Source: `pkg/apis/scheduling/v1/helpers.go`.
pub fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "description": description,
        })
    };
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// The Service `kubernetes` and where it leads, and the Service of DNS.
pub fn services(addresses: &Addresses) -> Vec<Value> {
    let (ip, port) = &addresses.api_endpoint;
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    vec![
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": addresses.api_service, "type": "ClusterIP", "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{
                "addresses": [{"ip": ip}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }],
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kube-dns", "namespace": "kube-system",
                "labels": {
                    "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
                },
            },
            "spec": {
                "clusterIP": addresses.dns_service, "type": "ClusterIP", "selector": {"k8s-app": "kube-dns"},
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                ],
            },
        }),
    ]
}

/// Names that the components of a cluster act under and that upstream's policy leaves to the installer.
pub fn component_bindings() -> Vec<Value> {
    let group = "rbac.authorization.k8s.io";
    vec![json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "trireme:apiserver-kubelet-client"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "kube-apiserver-kubelet-client"}],
    })]
}
