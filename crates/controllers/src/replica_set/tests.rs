//! Counting, ranking, and what a crash, a stale copy or a lost answer must not do.

use std::collections::BTreeSet;
use std::time::Duration;

use client::testing::{FakeApi, Fault};
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::testkit::Bench;

fn set(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}},
        },
    })
}

fn start_on(bench: &Bench) {
    start::<ReplicaSet>(bench.context("replicaset-controller"));
}

fn scale_to(bench: &Bench, replicas: i32) {
    bench.api.edit(&resources::REPLICA_SETS, "default", "web", |set| {
        set["spec"]["replicas"] = replicas.into()
    });
}

fn status(bench: &Bench) -> Value {
    bench.api.get(&resources::REPLICA_SETS, "default", "web").unwrap()["status"].clone()
}

/// The names that go first, of pods written as `name node phase ready cost restarts age_seconds`.
fn check_ranking(pods: &[&str], count: usize, expect: &[&str]) {
    let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let pods: Vec<Arc<Pod>> = pods
        .iter()
        .map(|line| {
            let [name, node, phase, ready, cost, restarts, age] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let created = crate::context::time_text(now - jiff::SignedDuration::from_secs(age.parse().unwrap()));
            let node = node.trim_matches('-');
            let value = json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": created,
                    "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}},
                "spec": {"nodeName": node},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": created}],
                    "containerStatuses": [{"restartCount": restarts.parse::<i64>().unwrap()}]},
            });
            Arc::new(serde_json::from_value(value).unwrap())
        })
        .collect();
    let mut wish: ReplicaSet = serde_json::from_value(set(0)).unwrap();
    wish.spec.replicas = Some((pods.len() - count) as i32);
    let Scale::Delete(gone) = decide::scale(&wish, &pods, &pods, now) else {
        panic!("nothing goes")
    };
    assert_eq!(
        gone.iter().map(|pod| pod.metadata.name()).collect::<Vec<_>>(),
        expect,
        "{pods:?}"
    );
}

