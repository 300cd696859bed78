//! The objects besides the RBAC policy.

use std::net::{IpAddr, Ipv4Addr};

use api::Value;
use ipnet::Ipv4Net;
use serde_json::json;

/// Where the cluster's own Services are.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The range of cluster IPs.
    pub service_range: Ipv4Net,
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

/// Names that the components of a cluster act under and that upstream's policy leaves to the installer. Roles come before
/// the bindings that name them.
pub fn component_bindings() -> Vec<Value> {
    const CERTIFICATES: &str = "certificates.k8s.io";
    const REQUESTS: &str = "certificatesigningrequests";
    let rule = |verbs: &[&str], group: &str, resources: &[&str]| json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
    let renew_proxy = "trireme:renew-kube-proxy-certificate";
    let renew_serving = "trireme:renew-kubelet-serving-certificate";
    let approver = "trireme:certificate-renewal-approver";
    let policies = "trireme:network-policies";
    let ask = || rule(&["create", "get", "list", "watch"], CERTIFICATES, &[REQUESTS]);
    let own = |resource: &str| rule(&["create"], CERTIFICATES, &[&format!("{REQUESTS}/{resource}")]);
    let mut may_approve = rule(&["approve"], CERTIFICATES, &["signers"]);
    may_approve["resourceNames"] = json!(["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client"]);
    let account = json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": "certificate-renewal-approver"});
    vec![
        role(renew_proxy, &[ask(), own("selfproxyclient")]),
        role(renew_serving, &[own("selfnodeserver")]),
        role(
            approver,
            &[
                rule(&["get", "list", "watch"], CERTIFICATES, &[REQUESTS]),
                rule(&["update"], CERTIFICATES, &["certificatesigningrequests/approval"]),
                may_approve,
                rule(&["get", "list", "watch"], "", &["nodes"]),
                rule(&["create"], "authorization.k8s.io", &["subjectaccessreviews"]),
            ],
        ),
        binding(
            "trireme:apiserver-kubelet-client",
            "system:kubelet-api-admin",
            user("kube-apiserver-kubelet-client"),
        ),
        // As kubeadm's `kubeadm:node-autoapprove-certificate-rotation`.
        binding(
            "trireme:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            group("system:nodes"),
        ),
        binding(renew_serving, renew_serving, group("system:nodes")),
        binding(renew_proxy, renew_proxy, user("system:kube-proxy")),
        binding(approver, approver, account),
        // The node's network agent enforces policies under the name of its service proxy; upstream's network plugins bring such
        // a role along.
        role(
            policies,
            &[
                rule(&["list", "watch"], "", &["namespaces", "pods"]),
                rule(&["list", "watch"], "networking.k8s.io", &["networkpolicies"]),
            ],
        ),
        binding(policies, policies, user("system:kube-proxy")),
    ]
}

const RBAC: &str = "rbac.authorization.k8s.io";

fn user(name: &str) -> Value {
    json!({"apiGroup": RBAC, "kind": "User", "name": name})
}

fn group(name: &str) -> Value {
    json!({"apiGroup": RBAC, "kind": "Group", "name": name})
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules,
    })
}

fn binding(name: &str, role: &str, subject: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}, "subjects": [subject],
    })
}
