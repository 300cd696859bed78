//! Flow control through the whole server: objects decide who waits.

use std::sync::Arc;

use api::{Status, Value, meta};
use apiserver::pipeline::{Plugin, Review};
use futures::future::BoxFuture;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::world::{Api, World};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// Holds writes of objects called `slow` until there is a permit.
struct Gate {
    arrived: Semaphore,
    opened: Semaphore,
}

impl Plugin for Gate {
    fn name(&self) -> &'static str {
        "Gate"
    }

    fn validate<'a>(
        &'a self,
        _: &'a Review,
        object: Option<&'a Value>,
        _: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if object.is_some_and(|object| meta::name(object).starts_with("slow")) {
                self.arrived.add_permits(1);
                self.opened.acquire().await.unwrap().forget();
            }
            Ok(())
        })
    }
}

async fn world(seats: usize) -> (World, Arc<Gate>) {
    let gate = Arc::new(Gate {
        arrived: Semaphore::new(0),
        opened: Semaphore::new(0),
    });
    let engine = store::testing::engine_in_memory(base::Clock::real(), base::Random::seeded(1)).await;
    let world = World::over(engine, vec![gate.clone()], |config| config.seats = seats).await;
    (world, gate)
}

fn create(api: &Api, name: &str) -> tokio::task::JoinHandle<u16> {
    let (api, body) = (api.clone(), json!({"metadata": {"name": name}}));
    tokio::spawn(async move { api.post(MAPS, &body).await.code })
}

#[tokio::test]
async fn without_queues_what_has_no_seat_is_sent_away() {
    let (world, gate) = world(1).await;
    for api in world.both().await {
        let slow = create(&api, "slow");
        gate.arrived.acquire().await.unwrap().forget();
        let answer = api.get(MAPS).await;
        answer.refused(429, "Too many requests, please try again later.");
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(answer.headers.contains_key("x-kubernetes-pf-flowschema-uid"));
        gate.opened.add_permits(1);
        assert_eq!(slow.await.unwrap(), 201);
        api.delete(&format!("{MAPS}/slow")).await.ok();
    }
}

#[tokio::test]
async fn objects_decide_who_waits() {
    let (world, gate) = world(20).await;
    let api = world.api();
    let level = json!({"metadata": {"name": "own"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 10}}}}});
    let level = api
        .post(&format!("{GROUP}/prioritylevelconfigurations"), &level)
        .await
        .ok();
    let schema = json!({"metadata": {"name": "own"}, "spec": {
        "priorityLevelConfiguration": {"name": "own"}, "matchingPrecedence": 500,
        "distinguisherMethod": {"type": "ByUser"}, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "tester"}}],
            "resourceRules": [{"verbs": ["create"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["*"]}]}]}});
    let schema = api.post(&format!("{GROUP}/flowschemas"), &schema).await.ok();
    // The server hears of them as everybody does.
    let uid = |answer: &crate::world::Answer, header: &str| answer.headers[header].to_str().unwrap().to_owned();
    loop {
        let answer = api
            .post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "x"}}))
            .await;
        if uid(&answer, "x-kubernetes-pf-flowschema-uid") == schema["metadata"]["uid"] {
            assert_eq!(
                uid(&answer, "x-kubernetes-pf-prioritylevel-uid"),
                level["metadata"]["uid"]
            );
            break;
        }
        tokio::task::yield_now().await;
    }
    // A sixth of twenty seats are four: the fifth create waits, and nobody else does.
    let slow: Vec<_> = (0..5).map(|n| create(&api, &format!("slow-{n}"))).collect();
    gate.arrived.acquire_many(4).await.unwrap().forget();
    assert_eq!(api.get(MAPS).await.code, 200);
    assert_eq!(gate.arrived.available_permits(), 0);
    let metrics = String::from_utf8(api.get("/metrics").await.bytes.to_vec()).unwrap();
    for line in [
        "apiserver_flowcontrol_current_inqueue_requests{priority_level=\"own\",flow_schema=\"own\"} 1",
        "apiserver_flowcontrol_current_executing_seats{priority_level=\"own\",flow_schema=\"own\"} 4",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"own\"} 4",
        "apiserver_current_inqueue_requests{request_kind=\"mutating\"} 1",
        "apiserver_current_inqueue_requests{request_kind=\"readOnly\"} 0",
        "apiserver_flowcontrol_priority_level_seat_utilization_bucket{le=\"1\",phase=\"executing\",priority_level=\"own\"}",
        "apiserver_flowcontrol_priority_level_request_utilization_count{phase=\"waiting\",priority_level=\"own\"}",
        "apiserver_flowcontrol_demand_seats_count{priority_level=\"own\"}",
        "apiserver_flowcontrol_read_vs_write_current_requests_count{phase=\"waiting\",request_kind=\"mutating\"}",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    gate.opened.add_permits(5);
    for one in slow {
        assert_eq!(one.await.unwrap(), 201);
    }
    let metrics = String::from_utf8(api.get("/metrics").await.bytes.to_vec()).unwrap();
    let line = "apiserver_flowcontrol_current_inqueue_requests{priority_level=\"own\",flow_schema=\"own\"} 0";
    assert!(metrics.contains(line), "{metrics}");
    // The most that a level has is used for a while: that is above every bound but the last.
    let spent = |le: &str| -> f64 {
        let line = format!("apiserver_flowcontrol_demand_seats_bucket{{le=\"{le}\",priority_level=\"own\"}} ");
        let rest = metrics.split(&line).nth(1).expect("the bucket");
        rest.lines().next().unwrap().parse().unwrap()
    };
    assert!(
        spent("1.4") > spent("1") && spent("1") > 0.0,
        "five of four seats were wanted: {metrics}"
    );
}

#[tokio::test]
async fn an_orderly_end_lets_requests_finish() {
    let (world, gate) = world(20).await;
    let api = world.https().await;
    let slow = create(&api, "slow");
    gate.arrived.acquire().await.unwrap().forget();
    let running = world.running.clone();
    let end = tokio::spawn(async move { running.shutdown().await });
    world.running.shutdown_handle().cancelled().await;
    gate.opened.add_permits(1);
    assert_eq!(slow.await.unwrap(), 201);
    end.await.unwrap();
}
