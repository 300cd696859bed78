//! Silent nodes in paused time, with the controller that evicts their pods.

use client::resources::{LEASES as LEASE, NODES, PODS};

use super::*;
use crate::testkit::Bench;

fn put_node(bench: &Bench, name: &str) {
    let now = crate::context::time_text(bench.api.clock().now());
    bench.api.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}]}}));
    bench.api.put(
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": LEASES},
        "spec": {"holderIdentity": name, "renewTime": "0"}}),
    );
}

/// Renews the leases of the nodes for so many seconds.
async fn live(bench: &Bench, nodes: &[&str], seconds: u64) {
    for _ in 0..seconds / 10 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let now = client::lease::micro_time(&bench.api.clock());
        for node in nodes {
            bench.api.edit(&LEASE, LEASES, node, |lease| {
                lease["spec"]["renewTime"] = now.as_str().into()
            });
        }
    }
    bench.idle().await;
}

fn ready(bench: &Bench, node: &str) -> String {
    let node = bench.api.get(&NODES, "", node).unwrap();
    node["status"]["conditions"][0]["status"].as_str().unwrap().to_string()
}

fn taint_names(bench: &Bench, node: &str) -> Vec<String> {
    let node = bench.api.get(&NODES, "", node).unwrap();
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints
        .iter()
        .map(|one| {
            format!(
                "{}:{}",
                one["key"].as_str().unwrap().trim_start_matches("node.kubernetes.io/"),
                one["effect"].as_str().unwrap()
            )
        })
        .collect()
}

fn put_pod(bench: &Bench, name: &str, tolerations: api::Value) {
    bench.api.put(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": "b", "tolerations": tolerations, "terminationGracePeriodSeconds": 0}}),
    );
    bench.run_pod("default", name, "10.0.0.1");
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_loses_its_pods_and_comes_back() {
    let bench = Bench::new();
    start(bench.context("node-controller"));
    crate::taint_eviction::start(bench.context("node-controller"));
    put_node(&bench, "a");
    put_node(&bench, "b");
    let after = |seconds: i64| json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    put_pod(&bench, "impatient", json!([]));
    put_pod(&bench, "patient", after(300));
    put_pod(&bench, "faithful", json!([{"operator": "Exists"}]));
    live(&bench, &["a", "b"], 120).await;
    assert_eq!((ready(&bench, "a"), ready(&bench, "b")), ("True".into(), "True".into()));
    live(&bench, &["a"], 40).await;
    assert_eq!(ready(&bench, "b"), "True");
    live(&bench, &["a"], 20).await;
    assert_eq!(
        (ready(&bench, "a"), ready(&bench, "b")),
        ("True".into(), "Unknown".into())
    );
    assert_eq!(
        taint_names(&bench, "b"),
        ["unreachable:NoSchedule", "unreachable:NoExecute"]
    );
    assert_eq!(bench.pod_names(), ["faithful", "patient"]);
    let pod = bench.api.get(&PODS, "default", "patient").unwrap();
    assert_eq!(pod["status"]["conditions"][0]["status"], "False");
    live(&bench, &["a"], 280).await;
    assert_eq!(bench.pod_names(), ["faithful", "patient"]);
    live(&bench, &["a"], 30).await;
    assert_eq!(bench.pod_names(), ["faithful"]);
    let events = bench.events();
    for expect in [
        "RegisteredNode: Node b event: Registered Node b in Controller",
        "NodeNotReady: Node b status is now: NodeNotReady",
        "NodeNotReady: Node is not ready",
        "TaintManagerEviction: Marking for deletion Pod default/patient",
    ] {
        assert!(events.iter().any(|event| event == expect), "{expect}: {events:#?}");
    }
    bench.api.edit(&NODES, "", "b", |node| {
        node["status"]["conditions"][0] = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": "2026-01-01T03:00:00Z"});
    });
    live(&bench, &["a", "b"], 10).await;
    assert_eq!(taint_names(&bench, "b"), Vec::<String>::new());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn when_all_are_away_nobody_is_evicted() {
    let bench = Bench::new();
    start(bench.context("node-controller"));
    put_node(&bench, "b");
    live(&bench, &[], 120).await;
    assert_eq!(ready(&bench, "b"), "Unknown");
    assert_eq!(taint_names(&bench, "b"), ["unreachable:NoSchedule"]);
    bench.api.take_requests();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.api.take_requests(), [], "idle means idle");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_lose_their_pods_one_after_the_other() {
    let bench = Bench::new();
    start(bench.context("node-controller"));
    for name in ["a", "b", "c"] {
        put_node(&bench, name);
    }
    bench.idle().await;
    for name in ["b", "c"] {
        bench.api.edit(&NODES, "", name, |node| {
            node["status"]["conditions"][0]["status"] = "False".into()
        });
    }
    live(&bench, &["a", "b", "c"], 0).await;
    let tainted = |bench: &Bench| {
        ["b", "c"]
            .iter()
            .filter(|name| taint_names(bench, name).contains(&"not-ready:NoExecute".to_string()))
            .count()
    };
    assert_eq!(tainted(&bench), 1);
    live(&bench, &["a", "b", "c"], 10).await;
    assert_eq!(tainted(&bench), 2);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn cordon_and_uncordon() {
    let bench = Bench::new();
    start(bench.context("node-controller"));
    put_node(&bench, "a");
    bench.idle().await;
    bench
        .api
        .edit(&NODES, "", "a", |node| node["spec"]["unschedulable"] = true.into());
    bench.idle().await;
    assert_eq!(taint_names(&bench, "a"), ["unschedulable:NoSchedule"]);
    bench.api.edit(&NODES, "", "a", |node| {
        drop(node["spec"].as_object_mut().unwrap().remove("unschedulable"))
    });
    bench.idle().await;
    assert_eq!(taint_names(&bench, "a"), Vec::<String>::new());
    bench.end().await;
}
