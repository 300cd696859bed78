//! The server over an engine that lags, forgets answers and fails at will: what was acknowledged is there, and whoever
//! watches sees each change once and in order, or is told to start over.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{Clock, Random};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use store::testing::{EngineFaults, FaultyEngine, engine_in_memory};
use store::{
    Commit, CommitError, CommittedStream, Engine, EngineError, KeyRange, Progress, RangeAnswer, Revision, Transaction,
};

use crate::custom::{WIDGETS, define, v1, widgets};
use crate::world::{Api, World};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SEEDS: u64 = 8;
const WRITERS: usize = 4;
const WRITES: usize = 12;

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Keeps one copy of the collection, as an informer does, until it has seen the object `end`.
async fn follow(api: Api) -> BTreeMap<String, u64> {
    'relist: loop {
        let list = api.get(MAPS).await;
        if list.code != 200 {
            continue;
        }
        let list = list.value();
        let mut seen = version(&list);
        let mut copy: BTreeMap<String, u64> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (name(item), version(item)))
            .collect();
        if copy.contains_key("end") {
            return copy;
        }
        let mut watch = api.watch(&format!("{MAPS}?watch=1&resourceVersion={seen}")).await;
        while let Some(frame) = watch.next().await {
            let object = &frame["object"];
            match frame["type"].as_str().unwrap() {
                "ERROR" => {
                    assert_eq!(object["code"], 410);
                    continue 'relist;
                }
                "DELETED" => assert!(copy.remove(&name(object)).is_some(), "deleted twice: {object}"),
                "ADDED" => assert!(
                    copy.insert(name(object), version(object)).is_none(),
                    "added twice: {object}"
                ),
                _ => assert!(
                    copy.insert(name(object), version(object)).is_some(),
                    "changed before it was: {object}"
                ),
            }
            assert!(version(object) > seen, "out of order: {} after {seen}", version(object));
            seen = version(object);
            if copy.contains_key("end") {
                return copy;
            }
        }
    }
}

/// Creates, changes and deletes; answers with what was acknowledged.
async fn write(api: Api, writer: usize) -> BTreeMap<String, Option<String>> {
    let mut acknowledged = BTreeMap::new();
    for index in 0..WRITES {
        let name = format!("w{writer}-{}", index % 5);
        let path = format!("{MAPS}/{name}");
        let value = index.to_string();
        // A failure says nothing about what happened; the next attempt finds out.
        loop {
            let answer = if index % 7 == 6 {
                api.delete(&path).await
            } else {
                let config =
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}});
                api.patch(&format!("{path}?fieldManager=w&force=true"), "apply", &config)
                    .await
            };
            match answer.code {
                200 | 201 if index % 7 == 6 => acknowledged.insert(name.clone(), None),
                200 | 201 => acknowledged.insert(name.clone(), Some(value.clone())),
                404 if index % 7 == 6 => acknowledged.insert(name.clone(), None),
                409 | 429 | 500 | 503 | 504 => continue,
                other => panic!("{other}: {}", String::from_utf8_lossy(&answer.bytes)),
            };
            break;
        }
    }
    acknowledged
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_there() {
    for seed in 0..SEEDS {
        let random = Random::seeded(seed);
        let engine = engine_in_memory(Clock::real(), random.fork()).await;
        let faulty = FaultyEngine::new(engine, random.fork(), EngineFaults::default());
        let world = World::over(Arc::new(faulty.clone()), Vec::new(), |_| {}).await;
        faulty.set_faults(EngineFaults::some());
        let follower = tokio::spawn(follow(world.api()));
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write(world.api(), writer)));
        let mut acknowledged = BTreeMap::new();
        for writer in writers.collect::<Vec<_>>() {
            acknowledged.extend(writer.await.unwrap());
        }
        faulty.set_faults(EngineFaults::default());
        world.api().config_map("end", json!({})).await;
        let copy = follower.await.unwrap();
        let list = world.api().get(MAPS).await.ok();
        let items = list["items"].as_array().unwrap();
        let stored: BTreeMap<String, u64> = items.iter().map(|item| (name(item), version(item))).collect();
        assert_eq!(copy, stored, "seed {seed}");
        for (object, value) in acknowledged {
            let found = items.iter().find(|item| name(item) == object);
            let found = found.map(|item| item["data"]["k"].as_str().unwrap().to_owned());
            assert_eq!(found, value, "seed {seed}: {object}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_are_neither_given_twice_nor_lost() {
    let services = "/api/v1/namespaces/default/services";
    for seed in 0..SEEDS {
        let random = Random::seeded(seed);
        let engine = engine_in_memory(Clock::real(), random.fork()).await;
        let faulty = FaultyEngine::new(engine, random.fork(), EngineFaults::default());
        let range = "10.96.0.0/27".parse().unwrap();
        let world = World::over(Arc::new(faulty.clone()), Vec::new(), |config| {
            config.service_range = range
        })
        .await;
        let api = world.api();
        let create = |name: String| {
            let api = api.clone();
            async move {
                api.post(
                    services,
                    &json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}),
                )
                .await
                .code
            }
        };
        faulty.set_faults(EngineFaults {
            answer_lost: 0.2,
            request_lost: 0.2,
            ..EngineFaults::some()
        });
        futures::future::join_all((0..40).map(|index| create(format!("s{index}")))).await;
        faulty.set_faults(EngineFaults::default());
        let stored = || async {
            let list = api.get(services).await.ok();
            let items = list["items"].as_array().unwrap().clone();
            items
                .iter()
                .map(|item| item["spec"]["clusterIP"].to_string())
                .collect::<Vec<_>>()
        };
        // Whatever the lost answers were about: in the end every address of the range can be had.
        let mut more = 0;
        while stored().await.len() < 30 {
            create(format!("more{more}")).await;
            more += 1;
            assert!(more < 1000, "seed {seed}: addresses are lost");
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        let addresses = stored().await;
        let distinct: std::collections::BTreeSet<&String> = addresses.iter().collect();
        assert_eq!(distinct.len(), addresses.len(), "seed {seed}: {addresses:?}");
    }
}

