//! The volume protection controller: a volume that is deleted stays until no claim is bound to it.

use api::Value;
use client::informer::Delta;
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Client, Error, Meta, Metadata, resources, view_kind};
use serde::Deserialize;

use super::{Action, decide, write};
use crate::context::{Context, synced};

const WORKERS: usize = 2;
const FINALIZER: &str = "kubernetes.io/pv-protection";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Volume {
    metadata: Metadata,
    status: VolumeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeStatus {
    phase: String,
}

view_kind!(Volume, resources::PERSISTENT_VOLUMES);

fn judge(volume: &Volume) -> Action {
    decide(&volume.metadata, FINALIZER, || volume.status.phase == "Bound")
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let volumes = context.informers.informer::<Volume>();
    let queue = WorkQueue::<String>::new().named("pvprotection");
    context.watch(&volumes, {
        let queue = queue.clone();
        move |delta| match delta {
            Delta::Added(volume) | Delta::Updated { new: volume, .. } => {
                if judge(&volume) != Action::Nothing {
                    queue.add(volume.metadata.name().into());
                }
            }
            Delta::Deleted(_) | Delta::Synced => {}
        }
    });
    let client = context.client.clone();
    context.work(queue, vec![synced(&volumes)], WORKERS, move |name| {
        let client = client.clone();
        async move { sync(&client, &name).await }
    });
}

async fn sync(client: &Client, name: &str) -> Result<Next, Error> {
    let resource = resources::PERSISTENT_VOLUMES;
    let object: Value = match client.get_in(&resource, "", name).await {
        Ok(object) => object,
        Err(error) if error.is_not_found() => return Ok(Next::Wait),
        Err(error) => return Err(error),
    };
    let action = judge(&Volume::deserialize(&object).unwrap_or_default());
    write(client, &resource, object, action, FINALIZER).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn a_volume_goes_when_no_claim_is_bound_to_it() {
        let bench = Bench::new();
        let finalizers = |bench: &Bench| {
            let volume = bench.api.get(&resources::PERSISTENT_VOLUMES, "", "v");
            volume.map(|volume| volume["metadata"]["finalizers"].clone())
        };
        bench.api.put(json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "v", "finalizers": ["example.com/other"]}, "status": {"phase": "Bound"}}));
        start(bench.context("pv-protection-controller"));
        bench.idle().await;
        assert_eq!(finalizers(&bench), Some(json!(["example.com/other", FINALIZER])));
        bench.api.edit(&resources::PERSISTENT_VOLUMES, "", "v", |volume| {
            volume["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        bench.idle().await;
        assert_eq!(
            finalizers(&bench),
            Some(json!(["example.com/other", FINALIZER])),
            "bound"
        );
        bench.api.edit(&resources::PERSISTENT_VOLUMES, "", "v", |volume| {
            volume["status"]["phase"] = "Released".into();
        });
        bench.idle().await;
        assert_eq!(finalizers(&bench), Some(json!(["example.com/other"])));
        bench.end().await;
    }
}
