//! The scheduler against a fake API with paused time: what it binds, and what it tells.

use base::Shutdown;
use base::random::Random;
use client::informer::SharedInformers;
use client::resources;
use client::testing::{FakeApi, Fault};
use serde_json::{Value, json};

struct World {
    api: FakeApi,
    shutdown: Shutdown,
}

impl World {
    fn start(nodes: &[Value]) -> World {
        let api = FakeApi::new();
        nodes.iter().for_each(|node| drop(api.put(node.clone())));
        let shutdown = Shutdown::new();
        let config = scheduler::Config {
            client: api.client(),
            informers: SharedInformers::new(api.client(), shutdown.clone()),
            clock: api.clock(),
            random: Random::seeded(1),
            name: "default-scheduler".into(),
        };
        shutdown.spawn(scheduler::run(config, shutdown.clone()));
        World { api, shutdown }
    }

    fn pod(&self, name: &str, cpu: &str) {
        self.api.put(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        }));
    }

    fn node_of(&self, name: &str) -> String {
        let pod = self.api.get(&resources::PODS, "ns", name).unwrap_or_default();
        pod["spec"]["nodeName"].as_str().unwrap_or("").into()
    }

    fn condition(&self, name: &str) -> Value {
        let pod = self.api.get(&resources::PODS, "ns", name).unwrap_or_default();
        pod["status"]["conditions"][0].clone()
    }

    fn uid(&self, name: &str) -> String {
        let pod = self.api.get(&resources::PODS, "ns", name).unwrap_or_default();
        pod["metadata"]["uid"].as_str().unwrap_or("").into()
    }

    fn event(&self, name: &str, reason: &str) -> Option<String> {
        let events = self
            .api
            .list(&resources::EVENTS)
            .into_iter()
            .chain(self.api.list(&resources::EVENTS_V1));
        let mut found = events.filter(|event| {
            let about = if event["regarding"].is_object() {
                &event["regarding"]
            } else {
                &event["involvedObject"]
            };
            event["reason"] == reason && about["name"] == name
        });
        let event = found.next()?;
        event["note"].as_str().or(event["message"].as_str()).map(str::to_owned)
    }

    /// Waits until it is so. The time is simulated: what does not come within a day never comes.
    async fn until(&self, enough: impl Fn(&World) -> bool) {
        let limit = std::time::Duration::from_secs(86_400);
        let waited = tokio::time::timeout(limit, self.api.until(|_| enough(self))).await;
        assert!(waited.is_ok(), "{:#?}", self.api.list(&resources::PODS));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

fn node(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
    })
}

#[tokio::test(start_paused = true)]
async fn pods_are_bound_and_it_is_told() {
    let world = World::start(&[node("a", "2"), node("b", "2")]);
    for name in ["p1", "p2"] {
        world.pod(name, "1500m");
    }
    world
        .until(|w| !w.node_of("p1").is_empty() && !w.node_of("p2").is_empty())
        .await;
    assert_ne!(
        world.node_of("p1"),
        world.node_of("p2"),
        "a node is not given away twice"
    );
    world.until(|w| w.event("p1", "Scheduled").is_some()).await;
    let expect = format!("Successfully assigned ns/p1 to {}", world.node_of("p1"));
    assert_eq!(world.event("p1", "Scheduled"), Some(expect));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_waits_and_says_why() {
    let world = World::start(&[node("a", "2")]);
    world.pod("big", "3");
    world.until(|w| w.condition("big")["reason"] == "Unschedulable").await;
    let message = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
                   available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(world.condition("big")["message"], message);
    world.until(|w| w.event("big", "FailedScheduling").is_some()).await;
    assert_eq!(world.event("big", "FailedScheduling").as_deref(), Some(message));
    // A larger node makes it fit at once.
    world.api.put(node("b", "4"));
    world.until(|w| w.node_of("big") == "b").await;
}

#[tokio::test(start_paused = true)]
async fn room_that_is_freed_is_used() {
    let world = World::start(&[node("a", "2")]);
    world.pod("first", "2");
    world.until(|w| w.node_of("first") == "a").await;
    world.pod("second", "2");
    world
        .until(|w| w.condition("second")["reason"] == "Unschedulable")
        .await;
    world.api.remove(&resources::PODS, "ns", "first");
    world.until(|w| w.node_of("second") == "a").await;
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_is_lost_is_tried_again() {
    for fault in [Fault::LoseRequest, Fault::LoseAnswer] {
        let world = World::start(&[node("a", "2")]);
        let mut lost = 0;
        let what = fault.clone();
        world.api.sabotage(move |seen| {
            let hit = seen.line().contains("binding") && lost < 2;
            lost += usize::from(hit);
            hit.then(|| what.clone())
        });
        world.pod("p", "2");
        world.until(|w| w.node_of("p") == "a").await;
        // The room was given away once: a second pod of that size waits.
        world.pod("q", "1");
        world.until(|w| w.condition("q")["reason"] == "Unschedulable").await;
    }
}

#[tokio::test(start_paused = true)]
async fn pods_of_others_are_left_alone() {
    let world = World::start(&[node("a", "2")]);
    world.api.put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "namespace": "ns"},
        "spec": {"schedulerName": "mine", "containers": []},
    }));
    world.pod("p", "1");
    world.until(|w| w.node_of("p") == "a").await;
    assert_eq!(world.node_of("other"), "");
}

#[tokio::test(start_paused = true)]
async fn a_more_important_pod_makes_room_which_is_kept_for_it() {
    let world = World::start(&[node("a", "2")]);
    world.pod("low", "2");
    world.until(|w| w.node_of("low") == "a").await;
    world.api.put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "high", "namespace": "ns"},
        "spec": {
            "schedulerName": "default-scheduler", "priority": 10,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
        },
    }));
    world
        .until(|w| w.api.get(&resources::PODS, "ns", "high").unwrap()["status"]["nominatedNodeName"] == "a")
        .await;
    world
        .until(|w| w.api.get(&resources::PODS, "ns", "low").unwrap()["metadata"]["deletionTimestamp"].is_string())
        .await;
    let low = world.api.get(&resources::PODS, "ns", "low").unwrap();
    let condition = low["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["type"] == "DisruptionTarget")
        .unwrap()
        .clone();
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&json!("True"), &json!("PreemptionByScheduler"))
    );
    assert_eq!(
        condition["message"],
        "default-scheduler: preempting to accommodate a higher priority pod"
    );
    assert_eq!(
        world.event("high", "FailedScheduling").as_deref(),
        Some("0/1 nodes are available: 1 Insufficient cpu.")
    );
    world.until(|w| w.event("low", "Preempted").is_some()).await;
    let expect = format!("Preempted by pod {} on node a", world.uid("high"));
    assert_eq!(world.event("low", "Preempted"), Some(expect));
    // A small one that comes first when the room is free does not get in between.
    world.pod("small", "1500m");
    world.until(|w| w.condition("small")["reason"] == "Unschedulable").await;
    world.api.remove(&resources::PODS, "ns", "low");
    world.until(|w| w.node_of("high") == "a").await;
    assert_eq!(world.node_of("small"), "");
}
