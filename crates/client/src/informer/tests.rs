//! The copy follows the server through everything that happens to a watch.

use std::collections::BTreeSet;
use std::time::Duration;

use api::Value;
use serde_json::json;

use super::*;
use crate::kind::Meta;
use crate::resources;
use crate::testing::{FakeApi, Fault};

struct Bench {
    api: FakeApi,
    shutdown: Shutdown,
    informer: Informer<Value>,
}

impl Bench {
    async fn new(api: FakeApi) -> Bench {
        let shutdown = Shutdown::new();
        let informers = SharedInformers::new(api.client(), shutdown.clone()).with_random(Random::seeded(1));
        let informer = informers.informer_of::<Value>(resources::CONFIG_MAPS, Selection::all());
        assert!(informer.synced().await);
        Bench {
            api,
            shutdown,
            informer,
        }
    }

    fn put(&self, name: &str) -> Value {
        self.api.put(object(name))
    }

    fn set(&self, name: &str, value: &str) {
        self.api.edit(&resources::CONFIG_MAPS, "default", name, |object| {
            object["data"]["v"] = value.into()
        });
    }

    fn remove(&self, name: &str) {
        self.api.remove(&resources::CONFIG_MAPS, "default", name);
    }

    /// Waits until the copy shows the server's newest revision, then compares.
    async fn settle(&self) {
        assert!(self.informer.seen(&self.api.revision().to_string()).await);
        let copy: Vec<Value> = self.informer.list().iter().map(|object| (**object).clone()).collect();
        assert_eq!(copy, self.api.list(&resources::CONFIG_MAPS));
    }
}

fn object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"v": "0"}})
}

/// The news that wait, as `+name value`, `~name old>new`, `-name value`, `synced`.
fn news(events: &mut Events<Value>) -> Vec<String> {
    let value = |object: &Value| format!("{} {}", object.name(), object["data"]["v"].as_str().unwrap_or(""));
    let mut news = Vec::new();
    while let Some(delta) = events.try_next() {
        news.push(match delta {
            Delta::Added(object) => format!("+{}", value(&object)),
            Delta::Updated { old, new } => format!("~{}>{}", value(&old), new["data"]["v"].as_str().unwrap_or("")),
            Delta::Deleted(object) => format!("-{}", value(&object)),
            Delta::Synced => "synced".into(),
        });
    }
    news
}

