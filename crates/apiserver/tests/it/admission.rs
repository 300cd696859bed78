//! The slots: slow, asynchronous, with old and new object, and run again when a write lost its race.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use api::{Status, Value, meta};
use apiserver::pipeline::{Operation, Plugin, Review};
use apiserver::request::UserInfo;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::world::{Api, World};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Adds a label, and notes every time it is asked; waits for a permit when the object is called `slow`.
#[derive(Default)]
struct Labeller {
    seen: Mutex<Vec<String>>,
    gate: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
}

impl Plugin for Labeller {
    fn name(&self) -> &'static str {
        "Labeller"
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let seen = format!("{} {} old={}", review.operation.as_str(), review.name, old.is_some());
            self.seen.lock().push(seen);
            if let Some(gate) = self.gate.as_ref().filter(|_| review.name == "slow") {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
            }
            tokio::task::yield_now().await;
            if let Some(object) = object {
                let labels = meta::metadata_mut(object).entry("labels").or_insert_with(|| json!({}));
                labels["admitted"] = "yes".into();
                review.warn("labelled");
            }
            Ok(())
        })
    }
}

/// Refuses what says so, having looked at the cluster.
struct Guardian;

impl Plugin for Guardian {
    fn name(&self) -> &'static str {
        "Guardian"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if let Some(object) = object {
                assert_eq!(
                    meta::label(object, "admitted"),
                    Some("yes"),
                    "validation sees what mutation made"
                );
            }
            let about = object.or(old).unwrap();
            let veto = about["data"]["veto"]
                .as_str()
                .is_some_and(|verb| verb == review.operation.as_str());
            if veto { Err(review.forbidden("vetoed")) } else { Ok(()) }
        })
    }
}

#[tokio::test]
async fn every_write_passes_both_slots() {
    let labeller = Arc::new(Labeller::default());
    let world = World::with_plugins(vec![labeller.clone(), Arc::new(Guardian)]).await;
    for api in world.both().await {
        labeller.seen.lock().clear();
        let answer = api.post(MAPS, &json!({"metadata": {"name": "a"}})).await;
        assert_eq!(answer.warnings(), ["299 - \"labelled\""]);
        assert_eq!(answer.ok()["metadata"]["labels"]["admitted"], "yes");
        api.patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"k": "v"}}))
            .await
            .ok();
        api.delete(&format!("{MAPS}/a")).await.ok();
        api.post(MAPS, &json!({"metadata": {"name": "b"}, "data": {"veto": "CREATE"}}))
            .await
            .refused(403, "configmaps \"b\" is forbidden: vetoed");
        api.post(MAPS, &json!({"metadata": {"name": "c"}, "data": {"veto": "DELETE"}}))
            .await
            .ok();
        api.delete(&format!("{MAPS}/c")).await.refused(403, "vetoed");
        api.delete(MAPS).await.refused(403, "vetoed");
        api.patch(&format!("{MAPS}/c"), "merge", &json!({"data": {"veto": "UPDATE"}}))
            .await
            .refused(403, "vetoed");
        api.patch(&format!("{MAPS}/c"), "merge", &json!({"data": {"veto": null}}))
            .await
            .ok();
        api.delete(MAPS).await.ok();
        let seen = labeller.seen.lock().clone();
        let expect = [
            "CREATE a old=false",
            "UPDATE a old=true",
            "DELETE a old=true",
            "CREATE b old=false",
            "CREATE c old=false",
            "DELETE c old=true",
            "DELETE c old=true",
            "UPDATE c old=true",
            "UPDATE c old=true",
            "DELETE c old=true",
        ];
        assert_eq!(seen, expect);
    }
}

#[tokio::test]
async fn a_write_that_lost_its_race_is_admitted_again() {
    let gate = Arc::new(Semaphore::new(1));
    let labeller = Arc::new(Labeller {
        gate: Some(gate.clone()),
        ..Labeller::default()
    });
    let world = World::with_plugins(vec![labeller.clone()]).await;
    let api = world.api();
    api.post(MAPS, &json!({"metadata": {"name": "slow"}, "data": {"n": "0"}}))
        .await
        .ok();
    labeller.seen.lock().clear();
    labeller.waiting.store(0, Ordering::SeqCst);
    let slow = tokio::spawn({
        let api = api.clone();
        async move {
            api.patch(&format!("{MAPS}/slow"), "merge", &json!({"data": {"mine": "1"}}))
                .await
        }
    });
    while labeller.waiting.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    // Another write passes while the first one waits in its slot.
    let fast = tokio::spawn({
        let api = api.clone();
        async move {
            api.patch(&format!("{MAPS}/slow"), "merge", &json!({"data": {"n": "1"}}))
                .await
        }
    });
    while labeller.waiting.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(2);
    fast.await.unwrap().ok();
    // Whichever lost waits in its slot once more.
    gate.add_permits(1);
    slow.await.unwrap().ok();
    let object = api.get(&format!("{MAPS}/slow")).await.ok();
    assert_eq!(
        (&object["data"]["n"], &object["data"]["mine"]),
        (&json!("1"), &json!("1"))
    );
    assert_eq!(
        labeller
            .seen
            .lock()
            .iter()
            .filter(|seen| **seen == "UPDATE slow old=true")
            .count(),
        3
    );
}

