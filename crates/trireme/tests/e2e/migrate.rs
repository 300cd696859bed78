//! A cluster's state moved into Debian's etcd and back, with the built program and `kubectl`.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Cluster, fail, succeed};
use crate::etcd_server::Server;
use crate::node_cluster::until;

/// What the control plane does not write by itself while it runs.
const KINDS: &str =
    "configmaps,secrets,serviceaccounts,services,namespaces,clusterroles,clusterrolebindings,roles,rolebindings";

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn get(cluster: &Cluster, name: &str) -> Value {
    serde_json::from_str(&cluster.kubectl_ok(&["get", "configmap", name, "-o", "json"])).unwrap()
}

/// Whether what the control plane makes by itself after a start is there: it comes moments after `up` returns.
fn at_rest(items: &[Value]) -> bool {
    let named = |kind: &str, namespace: &str, name: &str| {
        items.iter().find(|item| {
            let meta = &item["metadata"];
            item["kind"] == kind && meta["namespace"].as_str().unwrap_or("") == namespace && meta["name"] == name
        })
    };
    let mut namespaces = items.iter().filter(|item| item["kind"] == "Namespace");
    let has_rules = |role: &Value| role["rules"].as_array().is_some_and(|rules| !rules.is_empty());
    ["admin", "edit", "view"]
        .iter()
        .all(|name| named("ClusterRole", "", name).is_some_and(has_rules))
        && namespaces.all(|namespace| {
            let namespace = namespace["metadata"]["name"].as_str().unwrap();
            named("ServiceAccount", namespace, "default").is_some()
                && named("ConfigMap", namespace, "kube-root-ca.crt").is_some()
        })
}

/// Every control plane adds its own authority to this one, also one that was started on a copy.
const TRUST: &str = "extension-apiserver-authentication";

/// All objects without their versions, and the lowest version of any.
pub fn everything(cluster: &Cluster) -> (Vec<Value>, u64) {
    let mut items = until("a control plane at rest", || {
        let list = cluster.kubectl_ok(&["get", KINDS, "-A", "-o", "json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let items = list["items"].as_array().unwrap().clone();
        at_rest(&items).then_some(items)
    });
    items.retain(|item| item["metadata"]["name"] != TRUST);
    let lowest = items.iter().map(revision).min().unwrap();
    for item in &mut items {
        item["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    }
    (items, lowest)
}

/// Fails with the objects that differ.
#[track_caller]
pub fn same(now: &[Value], before: &[Value], what: &str) {
    let differs = |one: &[Value], other: &[Value]| -> Vec<String> {
        let strangers = one.iter().filter(|object| !other.contains(object));
        strangers.map(Value::to_string).collect()
    };
    let (gone, new) = (differs(before, now), differs(now, before));
    assert!(
        gone.is_empty() && new.is_empty(),
        "{what}:\nbefore: {gone:#?}\nnow: {new:#?}"
    );
    assert_eq!(now.len(), before.len(), "{what}");
}

/// A client that goes on where it was is told to start anew.
#[track_caller]
fn watch_expires(cluster: &Cluster, old: u64) {
    let watch = format!("/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=5&resourceVersion={old}");
    let event: Value = serde_json::from_str(&cluster.kubectl_ok(&["get", "--raw", &watch])).unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410)),
        "{event}"
    );
}

/// A client that follows from now on sees what is written next.
#[track_caller]
fn watch_goes_on(cluster: &Cluster, name: &str) -> u64 {
    let list = cluster.kubectl_ok(&["get", "--raw", "/api/v1/namespaces/default/configmaps"]);
    let from = revision(&serde_json::from_str(&list).unwrap());
    cluster.kubectl_ok(&["create", "configmap", name]);
    let watch = format!("/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion={from}");
    let event: Value =
        serde_json::from_str(cluster.kubectl_ok(&["get", "--raw", &watch]).lines().next().unwrap()).unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!(name)),
        "{event}"
    );
    revision(&event["object"])
}

