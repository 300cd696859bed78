//! The service account controller: every namespace has the service account `default`, which pods without another one use.
//! Source: `pkg/controller/serviceaccount/serviceaccounts_controller.go`.

use client::informer::Informer;
use client::k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Meta, resources};
use serde_json::json;

use crate::context::{Context, synced};

const WORKERS: usize = 4;
const DEFAULT: &str = "default";

/// Whether the namespace takes new objects.
pub(crate) fn is_open(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    !namespace.metadata.is_deleting() && phase != Some("Terminating")
}

/// Whether the account has to be made.
fn is_missing(namespace: Option<&Namespace>, account: Option<&ServiceAccount>) -> bool {
    namespace.is_some_and(is_open) && account.is_none()
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let namespaces = context.informers.informer::<Namespace>();
    let accounts = context.informers.informer::<ServiceAccount>();
    let queue = WorkQueue::<String>::new().named("serviceaccount");
    context.watch(&namespaces, {
        let queue = queue.clone();
        move |delta| {
            if let Some(namespace) = delta.object() {
                queue.add(namespace.metadata.name().to_string());
            }
        }
    });
    context.watch(&accounts, {
        let queue = queue.clone();
        move |delta| {
            if let client::informer::Delta::Deleted(account) = delta
                && account.metadata.name() == DEFAULT
            {
                queue.add(account.metadata.namespace().to_string());
            }
        }
    });
    let ready = vec![synced(&namespaces), synced(&accounts)];
    let shell = context.clone();
    context.work(queue, ready, WORKERS, move |name| {
        let (context, namespaces, accounts) = (shell.clone(), namespaces.clone(), accounts.clone());
        async move { sync(&context, &namespaces, &accounts, &name).await }
    });
}

async fn sync(
    context: &Context,
    namespaces: &Informer<Namespace>,
    accounts: &Informer<ServiceAccount>,
    namespace: &str,
) -> Result<Next, Error> {
    let account = accounts.get(namespace, DEFAULT);
    if !is_missing(namespaces.get("", namespace).as_deref(), account.as_deref()) {
        return Ok(Next::Wait);
    }
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT, "namespace": namespace},
    });
    match context
        .client
        .create_in(&resources::SERVICE_ACCOUNTS, namespace, &account)
        .await
    {
        Ok(created) => {
            accounts.seen(api::meta::resource_version(&created)).await;
            Ok(Next::Wait)
        }
        // The namespace went meanwhile, or somebody was faster.
        Err(error) if error.is_not_found() || error.is_namespace_terminating() || error.is_already_exists() => {
            Ok(Next::Wait)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;

    #[test]
    fn only_open_namespaces_want_one() {
        let namespace = |value| serde_json::from_value::<Namespace>(value).unwrap();
        let open = namespace(json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}));
        let closing = namespace(json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}));
        let deleted = namespace(json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let account = ServiceAccount::default();
        for (namespace, account, expect) in [
            (Some(&open), None, true),
            (Some(&open), Some(&account), false),
            (Some(&closing), None, false),
            (Some(&deleted), None, false),
            (None, None, false),
        ] {
            assert_eq!(is_missing(namespace, account), expect);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn made_and_made_again() {
        let bench = Bench::new();
        start(bench.context("service-account-controller"));
        bench.namespace("a");
        bench
            .until(|api| api.get(&resources::SERVICE_ACCOUNTS, "a", DEFAULT).is_some())
            .await;
        bench.idle().await;
        assert_eq!(bench.api.take_writes(), ["create serviceaccounts a/"]);
        bench.api.remove(&resources::SERVICE_ACCOUNTS, "a", DEFAULT);
        bench
            .until(|api| api.get(&resources::SERVICE_ACCOUNTS, "a", DEFAULT).is_some())
            .await;
        bench.end().await;
    }
}
