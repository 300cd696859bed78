//! ARCHITECTURE.md's story of one `kubectl apply`, from the connection to the rules of the Service, as the daemons of a real
//! cluster tell it in their logs.

use serde_json::{Value, json};
use testkit::record::of_log;
use testkit::walk::{compare, page, passed, told};

use crate::cluster::{Cluster, PATIENCE, Workplace};
use crate::node_cluster::{IMAGE, start_with, until};

const LOG: [(&str, &str); 2] = [("TRIREME_LOG", "info,walk=trace"), ("TRIREME_LOG_FORMAT", "json")];

/// The last stage of the story: after it there is nothing to wait for.
const LAST: &str = "crates/network/src/agent.rs";

fn manifest(replicas: u32, version: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}, annotations: {{version: '{version}'}}}}
    spec: {{containers: [{{name: c, image: {IMAGE}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    )
}

/// Whoever works here from now on is a service account with the rights of the role `edit`: administrators need neither seats
/// nor rules.
fn become_editor(cluster: &Cluster, place: &Workplace) {
    place.kubectl_ok(&["create", "serviceaccount", "walker"]);
    let account = format!("--serviceaccount={}:walker", place.namespace);
    place.kubectl_ok(&["create", "rolebinding", "walker", "--clusterrole=edit", &account]);
    let token = place.kubectl_ok(&["create", "token", "walker"]);
    let mut config = cluster.config();
    config["contexts"][0]["context"]["namespace"] = place.namespace.clone().into();
    config["users"][0]["user"] = json!({"token": token.trim()});
    std::fs::write(place.dir.join("kubeconfig"), config.to_string()).unwrap();
}

#[test]
fn the_whole_walk_is_as_the_page_tells() {
    let cluster = start_with(&LOG);
    let place = cluster.workplace("walk");
    let apply = |replicas, version| {
        std::fs::write(place.dir.join("web.yaml"), manifest(replicas, version)).unwrap();
        place.kubectl_ok(&["apply", "-f", "web.yaml", "--cache-dir", &format!("cache-{version}")]);
    };
    // The story is of an update: its predecessor comes to rest while the editor is made.
    apply(0, "one");
    place.kubectl_ok(&["rollout", "status", "deployment/web", PATIENCE]);
    let rested = "--for=jsonpath={.status.observedGeneration}=1";
    place.kubectl_ok(&["wait", "replicasets", "--all", rested, PATIENCE]);
    let list = format!("/apis/apps/v1/namespaces/{}/deployments", place.namespace);
    let list: Value = serde_json::from_str(&place.kubectl_ok(&["get", "--raw", &list])).unwrap();
    let rest = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    become_editor(&cluster, &place);

    let logs = ["server", "node"].map(|daemon| cluster.dir.join(format!("data/log/{daemon}.log")));
    let read = || logs.clone().map(|log| std::fs::read_to_string(log).unwrap());
    let before = read().map(|log| log.len());
    apply(1, "two");
    place.kubectl_ok(&["rollout", "status", "deployment/web", PATIENCE]);
    let marks = until("the end of the walk", || {
        let [server, node] = read();
        let mut marks = of_log(&server[before[0]..]);
        marks.extend(of_log(&node[before[1]..]));
        marks.sort_by(|a, b| a.0.cmp(&b.0));
        let marks: Vec<_> = marks.into_iter().map(|(_, mark)| mark).collect();
        marks.iter().any(|mark| mark.file == LAST).then_some(marks)
    });
    if let Err(difference) = compare(&told(&page().unwrap()), &passed(&marks, &["kubectl", "web"], rest)) {
        panic!("{difference}");
    }
}
