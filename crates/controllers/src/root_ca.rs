//! The root CA publisher: the config map `kube-root-ca.crt` in every namespace, with which pods check the API server.
//! Source: `pkg/controller/certificates/rootcacertpublisher/publisher.go`.

use api::Value;
use client::informer::{Delta, Informer};
use client::k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Meta, Patch, resources};
use serde_json::json;

use crate::context::{Context, synced};
use crate::service_account::is_open;

const WORKERS: usize = 4;
const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

#[derive(Debug, PartialEq)]
enum Action {
    Nothing,
    Create(Value),
    Edit(Value),
}

fn decide(namespace: Option<&Namespace>, published: Option<&ConfigMap>, ca_pem: &str) -> Action {
    let Some(namespace) = namespace.filter(|namespace| is_open(namespace)) else {
        return Action::Nothing;
    };
    let Some(published) = published else {
        return Action::Create(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": NAME, "namespace": namespace.metadata.name(), "annotations": {DESCRIPTION_KEY: DESCRIPTION},
            },
            "data": {"ca.crt": ca_pem},
        }));
    };
    let data = published.data.clone().unwrap_or_default();
    let annotations = published.metadata.annotations.clone().unwrap_or_default();
    let right = data.len() == 1 && data.get("ca.crt").is_some_and(|text| text == ca_pem);
    if right && annotations.get(DESCRIPTION_KEY).is_some_and(|text| text == DESCRIPTION) {
        return Action::Nothing;
    }
    let mut edit = json!({
        "metadata": {
            "resourceVersion": published.metadata.resource_version(), "annotations": {DESCRIPTION_KEY: DESCRIPTION},
        },
        "data": {"ca.crt": ca_pem},
    });
    for key in data.keys().filter(|key| *key != "ca.crt") {
        edit["data"][key] = Value::Null;
    }
    Action::Edit(edit)
}

/// Starts the controller.
pub(crate) fn start(context: Context, ca_pem: String) {
    let namespaces = context.informers.informer::<Namespace>();
    // Only the maps of that name are held, not all config maps of the cluster.
    let selection = client::informer::Selection::fields(format!("metadata.name={NAME}"));
    let published = context.informers.selected::<ConfigMap>(selection);
    let queue = WorkQueue::<String>::new().named("root_ca_cert_publisher_queue");
    context.watch(&namespaces, {
        let queue = queue.clone();
        move |delta| {
            if let Some(namespace) = delta.object() {
                queue.add(namespace.metadata.name().to_string());
            }
        }
    });
    context.watch(&published, {
        let queue = queue.clone();
        move |delta| match delta {
            Delta::Updated { new: map, .. } | Delta::Deleted(map) => queue.add(map.metadata.namespace().to_string()),
            Delta::Added(_) | Delta::Synced => {}
        }
    });
    let ready = vec![synced(&namespaces), synced(&published)];
    let shell = context.clone();
    context.work(queue, ready, WORKERS, move |name| {
        let (context, namespaces, published, ca_pem) =
            (shell.clone(), namespaces.clone(), published.clone(), ca_pem.clone());
        async move { sync(&context, &namespaces, &published, &name, &ca_pem).await }
    });
}

async fn sync(
    context: &Context,
    namespaces: &Informer<Namespace>,
    published: &Informer<ConfigMap>,
    namespace: &str,
    ca_pem: &str,
) -> Result<Next, Error> {
    let map = published.get(namespace, NAME);
    let client = &context.client;
    let outcome = match decide(namespaces.get("", namespace).as_deref(), map.as_deref(), ca_pem) {
        Action::Nothing => return Ok(Next::Wait),
        Action::Create(map) => client.create_in(&resources::CONFIG_MAPS, namespace, &map).await,
        Action::Edit(edit) => {
            client
                .patch(&resources::CONFIG_MAPS, namespace, NAME, None, &Patch::Merge, &edit)
                .await
        }
    };
    match outcome {
        Ok(written) => {
            published.seen(api::meta::resource_version(&written)).await;
            Ok(Next::Wait)
        }
        Err(error) if error.is_namespace_terminating() || error.is_not_found() => Ok(Next::Wait),
        Err(error) if error.is_conflict() || error.is_already_exists() => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;

    #[tokio::test(start_paused = true)]
    async fn published_and_repaired() {
        let bench = Bench::new();
        bench.namespace("a");
        start(bench.context("root-ca-cert-publisher"), "PEM".into());
        bench
            .until(|api| api.get(&resources::CONFIG_MAPS, "a", NAME).is_some())
            .await;
        let data = |bench: &Bench| {
            bench
                .api
                .get(&resources::CONFIG_MAPS, "a", NAME)
                .map(|map| map["data"].clone())
        };
        assert_eq!(data(&bench), Some(json!({"ca.crt": "PEM"})));
        bench.api.edit(&resources::CONFIG_MAPS, "a", NAME, |map| {
            map["data"] = json!({"ca.crt": "other", "x": "y"})
        });
        bench.idle().await;
        assert_eq!(data(&bench), Some(json!({"ca.crt": "PEM"})));
        bench.api.remove(&resources::CONFIG_MAPS, "a", NAME);
        bench.idle().await;
        assert_eq!(data(&bench), Some(json!({"ca.crt": "PEM"})));
        bench.api.take_requests();
        bench.idle().await;
        assert_eq!(bench.api.take_writes(), Vec::<String>::new(), "idle means idle");
        bench.end().await;
    }
}