#[test]
fn whose_loss_hurts_least_goes_first() {
    check_ranking(&["a n1 Running True 0 0 100", "b -- Pending False 0 0 100"], 1, &["b"]);
    check_ranking(&["a n1 Running True 0 0 100", "b n2 Pending False 0 0 100"], 1, &["b"]);
    check_ranking(&["a n1 Running True 0 0 100", "b n2 Running False 0 0 100"], 1, &["b"]);
    check_ranking(&["a n1 Running True 5 0 100", "b n2 Running True -5 0 100"], 1, &["b"]);
    check_ranking(
        &[
            "a n1 Running True 0 0 9",
            "b n2 Running True 0 0 9",
            "c n2 Running True 0 0 9",
        ],
        1,
        &["b"],
    );
    check_ranking(&["a n1 Running True 0 0 100000", "b n2 Running True 0 0 10"], 1, &["b"]);
    check_ranking(&["a n1 Running True 0 0 100", "b n2 Running True 0 3 100"], 1, &["b"]);
    // Ages of the same magnitude are equal: the uid decides.
    check_ranking(&["b n1 Running True 0 0 100", "a n2 Running True 0 0 101"], 1, &["a"]);
    check_ranking(&["a n1 Running True 0 0 1", "b n2 Running True 0 0 1"], 2, &["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn makes_removes_and_counts() {
    let bench = Bench::new();
    start_on(&bench);
    bench.api.put(set(3));
    bench.idle().await;
    let pods = bench.api.list(&resources::PODS);
    assert_eq!(pods.len(), 3);
    let pod = &pods[0];
    assert!(api::meta::name(pod).starts_with("web-") && api::meta::name(pod).len() == 9);
    assert_eq!(pod["metadata"]["generateName"], "web-");
    assert_eq!(pod["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(pod["metadata"]["ownerReferences"][0]["controller"], true);
    for (n, name) in bench.pod_names().iter().enumerate().take(2) {
        bench.run_pod("default", name, &format!("10.0.0.{n}"));
    }
    bench.idle().await;
    let counts = |bench: &Bench| {
        let status = status(bench);
        [
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
        ]
        .map(|key| status[key].as_i64().unwrap())
    };
    assert_eq!(counts(&bench), [3, 3, 2, 2, 1]);
    let mut ready: BTreeSet<String> = bench.pod_names().into_iter().take(2).collect();
    scale_to(&bench, 1);
    bench.idle().await;
    assert_eq!(counts(&bench), [1, 1, 1, 1, 2]);
    ready.retain(|name| bench.pod_names().contains(name));
    assert_eq!(ready.len(), 1, "the one that was not ready went first");
    let events = bench.events();
    assert_eq!(
        events
            .iter()
            .filter(|event| event.starts_with("SuccessfulCreate: Created pod: web-"))
            .count(),
        3
    );
    assert_eq!(
        events
            .iter()
            .filter(|event| event.starts_with("SuccessfulDelete: Deleted pod: web-"))
            .count(),
        2
    );
    bench.api.take_requests();
    bench.idle().await;
    assert_eq!(bench.api.take_requests(), [], "idle means idle");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_forerunner_is_kept_the_same_way() {
    let bench = Bench::new();
    start::<ReplicationController>(bench.context("replication-controller"));
    let mut older = set(2);
    older["apiVersion"] = "v1".into();
    older["kind"] = "ReplicationController".into();
    older["spec"]["selector"] = json!({"app": "web"});
    bench.api.put(older);
    bench.idle().await;
    let pods = bench.api.list(&resources::PODS);
    assert_eq!(pods.len(), 2);
    let owner = &pods[0]["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["apiVersion"], &owner["kind"]),
        (&json!("v1"), &json!("ReplicationController"))
    );
    let name = api::meta::name(&pods[0]).to_string();
    bench.run_pod("default", &name, "10.0.0.1");
    bench
        .api
        .edit(&resources::PODS, "default", api::meta::name(&pods[1]), |pod| {
            pod["metadata"]["labels"]["app"] = "db".into()
        });
    bench.idle().await;
    assert_eq!(bench.pod_names().len(), 3, "one was let go and replaced");
    let status = &bench
        .api
        .get(&resources::REPLICATION_CONTROLLERS, "default", "web")
        .unwrap()["status"];
    assert_eq!((&status["replicas"], &status["readyReplicas"]), (&json!(2), &json!(1)));
    assert!(
        status.get("terminatingReplicas").is_none(),
        "a field of the newer kind: {status}"
    );
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_pod_is_replaced_and_a_finished_one_too() {
    let bench = Bench::new();
    start_on(&bench);
    bench.api.put(set(2));
    bench.idle().await;
    let names = bench.pod_names();
    bench.api.remove(&resources::PODS, "default", &names[0]);
    bench.set_status(&resources::PODS, "default", &names[1], json!({"phase": "Failed"}));
    bench.idle().await;
    let now: BTreeSet<String> = bench.pod_names().into_iter().collect();
    assert_eq!(now.len(), 3, "two active ones and the finished one");
    assert!(!now.contains(&names[0]));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn adopts_and_releases() {
    let bench = Bench::new();
    for (name, app) in [("orphan", "web"), ("stranger", "db")] {
        bench.api.put(json!({"apiVersion": "v1", "kind": "Pod", "spec": {},
            "metadata": {"name": name, "namespace": "default", "labels": {"app": app}}}));
    }
    start_on(&bench);
    bench.api.put(set(2));
    bench.idle().await;
    let owners = |bench: &Bench, name: &str| {
        bench.api.get(&resources::PODS, "default", name).unwrap()["metadata"]["ownerReferences"].clone()
    };
    assert_eq!(owners(&bench, "orphan")[0]["name"], "web");
    assert!(owners(&bench, "stranger").is_null());
    assert_eq!(bench.pod_names().len(), 3, "the orphan counts");
    bench.api.edit(&resources::PODS, "default", "orphan", |pod| {
        pod["metadata"]["labels"]["app"] = "db".into()
    });
    bench.idle().await;
    assert_eq!(owners(&bench, "orphan"), json!([]));
    assert_eq!(bench.pod_names().len(), 4, "and is replaced when it left");
    bench.end().await;
}

/// The pods' copy stands still: whatever news come, no pod is made twice.
#[tokio::test(start_paused = true)]
async fn a_stale_copy_makes_no_second_pod() {
    let bench = Bench::new();
    start_on(&bench);
    bench.api.put(set(0));
    bench.idle().await;
    bench.api.freeze_watches_of(&resources::PODS);
    scale_to(&bench, 2);
    bench.idle().await;
    assert_eq!(bench.pod_names().len(), 2);
    // News of the set come, the pods are not seen yet: counting them now would make four more.
    scale_to(&bench, 4);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.pod_names().len(), 2);
    bench.api.thaw_watches();
    bench.idle().await;
    assert_eq!(bench.pod_names().len(), 4);
    bench.end().await;
}

/// The process ends after the first creates; the next one counts what is there.
#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_makes_no_pod_too_many() {
    let api = FakeApi::new();
    let first = Bench::on(api.clone());
    start_on(&first);
    let mut left = 3;
    api.sabotage(move |seen| {
        left -= i32::from(seen.verb == "create" && seen.resource == "pods");
        (left < 0).then_some(Fault::LoseRequest)
    });
    api.put(set(10));
    first.idle().await;
    first.end().await;
    assert_eq!(api.list(&resources::PODS).len(), 3);
    api.behave();
    let second = Bench::on(api.clone());
    start_on(&second);
    second.idle().await;
    assert_eq!(api.list(&resources::PODS).len(), 10);
    second.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_makes_no_pod_too_many() {
    let bench = Bench::new();
    start_on(&bench);
    let mut lost = 0;
    bench.api.sabotage({
        let api = bench.api.clone();
        move |seen| {
            if seen.verb == "create" && seen.resource == "pods" && lost < 3 {
                lost += 1;
                // The copy is behind as well: only asking the server by name tells.
                api.freeze_watches();
                return Some(Fault::LoseAnswer);
            }
            api.thaw_watches();
            None
        }
    });
    bench.api.put(set(5));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.pod_names().len(), 5);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_tried_again() {
    let bench = Bench::new();
    start_on(&bench);
    let pods = resources::PODS.group_resource();
    bench.api.sabotage(move |seen| {
        let refuse = seen.verb == "create" && seen.resource == "pods";
        refuse.then(|| Fault::Refuse(api::Status::forbidden(&pods, "web-x", "exceeded quota")))
    });
    bench.api.put(set(2));
    bench.idle().await;
    let condition = status(&bench)["conditions"][0].clone();
    assert_eq!(
        (&condition["type"], &condition["reason"]),
        (&json!("ReplicaFailure"), &json!("FailedCreate"))
    );
    assert_eq!(condition["message"], "pods \"web-x\" is forbidden: exceeded quota");
    assert!(bench.events()[0].starts_with("FailedCreate: Error creating: pods \"web-x\" is forbidden: exceeded quota"));
    bench.api.behave();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.pod_names().len(), 2);
    assert_eq!(status(&bench)["conditions"], json!([]), "and taken back");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn available_after_min_ready_seconds() {
    let bench = Bench::new();
    start_on(&bench);
    let mut set = set(1);
    set["spec"]["minReadySeconds"] = 30.into();
    bench.api.put(set);
    bench.idle().await;
    bench.run_pod("default", &bench.pod_names()[0], "10.0.0.1");
    bench.idle().await;
    assert_eq!(status(&bench)["availableReplicas"], 0);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(status(&bench)["availableReplicas"], 1);
    bench.end().await;
}
