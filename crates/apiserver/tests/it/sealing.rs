//! Encryption at rest through the whole server: what the store has, what clients see, and keys that are rotated.

use std::sync::Arc;

use api::GroupResource;
use apiserver::sealing::{Sealer, Sealing};
use base::{Clock, Random};
use serde_json::json;
use store::{Engine, KeyRange, Record};

use crate::world::World;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn keys(count: u32) -> String {
    let key = |id: u32| Sealer::new_keys(&Random::seeded(u64::from(id))).replacen('1', &id.to_string(), 1);
    (1..=count).map(key).collect()
}

/// A server over an engine, with the first so many keys.
async fn open(engine: &Arc<dyn Engine>, count: u32) -> World {
    World::over(engine.clone(), Vec::new(), |config| {
        let secrets = GroupResource {
            group: String::new(),
            resource: "secrets".into(),
        };
        let sealer = Sealer::from_text(&keys(count), [secrets], Random::seeded(9));
        let sealer = (count > 0).then(|| sealer.unwrap());
        config.sealing = Arc::new(Sealing::new(sealer, None));
    })
    .await
}

/// What the store has of all Secrets: the key that sealed each, and whether its text is readable.
async fn stored(engine: &Arc<dyn Engine>) -> Vec<(u32, bool)> {
    let range = KeyRange::prefix(b"/registry/secrets/");
    let found = engine.range(range, None).await.unwrap();
    let readable = |record: &Arc<Record>| record.value.windows(7).any(|window| window == b"secret-");
    found
        .records
        .iter()
        .map(|record| (record.stamp.sealing_key, readable(record)))
        .collect()
}

#[tokio::test]
async fn secrets_are_sealed_and_keys_rotated() {
    let engine: Arc<dyn Engine> = store::testing::engine_in_memory(Clock::real(), Random::seeded(1)).await;
    // From before there were keys.
    let api = open(&engine, 0).await.api();
    let old = json!({"metadata": {"name": "a", "labels": {"x": "secret-a"}}});
    api.post(SECRETS, &old).await.ok();
    assert_eq!(stored(&engine).await, [(0, true)]);
    let world = open(&engine, 1).await;
    let api = world.api();
    let mut watch = api.watch(&format!("{SECRETS}?watch=1")).await;
    assert_eq!(watch.word().await, "ADDED a");
    let made = json!({"metadata": {"name": "b", "labels": {"x": "secret-b"}}});
    api.post(SECRETS, &made).await.ok();
    api.patch(&format!("{SECRETS}/b"), "merge", &json!({"stringData": {"k": "v"}}))
        .await
        .ok();
    assert_eq!(watch.words(2).await, ["ADDED b", "MODIFIED b"]);
    assert_eq!(stored(&engine).await, [(0, true), (1, false)]);
    // A write that changes nothing seals what is not; the second time there is nothing to do.
    let a = api.get(&format!("{SECRETS}/a")).await.ok();
    let sealed = api.put(&format!("{SECRETS}/a"), &a).await.ok();
    assert_ne!(sealed["metadata"]["resourceVersion"], a["metadata"]["resourceVersion"]);
    assert_eq!(api.put(&format!("{SECRETS}/a"), &sealed).await.ok(), sealed);
    assert_eq!(stored(&engine).await, [(1, false), (1, false)]);
    // Other resources are not sealed.
    api.config_map("c", json!({})).await;
    // With a newer key the old ones still open; with none, nothing does, and nobody else is harmed.
    let api = open(&engine, 2).await.api();
    assert_eq!(api.get(&format!("{SECRETS}/b")).await.ok()["data"]["k"], "dg==");
    let a = api.get(&format!("{SECRETS}/a")).await.ok();
    api.put(&format!("{SECRETS}/a"), &a).await.ok();
    assert_eq!(stored(&engine).await, [(2, false), (1, false)]);
    let api = open(&engine, 0).await.api();
    let why = "the object stored under /registry/secrets/default/a cannot be read";
    api.get(&format!("{SECRETS}/a")).await.refused(500, why);
    assert_eq!(api.get("/api/v1/namespaces/default/configmaps/c").await.code, 200);
}
