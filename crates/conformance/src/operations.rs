//! The walk that most of upstream's "API operations" tests are: discovery, three objects, list, watch, patch, update, their
//! status, delete, delete of what is left.

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::place::{Place, name_of, not_found, push, revision_of};

/// What differs from kind to kind.
pub struct Operations {
    /// Created three times: with a `generateName`.
    pub object: Value,
    /// A merge patch, beside the annotation that all get.
    pub patch: Value,
    /// The field that an update sets, as a JSON pointer, and its value.
    pub update: Option<(&'static str, Value)>,
    /// Whether the status is walked over: those of flow control, with conditions.
    pub status: bool,
}

/// Discovery of a kind, as upstream's tests look at it: `/apis`, the group, the version.
pub async fn discovered(place: &Place, kind: &Kind, names: &[&str]) {
    let groups = place.client.list_api_groups().await.unwrap();
    let has_version = |versions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::GroupVersionForDiscovery]| {
        versions.iter().any(|version| version.version == "v1")
    };
    let group = groups.groups.iter().find(|group| group.name == kind.group);
    assert!(has_version(&group.expect("the group").versions), "{groups:?}");

    let group = place.get(&format!("/apis/{}", kind.group)).await.unwrap();
    let versions = group["versions"].as_array().unwrap();
    assert!(versions.iter().any(|version| version["version"] == "v1"), "{group}");

    let resources = place.client.list_api_group_resources(&kind.api_version()).await;
    let resources = resources.unwrap().resources;
    for name in names {
        assert!(
            resources.iter().any(|resource| resource.name == *name),
            "{name}: {resources:?}"
        );
    }
}

/// All of it.
pub async fn walk(place: &Place, kind: &Kind, operations: Operations) {
    let status = format!("{}/status", kind.plural);
    let names: &[&str] = if operations.status {
        &[kind.plural, &status]
    } else {
        &[kind.plural]
    };
    discovered(place, kind, names).await;

    let things = place.of(kind);
    let selector = format!("walk={}", place.namespace);
    let mut object = operations.object;
    object["metadata"]["labels"] = json!({"walk": place.namespace});
    things.create(object.clone()).await.unwrap();
    things.create(object.clone()).await.unwrap();
    let created = things.create(object).await.unwrap();
    let name = name_of(&created);
    let read = things.get(name).await.unwrap();
    assert_eq!(read["metadata"]["uid"], created["metadata"]["uid"]);
    revision_of(&read);

    let params = kube::api::ListParams::default().labels(&selector);
    let list = things.page(&params).await.unwrap();
    assert_eq!(list.items.len(), 3);
    let mut watch = things.watch(&selector, &list.resource_version).await;
    if kind.namespaced {
        let all = place.everywhere(kind);
        assert_eq!(all.list(&selector).await.len(), 3);
        all.watch(&selector, &list.resource_version).await;
    }

    let mut patch = operations.patch;
    patch["metadata"]["annotations"]["patched"] = "true".into();
    let patched = things.merge(name, patch.clone()).await.unwrap();
    assert!(contains(&patched, &patch), "{patched}");
    assert!(revision_of(&created) < revision_of(&patched));
    let change = |object: &mut Value| {
        object["metadata"]["annotations"]["updated"] = "true".into();
        if let Some((pointer, value)) = &operations.update {
            *object.pointer_mut(pointer).unwrap() = value.clone();
        }
    };
    let updated = things.change(name, change).await.unwrap();
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    if let Some((pointer, value)) = &operations.update {
        assert_eq!(updated.pointer(pointer), Some(value));
    }
    loop {
        let (event, seen) = watch.next().await;
        assert_eq!(event, "MODIFIED", "{seen}");
        if seen["metadata"]["annotations"]["patched"] == "true" {
            break;
        }
    }

    if operations.status {
        status_with_conditions(place, kind, &created).await;
    }

    things.delete(name).await.unwrap();
    not_found(things.get(name).await);
    let left = things.list(&selector).await;
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|item| name_of(item) != name));
    things.delete_collection(&selector).await.unwrap();
    assert_eq!(things.list(&selector).await, Vec::<Value>::new());
}

/// Reads, patches and updates a status that is a list of conditions.
async fn status_with_conditions(place: &Place, kind: &Kind, created: &Value) {
    let things = place.of(kind);
    let name = name_of(created);
    let read = things.get_status(name).await.unwrap();
    assert_eq!(read["kind"], kind.kind);
    assert_eq!(read["apiVersion"], kind.api_version());
    assert_eq!(read["metadata"]["uid"], created["metadata"]["uid"]);
    let condition = json!({"type": "PatchStatusFailed", "status": "False", "reason": "e2e"});
    let patched = things
        .merge_status(name, json!({"status": {"conditions": [condition]}}))
        .await
        .unwrap();
    assert!(has_condition(&patched, "PatchStatusFailed"), "{patched}");
    let condition = json!({
        "type": "StatusUpdateFailed", "status": "False", "reason": "E2E", "message": "Set from an e2e test",
    });
    let updated = things
        .change_status(name, |object| push(object, "/status/conditions", condition.clone()))
        .await
        .unwrap();
    assert!(has_condition(&updated, "StatusUpdateFailed"), "{updated}");
}

/// Whether an object's status has a condition.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|condition| condition["type"] == kind))
}

/// Whether a tree has everything that another one has. Lists have to be equal.
pub fn contains(tree: &Value, part: &Value) -> bool {
    match (tree, part) {
        (Value::Object(tree), Value::Object(part)) => part
            .iter()
            .all(|(name, value)| tree.get(name).is_some_and(|own| contains(own, value))),
        _ => tree == part,
    }
}
