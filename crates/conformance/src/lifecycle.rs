//! The walk of upstream's "lifecycle" tests of kinds of the cluster: create, get, patch a label that is the object's own name,
//! list by it, delete; then another one, updated, listed and deleted as a collection.

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::place::{Place, name_of, revision_of};

/// Two objects, each with a name or a `generateName`.
pub async fn walk(place: &Place, kind: &Kind, first: Value, second: Value) {
    let things = place.of(kind);
    let created = things.create(first).await.unwrap();
    revision_of(&created);
    let name = name_of(&created);
    let read = things.get(name).await.unwrap();
    assert_eq!(name_of(&read), name);
    let patch = json!({"metadata": {"labels": {name: "patched"}}});
    let patched = things.strategic(name, patch).await.unwrap();
    assert_eq!(patched["metadata"]["labels"][name], "patched");
    assert!(revision_of(&read) < revision_of(&patched));
    let selector = format!("{name}=patched");
    assert_eq!(things.list(&selector).await.len(), 1);
    things.delete(name).await.unwrap();
    things.until_gone(&selector).await;

    let created = things.create(second).await.unwrap();
    let name = name_of(&created);
    assert_eq!(name_of(&things.get(name).await.unwrap()), name);
    let relabel = |object: &mut Value| object["metadata"]["labels"] = json!({name: "updated"});
    let updated = things.change(name, relabel).await.unwrap();
    assert_eq!(updated["metadata"]["labels"][name], "updated");
    let selector = format!("{name}=updated");
    assert_eq!(things.list(&selector).await.len(), 1);
    things.delete_collection(&selector).await.unwrap();
    things.until_gone(&selector).await;
}
