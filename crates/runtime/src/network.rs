//! What a pod's network is made by: somebody else, handed in.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;

/// The future that a network implementation answers with.
pub type NetworkFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// A pod whose network is to be made or taken away.
#[derive(Debug, Clone, Default)]
pub struct PodNetworkRequest {
    /// The sandbox's id; the same for set-up and teardown.
    pub sandbox_id: String,
    /// The network namespace (`/proc/<pid>/ns/net`); `None` on teardown if the namespace is gone already.
    pub netns: Option<PathBuf>,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Ports of the node that lead to it.
    pub ports: Vec<PortMapping>,
    /// On teardown: the addresses that set-up returned.
    pub ips: Vec<IpAddr>,
}

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// In the pod.
    pub container_port: u16,
    /// On the node.
    pub host_port: u16,
    /// The node's address, or empty for all.
    pub host_ip: String,
}

/// Gives pods their network. Pods in the node's own network are never passed here.
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects the namespace and returns the pod's addresses, the primary one first. The loopback link is up already.
    fn setup<'a>(&'a self, request: &'a PodNetworkRequest) -> NetworkFuture<'a, Vec<IpAddr>>;

    /// Takes everything away that set-up made. Called again after a failure, and for pods whose namespace is gone.
    fn teardown<'a>(&'a self, request: &'a PodNetworkRequest) -> NetworkFuture<'a, ()>;

    /// Why pods cannot be connected yet; the node's `NetworkReady` condition.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    /// The kubelet learned the node's pod address range.
    fn set_pod_cidr(&self, _cidr: &str) {}
}

/// No network but the loopback link: for tests, and for nodes that need none.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoopbackOnly;

impl PodNetwork for LoopbackOnly {
    fn setup<'a>(&'a self, _request: &'a PodNetworkRequest) -> NetworkFuture<'a, Vec<IpAddr>> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }

    fn teardown<'a>(&'a self, _request: &'a PodNetworkRequest) -> NetworkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
