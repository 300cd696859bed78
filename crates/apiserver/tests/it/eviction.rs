//! Evictions: what disruption budgets allow, refuse and count.

use api::GroupVersionKind;
use api::codec::protobuf;
use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;
use serde_json::{Value, json};

use crate::world::{Api, World};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Makes a pod on a node, in a phase, ready or not.
async fn pod(api: &Api, name: &str, phase: &str, ready: bool) {
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "image": "i"}]});
    let object = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec});
    api.post(PODS, &object).await.ok();
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
    api.patch(&format!("{PODS}/{name}/status"), "merge", &status).await.ok();
}

async fn budget(api: &Api, name: &str, spec: Value, status: Value) {
    api.post(BUDGETS, &json!({"metadata": {"name": name}, "spec": spec}))
        .await
        .ok();
    api.patch(&format!("{BUDGETS}/{name}/status"), "merge", &json!({"status": status}))
        .await
        .ok();
}

fn status(allowed: i64, current: i64, desired: i64) -> Value {
    json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": current, "desiredHealthy": desired,
        "expectedPods": 3})
}

fn eviction(name: &str, options: Value) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"},
        "deleteOptions": options})
}

/// An Eviction as a message that says that it is of whatever version the object names.
fn in_protobuf(eviction: &Value) -> Vec<u8> {
    let schema = SchemaRef::builtin(&GroupVersionKind::new("policy", "v1", "Eviction")).unwrap();
    let mut normal = eviction.clone();
    normalize(&mut normal, &schema, UnknownFields::Ignore).unwrap();
    protobuf::encode(&normal, &schema).unwrap()
}

async fn evict(api: &Api, name: &str, options: Value) -> crate::world::Answer {
    api.post(&format!("{PODS}/{name}/eviction"), &eviction(name, options))
        .await
}