#[tokio::test(start_paused = true)]
async fn tells_what_is_there_and_what_changes() {
    let api = FakeApi::new();
    api.put(object("a"));
    let bench = Bench::new(api).await;
    let mut events = bench.informer.subscribe();
    assert_eq!(news(&mut events), ["+a 0", "synced"]);
    bench.put("b");
    bench.settle().await;
    bench.set("a", "1");
    bench.settle().await;
    bench.remove("b");
    bench.settle().await;
    assert_eq!(
        news(&mut events),
        ["-b 0", "~a 0>1"],
        "b came and went before the subscriber looked"
    );
    bench.shutdown.finish().await;
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_gets_one_piece_of_news_an_object() {
    let bench = Bench::new(FakeApi::new()).await;
    let mut events = bench.informer.subscribe();
    bench.put("a");
    bench.put("b");
    for value in 1..1000 {
        bench.set("a", &value.to_string());
    }
    bench.settle().await;
    assert_eq!(news(&mut events), ["synced", "+a 999", "+b 0"]);
    bench.set("b", "1");
    bench.set("b", "2");
    bench.settle().await;
    assert_eq!(news(&mut events), ["~b 0>2"]);
}

#[tokio::test(start_paused = true)]
async fn a_recreated_object_is_told_as_deleted_and_added() {
    let bench = Bench::new(FakeApi::new()).await;
    let mut events = bench.informer.subscribe();
    bench.put("a");
    bench.settle().await;
    assert_eq!(news(&mut events), ["synced", "+a 0"]);
    bench.set("a", "1");
    bench.remove("a");
    bench.put("a");
    bench.settle().await;
    assert_eq!(news(&mut events), ["-a 0", "+a 0"]);
}

#[tokio::test(start_paused = true)]
async fn resumes_where_the_watch_ended() {
    let bench = Bench::new(FakeApi::new()).await;
    bench.put("a");
    bench.settle().await;
    let mut events = bench.informer.subscribe();
    bench.api.take_requests();
    bench.api.end_watches();
    bench.put("b");
    bench.remove("a");
    bench.settle().await;
    assert_eq!(
        news(&mut events),
        ["-a 0", "synced", "+b 0"],
        "the news of one object in the place of its first"
    );
    let requests: Vec<String> = bench
        .api
        .take_requests()
        .iter()
        .map(crate::testing::Seen::line)
        .collect();
    assert_eq!(requests, ["watch configmaps /"], "no list");
}

#[tokio::test(start_paused = true)]
async fn lists_anew_when_history_is_gone() {
    for plain_lists in [false, true] {
        let api = FakeApi::new();
        if plain_lists {
            api.refuse_streaming_lists();
        }
        let bench = Bench::new(api).await;
        for name in ["kept", "changed", "gone", "again"] {
            bench.put(name);
        }
        bench.settle().await;
        let mut events = bench.informer.subscribe();
        assert_eq!(news(&mut events).len(), 5);
        bench.api.end_watches();
        bench.set("changed", "1");
        bench.remove("gone");
        bench.remove("again");
        bench.put("again");
        bench.put("new");
        bench.api.compact();
        bench.settle().await;
        let told: BTreeSet<String> = news(&mut events).into_iter().collect();
        let expect = ["~changed 0>1", "-gone 0", "-again 0", "+again 0", "+new 0"];
        assert_eq!(told, expect.map(String::from).into(), "plain lists: {plain_lists}");
    }
}

#[tokio::test(start_paused = true)]
async fn reconnects_with_growing_delays() {
    let bench = Bench::new(FakeApi::new()).await;
    let start = tokio::time::Instant::now();
    let mut failures = 5;
    bench.api.sabotage(move |seen| {
        failures -= i32::from(seen.verb == "watch");
        (failures >= 0).then_some(Fault::LoseRequest)
    });
    bench.api.end_watches();
    bench.put("a");
    bench.settle().await;
    let elapsed = start.elapsed();
    assert!(
        elapsed >= Duration::from_millis(500) && elapsed < Duration::from_secs(4),
        "{elapsed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_revision() {
    let bench = Bench::new(FakeApi::new()).await;
    bench.api.freeze_watches();
    let stored = bench.put("a");
    let seen = bench.informer.seen(api::meta::resource_version(&stored));
    assert!(
        tokio::time::timeout(Duration::from_secs(10), seen).await.is_err(),
        "the copy is behind"
    );
    assert!(bench.informer.get("default", "a").is_none());
    bench.api.thaw_watches();
    assert!(bench.informer.seen(api::meta::resource_version(&stored)).await);
    assert!(bench.informer.get("default", "a").is_some());
    bench.shutdown.finish().await;
    assert!(!bench.informer.seen("999999").await, "it will never see it");
}

#[tokio::test(start_paused = true)]
async fn indexes_follow() {
    let bench = Bench::new(FakeApi::new()).await;
    bench.put("a");
    bench.settle().await;
    bench
        .informer
        .add_index("value", |object, add| add(object["data"]["v"].as_str().unwrap_or("")));
    let names = |key: &str| -> Vec<String> {
        bench
            .informer
            .indexed("value", key)
            .iter()
            .map(|object| object.name().to_string())
            .collect()
    };
    bench.put("b");
    bench.settle().await;
    assert_eq!(names("0"), ["a", "b"]);
    bench.set("a", "1");
    bench.settle().await;
    assert_eq!((names("0"), names("1")), (vec!["b".to_string()], vec!["a".to_string()]));
    bench.remove("b");
    let owned = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default",
        "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "owner-1"}]}});
    bench.api.put(owned);
    bench.settle().await;
    assert!(names("0").is_empty());
    assert_eq!(bench.informer.owned_by("owner-1").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn selections_are_watches_of_their_own() {
    let api = FakeApi::new();
    let shutdown = Shutdown::new();
    let informers = SharedInformers::new(api.client(), shutdown.clone());
    let all = informers.informer_of::<Value>(resources::CONFIG_MAPS, Selection::all());
    let same = informers.informer_of::<Value>(resources::CONFIG_MAPS, Selection::all());
    let one = informers.informer_of::<Value>(resources::CONFIG_MAPS, Selection::fields("data.v=1"));
    assert!(all.synced().await && same.synced().await && one.synced().await);
    api.put(object("a"));
    assert!(all.until("default", "a", |object| object.is_some()).await);
    assert!(one.is_empty());
    api.edit(&resources::CONFIG_MAPS, "default", "a", |object| {
        object["data"]["v"] = "1".into()
    });
    assert!(one.until("default", "a", |object| object.is_some()).await);
    api.edit(&resources::CONFIG_MAPS, "default", "a", |object| {
        object["data"]["v"] = "2".into()
    });
    assert!(
        one.until("default", "a", |object| object.is_none()).await,
        "it left the selection"
    );
    let watches = api.take_requests().iter().filter(|seen| seen.verb == "watch").count();
    assert_eq!(watches, 2);
    shutdown.finish().await;
}

/// A view that cannot read an object leaves it out and goes on.
#[tokio::test(start_paused = true)]
async fn one_bad_object_does_not_hide_the_others() {
    #[derive(serde::Deserialize)]
    struct Strict {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
        #[allow(dead_code)]
        data: std::collections::BTreeMap<String, u32>,
    }
    crate::view_kind!(Strict, resources::CONFIG_MAPS);
    for plain_lists in [false, true] {
        let api = FakeApi::new();
        if plain_lists {
            api.refuse_streaming_lists();
        }
        let mut good = object("good");
        good["data"] = json!({"v": 1});
        api.put(good.clone());
        api.put(object("bad"));
        let shutdown = Shutdown::new();
        let informer = SharedInformers::new(api.client(), shutdown.clone()).informer::<Strict>();
        assert!(informer.synced().await);
        assert_eq!(informer.len(), 1);
        api.put(object("worse"));
        api::meta::set_text(&mut good, "name", "better");
        api.put(good);
        assert!(informer.until("default", "better", |object| object.is_some()).await);
        assert_eq!(informer.len(), 2);
        shutdown.finish().await;
    }
}

/// Whatever happens to objects and watches: a subscriber that applies the news to an empty map ends with what the server
/// has, hears of each object in order, and never of a change to what it does not know.
#[tokio::test(start_paused = true)]
async fn news_add_up_under_random_trouble() {
    for seed in 0..150 {
        let random = Random::seeded(seed);
        let api = FakeApi::new();
        if random.chance(0.3) {
            api.refuse_streaming_lists();
        }
        let bench = Bench::new(api).await;
        let mut events = bench.informer.subscribe();
        let mut model: std::collections::BTreeMap<String, Value> = Default::default();
        for _ in 0..60 {
            let name = format!("o{}", random.range(0..5));
            let there = bench.api.get(&resources::CONFIG_MAPS, "default", &name).is_some();
            match random.range(0..12) {
                0..=3 if !there => drop(bench.put(&name)),
                0..=4 if there => bench.set(&name, &random.u64().to_string()),
                5 | 6 if there => bench.remove(&name),
                7 => bench.api.end_watches(),
                8 => bench.api.compact(),
                9 => bench.api.freeze_watches(),
                10 => bench.api.thaw_watches(),
                _ => tokio::time::sleep(Duration::from_millis(random.range(1..200))).await,
            }
            if random.chance(0.3) {
                follow(&mut model, &mut events, seed);
            }
        }
        bench.api.thaw_watches();
        // One more write, so that there is a revision of this resource to wait for.
        bench.api.remove(&resources::CONFIG_MAPS, "default", "last");
        bench.put("last");
        bench.settle().await;
        follow(&mut model, &mut events, seed);
        let server = bench.api.list(&resources::CONFIG_MAPS);
        let server: Vec<&Value> = server.iter().collect();
        assert_eq!(model.values().collect::<Vec<_>>(), server, "seed {seed}");
        bench.shutdown.finish().await;
    }
}

/// Applies the news that wait to a model.
fn follow(model: &mut std::collections::BTreeMap<String, Value>, events: &mut Events<Value>, seed: u64) {
    let revision = |object: &Value| object.resource_version().parse::<u64>().unwrap();
    while let Some(delta) = events.try_next() {
        match delta {
            Delta::Added(object) => {
                let before = model.insert(object.name().to_string(), (*object).clone());
                assert_eq!(before, None, "seed {seed}: added twice");
            }
            Delta::Updated { old, new } => {
                assert!(
                    revision(&old) < revision(&new),
                    "seed {seed}: back in time: {old} to {new}"
                );
                let before = model.insert(new.name().to_string(), (*new).clone());
                assert_eq!(before.as_ref(), Some(&*old), "seed {seed}: an update of something else");
            }
            Delta::Deleted(object) => drop(model.remove(object.name())),
            Delta::Synced => {}
        }
    }
}
