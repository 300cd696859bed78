//! The fake server does what the API promises, as far as it promises it.

use serde_json::json;

use super::*;
use crate::{DeleteParams, ListParams, Patch, Propagation, resources};

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"a": "1"}})
}

#[tokio::test]
async fn create_read_patch_delete() {
    let api = FakeApi::new();
    let client = api.client();
    let created: Value = client
        .create_in(&resources::CONFIG_MAPS, "default", &config_map("x"))
        .await
        .unwrap();
    assert!(!api::meta::uid(&created).is_empty());
    let again = client
        .create_in(&resources::CONFIG_MAPS, "default", &config_map("x"))
        .await
        .unwrap_err();
    assert!(again.is_already_exists());
    let edit = json!({"data": {"b": "2", "a": null}});
    let patched = client
        .patch(&resources::CONFIG_MAPS, "default", "x", None, &Patch::Merge, &edit)
        .await
        .unwrap();
    assert_eq!(patched["data"], json!({"b": "2"}));
    let same = client
        .patch(&resources::CONFIG_MAPS, "default", "x", None, &Patch::Merge, &edit)
        .await
        .unwrap();
    assert_eq!(same, patched, "no change, no revision");
    let stale = json!({"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}, "data": {"c": "3"}});
    let lost = client
        .patch(&resources::CONFIG_MAPS, "default", "x", None, &Patch::Merge, &stale)
        .await
        .unwrap_err();
    assert!(lost.is_conflict());
    let wrong = client
        .delete(&resources::CONFIG_MAPS, "default", "x", &DeleteParams::uid("other"))
        .await
        .unwrap_err();
    assert!(wrong.is_conflict());
    client
        .delete(&resources::CONFIG_MAPS, "default", "x", &DeleteParams::default())
        .await
        .unwrap();
    let gone = client
        .get::<crate::k8s_openapi::api::core::v1::ConfigMap>("default", "x")
        .await
        .unwrap_err();
    assert!(gone.is_not_found());
    assert_eq!(gone.to_string(), "configmaps \"x\" not found");
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let api = FakeApi::new();
    api.put(config_map("x"));
    let client = api.client();
    let foreground = DeleteParams::default().propagation(Propagation::Foreground);
    let held = client
        .delete(&resources::CONFIG_MAPS, "default", "x", &foreground)
        .await
        .unwrap();
    assert!(api::meta::is_deleting(&held));
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let edit = json!({"metadata": {"finalizers": null}});
    client
        .patch(&resources::CONFIG_MAPS, "default", "x", None, &Patch::Merge, &edit)
        .await
        .unwrap();
    assert!(api.get(&resources::CONFIG_MAPS, "default", "x").is_none());
}

#[tokio::test]
async fn namespaces_end_by_finalize_and_take_nothing_new() {
    let api = FakeApi::new();
    api.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
    let client = api.client();
    client
        .delete(&resources::NAMESPACES, "", "default", &DeleteParams::default())
        .await
        .unwrap();
    let refused = client
        .create_in(&resources::CONFIG_MAPS, "default", &config_map("x"))
        .await
        .unwrap_err();
    assert!(refused.is_forbidden() && refused.is_namespace_terminating());
    let mut namespace = api.get(&resources::NAMESPACES, "", "default").unwrap();
    namespace["spec"]["finalizers"] = json!([]);
    client
        .update(&resources::NAMESPACES, "", "default", Some("finalize"), &namespace)
        .await
        .unwrap();
    assert!(api.get(&resources::NAMESPACES, "", "default").is_none());
}

#[tokio::test]
async fn selectors_and_discovery() {
    let api = FakeApi::new();
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"app": app});
        api.put(object);
    }
    let client = api.client();
    for (params, expect) in [
        (ListParams::labels("app=web"), "a c"),
        (ListParams::labels("app in (db, other)"), "b"),
        (ListParams::labels("app!=web"), "b"),
        (ListParams::labels("!app"), ""),
        (ListParams::fields("metadata.name=c"), "c"),
    ] {
        let list = client
            .list_in::<Value>(&resources::CONFIG_MAPS, "default", &params)
            .await
            .unwrap();
        let names: Vec<&str> = list.items.iter().map(api::meta::name).collect();
        assert_eq!(names.join(" "), expect);
    }
    let found = client.discover().await.unwrap();
    let deployments = found
        .resources
        .iter()
        .find(|served| served.resource == resources::DEPLOYMENTS)
        .unwrap();
    assert!(deployments.supports(&["list", "watch", "delete"]) && deployments.preferred);
}

#[tokio::test(start_paused = true)]
async fn sabotage_and_retry_after() {
    let api = FakeApi::new();
    let client = api.client();
    let mut left = 2;
    api.sabotage(move |_| {
        left -= 1;
        (left >= 0).then(|| Fault::Refuse(Status::too_many_requests("slow down", 3)))
    });
    let start = tokio::time::Instant::now();
    client
        .create_in(&resources::CONFIG_MAPS, "default", &config_map("x"))
        .await
        .unwrap();
    assert_eq!(
        start.elapsed().as_secs(),
        6,
        "the client waits as long as the server asks"
    );
    api.sabotage(|seen| seen.is_write().then_some(Fault::LoseAnswer));
    let lost = client
        .create_in(&resources::CONFIG_MAPS, "default", &config_map("y"))
        .await
        .unwrap_err();
    assert!(matches!(lost, crate::Error::Transport(_)));
    assert!(api.get(&resources::CONFIG_MAPS, "default", "y").is_some());
}
