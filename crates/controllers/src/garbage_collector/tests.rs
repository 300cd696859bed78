//! Owners and dependents, in every way they can go.

use client::resources::{CONFIG_MAPS, DEPLOYMENTS, NODES, PODS, REPLICA_SETS};
use client::testing::{FakeApi, Fault};

use super::*;
use crate::testkit::Bench;

fn owner_of(owner: &Value, block: bool) -> Value {
    json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": block})
}

fn put(api: &FakeApi, resource: &Resource, name: &str, owners: &[Value]) -> Value {
    let mut object = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": name}});
    if resource.namespaced {
        object["metadata"]["namespace"] = "default".into();
    }
    if !owners.is_empty() {
        object["metadata"]["ownerReferences"] = owners.into();
    }
    api.put(object)
}

/// A deployment with a set with two pods.
fn family(api: &FakeApi, block: bool) -> Value {
    let deployment = put(api, &DEPLOYMENTS, "d", &[]);
    let set = put(api, &REPLICA_SETS, "rs", &[owner_of(&deployment, block)]);
    for name in ["p1", "p2"] {
        put(api, &PODS, name, &[owner_of(&set, block)]);
    }
    deployment
}

async fn delete(api: &FakeApi, resource: &Resource, name: &str, policy: Propagation) {
    let params = DeleteParams::default().propagation(policy);
    api.client_as("user")
        .delete(resource, "default", name, &params)
        .await
        .unwrap();
}

fn left(api: &FakeApi) -> Vec<String> {
    let resources = [DEPLOYMENTS, REPLICA_SETS, PODS, CONFIG_MAPS];
    resources
        .iter()
        .flat_map(|resource| api.list(resource))
        .map(|object| api::meta::name(&object).to_string())
        .collect()
}

async fn bench() -> Bench {
    let bench = Bench::new();
    family(&bench.api, true);
    put(&bench.api, &CONFIG_MAPS, "free", &[]);
    start(bench.context("generic-garbage-collector"));
    bench.idle().await;
    assert_eq!(left(&bench.api), ["d", "rs", "p1", "p2", "free"]);
    bench
}

