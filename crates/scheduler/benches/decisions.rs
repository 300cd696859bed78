//! Decisions at the scale of upstream's own benchmark: five thousand nodes, first the decision alone, then the whole
//! scheduler against an API in memory, which answers at once and keeps nothing on disk.
//!
//! `cargo bench -p scheduler`. Prints one line a figure, as `cargo xtask bench` reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::Shutdown;
use base::random::Random;
use client::informer::SharedInformers;
use client::testing::FakeApi;
use scheduler::cluster::Cluster;
use scheduler::decide::Decider;
use scheduler::pod::Pod;
use scheduler::view::PodView;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

const NODES: usize = 5000;
const ZONES: usize = 10;
const DECISIONS: usize = 10_000;
const BINDINGS: usize = 3000;
/// What hangs is an error.
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let what = "pods asking for processors and memory";
    println!(
        "figure scheduler.basic {:.0} {DECISIONS} {what}, {NODES} nodes, one thread",
        decisions(&basic)
    );
    let what = "pods that need three of ten zones and prefer one";
    println!(
        "figure scheduler.affinity {:.0} {DECISIONS} {what}, {NODES} nodes, one thread",
        decisions(&affine)
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let rate = runtime.block_on(async { tokio::time::timeout(LIMIT, end_to_end()).await });
    let rate = rate.expect("all pods are bound");
    println!(
        "figure scheduler.end_to_end {rate:.0} {BINDINGS} pods, {NODES} nodes, informers and bindings through an API in memory"
    );
}

/// Decisions a second, each pod taking its room before the next.
fn decisions(pod: &dyn Fn(usize) -> Value) -> f64 {
    let mut cluster = Cluster::default();
    for number in 0..NODES {
        cluster.put_node(&serde_json::from_value(node(number)).expect("a node"));
    }
    let pods: Vec<Pod> = (0..DECISIONS)
        .map(|number| Pod::of_view(&serde_json::from_value::<PodView>(pod(number)).expect("a pod")))
        .collect();
    let mut decider = Decider::new(Random::seeded(1));
    let begun = Instant::now();
    for mut pod in pods {
        pod.node = decider.decide(&pod, &cluster).expect("there is room");
        cluster.put_pod(&Arc::new(pod));
    }
    DECISIONS as f64 / begun.elapsed().as_secs_f64()
}

/// Bindings a second, from the first pod that is seen to the last that is bound.
async fn end_to_end() -> f64 {
    let (api, shutdown) = (FakeApi::new(), Shutdown::new());
    for number in 0..NODES {
        api.put(node(number));
    }
    for number in 0..BINDINGS {
        api.put(basic(number));
    }
    let (bound, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let tell = (bound.clone(), all.clone());
    api.sabotage(move |seen| {
        if seen.subresource == "binding" && tell.0.fetch_add(1, Ordering::Relaxed) + 1 == BINDINGS {
            tell.1.notify_one();
        }
        None
    });
    let config = scheduler::Config {
        client: api.client(),
        informers: SharedInformers::new(api.client(), shutdown.clone()),
        clock: api.clock(),
        random: Random::seeded(1),
        name: "default-scheduler".into(),
    };
    let begun = Instant::now();
    shutdown.spawn(scheduler::run(config, shutdown.clone()));
    all.notified().await;
    let rate = BINDINGS as f64 / begun.elapsed().as_secs_f64();
    shutdown.trigger();
    rate
}

fn node(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{number}"), "labels": {"zone": format!("zone-{}", number % ZONES)}},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    })
}

/// As upstream's SchedulingBasic: `pod-default.yaml` asks for 100m and 500Mi.
fn basic(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{number}"), "namespace": "bench", "uid": format!("uid-{number}")},
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{"name": "main", "image": "pause", "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}],
        },
    })
}

fn affine(number: usize) -> Value {
    let zones = |count: usize| -> Value {
        (0..count)
            .map(|place| format!("zone-{}", (number + place) % ZONES))
            .collect()
    };
    let term = |count: usize| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": zones(count)}]});
    let mut pod = basic(number);
    pod["spec"]["affinity"] = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term(3)]},
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term(1)}],
    }});
    pod
}
