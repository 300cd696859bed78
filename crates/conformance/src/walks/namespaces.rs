//! `test/e2e/apimachinery/namespace.go`.

use serde_json::{Value, json};

use crate::kinds::{CONFIG_MAPS, NAMESPACES, PODS};
use crate::operations::has_condition;
use crate::place::{name_of, not_found, place, push};

/// Namespaces should apply changes to a namespace status
pub async fn status() {
    let place = place("namespace-status").await;
    let namespaces = place.of(&NAMESPACES);
    let name = &place.namespace;
    let read = namespaces.get_status(name).await.unwrap();
    assert_eq!(read["status"]["phase"], "Active");

    let condition =
        json!({"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test"});
    let patch = json!({
        "metadata": {"annotations": {"e2e-patched-ns-status": name}},
        "status": {"conditions": [condition]},
    });
    let patched = namespaces.merge_status(name, patch).await.unwrap();
    assert_eq!(patched["metadata"]["annotations"]["e2e-patched-ns-status"], **name);
    let last = |object: &Value| {
        object["status"]["conditions"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone()
    };
    assert_eq!(last(&patched)["reason"], "E2E");
    assert_eq!(last(&patched)["message"], "Patched by an e2e test");

    let condition =
        json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Updated by an e2e test"});
    let change = |object: &mut Value| push(object, "/status/conditions", condition.clone());
    let updated = namespaces.change_status(name, change).await.unwrap();
    assert_eq!(last(&updated)["type"], "StatusUpdate");
    assert_eq!(last(&updated)["message"], "Updated by an e2e test");
}

/// Namespaces should apply a finalizer to a Namespace
pub async fn finalizer() {
    const FINALIZER: &str = "e2e.example.com/fakeFinalizer";
    let place = place("namespace-finalizer").await;
    let namespaces = place.of(&NAMESPACES);
    let path = format!("/api/v1/namespaces/{}/finalize", place.namespace);
    let has = |object: &Value| {
        let all = object["spec"]["finalizers"].as_array().unwrap();
        all.iter().any(|finalizer| finalizer == FINALIZER)
    };
    let mut object = namespaces.get(&place.namespace).await.unwrap();
    push(&mut object, "/spec/finalizers", FINALIZER.into());
    let added = place
        .send(http::Method::PUT, &path, "application/json", object)
        .await
        .unwrap();
    assert!(has(&added), "{added}");
    let mut object = namespaces.get(&place.namespace).await.unwrap();
    let finalizers = object["spec"]["finalizers"].as_array_mut().unwrap();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    let removed = place
        .send(http::Method::PUT, &path, "application/json", object)
        .await
        .unwrap();
    assert!(!has(&removed), "{removed}");
}

/// OrderedNamespaceDeletion namespace deletion should delete pod first
pub async fn pods_go_first() {
    let place = place("nsdeletetest").await;
    let (namespaces, pods) = (place.of(&NAMESPACES), place.of(&PODS));
    let pod = json!({
        "metadata": {"name": "test-pod", "finalizers": ["e2e.example.com/finalizer"]},
        "spec": {"containers": [{"name": "nginx", "image": "example.com/pause"}]},
    });
    pods.create(pod).await.unwrap();
    let running = |items: &[Value]| items.iter().any(|pod| pod["status"]["phase"] == "Running");
    pods.until("", "the running pod", running).await;
    let config = json!({"metadata": {"name": "test-configmap"}, "data": {"key": "value"}});
    place.of(&CONFIG_MAPS).create(config).await.unwrap();

    namespaces.delete(&place.namespace).await.unwrap();
    let selector = format!("kubernetes.io/metadata.name={}", place.namespace);
    let looked_at = |items: &[Value]| {
        let namespace = items.first().expect("the namespace is kept by the pod");
        namespace["status"]["phase"] == "Terminating" && has_condition(namespace, "NamespaceDeletionContentFailure")
    };
    namespaces
        .until(&selector, "the namespace's conditions", looked_at)
        .await;
    place.of(&CONFIG_MAPS).get("test-configmap").await.unwrap();
    let pod = pods.get("test-pod").await.unwrap();
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod}");

    let release = |pod: &mut Value| pod["metadata"]["finalizers"] = json!([]);
    pods.change(name_of(&pod), release).await.unwrap();
    namespaces.until_gone(&selector).await;
    not_found(namespaces.get(&place.namespace).await);
}
