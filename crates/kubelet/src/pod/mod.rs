//! The pods of this node: one task a pod, and the manager that starts and feeds them.

mod backoff;
mod ending;
mod hooks;
mod kill;
mod lookup;
mod manager;
mod reports;
mod resizing;
mod setup;
mod start;
mod telling;
mod verdict;
mod worker;

use std::collections::BTreeSet;

use base::{Clock, Random};
use client::Client;
use client::events::{ObjectReference, Recorder};
use client::informer::Informer;
use client::k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::{Mutex, RwLock};

use crate::config::{Node, identity};
use crate::cri::Cri;
use crate::env::NodeFacts;
use crate::plan::{Role, role_of};
use crate::probes::ProbeMetrics;
use crate::volumes::VolumeManager;

pub use lookup::NodePods;
pub use manager::{Manager, Running};
pub use resizing::Told as ResizeTold;

/// What all workers of a node share.
pub struct Shared {
    /// The runtime.
    pub cri: Cri,
    /// The API, as this node.
    pub client: Client,
    /// Events under the kubelet's name.
    pub recorder: Recorder,
    /// Wall time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// What the node gives to its pods.
    pub node: Node,
    /// The node's addresses.
    pub host_ips: RwLock<Vec<String>>,
    /// Volumes.
    pub volumes: VolumeManager,
    /// What the downward API tells of the node.
    pub facts: NodeFacts,
    /// Services, for the environment of containers.
    pub services: Informer<Service>,
    /// The node's pods, for what they leave to each other.
    pub pods: Informer<Pod>,
    /// How probes came out.
    pub probe_metrics: ProbeMetrics,
    /// The uids of pods that wait until others leave them more.
    pub deferred: Mutex<BTreeSet<String>>,
}

/// A reference to a pod, for events.
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference::to(&client::resources::PODS, &pod.metadata)
}

/// A reference to one of its containers.
pub fn container_reference(pod: &Pod, name: &str) -> ObjectReference {
    let list = role_of(pod, name).unwrap_or(Role::Main).list();
    reference(pod).field(format!("spec.{list}{{{name}}}"))
}

/// `name_namespace(uid)`, as upstream names pods in texts.
pub fn full_name(pod: &Pod) -> String {
    let (namespace, name, uid) = identity(pod);
    format!("{name}_{namespace}({uid})")
}
