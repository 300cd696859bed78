//! The runtime's pods linked to the node's network, with the ports of the node that lead to them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use ipnet::Ipv4Net;
use network::links::{LinksConfig, PodLinks};
use network::node::MTU;
use network::orders::Orders;
use network::views::{ObjectName, Protocol};
use network::{Attachments, HostPort, HostPorts};
use runtime::PodNetworkRequest;
use runtime::network::{NetworkFuture, PortMapping};
use sys::netns::NetworkNamespace;

use crate::errors::{Context as _, Result};

/// Links pods at layer 3.
pub struct PodNetwork {
    links: Arc<PodLinks>,
    host_ports: HostPorts,
    attachments: Attachments,
}

// === impl PodNetwork ===

impl PodNetwork {
    /// The links of the node with that address, and the orders for its agent; the pods of before and their host ports are
    /// found again in the record.
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
        let attachments = host_ports.attachments();
        for record in links.records() {
            // They are in the agent's first rules; nobody has to wait for that.
            if let Some(pod) = record.pod {
                drop(attachments.attach(&record.key, pod, record.address));
            }
            if !record.host_ports.is_empty() {
                drop(host_ports.publish(&record.key, record.address, &record.host_ports));
            }
        }
        let network = PodNetwork {
            links: Arc::new(links),
            host_ports,
            attachments,
        };
        Ok((Arc::new(network), orders))
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
        let pod = ObjectName::new(request.namespace.clone(), request.name.clone());
        Box::pin(async move {
            let netns = netns.ok_or("the sandbox has no network namespace")?;
            let (known, whose) = (ports.clone(), pod.clone());
            let linked = tokio::task::spawn_blocking(move || {
                let address = links.add(&netns, &key)?;
                links.describe(&key, whose, known)?;
                Ok(address)
            });
            let linked: Result<Ipv4Addr, network::links::LinkError> =
                linked.await.map_err(|error| error.to_string())?;
            let address = linked.map_err(|error| error.to_string())?;
            // Before anybody is led there, and before a container runs in it.
            let attached = self.attachments.attach(&request.sandbox_id, pod, address);
            attached.await.map_err(|error| error.to_string())?;
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
            // Told before the link goes, for its address may be another pod's soon. Nobody waits: the agent may not run yet, as
            // after a reboot, and it hears of whoever has the address or the ports next after this.
            if !request.ports.is_empty() {
                drop(self.host_ports.withdraw(&key));
            }
            drop(self.attachments.detach(&key));
            let removed = tokio::task::spawn_blocking(move || links.remove(&key)).await;
            removed
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())
        })
    }
}
