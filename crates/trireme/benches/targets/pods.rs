//! Pods on a real node: how long they take to start, alone and all at once, and what a running one costs us.

use std::collections::HashSet;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::{Access, Protocol};
use crate::events::Events;
use crate::figure;
use crate::load::{self, Ask, End, percentile};
use crate::usage::{Memory, cpu_seconds, kernel_bytes_of_groups};

const IMAGE: &str = "trireme.local/demo:1";
/// Pods that start one after the other.
const ALONE: usize = 40;
/// The kubelet's default limit of pods on a node.
const TOGETHER: usize = 110;
const WRITERS: usize = 8;
/// Until statuses and garbage of the starts are dealt with.
const SETTLE: Duration = Duration::from_secs(5);
const COLLECTION: &str = "/api/v1/namespaces/default/pods";
const WATCH: &str = "/api/v1/namespaces/default/pods?watch=true";

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let cluster = Cluster::with_node().await?;
    let access = cluster.access()?;
    let archive = cluster.scratch("image.tar");
    std::fs::write(&archive, runtime::image::demo_image(IMAGE))?;
    cluster
        .trireme(&["image", "import", &archive.display().to_string()])
        .await?;
    account(&access).await?;
    one_by_one(&access).await?;
    clear(&access).await?;
    all_at_once(&cluster, &access).await
}

/// From the event that shows the binding to the one that shows `Running`.
async fn one_by_one(access: &Access) -> anyhow::Result<()> {
    let mut events = access.watch(WATCH).await?;
    let mut took = Vec::new();
    for number in 0..ALONE {
        let name = format!("alone-{number}");
        access.ask(Method::POST, COLLECTION, &pod(&name)).await?;
        let mut bound = None;
        loop {
            let pod = next_pod(&mut events, &name).await?;
            if bound.is_none() && pod["spec"]["nodeName"].is_string() {
                bound = Some(Instant::now());
            }
            if let Some(bound) = bound.filter(|_| is_running(&pod)) {
                took.push(bound.elapsed());
                break;
            }
        }
    }
    let conditions =
        format!("{ALONE} pods one after the other, image present, no volume but the token, seen through a watch");
    figure("pod.start.p50", percentile(&mut took, 50) * 1000.0, &conditions);
    figure("pod.start.p99", percentile(&mut took, 99) * 1000.0, &conditions);
    Ok(())
}

async fn all_at_once(cluster: &Cluster, access: &Access) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    let before = Measured::of(&cluster.processes()?);
    let mut events = access.watch(WATCH).await?;
    let writers = access.connect_many(WRITERS, Protocol::Http1).await?;
    let begun = Instant::now();
    let created = load::run(writers, cluster.server()?, End::Count(TOGETHER as u64), |number| Ask {
        method: Method::POST,
        path: COLLECTION.into(),
        body: pod(&format!("together-{number}")).to_string().into(),
    });
    let created = tokio::spawn(created);
    let mut running = HashSet::new();
    while running.len() < TOGETHER {
        let pod = next_pod(&mut events, "together-").await?;
        if is_running(&pod) {
            running.extend(pod["metadata"]["name"].as_str().map(str::to_owned));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    created.await??;
    let started = Measured::of(&cluster.processes()?);
    let pods = TOGETHER as f64;
    let conditions = format!(
        "{TOGETHER} pods from {WRITERS} writers on one node, from the first request until the last Running is seen"
    );
    figure("pods.seconds", seconds, &conditions);
    let conditions =
        format!("the same {TOGETHER} pods: control plane, daemon, shims and helpers, without the containers' own");
    figure("pods.cpu", (started.cpu - before.cpu) / pods * 1000.0, &conditions);

    tokio::time::sleep(SETTLE).await;
    let settled = Measured::of(&cluster.processes()?);
    let grown = |after: u64, before: u64| after.saturating_sub(before) as f64 / pods / 1e6;
    let conditions = format!(
        "{TOGETHER} running pods: anonymous memory, page tables and stacks of daemons and shims; {:.2} MB with all that the kernel holds for the pods' groups, the containers' processes and networks included",
        grown(settled.everything, before.everything)
    );
    figure(
        "pod.memory",
        grown(settled.memory.total(), before.memory.total()),
        &conditions,
    );
    Ok(())
}

/// What our processes have used by now.
struct Measured {
    cpu: f64,
    memory: Memory,
    /// Anonymous memory, and what the kernel holds for their control groups.
    everything: u64,
}

impl Measured {
    fn of(processes: &[i32]) -> Measured {
        let memory = Memory::of(processes);
        Measured {
            cpu: cpu_seconds(processes),
            memory,
            everything: memory.anonymous + kernel_bytes_of_groups(processes).unwrap_or(memory.kernel),
        }
    }
}

/// Waits for the namespace's account: pods cannot be made before.
async fn account(access: &Access) -> anyhow::Result<()> {
    let mut events = access
        .watch("/api/v1/namespaces/default/serviceaccounts?watch=true")
        .await?;
    while events.next().await?["object"]["metadata"]["name"] != "default" {}
    Ok(())
}

/// Deletes all pods and waits until they are gone.
async fn clear(access: &Access) -> anyhow::Result<()> {
    let list = access.ask(Method::GET, COLLECTION, &Value::Null).await?;
    let mut left = list["items"].as_array().map_or(0, Vec::len);
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let mut events = access.watch(&format!("{WATCH}&resourceVersion={revision}")).await?;
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 1});
    access.ask(Method::DELETE, COLLECTION, &options).await?;
    while left > 0 {
        left -= usize::from(events.next().await?["type"] == "DELETED");
    }
    Ok(())
}

/// The pod of the next event about one whose name begins so.
async fn next_pod(events: &mut Events, prefix: &str) -> anyhow::Result<Value> {
    loop {
        let pod = events.next().await?["object"].take();
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if name.starts_with(prefix) {
            return Ok(pod);
        }
    }
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent"}],
        },
    })
}
