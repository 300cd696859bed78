//! Removes bootstrap tokens whose time is over. Upstream runs it where bootstrap tokens are used, and so do we.
//! Source: `pkg/controller/bootstrap/tokencleaner.go`.

use std::time::Duration;

use client::informer::{Informer, Selection};
use client::k8s_openapi::api::core::v1::Secret;
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, Meta, resources};
use jiff::Timestamp;

use crate::context::{Context, synced};

const WORKERS: usize = 1;
pub(crate) const NAMESPACE: &str = "kube-system";
pub(crate) const TYPE: &str = "bootstrap.kubernetes.io/token";

/// When a token goes; `None`: not by itself. A time that cannot be read is over.
pub(crate) fn goes_at(secret: &Secret) -> Option<Timestamp> {
    let expiration = &secret.data.as_ref()?.get("expiration")?.0;
    let text = std::str::from_utf8(expiration).unwrap_or("?");
    (!text.is_empty()).then(|| text.parse().unwrap_or(Timestamp::MIN))
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let secrets = context
        .informers
        .selected::<Secret>(Selection::fields(format!("type={TYPE}")));
    let queue = WorkQueue::<String>::new().named("token_cleaner");
    context.watch(&secrets, {
        let queue = queue.clone();
        move |delta| {
            if let Some(secret) = delta.object().filter(|secret| secret.metadata.namespace() == NAMESPACE) {
                queue.add(secret.metadata.name().to_owned());
            }
        }
    });
    let shell = context.clone();
    context.work(queue, vec![synced(&secrets)], WORKERS, move |name| {
        let (context, secrets) = (shell.clone(), secrets.clone());
        async move { sync(&context, &secrets, &name).await }
    });
}

async fn sync(context: &Context, secrets: &Informer<Secret>, name: &str) -> Result<Next, Error> {
    let Some(secret) = secrets.get(NAMESPACE, name) else {
        return Ok(Next::Wait);
    };
    let Some(at) = goes_at(&secret) else {
        return Ok(Next::Wait);
    };
    let left = Duration::try_from(at.duration_since(context.clock.now())).unwrap_or_default();
    if !left.is_zero() {
        return Ok(Next::After(left));
    }
    let params = DeleteParams::uid(secret.metadata.uid.as_deref().unwrap_or_default());
    let gone = context
        .client
        .delete(&resources::SECRETS, NAMESPACE, name, &params)
        .await;
    match gone {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(Next::Wait),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use serde_json::json;

    use super::*;
    use crate::testkit::Bench;

    #[tokio::test(start_paused = true)]
    async fn tokens_go_when_their_time_is_over() {
        let bench = Bench::new();
        start(bench.context("token-cleaner"));
        let now = bench.api.clock().now();
        let later = |seconds: u64| (now + Duration::from_secs(seconds)).to_string();
        for (name, kind, namespace, expiration) in [
            ("soon", TYPE, NAMESPACE, later(3600)),
            ("late", TYPE, NAMESPACE, later(36_000)),
            ("over", TYPE, NAMESPACE, now.to_string()),
            ("broken", TYPE, NAMESPACE, "tomorrow".into()),
            ("endless", TYPE, NAMESPACE, String::new()),
            ("other", "Opaque", NAMESPACE, now.to_string()),
            ("elsewhere", TYPE, "default", now.to_string()),
        ] {
            let expiration = base64::engine::general_purpose::STANDARD.encode(expiration);
            bench.api.put(json!({
                "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name, "namespace": namespace},
                "data": {"expiration": expiration},
            }));
        }
        let left = |api: &client::testing::FakeApi| {
            let secrets = api.list(&resources::SECRETS);
            let mut names: Vec<String> = secrets
                .iter()
                .map(|secret| api::meta::name(secret).to_owned())
                .collect();
            names.sort();
            names
        };
        let first = ["elsewhere", "endless", "late", "other", "soon"];
        bench.until(|api| left(api) == first).await;
        tokio::time::sleep(Duration::from_secs(3599)).await;
        assert_eq!(left(&bench.api), first);
        bench
            .until(|api| left(api) == ["elsewhere", "endless", "late", "other"])
            .await;
        bench.end().await;
    }
}
