//! Where a Service leads: to the address of a ready endpoint, which is then dialled as it was checked (D14); to a host outside
//! of the cluster; or back to this server.
//!
//! Source: `ResolveEndpoint` and `ResolveCluster` of `k8s.io/apiserver/pkg/util/proxy/proxy.go`, `NewLoopbackServiceResolver` of
//! kube-aggregator, and `IsProxyableIP` of apimachinery.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::field::quote;
use api::{GroupResource, Value};
use base::Random;
use tokio::net::TcpStream;

use crate::cluster::Cluster;
use crate::dial::{ServiceDialer, Stream};
use crate::hook::dialed;

/// The Service that stands for this server: its namespace, name and port.
pub(crate) const OWN: (&str, &str, u16) = ("default", "kubernetes", 443);

fn service(cluster: &dyn Cluster, namespace: &str, name: &str) -> Option<Value> {
    let services = GroupResource {
        group: String::new(),
        resource: "services".into(),
    };
    Some(cluster.get(&services, namespace, name)?.value())
}

/// Where a port of a Service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// To one of its ready endpoints.
    Endpoint(SocketAddr),
    /// To a host that a Service of type ExternalName stands for. Which ports it says it has does not count, as upstream.
    External(String, u16),
    /// To this server.
    Own,
}

/// The way to a Service's port.
///
/// # Errors
/// Why there is none, in upstream's words.
pub fn resolve(cluster: &dyn Cluster, namespace: &str, name: &str, port: u16, random: &Random) -> Result<Way, String> {
    if (namespace, name, port) == OWN {
        return Ok(Way::Own);
    }
    let quoted = quote(name);
    let service = service(cluster, namespace, name).ok_or_else(|| format!("service {quoted} not found"))?;
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        let host = spec["externalName"].as_str().unwrap_or("").to_owned();
        return Ok(Way::External(host, port));
    }
    let port_name = service_port(&service, &port.to_string());
    let port_name = port_name.ok_or_else(|| format!("no service port {port} found for service {quoted}"))?;
    let endpoints = ready_endpoints(cluster, namespace, name, &port_name);
    if endpoints.is_empty() {
        return Err(format!("no endpoints available for service {quoted}"));
    }
    let (address, port) = &endpoints[random.index(endpoints.len())];
    let address = checked(address, *port).ok_or("address not allowed")?;
    Ok(Way::Endpoint(address))
}

// === impl Way ===

impl Way {
    /// A connection.
    ///
    /// # Errors
    /// As Go says it.
    pub async fn dial(&self, services: Option<&Arc<dyn ServiceDialer>>) -> io::Result<Stream> {
        let services = services.ok_or_else(|| io::Error::other("this server has no way to its pods"))?;
        match self {
            Way::Endpoint(address) => {
                let stream = services.dial(*address).await;
                stream.map_err(|error| dialed(&address.to_string(), &error))
            }
            Way::External(host, port) => services.dial_external(host, *port).await,
            Way::Own => services.dial_own().await,
        }
    }
}

/// The name of the service's port that was asked for by name, by number, or by nothing when there is only one.
pub fn service_port(service: &Value, wanted: &str) -> Option<String> {
    let ports = service["spec"]["ports"].as_array()?;
    let found = match wanted {
        "" if ports.len() == 1 => ports.first(),
        "" => ports
            .iter()
            .find(|port| port["name"].as_str().unwrap_or("").is_empty())
            .or(ports.first()),
        wanted => ports.iter().find(|port| {
            port["name"] == wanted || port["port"].as_u64().is_some_and(|number| number.to_string() == wanted)
        }),
    }?;
    Some(found["name"].as_str().unwrap_or("").to_owned())
}

/// The ready endpoints of a Service's port, by its name.
pub fn ready_endpoints(cluster: &dyn Cluster, namespace: &str, service: &str, port_name: &str) -> Vec<(String, u16)> {
    let slices = GroupResource {
        group: "discovery.k8s.io".into(),
        resource: "endpointslices".into(),
    };
    let slices = cluster.list(&slices, Some(namespace));
    let mine = slices
        .iter()
        .filter(|slice| slice.label("kubernetes.io/service-name") == Some(service));
    mine.flat_map(|slice| ready(&slice.value(), port_name)).collect()
}

/// The ready addresses of a slice, with the number of the named port.
fn ready(slice: &Value, port_name: &str) -> Vec<(String, u16)> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let mut ports = ports.filter(|port| port["name"].as_str().unwrap_or("") == port_name);
    let Some(port) = ports
        .next()
        .and_then(|port| port["port"].as_u64())
        .and_then(|p| u16::try_from(p).ok())
    else {
        return Vec::new();
    };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true));
    let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str());
    addresses.map(|address| (address.to_owned(), port)).collect()
}

/// The address, unless it is none that pods may have: nobody points the server at itself or at the link's own services. One
/// of IPv4 stays one when it is written as one of IPv6: the kernel takes them for the same.
pub fn checked(address: &str, port: u16) -> Option<SocketAddr> {
    let ip = address.parse::<IpAddr>().ok()?.to_canonical();
    let of_the_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let refused = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || of_the_link;
    (!refused).then(|| SocketAddr::new(ip, port))
}

/// A connection to the first address of a host that takes it. Whoever writes a Service does not point the server at itself.
pub(crate) async fn dial_external(host: &str, port: u16) -> io::Result<Stream> {
    let none = || io::Error::other(format!("dial tcp: lookup {host}: no such host"));
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(|_| none())?;
    let mut last = none();
    for address in addresses {
        if checked(&address.ip().to_string(), port).is_none() {
            last = io::Error::other("address not allowed");
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            Err(error) => last = dialed(&address.to_string(), &error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_lead_to_ready_endpoints() {
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]}});
        assert_eq!(service_port(&service, "81").as_deref(), Some("admin"));
        assert_eq!(service_port(&service, "web").as_deref(), Some("web"));
        assert_eq!(service_port(&service, "x"), None);
        let slice = json!({"ports": [{"name": "web", "port": 8080}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]});
        assert_eq!(ready(&slice, "web"), [("10.0.0.1".to_owned(), 8080)]);
        assert!(ready(&slice, "admin").is_empty());
    }

    #[tokio::test]
    async fn nobody_leads_the_server_to_itself() {
        for host in ["localhost", "127.0.0.1", "169.254.169.254"] {
            let refused = dial_external(host, 443).await.err().map(|error| error.to_string());
            assert_eq!(refused.as_deref(), Some("address not allowed"), "{host}");
        }
    }

    #[test]
    fn some_addresses_are_nobodys_pods() {
        for (address, expect) in [
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("web", false),
        ] {
            assert_eq!(checked(address, 80).is_some(), expect, "{address}");
        }
    }
}
