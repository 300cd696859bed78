//! Strategies of kinds whose own rules are not written yet (`docs/kinds.md` lists them): stored and served correctly,
//! with static defaults and the status kept apart, but not validated beyond their schema.

use api::Value;

use crate::row::{Strategy, WriteContext};
use crate::view::Edit;

/// A kind that is only data.
pub struct Plain;

impl Strategy for Plain {}

/// What a creator says of the status is dropped. The empty object stands for it; normalizing fills in what the type
/// always writes.
pub fn reset_status(object: &mut Value) {
    object.put("status", Value::Object(api::Map::new()));
}

/// On `status`, everything but status and metadata comes from the old object; on the main resource the status does.
pub fn keep_apart(object: &mut Value, old: &Value, context: &WriteContext) {
    match context.subresource {
        "status" => keep_all_but_status(object, old),
        _ => object.copy_from(old, "status"),
    }
}

/// Of the metadata, only the version and who manages which field is the writer's: upstream's `ResetObjectMetaForStatus`.
pub fn keep_metadata(object: &mut Value, old: &Value) {
    for field in [
        "deletionTimestamp",
        "generation",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
    ] {
        object.copy_from(old, &format!("metadata.{field}"));
    }
}

/// Everything but `status` and `metadata` is taken from the old object.
pub fn keep_all_but_status(object: &mut Value, old: &Value) {
    let status = object.cut("status");
    let metadata = object.cut("metadata");
    let identity = [object.cut("apiVersion"), object.cut("kind")];
    *object = old.clone();
    let restore = [
        ("status", status),
        ("metadata", metadata),
        ("apiVersion", identity[0].clone()),
        ("kind", identity[1].clone()),
    ];
    for (field, value) in restore {
        match value {
            Some(value) => object.put(field, value),
            None => {
                object.cut(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn status_and_the_rest_are_written_apart() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"x": 1}, "status": {"y": 1}});
        let new = json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": {"x": 2}, "status": {"y": 2}});
        for (subresource, spec, status) in [("", 2, 1), ("status", 1, 2)] {
            let context = WriteContext {
                now: "",
                subresource,
                user: crate::row::Writer::named(""),
                version: "v1",
            };
            let mut object = new.clone();
            keep_apart(&mut object, &old, &context);
            assert_eq!(
                object,
                json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": {"x": spec}, "status": {"y": status}}),
                "{subresource}"
            );
        }
    }
}
