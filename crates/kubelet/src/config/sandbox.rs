//! The sandbox of a pod.
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_sandbox.go` and `pkg/kubelet/network/dns/dns.go`.

use std::net::IpAddr;
use std::path::PathBuf;

use client::k8s_openapi::api::core::v1::Pod;
use rpc::cri;

use super::{cgroup_parent, dns_limits, identity, security, whole};
use crate::cri::{LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};
use crate::volumes::hosts::host_name;

/// The longest host name that the kernel takes with its domain.
const KERNEL_NAME_BYTES_MAX: usize = 64;
/// What pods of the cluster's DNS search with: a name with fewer dots is tried with the search paths first.
const NDOTS: &str = "ndots:5";

/// What the node gives to its pods.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where logs of pods go.
    pub log_root: PathBuf,
    /// The control group below which pods live.
    pub cgroup_root: String,
    /// Its memory.
    pub memory_bytes: i64,
    /// The cluster's DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The node's own resolver.
    pub resolver: Resolver,
}

/// A resolver's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// What the runtime is asked for.
pub fn sandbox(pod: &Pod, attempt: u32, node: &Node) -> cri::PodSandboxConfig {
    let (namespace, name, uid) = identity(pod);
    let mut resolver = resolver(pod, node);
    dns_limits::fit(&mut resolver);
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let mut labels: std::collections::HashMap<String, String> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(
        [
            (LABEL_POD_NAME, name),
            (LABEL_POD_NAMESPACE, namespace),
            (LABEL_POD_UID, uid),
        ]
        .map(own),
    );
    let sysctls = pod
        .spec
        .iter()
        .filter_map(|spec| spec.security_context.as_ref()?.sysctls.as_ref())
        .flatten();
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: uid.into(),
            namespace: namespace.into(),
            attempt,
        }),
        // A name that is too long was refused before.
        hostname: if host_network {
            String::new()
        } else {
            hostname(pod, node).unwrap_or_default()
        },
        log_directory: log_directory(pod, node).display().to_string(),
        dns_config: Some(cri::DnsConfig {
            servers: resolver.servers,
            searches: resolver.searches,
            options: resolver.options,
        }),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        labels,
        annotations: pod
            .metadata
            .annotations
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(&node.cgroup_root, pod),
            resources: whole::group(pod),
            security_context: Some(security::of_pod(pod)),
            sysctls: sysctls
                .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
                .collect(),
            ..cri::LinuxPodSandboxConfig::default()
        }),
        ..cri::PodSandboxConfig::default()
    }
}

fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// The ports of containers that run as long as the pod: the runtime leads those with a host port to it.
fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    let spec = pod.spec.iter();
    let running = spec.flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        spec.containers.iter().chain(sidecars)
    });
    let ports = running.flat_map(|container| container.ports.iter().flatten());
    let mappings = ports.map(|port| {
        let protocol = port.protocol.as_deref().and_then(cri::Protocol::from_str_name);
        cri::PortMapping {
            protocol: protocol.unwrap_or(cri::Protocol::Tcp).into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        }
    });
    mappings.collect()
}

/// Where the logs of a pod's containers are: `NAMESPACE_NAME_UID`.
pub fn log_directory(pod: &Pod, node: &Node) -> PathBuf {
    let (namespace, name, uid) = identity(pod);
    node.log_root.join(format!("{namespace}_{name}_{uid}"))
}

/// The name that the pod's kernel has: its host name, with its domain when it wants that.
/// Source: `pkg/kubelet/kubelet_pods.go` (`GeneratePodHostNameAndDomain`) and `util.go` (`GetNodenameForKernel`).
///
/// # Errors
/// Upstream's words for a name that the kernel does not take.
pub fn hostname(pod: &Pod, node: &Node) -> Result<String, String> {
    let (name, domain) = host_name(pod, &node.cluster_domain);
    let wants_domain = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    if !wants_domain || domain.is_empty() {
        return Ok(name);
    }
    let whole = format!("{name}.{domain}");
    match whole.len() {
        0..=KERNEL_NAME_BYTES_MAX => Ok(whole),
        length => Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {whole} is too long \
             ({KERNEL_NAME_BYTES_MAX} characters is the max, {length} characters requested)"
        )),
    }
}

/// What was left out of the pod's resolver file, in upstream's words.
pub fn dns_warnings(pod: &Pod, node: &Node) -> Vec<String> {
    dns_limits::fit(&mut resolver(pod, node))
}

fn resolver(pod: &Pod, node: &Node) -> Resolver {
    let Some(spec) = &pod.spec else {
        return node.resolver.clone();
    };
    let (namespace, ..) = identity(pod);
    let host_network = spec.host_network.unwrap_or(false);
    let mut resolver = match spec.dns_policy.as_deref() {
        Some("None") => Resolver::default(),
        Some("Default") => node.resolver.clone(),
        Some("ClusterFirst") | None if host_network => node.resolver.clone(),
        _ if node.cluster_dns.is_empty() => node.resolver.clone(),
        _ => {
            let domain = &node.cluster_domain;
            let own = [
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.clone(),
            ];
            Resolver {
                servers: node.cluster_dns.iter().map(IpAddr::to_string).collect(),
                searches: own.into_iter().chain(node.resolver.searches.iter().cloned()).collect(),
                options: vec![NDOTS.into()],
            }
        }
    };
    if let Some(config) = &spec.dns_config {
        append(&mut resolver.servers, config.nameservers.iter().flatten().cloned());
        append(&mut resolver.searches, config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            resolver.options.retain(|own| own.split(':').next() != Some(name));
            resolver.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    resolver
}

fn append(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn node() -> Node {
        Node {
            name: "n".into(),
            log_root: "/logs".into(),
            cgroup_root: "/t".into(),
            memory_bytes: 1 << 32,
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            resolver: Resolver {
                servers: vec!["1.1.1.1".into()],
                searches: vec!["home".into()],
                options: vec![],
            },
        }
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "ns", "uid": "u"}, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn dns_follows_the_policy() {
        let cluster = "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local home | ndots:5";
        for (spec, expect) in [
            (json!({"containers": []}), cluster),
            (json!({"containers": [], "dnsPolicy": "Default"}), "1.1.1.1 | home | "),
            (json!({"containers": [], "hostNetwork": true}), "1.1.1.1 | home | "),
            (
                json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                cluster,
            ),
            (
                json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
                    "nameservers": ["8.8.8.8"], "searches": ["a"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
                }}),
                "8.8.8.8 | a | ndots:2 edns0",
            ),
            (
                json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
                "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local home | ndots:1",
            ),
        ] {
            let got = resolver(&pod(spec.clone()), &node());
            let words = format!(
                "{} | {} | {}",
                got.servers.join(" "),
                got.searches.join(" "),
                got.options.join(" ")
            );
            assert_eq!(words, expect, "{spec}");
        }
    }

    #[test]
    fn ports_of_what_runs_are_the_sandboxes() {
        let port = |number: u16| json!([{"containerPort": number, "hostPort": number, "hostIP": "127.0.0.1", "protocol": "UDP"}]);
        let mut spec = json!({
            "containers": [{"name": "c", "ports": port(1)}, {"name": "d"}],
            "initContainers": [{"name": "i", "ports": port(2)}, {"name": "s", "restartPolicy": "Always", "ports": port(3)}],
        });
        let ports = |spec: &Value| sandbox(&pod(spec.clone()), 0, &node()).port_mappings;
        let host_ports: Vec<_> = ports(&spec).iter().map(|mapping| mapping.host_port).collect();
        assert_eq!(host_ports, [1, 3]);
        let first = &ports(&spec)[0];
        assert_eq!((first.protocol(), first.container_port), (cri::Protocol::Udp, 1));
        assert_eq!(first.host_ip, "127.0.0.1");
        spec["hostNetwork"] = true.into();
        assert_eq!(ports(&spec), []);
    }

    #[test]
    fn a_sandbox_is_found_again_by_its_labels() {
        let config = sandbox(&pod(json!({"containers": [], "hostname": "h"})), 3, &node());
        assert_eq!(config.labels[LABEL_POD_UID], "u");
        assert_eq!(
            (config.hostname.as_str(), config.log_directory.as_str()),
            ("h", "/logs/ns_web_u")
        );
        assert_eq!(config.metadata.unwrap().attempt, 3);
        assert_eq!(config.linux.unwrap().cgroup_parent, "/t/kubepods/besteffort/podu");
    }

    #[test]
    fn the_kernels_name_has_the_domain_when_that_is_wanted() {
        let long = "a".repeat(42);
        for (spec, expect) in [
            (json!({}), Ok("web")),
            (json!({"hostname": "h", "subdomain": "s"}), Ok("h")),
            (
                json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}),
                Ok("h.s.ns.svc.cluster.local"),
            ),
            (json!({"hostname": "h", "setHostnameAsFQDN": true}), Ok("h")),
            (json!({"hostnameOverride": "o.example"}), Ok("o.example")),
            (
                json!({"hostname": long, "subdomain": "s", "setHostnameAsFQDN": true}),
                Err("65"),
            ),
        ] {
            let mut spec = spec;
            spec["containers"] = json!([]);
            let got = hostname(&pod(spec.clone()), &node());
            match expect {
                Ok(name) => assert_eq!(got.as_deref(), Ok(name), "{spec}"),
                Err(_) => assert!(
                    got.unwrap_err().ends_with("is the max, 65 characters requested)"),
                    "{spec}"
                ),
            }
        }
    }

    #[test]
    fn names_are_cut_to_what_the_kernel_takes() {
        let mut pod = pod(json!({"containers": []}));
        pod.metadata.name = Some(format!("{}-x", "a".repeat(62)));
        assert_eq!(hostname(&pod, &node()).unwrap(), "a".repeat(62));
    }
}
