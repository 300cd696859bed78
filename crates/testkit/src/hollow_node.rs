//! A node that is not there: it registers, renews its lease, and reports each pod bound to it as running and ready, or as
//! gone when it is deleted, as a kubelet whose containers never fail would.

use std::collections::HashMap;
use std::time::Duration;

use base::Clock;
use client::resource::resources::{LEASES, NODES, PODS};
use client::{Client, DeleteParams, Event, Patch, WatchParams};
use serde_json::{Value, json};

/// As often as a kubelet: node lifecycle takes a node for lost after forty seconds.
const LEASE_RENEWAL: Duration = Duration::from_secs(10);

/// Runs on a thread of its own until it is dropped or the program ends.
pub struct HollowNode {
    _end: tokio::sync::oneshot::Sender<()>,
}

impl HollowNode {
    /// Registers a node; returns when it is ready for pods. Blocks until then: call it where that is fine.
    ///
    /// # Panics
    /// The node cannot be registered.
    pub fn start(client: Client, name: &str) -> HollowNode {
        let (end, ended) = tokio::sync::oneshot::channel();
        let name = name.to_owned();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime for the node");
            runtime.block_on(async {
                register(&client, &name).await;
                let _ = ready.send(());
                tokio::select! {
                    () = run(&client, &name) => {}
                    () = renew(&client, &name) => {}
                    _ = ended => {}
                }
            });
        });
        is_ready.recv().expect("the node registered");
        HollowNode { _end: end }
    }
}

async fn register(client: &Client, name: &str) {
    let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
    });
    client
        .create_in(&NODES, "", &node)
        .await
        .expect("the node is registered");
    let now = Clock::real().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let resources = json!({"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    let status = json!({"status": {
        "capacity": resources, "allocatable": resources,
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": name}],
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "b", "containerRuntimeVersion": "fake://1.0", "kernelVersion": "6.1.0",
            "kubeProxyVersion": "", "kubeletVersion": "v1.36.0", "machineID": "m", "operatingSystem": "linux",
            "osImage": "Fake 1", "systemUUID": "s",
        },
    }});
    client
        .patch_status(&NODES, "", name, &status)
        .await
        .expect("the node is ready");
}

async fn renew(client: &Client, name: &str) {
    let mut due = tokio::time::interval(LEASE_RENEWAL);
    loop {
        due.tick().await;
        let now = Clock::real().now().strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
        });
        // The next renewal mends a failed one.
        let _ = client
            .patch(&LEASES, "kube-node-lease", name, None, &Patch::apply("kubelet"), &lease)
            .await;
    }
}

async fn run(client: &Client, name: &str) {
    let mut addresses: HashMap<String, usize> = HashMap::new();
    let mut from = String::new();
    loop {
        let params = WatchParams {
            field_selector: format!("spec.nodeName={name}"),
            resource_version: from.clone(),
            ..WatchParams::default()
        };
        let Ok(mut watch) = client.watch_in::<Value>(&PODS, "", &params).await else {
            return;
        };
        while let Some(Ok(event)) = watch.next().await {
            let pod = match event {
                Event::Added(pod) | Event::Modified(pod) => pod,
                Event::Deleted(pod) => {
                    from = text(&pod["metadata"]["resourceVersion"]).to_owned();
                    continue;
                }
                Event::Bookmark { .. } => continue,
            };
            from = text(&pod["metadata"]["resourceVersion"]).to_owned();
            let number = addresses.len() + 2;
            let number = *addresses
                .entry(text(&pod["metadata"]["uid"]).to_owned())
                .or_insert(number);
            // The pod may be gone by now: then there is nothing to report.
            let _ = report(client, &pod, number).await;
        }
    }
}

async fn report(client: &Client, pod: &Value, number: usize) -> client::Result<Value> {
    let metadata = &pod["metadata"];
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    if !metadata["deletionTimestamp"].is_null() {
        return client
            .delete(
                &PODS,
                namespace,
                name,
                &DeleteParams::uid(text(&metadata["uid"])).grace(0),
            )
            .await;
    }
    if pod["status"]["phase"] == "Running" {
        return Ok(Value::Null);
    }
    let start = &metadata["creationTimestamp"];
    let address = format!("10.244.0.{number}");
    let containers: Vec<Value> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "sha256:0", "ready": true,
                "containerID": "fake://0", "restartCount": 0, "started": true, "state": {"running": {"startedAt": start}},
            })
        })
        .collect();
    let conditions: Vec<Value> = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"]
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": start}))
        .collect();
    let status = json!({"metadata": {"uid": metadata["uid"]}, "status": {
        "phase": "Running", "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}], "podIP": address,
        "podIPs": [{"ip": address}], "startTime": start, "conditions": conditions, "containerStatuses": containers,
    }});
    client.patch_status(&PODS, namespace, name, &status).await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}
