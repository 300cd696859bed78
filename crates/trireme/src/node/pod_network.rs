//! The runtime's pods linked to the node's network, with the ports of the node that lead to them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use ipnet::Ipv4Net;
use network::host_ports::Orders;
use network::links::{LinksConfig, PodLinks};
use network::node::MTU;
use network::views::Protocol;
use network::{HostPort, HostPorts};
use runtime::PodNetworkRequest;
use runtime::network::{NetworkFuture, PortMapping};
use sys::netns::NetworkNamespace;

use crate::errors::{Context as _, Result};

/// Links pods at layer 3.
pub struct PodNetwork {
    links: Arc<PodLinks>,
    host_ports: HostPorts,
}

// === impl PodNetwork ===

impl PodNetwork {
    /// The links of the node with that address, and the host ports for its agent; those of before are found again in the
    /// record.
    pub fn open(
        namespace: &NetworkNamespace,
        records: &Path,
        node: Ipv4Addr,
        range: Ipv4Net,
    ) -> Result<(Arc<PodNetwork>, Orders)> {
        let config = LinksConfig {
            record_directory: records.to_owned(),
            pod_network: range,
            mtu: MTU,
        };
        let links = PodLinks::open(namespace, config).doing("opening the node's pod links")?;
        let (host_ports, orders) = HostPorts::new(node);
        for (sandbox, pod, ports) in links.host_ports() {
            // They are in the agent's first rules; nobody has to wait for that.
            drop(host_ports.publish(&sandbox, pod, &ports));
        }
        let links = Arc::new(links);
        Ok((Arc::new(PodNetwork { links, host_ports }), orders))
    }
}

/// Those that can be had: IPv6 addresses have nobody to lead to.
fn host_ports(request: &PodNetworkRequest) -> Vec<HostPort> {
    let port = |mapping: &PortMapping| {
        let address = match mapping.host_ip.as_str() {
            "" => Ipv4Addr::UNSPECIFIED,
            address => address.parse().ok()?,
        };
        Some(HostPort {
            protocol: Protocol::parse(Some(mapping.protocol))?,
            address,
            port: mapping.host_port,
            target: mapping.container_port,
        })
    };
    let ports = request.ports.iter().filter_map(|mapping| {
        let found = port(mapping);
        if found.is_none() {
            tracing::warn!(
                pod = request.name,
                ?mapping,
                "no host port: pods have IPv4 addresses only"
            );
        }
        found
    });
    ports.collect()
}

impl runtime::PodNetwork for PodNetwork {
    fn setup<'a>(&'a self, request: &'a PodNetworkRequest) -> NetworkFuture<'a, Vec<IpAddr>> {
        let (links, key) = (self.links.clone(), request.sandbox_id.clone());
        let netns = request.netns.clone();
        let ports = host_ports(request);
        Box::pin(async move {
            let netns = netns.ok_or("the sandbox has no network namespace")?;
            let known = ports.clone();
            let linked = tokio::task::spawn_blocking(move || {
                let address = links.add(&netns, &key)?;
                if !known.is_empty() {
                    links.set_host_ports(&key, known)?;
                }
                Ok(address)
            });
            let linked: Result<Ipv4Addr, network::links::LinkError> =
                linked.await.map_err(|error| error.to_string())?;
            let address = linked.map_err(|error| error.to_string())?;
            if !ports.is_empty() {
                let published = self.host_ports.publish(&request.sandbox_id, address, &ports);
                published.await.map_err(|error| error.to_string())?;
            }
            Ok(vec![IpAddr::V4(address)])
        })
    }

    fn teardown<'a>(&'a self, request: &'a PodNetworkRequest) -> NetworkFuture<'a, ()> {
        let (links, key) = (self.links.clone(), request.sandbox_id.clone());
        Box::pin(async move {
            // Before the link: its address may be another pod's soon.
            if !request.ports.is_empty() {
                let withdrawn = self.host_ports.withdraw(&key).await;
                withdrawn.map_err(|error| error.to_string())?;
            }
            let removed = tokio::task::spawn_blocking(move || links.remove(&key)).await;
            removed
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())
        })
    }
}
