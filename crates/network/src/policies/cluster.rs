//! The pods and namespaces of the cluster, as far as policies ask for them.
//!
//! The cluster's own DNS, which has no pod here, is one of them: a policy that allows CoreDNS of other clusters has to allow
//! it, too.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::views::{Labels, NamedPort, PodView};
use crate::views::{ObjectName, Protocol};

/// The port of DNS.
pub(super) const DNS_PORT: u16 = 53;
/// How DNS is asked.
pub(super) const DNS_PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];
/// Where it is.
pub(super) const DNS_NAMESPACE: &str = "kube-system";
/// No pod has such a name.
const DNS_NAME: &str = "(dns)";

/// A pod as it is known here: what the API says, and the addresses that this node gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What the API says.
    pub view: Arc<PodView>,
    /// Addresses of its sandboxes on this node; its status tells of them later.
    pub attached: Vec<Ipv4Addr>,
}

// === impl Known ===

impl Known {
    /// The addresses that are its own, each once.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        if !self.view.is_peer {
            return Vec::new();
        }
        let mut all = self.view.addresses.clone();
        all.extend(&self.attached);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// All pods and namespaces.
#[derive(Debug, Default)]
pub struct Cluster {
    pods: HashMap<String, HashMap<String, Known>>,
    namespaces: HashMap<String, Labels>,
}

// === impl Cluster ===

impl Cluster {
    /// A cluster whose own DNS answers on that address.
    pub fn new(dns_address: Option<Ipv4Addr>) -> Cluster {
        let mut cluster = Cluster::default();
        if let Some(address) = dns_address {
            let name = ObjectName::new(DNS_NAMESPACE, DNS_NAME);
            cluster.set(
                &name,
                Some(Known {
                    view: Arc::new(dns_pod(&name, address)),
                    attached: Vec::new(),
                }),
            );
        }
        cluster
    }

    /// The cluster's own DNS.
    pub fn dns(&self) -> Option<&Known> {
        self.pods.get(DNS_NAMESPACE)?.get(DNS_NAME)
    }

    /// A pod.
    pub fn get(&self, name: &ObjectName) -> Option<&Known> {
        self.pods.get(&name.namespace)?.get(&name.name)
    }

    /// Puts a pod there, or takes it away; returns what was there.
    pub fn set(&mut self, name: &ObjectName, pod: Option<Known>) -> Option<Known> {
        match pod {
            Some(pod) => {
                let pods = self.pods.entry(name.namespace.clone()).or_default();
                pods.insert(name.name.clone(), pod)
            }
            None => {
                let pods = self.pods.get_mut(&name.namespace)?;
                let before = pods.remove(&name.name);
                if pods.is_empty() {
                    self.pods.remove(&name.namespace);
                }
                before
            }
        }
    }

    /// The pods of a namespace.
    pub fn pods_of(&self, namespace: &str) -> impl Iterator<Item = &Known> {
        self.pods.get(namespace).into_iter().flat_map(HashMap::values)
    }

    /// The namespaces that have pods.
    pub fn namespaces_with_pods(&self) -> impl Iterator<Item = &str> {
        self.pods.keys().map(String::as_str)
    }

    /// The labels of a namespace; `None` when it is not known.
    pub fn labels(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)
    }

    /// Says what labels a namespace has, `None` when it is gone; returns what it had.
    pub fn set_labels(&mut self, namespace: &str, labels: Option<Labels>) -> Option<Labels> {
        match labels {
            Some(labels) => self.namespaces.insert(namespace.to_owned(), labels),
            None => self.namespaces.remove(namespace),
        }
    }
}

/// As `kubeadm` installs CoreDNS.
fn dns_pod(name: &ObjectName, address: Ipv4Addr) -> PodView {
    let port = |name: &str, protocol| NamedPort {
        name: name.to_owned(),
        protocol,
        port: DNS_PORT,
    };
    PodView {
        name: name.clone(),
        labels: Labels::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
        addresses: vec![address],
        is_peer: true,
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
    }
}
