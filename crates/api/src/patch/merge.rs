//! JSON merge patch, as `evanphx/json-patch` does it.

use super::PatchError;
use crate::{Map, Value};

/// Merges `patch` into `live`: null removes, objects merge, everything else replaces.
///
/// A list as the whole patch is taken for the new document, which no kind can decode then.
pub fn merge_patch(live: &Value, patch: &Value) -> Result<Value, PatchError> {
    match (live, patch) {
        (Value::Object(live), Value::Object(patch)) => {
            let mut live = live.clone();
            merge_maps(&mut live, patch);
            Ok(Value::Object(live))
        }
        (_, Value::Object(_) | Value::Array(_)) => Ok(pruned(patch)),
        _ => Err(PatchError::BadRequest("Invalid JSON Patch".into())),
    }
}

fn merge_maps(live: &mut Map, patch: &Map) {
    for (key, value) in patch {
        match (live.get_mut(key), value) {
            (_, Value::Null) => {
                live.remove(key);
            }
            (Some(Value::Object(live)), Value::Object(patch)) => merge_maps(live, patch),
            // Over an object, a list is taken as it is; elsewhere nulls inside its objects are dropped.
            (Some(slot @ Value::Object(_)), value) => *slot = value.clone(),
            (Some(slot), value) => *slot = pruned(value),
            (None, value) => {
                live.insert(key.clone(), pruned(value));
            }
        }
    }
}

/// A copy without the nulls of objects; nulls of lists stay.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), pruned(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(pruned).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_merge() {
        for (live, patch, expect) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"a": 1, "e": null})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (
                json!({}),
                json!({"a": [null, {"b": null, "c": 1}]}),
                json!({"a": [null, {"c": 1}]}),
            ),
            (
                json!({"a": {}}),
                json!({"a": [{"b": null}]}),
                json!({"a": [{"b": null}]}),
            ),
            (json!({"a": []}), json!({"a": [{"b": null}]}), json!({"a": [{}]})),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
        ] {
            assert_eq!(merge_patch(&live, &patch), Ok(expect), "{live} {patch}");
        }
        for patch in [json!(null), json!("x"), json!(1)] {
            let error = PatchError::BadRequest("Invalid JSON Patch".into());
            assert_eq!(merge_patch(&json!({}), &patch), Err(error));
        }
    }
}
