//! Signs `kube-public/cluster-info` with every bootstrap token that is for signing, so that whoever joins with one of them
//! knows that the map is the cluster's own. Upstream runs it where bootstrap tokens are used, and so do we.
//!
//! Source: `pkg/controller/bootstrap/bootstrapsigner.go`, `pkg/controller/bootstrap/util.go` and
//! `k8s.io/cluster-bootstrap/token/jws`.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use client::informer::{Informer, Selection};
use client::k8s_openapi::api::core::v1::Secret;
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Meta, resources};
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};

use crate::bootstrap_tokens::{NAMESPACE, TYPE, goes_at};
use crate::context::{Context, synced};

const WORKERS: usize = 1;
const MAP_NAMESPACE: &str = "kube-public";
const MAP: &str = "cluster-info";
/// What is signed.
const CONTENT: &str = "kubeconfig";
/// What the keys of signatures begin with; the token's id follows.
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";
/// What the names of tokens' Secrets begin with; the token's id follows.
const SECRET_PREFIX: &str = "bootstrap-token-";

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let secrets = context
        .informers
        .selected::<Secret>(Selection::fields(format!("type={TYPE}")));
    let selection = Selection::fields(format!("metadata.name={MAP}"));
    let maps = context
        .informers
        .informer_of::<Value>(resources::CONFIG_MAPS, selection);
    let queue = WorkQueue::<()>::new();
    context.watch(&secrets, {
        let queue = queue.clone();
        move |_| queue.add(())
    });
    context.watch(&maps, {
        let queue = queue.clone();
        move |_| queue.add(())
    });
    let ready = vec![synced(&secrets), synced(&maps)];
    let shell = context.clone();
    context.work(queue, ready, WORKERS, move |()| {
        let (context, secrets, maps) = (shell.clone(), secrets.clone(), maps.clone());
        async move { sync(&context, &secrets, &maps).await }
    });
}

async fn sync(context: &Context, secrets: &Informer<Secret>, maps: &Informer<Value>) -> Result<Next, Error> {
    let now = context.clock.now();
    let all = secrets.list();
    let (mut tokens, mut first_end) = (BTreeMap::new(), None);
    for secret in &all {
        let end = goes_at(secret);
        if let Some((id, token)) = token_of(secret).filter(|_| end.is_none_or(|end| end > now)) {
            first_end = first_end.into_iter().chain(end).min();
            tokens.insert(id, token);
        }
    }
    let next = first_end.map_or(Next::Wait, |end: Timestamp| {
        Next::After(Duration::try_from(end.duration_since(now)).unwrap_or_default())
    });
    let Some(map) = maps.get(MAP_NAMESPACE, MAP) else {
        return Ok(Next::Wait);
    };
    let Some(signed) = signed(&map["data"], &tokens) else {
        return Ok(next);
    };
    let mut new = (*map).clone();
    new["data"] = signed;
    let written = context
        .client
        .update(&resources::CONFIG_MAPS, MAP_NAMESPACE, MAP, None, &new)
        .await;
    match written {
        // Its news comes as an event.
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(next),
    }
}

/// The id and the token of a Secret that is for signing.
fn token_of(secret: &Secret) -> Option<(String, String)> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    if secret.metadata.namespace() != NAMESPACE || secret.type_.as_deref() != Some(TYPE) {
        return None;
    }
    let (id, token) = (text("token-id")?, text("token-secret")?);
    let is_named = secret.metadata.name().strip_prefix(SECRET_PREFIX) == Some(&*id);
    let is_for_signing = text("usage-bootstrap-signing").as_deref() == Some("true");
    (is_named && is_for_signing && !id.is_empty() && !token.is_empty()).then_some((id, token))
}

/// The map's data with these tokens' signatures and no others; `None`: it is so, or there is nothing to sign.
fn signed(data: &Value, tokens: &BTreeMap<String, String>) -> Option<Value> {
    let content = data[CONTENT].as_str()?;
    let mut new = data.clone();
    let fields = new.as_object_mut()?;
    fields.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    for (id, token) in tokens {
        fields.insert(format!("{SIGNATURE_PREFIX}{id}"), signature(content, id, token).into());
    }
    (new != *data).then_some(new)
}

/// A detached JSON web signature: what is signed is left out of it.
fn signature(content: &str, id: &str, token: &str) -> String {
    let header = BASE64.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    let signed = hmac::sign(&key, format!("{header}.{}", BASE64.encode(content)).as_bytes());
    format!("{header}..{}", BASE64.encode(signed))
}

#[cfg(test)]
mod tests {
    use client::testing::FakeApi;

    use super::*;
    use crate::testkit::Bench;

    #[test]
    fn signatures_are_those_of_upstream() {
        // From the test of k8s.io/cluster-bootstrap/token/jws.
        let expect = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";
        assert_eq!(
            signature(
                "Hello from the other side. I must have called a thousand times.",
                "joshua",
                "my voice is my passcode"
            ),
            expect
        );
    }

    fn token(name: &str, change: &Value) -> Value {
        let mut data = json!({"token-id": name.strip_prefix(SECRET_PREFIX).unwrap_or(name), "token-secret": "0123456789abcdef",
            "usage-bootstrap-signing": "true"});
        for (key, value) in change.as_object().unwrap() {
            data[key] = value.clone();
        }
        let encode = |value: &Value| base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap());
        let data: serde_json::Map<String, Value> = data
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| (key.clone(), encode(value).into()))
            .collect();
        json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": {"name": name, "namespace": NAMESPACE}, "data": data})
    }

    #[tokio::test(start_paused = true)]
    async fn the_map_has_the_signatures_of_the_tokens_that_there_are() {
        let bench = Bench::new();
        start(bench.context("bootstrap-signer"));
        let now = bench.api.clock().now();
        let later = |seconds: u64| (now + Duration::from_secs(seconds)).to_string();
        bench.api.put(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": MAP, "namespace": MAP_NAMESPACE},
            "data": {CONTENT: "text", "jws-kubeconfig-former": "x", "other": "y"}}),
        );
        for (name, change) in [
            ("bootstrap-token-aaaaaa", json!({})),
            ("bootstrap-token-bbbbbb", json!({"expiration": later(60)})),
            ("bootstrap-token-cccccc", json!({"expiration": now.to_string()})),
            ("bootstrap-token-dddddd", json!({"usage-bootstrap-signing": "false"})),
            ("bootstrap-token-eeeeee", json!({"token-id": "ffffff"})),
            ("gggggg", json!({})),
        ] {
            bench.api.put(token(name, &change));
        }
        let keys = |api: &FakeApi| -> Vec<String> {
            let maps = api.list(&resources::CONFIG_MAPS);
            maps[0]["data"].as_object().unwrap().keys().cloned().collect()
        };
        let sorted = |api: &FakeApi| {
            let mut keys = keys(api);
            keys.sort();
            keys
        };
        bench
            .until(|api| sorted(api) == ["jws-kubeconfig-aaaaaa", "jws-kubeconfig-bbbbbb", CONTENT, "other"])
            .await;
        // One ends, by the clock alone.
        bench
            .until(|api| sorted(api) == ["jws-kubeconfig-aaaaaa", CONTENT, "other"])
            .await;
        let maps = bench.api.list(&resources::CONFIG_MAPS);
        assert_eq!(
            maps[0]["data"]["jws-kubeconfig-aaaaaa"],
            signature("text", "aaaaaa", "0123456789abcdef")
        );
        bench.end().await;
    }
}