#[tokio::test]
async fn budgets_are_asked_and_counted_down() {
    let world = World::start().await;
    for (round, api) in world.both().await.into_iter().enumerate() {
        let names = ["a", "b", "c"].map(|name| format!("{name}{round}"));
        for name in &names {
            pod(&api, name, "Running", true).await;
        }
        budget(
            &api,
            "web",
            json!({"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}),
            json!({}),
        )
        .await;
        let refused = evict(&api, &names[0], json!({})).await;
        refused.refused(429, REFUSED);
        assert_eq!(refused.headers["retry-after"], "10");
        assert_eq!(
            refused.value()["details"]["causes"],
            json!([{"reason": "DisruptionBudget", "message": "The disruption budget web is still being processed by the server."}])
        );
        let one = json!({"status": status(1, 3, 2)});
        api.patch(&format!("{BUDGETS}/web/status"), "merge", &one).await.ok();
        let dry = evict(&api, &names[0], json!({"dryRun": ["All"]})).await;
        assert_eq!((dry.code, &dry.value()["status"]), (201, &json!("Success")));
        assert_eq!(
            api.get(&format!("{BUDGETS}/web")).await.ok()["status"]["disruptionsAllowed"],
            1
        );

        // Whoever comes first gets it.
        let answers = futures::future::join_all(names.iter().map(|name| evict(&api, name, json!({})))).await;
        let codes = |code| answers.iter().filter(|answer| answer.code == code).count();
        assert_eq!((codes(201), codes(429)), (1, 2));
        let refused = answers.iter().find(|answer| answer.code == 429).unwrap();
        let cause = &refused.value()["details"]["causes"][0]["message"];
        assert_eq!(
            cause,
            "The disruption budget web does not allow evicting pods currently"
        );
        let gone = &names[answers.iter().position(|answer| answer.code == 201).unwrap()];
        let evicted = api.get(&format!("{PODS}/{gone}")).await.ok();
        assert!(evicted["metadata"]["deletionTimestamp"].is_string());
        let mut told = evicted["status"]["conditions"].as_array().unwrap().iter();
        let told = told.find(|condition| condition["type"] == "DisruptionTarget").unwrap();
        assert_eq!(
            (&told["status"], &told["reason"], &told["message"]),
            (
                &json!("True"),
                &json!("EvictionByEvictionAPI"),
                &json!("Eviction API: evicting")
            )
        );
        let left = api.get(&format!("{BUDGETS}/web")).await.ok();
        assert_eq!(left["status"]["disruptionsAllowed"], 0);
        assert!(left["status"]["disruptedPods"][gone].is_string());
        assert_eq!(left["status"]["conditions"][0]["reason"], "InsufficientPods");
        // What goes already may be told again.
        assert_eq!(evict(&api, gone, json!({})).await.code, 201);
        api.delete(BUDGETS).await.ok();
        api.call(&format!("DELETE {PODS}"), &[], r#"{"gracePeriodSeconds": 0}"#)
            .await
            .ok();
    }
}

/// The version before is taken too, as upstream takes it: its clients are older than its removal.
#[tokio::test]
async fn evictions_of_the_older_version_are_taken() {
    let world = World::start().await;
    for (round, api) in world.both().await.into_iter().enumerate() {
        let name = format!("old{round}");
        pod(&api, &name, "Running", true).await;
        let path = format!("{PODS}/{name}/eviction");
        for (version, code) in [("policy/v1beta1", 201), ("policy/v1alpha1", 400), ("v1", 400)] {
            let mut body = eviction(&name, json!({"dryRun": ["All"]}));
            body["apiVersion"] = version.into();
            let answer = api.post(&path, &body).await;
            assert_eq!(answer.code, code, "{version} {}", answer.message());
            let message = [("content-type", "application/vnd.kubernetes.protobuf")];
            let answer = api.call(&format!("POST {path}"), &message, in_protobuf(&body)).await;
            assert_eq!(answer.code, code, "{version} in protobuf: {}", answer.message());
        }
    }
}

#[tokio::test]
async fn some_pods_go_without_asking() {
    let world = World::start().await;
    let api = world.api();
    let none = |policy: Value| json!({"minAvailable": 3, "selector": {}, "unhealthyPodEvictionPolicy": policy});
    budget(&api, "all", none(Value::Null), status(0, 2, 3)).await;
    for (name, phase, ready, code) in [
        ("pending", "Pending", false, 201),
        ("ended", "Succeeded", false, 201),
        ("failed", "Failed", false, 201),
        ("ready", "Running", true, 429),
        ("unready", "Running", false, 429),
    ] {
        pod(&api, name, phase, ready).await;
        assert_eq!(evict(&api, name, json!({})).await.code, code, "{name}");
    }
    let cause = evict(&api, "unready", json!({})).await.value()["details"]["causes"][0]["message"].clone();
    assert_eq!(
        cause,
        "The disruption budget all needs 3 healthy pods and has 2 currently"
    );
    // Enough others are healthy, or the budget does not care for those that are not.
    for (policy, status) in [("IfHealthyBudget", status(0, 3, 3)), ("AlwaysAllow", status(0, 0, 3))] {
        api.delete(&format!("{BUDGETS}/all")).await.ok();
        budget(&api, "all", none(policy.into()), status).await;
        pod(&api, &policy.to_lowercase(), "Running", false).await;
        assert_eq!(
            evict(&api, &policy.to_lowercase(), json!({})).await.code,
            201,
            "{policy}"
        );
        assert_eq!(evict(&api, "ready", json!({})).await.code, 429, "{policy}");
    }
    budget(
        &api,
        "more",
        json!({"selector": {"matchLabels": {"app": "web"}}}),
        status(1, 1, 1),
    )
    .await;
    let several = evict(&api, "ready", json!({})).await;
    several.refused(
        500,
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
    );
    api.delete(&format!("{BUDGETS}/all")).await.ok();
    let uid = "the UID in the precondition (other) does not match the UID in record";
    evict(&api, "ready", json!({"preconditions": {"uid": "other"}}))
        .await
        .refused(409, uid);
    let version = "the ResourceVersion in the precondition (1) does not match the ResourceVersion in record";
    pod(&api, "last", "Succeeded", false).await;
    let old = json!({"preconditions": {"resourceVersion": "1"}});
    evict(&api, "last", old).await.refused(409, version);
    evict(&api, "absent", json!({}))
        .await
        .refused(404, "pods \"absent\" not found");
    api.post(&format!("{PODS}/last/eviction"), &eviction("other", json!({})))
        .await
        .refused(400, "name in URL does not match name in Eviction object");
    let option = "ignoreStoreReadErrorWithClusterBreakingPotential";
    evict(&api, "last", json!({option: true}))
        .await
        .refused(422, "can not be set for pod eviction, try after removing the option");
}