/// Writes the object itself before each write of somebody else, for a number of times.
#[derive(Default)]
struct Rival {
    api: OnceLock<Api>,
    left: AtomicUsize,
}

impl Plugin for Rival {
    fn name(&self) -> &'static str {
        "Rival"
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        _: &'a mut Option<Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if review.user.name == "rival" || old.is_none() {
                return Ok(());
            }
            let less = |left: usize| left.checked_sub(1);
            let Ok(left) = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) else {
                return Ok(());
            };
            let body = json!({"data": {"left": left.to_string()}});
            let api = self.api.get().unwrap();
            api.patch(&format!("{MAPS}/a"), "merge", &body).await.ok();
            Ok(())
        })
    }
}

/// It is there before the next plug-in asks for it, and stays; a dry run makes none.
#[tokio::test]
async fn a_missing_namespace_is_made_on_the_way() {
    let plugins: Vec<Arc<dyn Plugin>> = vec![
        Arc::new(apiserver::admission::NamespaceAutoProvision::default()),
        Arc::new(apiserver::admission::NamespaceLifecycle),
    ];
    let world = World::with_plugins(plugins).await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let (dry, new) = (format!("dry{index}"), format!("new{index}"));
        let maps = |namespace: &str| format!("/api/v1/namespaces/{namespace}/configmaps");
        let map = json!({"metadata": {"name": "a"}});
        api.post(&format!("{}?dryRun=All", maps(&dry)), &map)
            .await
            .refused(404, &format!("namespaces \"{dry}\" not found"));
        assert_eq!(api.get(&format!("/api/v1/namespaces/{dry}")).await.code, 404);
        api.post(&maps(&new), &map).await.ok();
        let namespace = api.get(&format!("/api/v1/namespaces/{new}")).await.ok();
        assert_eq!(namespace["status"]["phase"], "Active");
        assert_eq!(
            namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
            new.as_str()
        );
        // Both want it at once: one of them makes it.
        let both = format!("both{index}");
        let write = async |name: &str| api.post(&maps(&both), &json!({"metadata": {"name": name}})).await.code;
        assert_eq!(futures::join!(write("a"), write("b")), (201, 201));
    }
}

#[tokio::test]
async fn whoever_names_no_version_never_meets_a_conflict() {
    let rival = Arc::new(Rival::default());
    let world = World::with_plugins(vec![rival.clone()]).await;
    let _ = rival.api.set(Api {
        transport: world.running.transport(UserInfo::new("rival", ["testers"])),
        token: None,
    });
    let api = world.api();
    let first = api.config_map("a", json!({})).await;
    // As often as it takes, for every verb.
    let lose = |times| rival.left.store(times, Ordering::SeqCst);
    lose(100);
    let patched = api
        .patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"mine": "1"}}))
        .await
        .ok();
    assert_eq!(
        (&patched["data"]["mine"], &patched["data"]["left"]),
        (&json!("1"), &json!("1"))
    );
    lose(3);
    let mut replaced = patched.clone();
    replaced["metadata"]["resourceVersion"].take();
    api.put(&format!("{MAPS}/a"), &replaced).await.ok();
    // Whoever names the version it saw does.
    lose(1);
    let stale = json!({"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}});
    let conflict = "the object has been modified; please apply your changes to the latest version and try again";
    api.patch(&format!("{MAPS}/a"), "merge", &stale)
        .await
        .refused(409, conflict);
    lose(3);
    api.delete(&format!("{MAPS}/a")).await.ok();
}

#[tokio::test(start_paused = true)]
async fn who_takes_too_long_is_given_up() {
    let labeller = Arc::new(Labeller {
        gate: Some(Arc::new(Semaphore::new(0))),
        ..Labeller::default()
    });
    let world = World::with_plugins(vec![labeller]).await;
    let api = world.api();
    for (query, seconds) in [("", 60), ("?timeout=2s", 2), ("?timeout=5m", 60)] {
        let began = tokio::time::Instant::now();
        let answer = api
            .post(&format!("{MAPS}{query}"), &json!({"metadata": {"name": "slow"}}))
            .await;
        answer.refused(
            504,
            &format!("Timeout: request did not complete within the allotted timeout of {seconds}s"),
        );
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
    assert_eq!(api.get(&format!("{MAPS}/slow")).await.code, 404);
    api.get(&format!("{MAPS}?timeout=soon"))
        .await
        .refused(400, "invalid timeout specified in the request URL");
}

/// Panics for objects called `boom`.
struct Bomb;

impl Plugin for Bomb {
    fn name(&self) -> &'static str {
        "Bomb"
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        _: &'a mut Option<Value>,
        _: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            assert_ne!(review.name, "boom");
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_panic_is_one_requests_affair() {
    let world = World::with_plugins(vec![Arc::new(Bomb)]).await;
    for api in world.both().await {
        let answer = api.post(MAPS, &json!({"metadata": {"name": "boom"}})).await;
        answer.refused(500, "This request caused apiserver to panic");
        api.config_map("fine", json!({})).await;
        api.delete(&format!("{MAPS}/fine")).await.ok();
    }
}
