//! The first half of ARCHITECTURE.md's story: what a control plane does when `kubectl` applies a Deployment. The whole
//! story, with a node, is an end-to-end test of `trireme` (`e2e/walk.rs`).
//!
//! It has a process of its own: the recorder hears of all that the process does, which includes any other test in it.

use std::path::Path;
use std::process::{Command, Stdio};

use client::resource::resources::{DEPLOYMENTS, PODS, REPLICA_SETS};
use client::{Client, Event, Resource, WatchParams};
use serde_json::{Value, json};
use testkit::record::Recorder;
use testkit::walk::{compare, page, passed, told};
use testkit::{ControlPlane, HollowNode};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The paragraph in which the node begins; a control plane alone ends before it.
const NODE_STEP: usize = 7;

const ROLE_BINDINGS: Resource = Resource::new("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", true);

/// Applies a Deployment with `kubectl`, as a user who has rights by RBAC only.
async fn apply(dir: &Path, image: &str, replicas: u32) {
    let manifest = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]},
        }},
    });
    let file = dir.join("web.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    let mut command = Command::new("kubectl");
    command
        .args(["apply", "--cache-dir", "cache", "-f"])
        .arg(&file)
        .current_dir(dir)
        .env_remove("HTTPS_PROXY")
        .env("HOME", dir)
        .env("KUBECONFIG", dir.join("kubeconfig"))
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().expect("the tests need kubectl in PATH"));
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What it knows of the server is asked for again the next time.
    std::fs::remove_dir_all(dir.join("cache")).unwrap();
}

/// Waits until an object is as wished, and says which version of it was.
async fn until(client: &Client, resource: &Resource, wished: impl Fn(&Value) -> bool) -> u64 {
    let params = WatchParams {
        send_initial_events: true,
        ..WatchParams::default()
    };
    let mut news = client.watch_in::<Value>(resource, "default", &params).await.unwrap();
    loop {
        match news.next().await.unwrap().unwrap() {
            Event::Added(object) | Event::Modified(object) if wished(&object) => {
                let version = object["metadata"]["resourceVersion"].as_str().unwrap();
                return version.parse().unwrap();
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn an_apply_walks_as_the_page_tells() {
    let recorder = Recorder::default();
    tracing_subscriber::registry().with(recorder.clone()).init();
    let plane = ControlPlane::start().await.unwrap();
    let admin = plane.administrator();
    let (client, name) = (admin.clone(), "hollow");
    let node = tokio::task::spawn_blocking(move || HollowNode::start(client, name));
    let node = node.await.unwrap();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "walker"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "walker"}],
    });
    admin.create_in(&ROLE_BINDINGS, "default", &binding).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = plane.kubeconfig("walker", None).unwrap();
    std::fs::write(dir.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();

    // The story is of an update, so that there is something to patch; its predecessor must have come to rest.
    apply(dir.path(), "first", 0).await;
    let set = until(&admin, &REPLICA_SETS, |set| set["status"]["observedGeneration"] == 1).await;
    let deployment = until(&admin, &DEPLOYMENTS, |deployment| {
        let conditions = deployment["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .iter()
            .any(|condition| condition["reason"] == "NewReplicaSetAvailable")
    })
    .await;
    let rest = set.max(deployment);
    recorder.take();
    apply(dir.path(), "second", 1).await;
    until(&admin, &PODS, |pod| pod["status"]["phase"] == "Running").await;
    drop(node);
    plane.end().await;

    let marks = recorder.take();
    let passed = passed(&marks, &["kubectl", "web"], rest);
    let told: Vec<_> = told(&page().unwrap())
        .into_iter()
        .filter(|named| named.step < NODE_STEP)
        .collect();
    if let Err(difference) = compare(&told, &passed) {
        panic!("{difference}");
    }
}
