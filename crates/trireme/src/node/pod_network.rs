//! The runtime's pods linked to the node's network.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::Ipv4Net;
use network::links::{LinksConfig, PodLinks};
use network::node::MTU;
use runtime::PodNetworkRequest;
use runtime::network::NetworkFuture;
use sys::netns::NetworkNamespace;

use crate::errors::{Context as _, Result};

/// Links pods at layer 3.
pub struct PodNetwork {
    links: Arc<PodLinks>,
}

// === impl PodNetwork ===

impl PodNetwork {
    /// The links of this node; those of before are found again in the record.
    pub fn open(namespace: &NetworkNamespace, records: &Path, range: Ipv4Net) -> Result<Arc<PodNetwork>> {
        let config = LinksConfig {
            record_directory: records.to_owned(),
            pod_network: range,
            mtu: MTU,
        };
        let links = PodLinks::open(namespace, config).doing("opening the node's pod links")?;
        Ok(Arc::new(PodNetwork { links: Arc::new(links) }))
    }
}

impl runtime::PodNetwork for PodNetwork {
    fn setup<'a>(&'a self, request: &'a PodNetworkRequest) -> NetworkFuture<'a, Vec<IpAddr>> {
        let (links, key) = (self.links.clone(), request.sandbox_id.clone());
        let netns = request.netns.clone();
        Box::pin(async move {
            let netns = netns.ok_or("the sandbox has no network namespace")?;
            let linked = tokio::task::spawn_blocking(move || links.add(&netns, &key)).await;
            let address = linked
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())?;
            Ok(vec![IpAddr::V4(address)])
        })
    }

    fn teardown<'a>(&'a self, request: &'a PodNetworkRequest) -> NetworkFuture<'a, ()> {
        let (links, key) = (self.links.clone(), request.sandbox_id.clone());
        Box::pin(async move {
            let removed = tokio::task::spawn_blocking(move || links.remove(&key)).await;
            removed
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())
        })
    }
}