/// An engine that takes no large transactions, as an etcd.
struct Narrow(Arc<dyn Engine>);

const NARROW_BYTES: usize = 3500;

impl Engine for Narrow {
    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, CommitError>> {
        let size = transaction.size();
        if size <= NARROW_BYTES {
            return self.0.commit(transaction);
        }
        let limit = NARROW_BYTES;
        Box::pin(async move { Err(CommitError::TooLarge { size, limit }) })
    }

    fn range(
        &self,
        range: KeyRange,
        revision: Option<Revision>,
    ) -> BoxFuture<'static, Result<RangeAnswer, EngineError>> {
        self.0.range(range, revision)
    }

    fn stream(&self, after: Revision) -> BoxFuture<'static, Result<Box<dyn CommittedStream>, EngineError>> {
        self.0.stream(after)
    }

    fn progress(&self) -> BoxFuture<'static, Result<Progress, EngineError>> {
        self.0.progress()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), EngineError>> {
        self.0.compact(revision)
    }
}

/// What is too large for the store with those who manage its fields is stored without them, whatever the verb; but for an apply,
/// which is about them.
#[tokio::test]
async fn who_manages_fields_gives_way_to_them() {
    let engine = engine_in_memory(Clock::real(), Random::seeded(1)).await;
    let world = World::over(Arc::new(Narrow(engine)), Vec::new(), |_| {}).await;
    let api = world.api();
    let map = |name: &str, keys: u32| -> Value {
        let data = (0..keys).map(|key| (format!("k{key:03}"), json!("")));
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": Value::Object(data.collect())})
    };
    let path = |name: &str| format!("{MAPS}/{name}");
    let found = |object: &Value| {
        let managers = object["metadata"]["managedFields"].as_array().map_or(0, Vec::len);
        (managers, object["data"].as_object().unwrap().len())
    };
    // What is small enough has its manager.
    for name in ["patched", "put"] {
        assert_eq!(found(&api.post(MAPS, &map(name, 100)).await.ok()), (1, 100));
    }
    assert_eq!(found(&api.post(MAPS, &map("made", 300)).await.ok()), (0, 300));
    let change = json!({"data": map("", 300)["data"]});
    assert_eq!(
        found(&api.patch(&path("patched"), "merge", &change).await.ok()),
        (0, 300)
    );
    assert_eq!(found(&api.put(&path("put"), &map("put", 300)).await.ok()), (0, 300));
    let refused = api
        .patch(
            &format!("{}?fieldManager=one", path("applied")),
            "apply",
            &map("applied", 300),
        )
        .await;
    assert_eq!(
        (refused.code, &refused.value()["reason"]),
        (413, &json!("RequestEntityTooLarge"))
    );
    // And what is too large by itself is refused.
    let change = json!({"data": {"more": "x".repeat(NARROW_BYTES)}});
    api.patch(&path("put"), "merge", &change).await.refused(413, "");
    assert_eq!(found(&api.get(&path("put")).await.ok()), (0, 300));
}

/// An engine that is away the first times that somebody wants to read one resource.
struct Away {
    engine: Arc<dyn Engine>,
    resource: &'static [u8],
    times: AtomicUsize,
}

impl Engine for Away {
    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, CommitError>> {
        self.engine.commit(transaction)
    }

    fn range(
        &self,
        range: KeyRange,
        revision: Option<Revision>,
    ) -> BoxFuture<'static, Result<RangeAnswer, EngineError>> {
        let is_it = matches!(&range.lower, Bound::Included(key) if key.starts_with(self.resource));
        let less = |times: usize| times.checked_sub(1);
        if is_it
            && self
                .times
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                .is_ok()
        {
            return Box::pin(async { Err(EngineError::Unavailable("it is away".into())) });
        }
        self.engine.range(range, revision)
    }

    fn stream(&self, after: Revision) -> BoxFuture<'static, Result<Box<dyn CommittedStream>, EngineError>> {
        self.engine.stream(after)
    }

    fn progress(&self) -> BoxFuture<'static, Result<Progress, EngineError>> {
        self.engine.progress()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), EngineError>> {
        self.engine.compact(revision)
    }
}

/// A store that is away for a moment keeps no resource from being served after it.
#[tokio::test]
async fn a_definition_is_served_once_the_store_is_back() {
    let away = Arc::new(Away {
        engine: engine_in_memory(Clock::real(), Random::seeded(1)).await,
        resource: b"/registry/example.com/widgets/",
        times: AtomicUsize::new(2),
    });
    let world = World::over(away.clone(), Vec::new(), |_| {}).await;
    let api = world.api();
    let namespace = json!({"metadata": {"name": "default"}});
    api.post("/api/v1/namespaces", &namespace).await.ok();
    define(&api, &widgets(json!([v1()]))).await;
    assert_eq!(away.times.load(Ordering::SeqCst), 0, "it was asked while it was away");
    let widget = json!({"metadata": {"name": "a"}, "spec": {"color": "red"}});
    api.post(WIDGETS, &widget).await.ok();
    assert_eq!(api.get(WIDGETS).await.ok()["items"].as_array().unwrap().len(), 1);
}
