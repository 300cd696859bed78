//! The Lease in `kube-node-lease`: a heartbeat that costs one small write.
//!
//! Source: `k8s.io/component-helpers/apimachinery/lease/controller.go`.

use std::time::Duration;

use base::{Clock, Shutdown};
use client::{Client, Patch, resources};
use serde_json::{Value, json};

/// How long the node counts as alive after a heartbeat, in seconds.
const DURATION_SECONDS: u64 = 40;
/// A heartbeat comes four times in that time.
const RENEW_EVERY: Duration = Duration::from_secs(DURATION_SECONDS / 4);
/// A heartbeat that failed is tried again after this long, doubled each time.
const RETRY: Duration = Duration::from_millis(200);
/// The longest pause between tries. There is no event that says that the API answers again, and with this one a node has
/// several tries left before it counts as dead. Source: `maxBackoff` of upstream's lease controller.
const RETRY_MAX: Duration = Duration::from_secs(7);
const NAMESPACE: &str = "kube-node-lease";

/// Keeps the Lease of a node.
pub struct Keeper {
    client: Client,
    clock: Clock,
    node: String,
}

// === impl Keeper ===

impl Keeper {
    /// A keeper for the node of that name.
    pub fn new(client: Client, clock: Clock, node: String) -> Keeper {
        Keeper { client, clock, node }
    }

    /// Renews until the end is asked for.
    pub async fn keep(self, shutdown: Shutdown) {
        let mut retry = RETRY;
        loop {
            let wait = match self.renew().await {
                Ok(()) => {
                    retry = RETRY;
                    RENEW_EVERY
                }
                Err(error) => {
                    tracing::warn!(%error, "the node's lease was not renewed");
                    let wait = retry;
                    retry = (retry * 2).min(RETRY_MAX);
                    wait
                }
            };
            if shutdown.until(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn renew(&self) -> Result<(), client::Error> {
        let patch = json!({"spec": self.spec()});
        let patched = self
            .client
            .patch(&resources::LEASES, NAMESPACE, &self.node, None, &Patch::Merge, &patch)
            .await;
        match patched {
            Err(error) if error.is_not_found() => {
                let lease = self.object().await;
                self.client
                    .create_in(&resources::LEASES, NAMESPACE, &lease)
                    .await
                    .map(drop)
            }
            other => other.map(drop),
        }
    }

    /// The Lease is the node's: it goes with it.
    async fn object(&self) -> Value {
        let mut lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.node, "namespace": NAMESPACE}, "spec": self.spec(),
        });
        if let Ok(node) = self.client.get_in::<Value>(&resources::NODES, "", &self.node).await {
            lease["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "v1", "kind": "Node", "name": self.node, "uid": api::meta::uid(&node),
            }]);
        }
        lease
    }

    fn spec(&self) -> Value {
        let now = self.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        json!({"holderIdentity": self.node, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now})
    }
}
