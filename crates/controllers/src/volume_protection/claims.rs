//! The claim protection controller: a claim that is deleted stays until no pod on a node uses it.

use api::Value;
use client::informer::{Delta, Informer};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, ListParams, Meta, Metadata, resources, view_kind};
use serde::Deserialize;

use super::{Action, decide, write};
use crate::context::{Context, Name, name_of, synced};
use crate::views::{ClaimUse, Pod};

const WORKERS: usize = 2;
const FINALIZER: &str = "kubernetes.io/pvc-protection";
/// The index of pods by the claims that they use: `namespace/claim`.
const CLAIM_INDEX: &str = "claim";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Claim {
    metadata: Metadata,
}

view_kind!(Claim, resources::PERSISTENT_VOLUME_CLAIMS);

/// The names of the claims that a pod uses.
fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    pod.spec.claims.iter().map(|claim| match claim {
        ClaimUse::Named(name) => name.clone(),
        ClaimUse::Ephemeral(volume) => format!("{}-{volume}", pod.metadata.name()),
    })
}

/// Whether a pod keeps a claim. One that no node has yet does not: its kubelet will not start a pod whose claim is going.
fn uses(pod: &Pod, claim: &Metadata) -> bool {
    let over = matches!(&*pod.status.phase, "Succeeded" | "Failed");
    let named = |used: &ClaimUse| match used {
        ClaimUse::Named(name) => name == claim.name(),
        ClaimUse::Ephemeral(volume) => {
            // The claim of another pod, or of nobody, may have the name.
            let own = claim.owner_uids().contains(&pod.metadata.uid());
            !over && own && format!("{}-{volume}", pod.metadata.name()) == claim.name()
        }
    };
    !pod.spec.node_name.is_empty() && pod.spec.claims.iter().any(named)
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let claims = context.informers.informer::<Claim>();
    let pods = context.informers.informer::<Pod>();
    pods.add_index(CLAIM_INDEX, |pod, add| {
        for claim in claims_of(pod) {
            add(&format!("{}/{claim}", pod.metadata.namespace()));
        }
    });
    let queue = WorkQueue::<Name>::new().named("pvcprotection");
    context.watch(&claims, {
        let queue = queue.clone();
        move |delta| match delta {
            Delta::Added(claim) | Delta::Updated { new: claim, .. } => {
                if decide(&claim.metadata, FINALIZER, || false) != Action::Nothing {
                    queue.add(name_of(&*claim));
                }
            }
            Delta::Deleted(_) | Delta::Synced => {}
        }
    });
    context.watch(&pods, {
        let queue = queue.clone();
        move |delta| {
            // A pod that goes or ends frees its claims.
            let freed = match &delta {
                Delta::Deleted(pod) => Some(pod),
                Delta::Updated { new: pod, .. } => crate::pods::is_terminal(pod).then_some(pod),
                Delta::Added(_) | Delta::Synced => None,
            };
            if let Some(pod) = freed {
                for claim in claims_of(pod) {
                    queue.add((pod.metadata.namespace().into(), claim));
                }
            }
        }
    });
    let ready = vec![synced(&claims), synced(&pods)];
    let shell = context.clone();
    context.work(queue, ready, WORKERS, move |(namespace, name)| {
        let (context, claims, pods) = (shell.clone(), claims.clone(), pods.clone());
        async move { sync(&context, &claims, &pods, &namespace, &name).await }
    });
}

async fn sync(
    context: &Context,
    claims: &Informer<Claim>,
    pods: &Informer<Pod>,
    namespace: &str,
    name: &str,
) -> Result<Next, Error> {
    let Some(claim) = claims.get(namespace, name) else {
        return Ok(Next::Wait);
    };
    let indexed = pods.indexed(CLAIM_INDEX, &format!("{namespace}/{name}"));
    let used = || indexed.iter().any(|pod| uses(pod, &claim.metadata));
    if decide(&claim.metadata, FINALIZER, used) == Action::Nothing {
        return Ok(Next::Wait);
    }
    let (client, resource) = (&context.client, resources::PERSISTENT_VOLUME_CLAIMS);
    let object: Value = match client.get_in(&resource, namespace, name).await {
        Ok(object) => object,
        Err(error) if error.is_not_found() => return Ok(Next::Wait),
        Err(error) => return Err(error),
    };
    let metadata = Metadata::deserialize(&object["metadata"]).unwrap_or_default();
    let mut action = decide(&metadata, FINALIZER, || false);
    if action == Action::Remove {
        // What was heard so far may be old: the server itself says last that no pod uses the claim.
        let now = client.list::<Pod>(namespace, &ListParams::default()).await?;
        if now.items.iter().any(|pod| uses(pod, &metadata)) {
            action = Action::Nothing;
        }
    }
    write(client, &resource, object, action, FINALIZER).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;
    use serde_json::json;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn what_uses_a_claim() {
        let claim: Metadata = serde_json::from_value(json!({"name": "p-v", "ownerReferences": [{"apiVersion": "v1",
            "kind": "Pod", "name": "p", "uid": "u"}]}))
        .expect("metadata");
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "p-v"}}]);
        let ephemeral = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]);
        for (uid, node, volumes, phase, expect) in [
            ("x", "n", &named, "Running", true),
            ("x", "n", &named, "Succeeded", true),
            ("x", "", &named, "Pending", false),
            ("u", "n", &ephemeral, "Running", true),
            ("u", "n", &ephemeral, "Succeeded", false),
            ("x", "n", &ephemeral, "Running", false),
            ("u", "n", &json!([{"name": "v", "emptyDir": {}}]), "Running", false),
        ] {
            let pod = pod(
                json!({"metadata": {"name": "p", "uid": uid}, "spec": {"nodeName": node, "volumes": volumes},
                "status": {"phase": phase}}),
            );
            assert_eq!(uses(&pod, &claim), expect, "{pod:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_goes_with_its_last_pod() {
        let bench = Bench::new();
        bench.namespace("a");
        let finalizers = |bench: &Bench| {
            let claim = bench.api.get(&resources::PERSISTENT_VOLUME_CLAIMS, "a", "c");
            claim.map(|claim| claim["metadata"]["finalizers"].clone())
        };
        bench
            .api
            .put(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "a", "finalizers": ["example.com/other"]}}));
        bench.api.put(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"},
            "spec": {"nodeName": "n", "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}),
        );
        start(bench.context("pvc-protection-controller"));
        bench.idle().await;
        assert_eq!(finalizers(&bench), Some(json!(["example.com/other", FINALIZER])));
        bench.api.edit(&resources::PERSISTENT_VOLUME_CLAIMS, "a", "c", |claim| {
            claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        bench.idle().await;
        assert_eq!(
            finalizers(&bench),
            Some(json!(["example.com/other", FINALIZER])),
            "in use"
        );
        bench.api.remove(&resources::PODS, "a", "p");
        bench.idle().await;
        assert_eq!(finalizers(&bench), Some(json!(["example.com/other"])));
        bench.api.take_requests();
        bench.idle().await;
        assert_eq!(bench.api.take_writes(), Vec::<String>::new(), "idle means idle");
        bench.end().await;
    }
}
