//! The variables that tell a container where services are, `<NAME>_SERVICE_HOST` and those of Docker's links.
//!
//! Source: `pkg/kubelet/envvars/envvars.go` and `getServiceEnvVarMap` of `pkg/kubelet/kubelet_pods.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::Service;

/// The service of the default namespace that every container learns of.
const MASTER_SERVICE: &str = "kubernetes";

/// The variables for a pod of this namespace.
pub fn service_variables(services: &[Arc<Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or("");
        let its_namespace = service.metadata.namespace.as_deref().unwrap_or("");
        if its_namespace == "default" && name == MASTER_SERVICE {
            // A service of that name in the pod's own namespace comes before it.
            chosen.entry(name).or_insert(service);
        } else if its_namespace == namespace && links {
            chosen.insert(name, service);
        }
    }
    let mut variables = BTreeMap::new();
    chosen
        .into_iter()
        .for_each(|(name, service)| add(&mut variables, name, service));
    variables
}

fn add(variables: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or("");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (false, Some(first)) = (matches!(address, "" | "None"), ports.first()) else {
        return;
    };
    let prefix = variable_name(name);
    // Addresses of the sixth version stand in brackets where a port follows.
    let authority = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    variables.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
    variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.insert(
                format!("{prefix}_SERVICE_PORT_{}", variable_name(port_name)),
                port.port.to_string(),
            );
        }
    }
    for (at, port) in ports.iter().enumerate() {
        let protocol = port
            .protocol
            .as_deref()
            .filter(|protocol| !protocol.is_empty())
            .unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{authority}:{}", port.port);
        if at == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.insert(format!("{port_prefix}_PROTO"), lower);
        variables.insert(format!("{port_prefix}_PORT"), port.port.to_string());
        variables.insert(format!("{port_prefix}_ADDR"), address.to_owned());
        variables.insert(port_prefix, url);
    }
}

fn variable_name(name: &str) -> String {
    let upper = name.replace(['.', '-'], "_").to_uppercase();
    if upper.starts_with(|first: char| first.is_ascii_digit()) {
        format!("_{upper}")
    } else {
        upper
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, address: &str, ports: serde_json::Value) -> Arc<Service> {
        let object = json!({
            "metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": address, "ports": ports},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn lines(services: &[Arc<Service>], namespace: &str, links: bool) -> Vec<String> {
        let variables = service_variables(services, namespace, links);
        variables
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn the_variables_of_a_service() {
        let services = [service(
            "n",
            "my-db.x",
            "10.0.0.2",
            json!([{"port": 53, "protocol": "UDP", "name": "dns-udp"}]),
        )];
        let expect = [
            "MY_DB_X_PORT=udp://10.0.0.2:53",
            "MY_DB_X_PORT_53_UDP=udp://10.0.0.2:53",
            "MY_DB_X_PORT_53_UDP_ADDR=10.0.0.2",
            "MY_DB_X_PORT_53_UDP_PORT=53",
            "MY_DB_X_PORT_53_UDP_PROTO=udp",
            "MY_DB_X_SERVICE_HOST=10.0.0.2",
            "MY_DB_X_SERVICE_PORT=53",
            "MY_DB_X_SERVICE_PORT_DNS_UDP=53",
        ];
        assert_eq!(lines(&services, "n", true), expect);
    }

    #[test]
    fn who_learns_of_which() {
        let port = || json!([{"port": 443}]);
        let services = [
            service("default", "kubernetes", "10.0.0.1", port()),
            service("n", "kubernetes", "10.0.0.9", port()),
            service("n", "headless", "None", port()),
            service("n", "none", "", json!([])),
            service("other", "x", "10.0.0.3", port()),
            service("default", "y", "10.0.0.4", port()),
        ];
        let host = |namespace, links| {
            let mut hosts = lines(&services, namespace, links);
            hosts.retain(|line| line.contains("_SERVICE_HOST"));
            hosts.join(" ")
        };
        assert_eq!(host("n", false), "KUBERNETES_SERVICE_HOST=10.0.0.1");
        assert_eq!(host("n", true), "KUBERNETES_SERVICE_HOST=10.0.0.9");
        assert_eq!(
            host("default", true),
            "KUBERNETES_SERVICE_HOST=10.0.0.1 Y_SERVICE_HOST=10.0.0.4"
        );
        assert_eq!(host("default", false), "KUBERNETES_SERVICE_HOST=10.0.0.1");
    }
}
