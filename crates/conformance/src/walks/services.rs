//! `test/e2e/network/service.go`: the tests of the API.

use serde_json::{Value, json};

use crate::kinds::SERVICES;
use crate::place::{name_of, place, push};

/// Services should complete a service status lifecycle
pub async fn status_lifecycle() {
    const SELECTOR: &str = "test-service-static=true";
    let place = place("service-status").await;
    let services = place.of(&SERVICES);
    let params = kube::api::ListParams::default().labels(SELECTOR);
    let list = place.everywhere(&SERVICES).page(&params).await.unwrap();
    let mut watch = services.watch(SELECTOR, &list.resource_version).await;
    let service = json!({
        "metadata": {"name": "test-service", "labels": {"test-service-static": "true"}},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "example.com/internal-vip",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}],
        },
    });
    services.create(service).await.unwrap();
    watch.until(|_, service| name_of(service) == "test-service").await;
    services.get_status("test-service").await.unwrap();

    let patch = json!({
        "metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    });
    services.merge_status("test-service", patch).await.unwrap();
    let seen = watch
        .until(|_, service| service["metadata"]["annotations"]["patchedstatus"] == "true")
        .await;
    assert_eq!(seen["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.1");

    // `lastTransitionTime` is required; client-go sends null for its zero time.
    let condition = json!({
        "type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test",
        "lastTransitionTime": null,
    });
    let change = |service: &mut Value| push(service, "/status/conditions", condition.clone());
    services.change_status("test-service", change).await.unwrap();
    watch
        .until(|_, service| {
            let conditions = service["status"]["conditions"].as_array();
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|condition| condition["type"] == "StatusUpdate" && condition["message"] == "Set from e2e test")
            })
        })
        .await;
    let patch = json!({
        "metadata": {"creationTimestamp": null, "labels": {"test-service": "patched"}},
        "spec": {}, "status": {"loadBalancer": {}},
    });
    services.strategic("test-service", patch).await.unwrap();
    watch
        .until(|_, service| service["metadata"]["labels"]["test-service"] == "patched")
        .await;
    services.delete("test-service").await.unwrap();
    watch.until(|event, _| event == "DELETED").await;
}

/// Services should delete a collection of services
pub async fn delete_collection() {
    let place = place("service-collection").await;
    let services = place.of(&SERVICES);
    for (name, label, port) in [
        ("e2e-svc-a", "delete", 8001),
        ("e2e-svc-b", "delete", 8002),
        ("e2e-svc-c", "keep", 8003),
    ] {
        let service = json!({
            "metadata": {"name": name, "labels": {"e2e-test-service": label}},
            "spec": {
                "type": "ClusterIP",
                "ports": [{"name": "http", "protocol": "TCP", "port": port, "targetPort": port}],
            },
        });
        services.create(service).await.unwrap();
    }
    assert_eq!(services.list("").await.len(), 3);
    services.delete_collection("e2e-test-service=delete").await.unwrap();
    let left = services.list("").await;
    assert_eq!(left.iter().map(name_of).collect::<Vec<_>>(), ["e2e-svc-c"]);
}
