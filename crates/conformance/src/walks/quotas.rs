//! `test/e2e/apimachinery/resource_quota.go`: the tests that are newer than v1.20.

use serde_json::{Value, json};

use crate::kinds::RESOURCE_QUOTAS;
use crate::place::{not_found, place, revision_of};

/// ResourceQuota should manage the lifecycle of a ResourceQuota
pub async fn lifecycle() {
    let place = place("quota").await;
    let quotas = place.of(&RESOURCE_QUOTAS);
    let name = "e2e-quota";
    let selector = "e2e-rq-label=e2e-quota";
    let quota = json!({
        "metadata": {"name": name, "labels": {"e2e-rq-label": name}},
        "spec": {"hard": {"cpu": "1", "memory": "500Mi"}},
    });
    quotas.create(quota).await.unwrap();
    let read = quotas.get(name).await.unwrap();
    assert_eq!(read["spec"]["hard"], json!({"cpu": "1", "memory": "500Mi"}));
    let listed = place.everywhere(&RESOURCE_QUOTAS).list(selector).await;
    assert_eq!(listed.len(), 1);
    let patch = json!({"metadata": {"labels": {name: "patched"}}, "spec": {"hard": {"memory": "750Mi"}}});
    let patched = quotas.strategic(name, patch).await.unwrap();
    assert_eq!(patched["metadata"]["labels"][name], "patched");
    assert_eq!(patched["spec"]["hard"]["memory"], "750Mi");
    assert!(revision_of(&listed[0]) < revision_of(&patched));
    quotas.delete_collection(selector).await.unwrap();
    not_found(quotas.get(name).await);
}

/// ResourceQuota should apply changes to a resourcequota status
pub async fn status() {
    let place = place("quota-status").await;
    let quotas = place.of(&RESOURCE_QUOTAS);
    let name = "e2e-rq-status";
    let selector = "e2e-rq-label=e2e-rq-status";
    let params = kube::api::ListParams::default().labels(selector);
    let list = place.everywhere(&RESOURCE_QUOTAS).page(&params).await.unwrap();
    let mut watch = quotas.watch(selector, &list.resource_version).await;
    let hard = json!({"cpu": "500m", "memory": "500Mi"});
    let quota = json!({
        "metadata": {"name": name, "labels": {"e2e-rq-label": name}}, "spec": {"hard": hard},
    });
    quotas.create(quota).await.unwrap();
    assert_eq!(quotas.get(name).await.unwrap()["spec"]["hard"], hard);
    let change = |quota: &mut Value| quota["status"] = json!({"hard": hard});
    quotas.change_status(name, change).await.unwrap();
    watch.until(|_, quota| quota["status"]["hard"] == hard).await;

    let hard = json!({"cpu": "1", "memory": "1Gi"});
    let patched = quotas.strategic(name, json!({"spec": {"hard": hard}})).await.unwrap();
    assert_eq!(patched["spec"]["hard"], hard);
    let patch = kube::api::Patch::Strategic(json!({"status": {"hard": hard}}));
    quotas.patch_status(name, &patch).await.unwrap();
    watch.until(|_, quota| quota["status"]["hard"] == hard).await;
    assert_eq!(quotas.get_status(name).await.unwrap()["status"]["hard"], hard);

    // The spec stays what it was, and the controller makes the status follow it again.
    let other = json!({"cpu": "2", "memory": "2Gi"});
    let patch = kube::api::Patch::Strategic(json!({"status": {"hard": other}}));
    let patched = quotas.patch_status(name, &patch).await.unwrap();
    assert_eq!(patched["status"]["hard"], other);
    assert_eq!(patched["spec"]["hard"], hard);
    watch.until(|_, quota| quota["status"]["hard"] == other).await;
    watch.until(|_, quota| quota["status"]["hard"] == hard).await;
}
