//! The `/etc/hosts` of a pod's containers, and the pod's own name.
//!
//! Source: `pkg/kubelet/kubelet_pods.go` (`managedHostsFileContent`, `GeneratePodHostNameAndDomain`).

use client::k8s_openapi::api::core::v1::{HostAlias, Pod};

/// Longer names the kernel does not take.
const HOST_NAME_BYTES_MAX: usize = 63;

/// The pod's host name and domain; the domain is empty when it has none.
pub fn host_name(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let Some(spec) = &pod.spec else {
        return Default::default();
    };
    if let Some(name) = &spec.hostname_override {
        return (name.clone(), String::new());
    }
    let own = pod.metadata.name.as_deref().unwrap_or("");
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(own);
    let mut name = name.to_owned();
    if name.len() > HOST_NAME_BYTES_MAX {
        name.truncate(
            (0..=HOST_NAME_BYTES_MAX)
                .rev()
                .find(|at| name.is_char_boundary(*at))
                .unwrap_or(0),
        );
        name.truncate(name.trim_end_matches(['-', '.']).len());
    }
    let domain = match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            format!("{subdomain}.{namespace}.svc.{cluster_domain}")
        }
        None => String::new(),
    };
    (name, domain)
}

/// The file of a pod with a network of its own.
pub fn managed(ips: &[String], host: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        match domain {
            "" => text.push_str(&format!("{ip}\t{host}\n")),
            domain => text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n")),
        }
    }
    text.push_str(&entries(aliases));
    text
}

/// The file of a pod on the node's network, from the node's own.
pub fn of_node(node_file: &str, aliases: &[HostAlias]) -> String {
    format!(
        "# Kubernetes-managed hosts file (host network).\n{node_file}{}",
        entries(aliases)
    )
}

fn entries(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let lines = aliases.iter().map(|alias| {
        format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.as_deref().unwrap_or_default().join("\t")
        )
    });
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn files() {
        let aliases: Vec<HostAlias> = vec![HostAlias {
            ip: "1.2.3.4".into(),
            hostnames: Some(vec!["a".into(), "b".into()]),
        }];
        let text = managed(
            &["10.0.0.1".into(), "fd00::1".into()],
            "p",
            "s.n.svc.cluster.local",
            &aliases,
        );
        let tail = "fe00::2\tip6-allrouters\n10.0.0.1\tp.s.n.svc.cluster.local\tp\nfd00::1\tp.s.n.svc.cluster.local\tp\n\
                    \n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n";
        assert!(
            text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\t"),
            "{text}"
        );
        assert!(text.ends_with(tail), "{text}");
        assert!(managed(&["10.0.0.1".into()], "p", "", &[]).ends_with("ip6-allrouters\n10.0.0.1\tp\n"));
        assert_eq!(
            of_node("x\n", &[]),
            "# Kubernetes-managed hosts file (host network).\nx\n"
        );
    }

    #[test]
    fn names() {
        let long = format!("{}-x", "a".repeat(62));
        for (spec, expect) in [
            (json!({}), ("p".to_owned(), "")),
            (
                json!({"hostname": "h", "subdomain": "s"}),
                ("h".to_owned(), "s.n.svc.cluster.local"),
            ),
            (json!({"hostname": long}), ("a".repeat(62), "")),
            (
                json!({"hostname": "h", "subdomain": "s", "hostnameOverride": "o.x"}),
                ("o.x".to_owned(), ""),
            ),
        ] {
            let mut spec: Value = spec;
            spec["containers"] = json!([]);
            let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(host_name(&pod, "cluster.local"), (expect.0, expect.1.to_owned()));
        }
    }
}
