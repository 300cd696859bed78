//! `kube-system/extension-apiserver-authentication`: whom an extension API server should trust, as this one does.
//!
//! Invariant: what other servers of the cluster published stays; only certificates that ended go.
//! Source: `pkg/controlplane/controller/clusterauthenticationtrust`.

use std::collections::BTreeMap;

use api::{Value, meta};
use base::{Clock, Shutdown};
use client::informer::{Informer, Selection, SharedInformers};
use client::queue::WorkQueue;
use client::worker::{Next, run};
use client::{Client, Error, resources};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;

use super::FrontProxyConfig;
use crate::pki::validity;

/// Where it is published.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// A certificate counts as ended this long after its end, in seconds: clocks differ.
const ENDED_SLACK_SECONDS: i64 = 300;

/// What is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Who signs certificates of clients, as PEM.
    pub client_ca_pem: String,
    /// Who speaks for others.
    pub front_proxy: Option<FrontProxyConfig>,
}

/// Publishes what is trusted, and keeps its newest state published until the end.
pub fn maintain(client: &Client, mut trust: watch::Receiver<Trust>, clock: Clock, shutdown: &Shutdown) {
    let informers = SharedInformers::new(client.clone(), shutdown.clone());
    let selection = Selection::fields(format!("metadata.name={NAME}"));
    let maps = informers.informer_of::<Value>(resources::CONFIG_MAPS, selection);
    let queue = WorkQueue::<()>::new().named("cluster_authentication_trust_controller");
    queue.add(());
    let mut events = maps.subscribe();
    let (stop, heard) = (shutdown.clone(), queue.clone());
    shutdown.spawn(async move {
        while let Some(Some(_)) = stop.until(events.next()).await {
            heard.add(());
        }
    });
    let (stop, heard, newest) = (shutdown.clone(), queue.clone(), trust.clone());
    shutdown.spawn(async move {
        while let Some(Ok(())) = stop.until(trust.changed()).await {
            heard.add(());
        }
    });
    let (client, stop) = (client.clone(), shutdown.clone());
    shutdown.spawn(async move {
        if stop.until(maps.synced()).await != Some(true) {
            return;
        }
        let work = move |()| {
            let (client, trust, maps, now) = (client.clone(), newest.borrow().clone(), maps.clone(), clock.now());
            async move { publish(&client, &trust, &maps, now).await }
        };
        run(queue, 1, stop, work).await;
    });
}

async fn publish(client: &Client, trust: &Trust, maps: &Informer<Value>, now: Timestamp) -> Result<Next, Error> {
    let there = maps.get(NAMESPACE, NAME);
    let old = there.as_deref().map(|map| &map["data"]);
    let data = wanted(old.unwrap_or(&Value::Null), trust, now);
    if old.is_some_and(|old| texts(old) == data) {
        return Ok(Next::Wait);
    }
    let mut map = match there.as_deref() {
        Some(map) => map.clone(),
        None => {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE}})
        }
    };
    map["data"] = json!(data);
    let written = match there {
        Some(_) => {
            client
                .update(&resources::CONFIG_MAPS, NAMESPACE, NAME, None, &map)
                .await
        }
        None => client.create_in(&resources::CONFIG_MAPS, NAMESPACE, &map).await,
    };
    match written {
        Ok(written) => {
            maps.seen(meta::resource_version(&written)).await;
            Ok(Next::Wait)
        }
        Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

fn texts(data: &Value) -> BTreeMap<String, String> {
    let fields = data.as_object().into_iter().flatten();
    fields
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The data that the map has to have: what is there and what we know, together.
fn wanted(there: &Value, trust: &Trust, now: Timestamp) -> BTreeMap<String, String> {
    let there = texts(there);
    let text = |key: &str| there.get(key).map_or("", String::as_str);
    let mut data = BTreeMap::new();
    let clients = certificates(&[text("client-ca-file"), &trust.client_ca_pem], now);
    if !clients.is_empty() {
        data.insert("client-ca-file".to_owned(), clients);
    }
    let own = trust.front_proxy.clone().unwrap_or_default();
    let proxies = certificates(&[text("requestheader-client-ca-file"), &own.authorities_pem], now);
    if proxies.is_empty() {
        return data;
    }
    data.insert("requestheader-client-ca-file".into(), proxies);
    for (what, ours) in [
        ("username-headers", &own.headers.username),
        ("uid-headers", &own.headers.uid),
        ("group-headers", &own.headers.group),
        ("extra-headers-prefix", &own.headers.extra_prefix),
        ("allowed-names", &own.allowed_names),
    ] {
        let key = format!("requestheader-{what}");
        let mut names: Vec<String> = serde_json::from_str(text(&key)).unwrap_or_default();
        for name in ours {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        data.insert(key, json!(names).to_string());
    }
    data
}

/// The certificates of some bundles, each once, without those that ended.
fn certificates(bundles: &[&str], now: Timestamp) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let mut all: Vec<String> = Vec::new();
    for block in bundles.iter().flat_map(|bundle| bundle.split_inclusive(END)) {
        let Some(begin) = block.find("-----BEGIN CERTIFICATE-----") else {
            continue;
        };
        let pem = format!("{}\n", block[begin..].replace('\r', ""));
        let lives = validity(&pem).is_ok_and(|(_, end)| end.as_second() + ENDED_SLACK_SECONDS > now.as_second());
        if lives && !all.contains(&pem) {
            all.push(pem);
        }
    }
    all.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authentication::ProxyHeaders;
    use crate::pki::Authority;
    use base::random::Random;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn what_is_there_and_what_we_know_are_put_together() {
        let ca = |seed| {
            let authority = Authority::generate("ca", at(0), Random::seeded(seed)).unwrap();
            authority.pair().certificate_pem.trim().to_owned()
        };
        let (own, other, proxies) = (ca(1), ca(2), ca(3));
        let mut trust = Trust {
            client_ca_pem: own.clone(),
            front_proxy: None,
        };
        let first = wanted(&Value::Null, &trust, at(1));
        let line = |pem: &str| format!("{}\n", pem.replace('\r', ""));
        assert_eq!(first, BTreeMap::from([("client-ca-file".to_owned(), line(&own))]));
        trust.front_proxy = Some(FrontProxyConfig {
            authorities_pem: proxies.clone(),
            allowed_names: vec!["aggregator".into()],
            headers: ProxyHeaders::standard(),
        });
        let there = json!({
            "client-ca-file": format!("{other}\n{own}\nnonsense"), "requestheader-allowed-names": "[\"front\"]", "x": "y",
        });
        let both = wanted(&there, &trust, at(1));
        assert_eq!(both["client-ca-file"], line(&other) + &line(&own));
        assert_eq!(both["requestheader-client-ca-file"], line(&proxies));
        assert_eq!(both["requestheader-allowed-names"], r#"["front","aggregator"]"#);
        assert_eq!(both["requestheader-extra-headers-prefix"], r#"["x-remote-extra-"]"#);
        assert_eq!(both.len(), 7);
        // It is as it should be then.
        assert_eq!(wanted(&json!(both), &trust, at(1)), both);
        let (_, end) = validity(&own).unwrap();
        let late = Timestamp::from_second(end.as_second() + ENDED_SLACK_SECONDS).unwrap();
        assert_eq!(wanted(&json!(both), &trust, late), BTreeMap::new());
    }
}
