//! Deployments and replica sets under random trouble: lost requests and answers, conflicts, watches that stand still, end or
//! lose their history, and controllers that crash. No set ever has more pods than it was ever asked for, and in the end
//! everything is as asked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Status, Value};
use base::Random;
use client::resources::{DEPLOYMENTS, PODS};
use client::testing::{FakeApi, Fault, Seen};
use parking_lot::Mutex;
use serde_json::json;

use crate::testkit::Bench;

const SEEDS: u64 = 40;
const STEPS: usize = 60;

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v0"}]}},
        },
    })
}

fn controllers(api: &FakeApi) -> Bench {
    let bench = Bench::on(api.clone());
    crate::deployment::start(bench.context("deployment-controller"));
    crate::replica_set::start::<crate::views::ReplicaSet>(bench.context("replicaset-controller"));
    bench
}

/// Notes what a request asks of a set, whatever becomes of the request.
fn note(seen: &Seen, most: &Most) {
    let name = api::meta::name(&seen.body);
    let name = if seen.name.is_empty() { name } else { &seen.name };
    if let Some(replicas) = seen.body.pointer("/spec/replicas").and_then(Value::as_i64)
        && seen.resource == "replicasets.apps"
    {
        let mut most = most.lock();
        let limit = most.entry(name.to_string()).or_default();
        *limit = replicas.max(*limit);
    }
}

/// The most pods that each set was ever asked for, by its name.
type Most = Arc<Mutex<HashMap<String, i64>>>;

fn sabotage(api: &FakeApi, random: Random, most: Most) {
    api.sabotage(move |seen| {
        note(seen, &most);
        if !seen.is_write() || seen.resource == "events" {
            return None;
        }
        match random.range(0..30) {
            0 => Some(Fault::LoseRequest),
            1 => Some(Fault::LoseAnswer),
            2 if seen.verb == "patch" => {
                let resource = api::GroupResource {
                    group: String::new(),
                    resource: seen.resource.clone(),
                };
                Some(Fault::Refuse(Status::modified(&resource, &seen.name)))
            }
            _ => None,
        }
    });
}

fn is_ready(pod: &Value) -> bool {
    pod.pointer("/status/conditions/0/status") == Some(&json!("True"))
}

/// Runs one pod that waits.
fn run_one(bench: &Bench) -> bool {
    let waiting = bench.api.list(&PODS).into_iter().find(|pod| !is_ready(pod));
    if let Some(pod) = &waiting {
        bench.run_pod("default", api::meta::name(pod), "10.0.0.1");
    }
    waiting.is_some()
}

/// No set has more pods than the most it was ever asked for.
fn check(api: &FakeApi, most: &Most, seed: u64) {
    let pods = api.list(&PODS);
    for (name, limit) in most.lock().iter() {
        let owned = |pod: &&Value| pod["metadata"]["ownerReferences"][0]["name"] == name.as_str();
        let count = pods.iter().filter(owned).count();
        assert!(
            count as i64 <= *limit,
            "seed {seed}: {count} pods of a set that never wanted more than {limit}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn trouble_never_makes_a_pod_too_many() {
    for seed in 0..SEEDS {
        let random = Random::seeded(seed);
        let api = FakeApi::new();
        let mut bench = controllers(&api);
        let most = Most::default();
        sabotage(&api, random.fork(), most.clone());
        api.put(deployment());
        let edit = |change: &dyn Fn(&mut Value)| drop(api.edit(&DEPLOYMENTS, "default", "web", |one| change(one)));
        for step in 0..STEPS {
            match random.range(0..16) {
                0..=4 => drop(run_one(&bench)),
                5 => edit(&|one| {
                    one["spec"]["template"]["spec"]["containers"][0]["image"] = format!("v{}", step % 5).into()
                }),
                6 => {
                    let replicas = random.range(0..8);
                    edit(&|one| one["spec"]["replicas"] = replicas.into());
                }
                7 => api.freeze_watches(),
                8 => api.freeze_watches_of(&PODS),
                9 => api.thaw_watches(),
                10 => api.end_watches(),
                11 => api.compact(),
                12 => {
                    bench.end().await;
                    bench = controllers(&api);
                }
                13 => {
                    let pods = bench.pod_names();
                    if let Some(name) = pods.get(random.index(pods.len())) {
                        api.remove(&PODS, "default", name);
                    }
                }
                _ => tokio::time::sleep(Duration::from_millis(random.range(1..400))).await,
            }
            tokio::time::sleep(Duration::from_millis(random.range(0..30))).await;
            check(&api, &most, seed);
        }
        api.sabotage({
            let most = most.clone();
            move |seen| {
                note(seen, &most);
                None
            }
        });
        api.thaw_watches();
        edit(&|one| one["spec"]["replicas"] = 5.into());
        // Upstream's longest delay after failures is a thousand seconds.
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            while run_one(&bench) {}
            check(&api, &most, seed);
        }
        let live = api.get(&DEPLOYMENTS, "default", "web").unwrap();
        let count = |key: &str| live["status"][key].as_i64().unwrap_or(-1);
        assert_eq!(
            (count("replicas"), count("updatedReplicas"), count("availableReplicas")),
            (5, 5, 5),
            "seed {seed}: {live:#}"
        );
        assert_eq!(api.list(&PODS).len(), 5, "seed {seed}");
        bench.end().await;
    }
}
