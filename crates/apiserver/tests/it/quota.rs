//! Quotas are charged with the write, or not at all.

use std::sync::Arc;

use apiserver::admission::ResourceQuota;
use futures::future::join_all;
use serde_json::json;

use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_that_race_never_pass_the_limit() {
    let world = World::with_plugins(vec![Arc::new(ResourceQuota::default())]).await;
    let api = world.api();
    api.post(
        QUOTAS,
        &json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "5"}}}),
    )
    .await
    .ok();
    // Nothing is limited before somebody has counted.
    api.config_map("first", json!({})).await;
    let status = json!({"status": {"hard": {"configmaps": "5"}, "used": {"configmaps": "1"}}});
    api.patch(&format!("{QUOTAS}/q/status"), "merge", &status).await.ok();
    let tries = (0..24).map(|n| {
        let api = api.clone();
        tokio::spawn(async move { api.post(MAPS, &json!({"metadata": {"name": format!("m{n}")}})).await })
    });
    let (mut made, mut refused) = (0, 0);
    for answer in join_all(tries).await {
        let answer = answer.unwrap();
        match answer.code {
            201 => made += 1,
            _ => {
                refused += 1;
                answer.refused(
                    403,
                    "exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: configmaps=5",
                );
            }
        }
    }
    assert_eq!((made, refused), (4, 20));
    let used = || async { api.get(&format!("{QUOTAS}/q")).await.ok()["status"]["used"].clone() };
    assert_eq!(used().await, json!({"configmaps": "5"}));
    // What fails for another reason charges nothing, and a dry run neither.
    api.patch(
        &format!("{QUOTAS}/q/status"),
        "merge",
        &json!({"status": {"used": {"configmaps": "1"}}}),
    )
    .await
    .ok();
    assert_eq!(api.post(MAPS, &json!({"metadata": {"name": "first"}})).await.code, 409);
    api.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "dry"}}))
        .await
        .ok();
    assert_eq!(used().await, json!({"configmaps": "1"}));
    // Object and charge are of one revision.
    let made = api.post(MAPS, &json!({"metadata": {"name": "last"}})).await.ok();
    let quota = api.get(&format!("{QUOTAS}/q")).await.ok();
    assert_eq!(
        made["metadata"]["resourceVersion"],
        quota["metadata"]["resourceVersion"]
    );
    assert_eq!(quota["status"]["used"], json!({"configmaps": "2"}));
}

/// A claim takes devices by the name that their class stands for; what a pod asks for by that name, its own claim takes not again.
#[tokio::test]
async fn claims_take_what_their_classes_stand_for() {
    let world = World::with_plugins(vec![Arc::new(ResourceQuota::default())]).await;
    let api = world.api();
    let name = "requests.example.com/gpu";
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {name: "3"}}});
    api.post(QUOTAS, &quota).await.ok();
    let status = json!({"status": {"hard": {name: "3"}, "used": {name: "0"}}});
    api.patch(&format!("{QUOTAS}/q/status"), "merge", &status).await.ok();
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let claim = |name: &str, count: u8| {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu", "count": count}});
        json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [request]}}})
    };
    let used = || async { api.get(&format!("{QUOTAS}/q")).await.ok()["status"]["used"][name].clone() };
    // The class stands for nothing yet.
    api.post(claims, &claim("before", 9)).await.ok();
    assert_eq!(used().await, "0");
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
    api.post("/apis/resource.k8s.io/v1/deviceclasses", &class).await.ok();
    api.post(claims, &claim("much", 4)).await.refused(
        403,
        "exceeded quota: q, requested: requests.example.com/gpu=4, used: requests.example.com/gpu=0, \
         limited: requests.example.com/gpu=3",
    );
    let gpus = json!({"requests": {"example.com/gpu": "2"}, "limits": {"example.com/gpu": "2"}});
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": gpus}]}});
    let pod = api.post("/api/v1/namespaces/default/pods", &pod).await.ok();
    assert_eq!(used().await, "2");
    let mut made = claim("made", 2);
    made["metadata"]["annotations"] = json!({"resource.kubernetes.io/extended-resource-claim": "true"});
    made["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p",
        "uid": pod["metadata"]["uid"], "controller": true}]);
    api.post(claims, &made).await.ok();
    assert_eq!(used().await, "2");
    // One claim of a pod is its own, others only say so.
    made["metadata"]["name"] = "other".into();
    api.post(claims, &made).await.refused(403, "exceeded quota: q");
    api.post(claims, &claim("last", 1)).await.ok();
    assert_eq!(used().await, "3");
}