#[tokio::test(start_paused = true)]
async fn background() {
    let bench = bench().await;
    delete(&bench.api, &DEPLOYMENTS, "d", Propagation::Background).await;
    bench.idle().await;
    assert_eq!(left(&bench.api), ["free"]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn foreground_goes_from_the_leaves() {
    let bench = bench().await;
    bench.api.take_requests();
    delete(&bench.api, &DEPLOYMENTS, "d", Propagation::Foreground).await;
    bench.idle().await;
    assert_eq!(left(&bench.api), ["free"]);
    let writes = bench.api.take_writes();
    let at = |line: &str| {
        writes
            .iter()
            .position(|write| write.starts_with(line))
            .unwrap_or_else(|| panic!("{line}: {writes:?}"))
    };
    assert!(at("delete replicasets.apps") < at("delete pods default/p1"));
    assert!(at("delete pods default/p2") < at("patch replicasets.apps"));
    assert!(at("patch replicasets.apps") < at("patch deployments.apps"));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn foreground_does_not_wait_for_those_that_do_not_block() {
    let bench = Bench::new();
    let deployment = put(&bench.api, &DEPLOYMENTS, "d", &[]);
    let mut held = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": "default", "finalizers": ["example.com/hold"]}});
    held["metadata"]["ownerReferences"] = json!([owner_of(&deployment, false)]);
    bench.api.put(held);
    start(bench.context("generic-garbage-collector"));
    bench.idle().await;
    delete(&bench.api, &DEPLOYMENTS, "d", Propagation::Foreground).await;
    bench.idle().await;
    assert_eq!(left(&bench.api), ["held"]);
    assert!(api::meta::is_deleting(
        &bench.api.get(&CONFIG_MAPS, "default", "held").unwrap()
    ));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay() {
    let bench = bench().await;
    delete(&bench.api, &DEPLOYMENTS, "d", Propagation::Orphan).await;
    bench.idle().await;
    assert_eq!(left(&bench.api), ["rs", "p1", "p2", "free"]);
    let set = bench.api.get(&REPLICA_SETS, "default", "rs").unwrap();
    assert!(set["metadata"].get("ownerReferences").is_none());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_of_two_owners_is_enough() {
    let bench = Bench::new();
    let (a, b) = (
        put(&bench.api, &CONFIG_MAPS, "a", &[]),
        put(&bench.api, &CONFIG_MAPS, "b", &[]),
    );
    put(
        &bench.api,
        &CONFIG_MAPS,
        "child",
        &[owner_of(&a, true), owner_of(&b, true)],
    );
    start(bench.context("generic-garbage-collector"));
    bench.idle().await;
    delete(&bench.api, &CONFIG_MAPS, "a", Propagation::Background).await;
    bench.idle().await;
    let child = bench.api.get(&CONFIG_MAPS, "default", "child").unwrap();
    let owners: Vec<&Value> = child["metadata"]["ownerReferences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(owners, ["b"]);
    delete(&bench.api, &CONFIG_MAPS, "b", Propagation::Background).await;
    bench.idle().await;
    assert!(left(&bench.api).is_empty());
    bench.end().await;
}

/// Owners that are not there, are somebody else, or are where they cannot own; and those that only seem so.
#[tokio::test(start_paused = true)]
async fn absent_owners() {
    let bench = Bench::new();
    let api = &bench.api;
    let there = put(api, &CONFIG_MAPS, "there", &[]);
    let node = put(api, &NODES, "node", &[]);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut owner = owner_of(&there, true);
        change(&mut owner);
        owner
    };
    put(api, &PODS, "keeps", &[owner_of(&there, true)]);
    put(api, &PODS, "of-node", &[owner_of(&node, true)]);
    put(
        api,
        &PODS,
        "of-unknown-kind",
        &[with(&|owner| {
            owner["kind"] = "Unknown".into();
            owner["uid"] = "u0".into();
        })],
    );
    put(
        api,
        &PODS,
        "of-nobody",
        &[with(&|owner| {
            owner["name"] = "nobody".into();
            owner["uid"] = "u1".into();
        })],
    );
    put(
        api,
        &PODS,
        "of-another-uid",
        &[with(&|owner| owner["uid"] = "u2".into())],
    );
    put(
        api,
        &PODS,
        "of-another-name",
        &[with(&|owner| owner["name"] = "elsewhere".into())],
    );
    let mut elsewhere = there.clone();
    elsewhere["metadata"] = json!({"name": "elsewhere", "namespace": "other"});
    let elsewhere = api.put(elsewhere);
    put(api, &PODS, "of-another-namespace", &[owner_of(&elsewhere, true)]);
    start(bench.context("generic-garbage-collector"));
    bench.idle().await;
    let pods: Vec<String> = bench.pod_names();
    assert_eq!(pods, ["keeps", "of-node", "of-unknown-kind"]);
    let uid = elsewhere["metadata"]["uid"].as_str().unwrap();
    let text = format!(
        "OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, namespace: default, name: elsewhere, uid: {uid}] does not exist \
         in namespace \"default\""
    );
    let events = bench.events();
    assert!(events.iter().any(|event| event.contains(&text)), "{events:?}");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_circle_that_waits_for_itself_goes() {
    let bench = Bench::new();
    let a = put(&bench.api, &CONFIG_MAPS, "a", &[]);
    let b = put(&bench.api, &CONFIG_MAPS, "b", &[owner_of(&a, true)]);
    bench.api.edit(&CONFIG_MAPS, "default", "a", |object| {
        object["metadata"]["ownerReferences"] = json!([owner_of(&b, true)]);
    });
    start(bench.context("generic-garbage-collector"));
    bench.idle().await;
    delete(&bench.api, &CONFIG_MAPS, "a", Propagation::Foreground).await;
    bench.idle().await;
    bench.idle().await;
    assert!(left(&bench.api).is_empty(), "{:?}", left(&bench.api));
    bench.end().await;
}

/// The news about a new owner are late: the pod that has one by now is not deleted.
#[tokio::test(start_paused = true)]
async fn a_pod_that_found_an_owner_meanwhile_stays() {
    let bench = bench().await;
    let api = bench.api.clone();
    api.freeze_watches();
    let adopter = put(&api, &CONFIG_MAPS, "adopter", &[]);
    api.edit(&PODS, "default", "p1", |pod| {
        pod["metadata"]["ownerReferences"] = json!([owner_of(&adopter, true)])
    });
    api.remove(&REPLICA_SETS, "default", "rs");
    api.sabotage({
        let api = api.clone();
        // The first delete is on its way: now the news come.
        move |seen| {
            if seen.verb == "delete" {
                api.thaw_watches();
            }
            None::<Fault>
        }
    });
    api.thaw_watches();
    bench.idle().await;
    assert_eq!(left(&api), ["d", "p1", "adopter", "free"]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn custom_resources_come_and_go() {
    let bench = Bench::new();
    let definitions = Resource::new(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        false,
    );
    let things = Resource::new("example.com", "v1", "things", "Thing", true);
    bench.api.serve(definitions.clone());
    start(bench.context("generic-garbage-collector"));
    bench.idle().await;
    bench.api.serve(things.clone());
    put(&bench.api, &definitions, "things.example.com", &[]);
    let thing = put(&bench.api, &things, "t", &[]);
    put(&bench.api, &CONFIG_MAPS, "child", &[owner_of(&thing, true)]);
    bench.idle().await;
    assert_eq!(left(&bench.api), ["child"]);
    delete(&bench.api, &things, "t", Propagation::Background).await;
    bench.idle().await;
    assert!(left(&bench.api).is_empty());
    bench.end().await;
}
