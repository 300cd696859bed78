//! This node in the API: its registration, its status, and the Lease that says that it lives.

mod facts;
mod images;
mod lease;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Clock, Shutdown};
use client::events::{ObjectReference, Recorder};
use client::{Client, Patch, resources};
use serde_json::{Value, json};
use tokio::sync::watch;

pub use facts::Facts;
pub use images::Images;

/// What this node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: std::net::IpAddr,
    /// The port of its kubelet.
    pub port: u16,
    /// Labels of its own.
    pub labels: BTreeMap<String, String>,
    /// How many pods it takes.
    pub pods_max: u32,
    /// What the machine has.
    pub facts: Facts,
    /// Name and version of the runtime: `trireme://0.1.0`.
    pub runtime_version: String,
    /// `v1.36.0+trireme.0.1.0`.
    pub kubelet_version: String,
}

/// Keeps the node's object as it should be.
pub struct NodeKeeper {
    client: Client,
    recorder: Recorder,
    clock: Clock,
    config: NodeConfig,
    /// Whether the runtime and the network are ready, and why not.
    ready: watch::Receiver<Result<(), String>>,
}

// === impl NodeKeeper ===

impl NodeKeeper {
    /// A keeper that tells `ready` as the node's condition.
    pub fn new(
        client: Client,
        recorder: Recorder,
        clock: Clock,
        config: NodeConfig,
        ready: watch::Receiver<Result<(), String>>,
    ) -> Arc<NodeKeeper> {
        Arc::new(NodeKeeper {
            client,
            recorder,
            clock,
            config,
            ready,
        })
    }

    /// Registers the node (an object of its name is taken over) and answers it.
    ///
    /// # Errors
    /// What the API said; a later try may succeed.
    pub async fn register(&self) -> Result<Value, client::Error> {
        let node = self.object();
        match self.client.create_in(&resources::NODES, "", &node).await {
            Ok(node) => {
                self.recorder.normal(self.reference(), "Starting", "Starting kubelet.");
                Ok(node)
            }
            Err(error) if error.is_already_exists() => {
                let labels = json!({"metadata": {"labels": self.labels()}});
                self.client
                    .patch(&resources::NODES, "", &self.config.name, None, &Patch::Merge, &labels)
                    .await
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps status and Lease until the end is asked for.
    pub async fn run(self: Arc<Self>, images: Images, shutdown: Shutdown) {
        let lease = lease::Keeper::new(self.client.clone(), self.clock.clone(), self.config.name.clone());
        let (status, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move { status.keep_status(images, stop).await });
        lease.keep(shutdown).await;
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.config.name, "labels": self.labels()},
            "status": self.status(&mut Default::default()),
        })
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.config.labels.clone();
        let arch = facts::architecture();
        for (key, value) in [
            ("kubernetes.io/hostname", self.config.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ] {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        labels
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.config.name.clone(),
            // Upstream names nodes by their name in events: the uid is not known before registration.
            uid: self.config.name.clone(),
            ..ObjectReference::default()
        }
    }
}