#[test]
fn a_cluster_moves_into_an_etcd_and_back() {
    let cluster = Cluster::start();
    cluster.kubectl_ok(&["create", "configmap", "kept", "--from-literal=a=1"]);
    cluster.kubectl_ok(&["create", "secret", "generic", "secret", "--from-literal=a=1"]);
    let etcd = Server::real(tempfile::tempdir().unwrap());
    let into_etcd = ["migrate", "--to", "etcd", "--etcd-servers", etcd.address()];
    let error = fail(&cluster.trireme(&into_etcd));
    assert!(
        error.contains("error[RUNNING]: the control plane is running (process "),
        "{error}"
    );
    let (before, _) = everything(&cluster);
    let last = revision(&get(&cluster, "kept"));
    succeed(&cluster.trireme(&["down"]));

    // What is in the etcd already is not written over, and nothing is half done by finding that out.
    succeed(&etcd.run(&["put", "/registry/x", "1"], ""));
    let error = fail(&cluster.trireme(&into_etcd));
    assert!(error.contains("error[NOT_EMPTY]"), "{error}");
    succeed(&etcd.run(&["del", "/registry/x"], ""));
    let moved = cluster.trireme(&into_etcd);
    let text = told(&moved);
    assert!(text.contains("read back: all of them are as they were"), "{text}");
    // Again: it is there already.
    let text = told(&cluster.trireme(&into_etcd));
    assert!(text.contains("it is there already"), "{text}");
    // What the embedded store still holds goes nowhere else.
    let mut elsewhere = into_etcd.to_vec();
    elsewhere.extend(["--etcd-prefix", "/another"]);
    let error = fail(&cluster.trireme(&elsewhere));
    assert!(error.contains("error[STATE_MOVED]"), "{error}");
    // Sealed values are sealed there.
    let secret = etcd
        .run(&["get", "/registry/secrets/default/secret", "--print-value-only"], "")
        .stdout;
    assert!(secret.starts_with(b"k8s:trireme:v1:") && !secret.windows(4).any(|four| four == b"MQ=="));

    // Where the state is, `up` knows from the migration.
    cluster.up();
    let (there, lowest) = everything(&cluster);
    assert!(there == before, "not everything arrived as it was");
    assert!(lowest > last, "{lowest} after {last}");
    assert_eq!(
        cluster.kubectl_ok(&["get", "secret", "secret", "-o", "jsonpath={.data.a}"]),
        "MQ=="
    );
    watch_expires(&cluster, last);
    let last = watch_goes_on(&cluster, "made-in-etcd");
    let into_embedded = [
        "migrate",
        "--to",
        "embedded",
        "--etcd-servers",
        etcd.address(),
        "--replace",
    ];
    let error = fail(&cluster.trireme(&into_embedded));
    assert!(error.contains("error[RUNNING]"), "{error}");
    // Another machine's directory: only the etcd tells that somebody is at work.
    let elsewhere = Cluster::prepare();
    let error = fail(&elsewhere.trireme(&into_embedded));
    assert!(
        error.contains("error[RUNNING]: a control plane leads on this etcd ("),
        "{error}"
    );
    let (before, _) = everything(&cluster);
    succeed(&cluster.trireme(&["down"]));

    // Which etcd it is, the settings know.
    let error = fail(&cluster.trireme(&["migrate", "--to", "embedded"]));
    assert!(error.contains("error[STORE_EXISTS]"), "{error}");
    let held = |etcd: &Server| succeed(&etcd.run(&["get", "", "--prefix"], ""));
    let in_etcd = held(&etcd);
    let text = told(&cluster.trireme(&into_embedded));
    assert!(text.contains("the store that was there is kept: "), "{text}");
    assert_eq!(held(&etcd), in_etcd, "the source was written to");
    // Once more would put old state in the place of new.
    assert!(fail(&cluster.trireme(&into_embedded)).contains("error[STATE_MOVED]"));
    let refused = cluster.trireme(&["server", "--api-port", "0", "--etcd-servers", etcd.address()]);
    assert!(fail(&refused).contains("error[STATE_MOVED]"));
    cluster.up();
    let (there, lowest) = everything(&cluster);
    assert!(there == before, "not everything came back as it was");
    assert!(lowest > last, "{lowest} after {last}");
    watch_expires(&cluster, last);
    watch_goes_on(&cluster, "made-at-home");
    assert!(!cluster.dir.join("data/store.migrating").exists());
    assert!(Path::new(&cluster.dir).join("data/state-home.json").exists());
}

/// What a command that succeeded told on standard error.
#[track_caller]
fn told(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}
