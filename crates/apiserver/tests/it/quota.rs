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
