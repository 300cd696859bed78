//! All controllers together, as a server runs them.

use std::collections::BTreeSet;

use api::Value;
use base::{Clock, Random, Shutdown};
use client::testing::FakeApi;
use client::{DeleteParams, Propagation, resources};
use serde_json::json;

use super::{Config, start};

fn config(api: &FakeApi, clock: Clock) -> Config {
    let maker = api.clone();
    let client_for = Box::new(move |name: &str| maker.client_as(name));
    let mut config = Config::new(client_for, api.client_as("informers"), clock, "PEM".into());
    config.random = Random::seeded(1);
    config
}

fn put_world(api: &FakeApi, replicas: i32) {
    for name in ["default", "kube-system", "kube-node-lease"] {
        api.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    }
    api.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}}));
    api.put(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.5", "ports": [{"port": 80, "protocol": "TCP"}]}}),
    );
    api.put(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }));
}

/// A scheduler and a kubelet that do nothing but say so.
fn run_pods(api: &FakeApi) {
    let now = crate::context::time_text(api.clock().now());
    for (index, pod) in api.list(&resources::PODS).iter().enumerate() {
        if pod["status"]["phase"] == "Running" {
            continue;
        }
        api.edit(&resources::PODS, "default", api::meta::name(pod), |pod| {
            pod["spec"]["nodeName"] = "n".into();
            let ip = format!("10.244.{}.{}", index / 250, index % 250 + 1);
            pod["status"] = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]});
        });
    }
}

fn endpoints(api: &FakeApi) -> usize {
    let slices = api.list(&resources::ENDPOINT_SLICES);
    slices
        .iter()
        .map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len))
        .sum()
}

#[tokio::test(start_paused = true)]
async fn a_cluster_lives_and_a_deployment_comes_and_goes() {
    let api = FakeApi::new();
    let shutdown = Shutdown::new();
    let running = start(config(&api, api.clock()), shutdown.clone());
    put_world(&api, 3);
    api.until(|api| api.list(&resources::PODS).len() == 3).await;
    run_pods(&api);
    api.until(|api| endpoints(api) == 3).await;
    let available = |api: &FakeApi| {
        let deployment = api.get(&resources::DEPLOYMENTS, "default", "web").unwrap();
        deployment["status"]["availableReplicas"] == 3
    };
    api.until(available).await;
    let account = |api: &FakeApi| api.get(&resources::SERVICE_ACCOUNTS, "default", "default").is_some();
    let published = |api: &FakeApi| {
        api.get(&resources::CONFIG_MAPS, "kube-system", "kube-root-ca.crt")
            .is_some()
    };
    let addressed = |api: &FakeApi| api.get(&resources::NODES, "", "n").unwrap()["spec"]["podCIDR"] == "10.244.0.0/24";
    api.until(|api| account(api) && published(api) && addressed(api)).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let writers: BTreeSet<(String, String)> = api
        .take_requests()
        .into_iter()
        .filter(|seen| seen.is_write() && seen.resource != "events")
        .map(|seen| (seen.user, seen.resource))
        .collect();
    let expect = [
        ("deployment-controller", "deployments.apps"),
        ("deployment-controller", "replicasets.apps"),
        ("endpoint-controller", "endpoints"),
        ("endpointslice-controller", "endpointslices.discovery.k8s.io"),
        ("node-controller", "nodes"),
        ("replicaset-controller", "pods"),
        ("replicaset-controller", "replicasets.apps"),
        ("root-ca-cert-publisher", "configmaps"),
        ("service-account-controller", "serviceaccounts"),
    ];
    assert_eq!(
        writers,
        expect
            .map(|(user, resource)| (user.to_string(), resource.to_string()))
            .into()
    );
    let user = api.client_as("user");
    let background = DeleteParams::default().propagation(Propagation::Background);
    user.delete(&resources::DEPLOYMENTS, "default", "web", &background)
        .await
        .unwrap();
    let gone = |api: &FakeApi| {
        let pods = api.list(&resources::PODS);
        // Pods on a node take their time; that of the kubelet.
        pods.iter().all(api::meta::is_deleting) && api.list(&resources::REPLICA_SETS).is_empty()
    };
    api.until(gone).await;
    for pod in api.list(&resources::PODS) {
        api.remove(&resources::PODS, "default", api::meta::name(&pod));
    }
    api.until(|api| endpoints(api) == 0).await;
    shutdown.trigger();
    running.await.unwrap();
}

/// One event of news for each write, and nothing more: how many requests 110 pods cost.
#[tokio::test(start_paused = true)]
async fn many_pods_cost_few_requests() {
    let api = FakeApi::new();
    let shutdown = Shutdown::new();
    let running = start(config(&api, api.clock()), shutdown.clone());
    put_world(&api, 110);
    api.until(|api| api.list(&resources::PODS).len() == 110).await;
    run_pods(&api);
    api.until(|api| endpoints(api) == 110).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let requests = api.take_requests();
    let count = |verb: &str, resource: &str| -> usize {
        requests
            .iter()
            .filter(|seen| seen.verb == verb && seen.resource == resource)
            .count()
    };
    assert_eq!(count("create", "pods"), 110);
    assert_eq!(
        count("patch", "pods") + count("get", "pods") + count("delete", "pods"),
        0
    );
    for (resource, most) in [
        ("replicasets.apps", 10),
        ("deployments.apps", 10),
        ("endpointslices.discovery.k8s.io", 30),
    ] {
        let writes = count("patch", resource);
        assert!(writes <= most, "{writes} patches of {resource}");
    }
    let deployments: Vec<Value> = api.list(&resources::DEPLOYMENTS);
    assert_eq!(deployments[0]["status"]["availableReplicas"], 110);
    shutdown.trigger();
    running.await.unwrap();
}
