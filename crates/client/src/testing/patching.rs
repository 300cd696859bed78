//! Patches as far as tests need them: merge, JSON, apply as a merge, and strategic merge with the usual merge keys.

use api::{Status, Value};

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let object = target.as_object_mut().expect("invariant: made an object above");
    for (key, value) in fields {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The merge keys of the lists that tests touch.
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "conditions" | "addresses" => Some("type"),
        "ownerReferences" => Some("uid"),
        "containers" | "initContainers" | "volumes" | "env" | "secrets" | "imagePullSecrets" => Some("name"),
        _ => None,
    }
}

/// Strategic merge.
pub(super) fn strategic(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if fields.get("$patch").and_then(Value::as_str) == Some("replace") {
        let mut fields = fields.clone();
        fields.remove("$patch");
        *target = Value::Object(fields);
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let object = target.as_object_mut().expect("invariant: made an object above");
    for (key, value) in fields {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(list) = object.get_mut(field).and_then(Value::as_array_mut) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        match (value, merge_key(key)) {
            (Value::Null, _) => drop(object.remove(key)),
            (Value::Array(items), Some(merge_key)) => {
                let list = object.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
                if let Some(list) = list.as_array_mut() {
                    merge_list(list, items, merge_key);
                }
            }
            (Value::Array(items), None) if key == "finalizers" => {
                let list = object.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
                if let Some(list) = list.as_array_mut() {
                    items.iter().for_each(|item| {
                        if !list.contains(item) {
                            list.push(item.clone());
                        }
                    });
                }
            }
            _ => strategic(object.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

fn merge_list(list: &mut Vec<Value>, items: &[Value], key: &str) {
    for item in items {
        let at = list.iter().position(|have| have.get(key) == item.get(key));
        let delete = item.get("$patch").and_then(Value::as_str) == Some("delete");
        match (at, delete) {
            (Some(at), true) => drop(list.remove(at)),
            (Some(at), false) => strategic(&mut list[at], item),
            (None, true) => {}
            (None, false) => list.push(item.clone()),
        }
    }
}

/// RFC 6902: add, remove, replace, test.
pub(super) fn json(target: &mut Value, operations: &Value) -> Result<(), Status> {
    let refuse = |why: String| Status::failure(api::Reason::Invalid, why);
    for operation in operations.as_array().into_iter().flatten() {
        let path = operation["path"].as_str().unwrap_or("");
        let value = operation.get("value").cloned().unwrap_or(Value::Null);
        let Some((parent, last)) = path.rsplit_once('/') else {
            return Err(refuse(format!("bad path {path:?}")));
        };
        let last = last.replace("~1", "/").replace("~0", "~");
        let what = operation["op"].as_str().unwrap_or("");
        if what == "test" {
            if target.pointer(path) != Some(&value) {
                return Err(refuse(format!("testing path {path} value failed")));
            }
            continue;
        }
        match (target.pointer_mut(parent), what) {
            (Some(Value::Object(object)), "add" | "replace") => drop(object.insert(last, value)),
            (Some(Value::Object(object)), "remove") => drop(object.remove(&last)),
            (Some(Value::Array(list)), "add") if last == "-" => list.push(value),
            (Some(Value::Array(list)), _) => {
                let at: usize = last.parse().map_err(|_| refuse(format!("bad index {last:?}")))?;
                match what {
                    "add" if at <= list.len() => list.insert(at, value),
                    "replace" if at < list.len() => list[at] = value,
                    "remove" if at < list.len() => drop(list.remove(at)),
                    _ => return Err(refuse(format!("no index {at}"))),
                }
            }
            _ => return Err(refuse(format!("no such path {path:?}"))),
        }
    }
    Ok(())
}
