//! JSON patch, as `evanphx/json-patch` v4 does it: negative indexes count from the end, `replace` of an absent key of
//! an object adds it, `test` of an absent key equals null, and a path may lack its first slash.

use super::{PatchError, depth};
use crate::Value;
use crate::codec::DEPTH_MAX;

/// A patch has at most this many operations (upstream's `maxJSONPatchOperations`).
pub const OPERATIONS_MAX: usize = 10_000;
/// `copy` operations of one patch may add this much (upstream's `JSONPatchMaxCopyBytes`): few operations could
/// otherwise make gigabytes.
pub const COPY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Applies the operations in their order.
pub fn json_patch(live: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = match patch {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        other => return Err(wrong_type(other, "jsonpatch.Patch")),
    };
    if let Some(bad) = operations
        .iter()
        .find(|operation| !operation.is_object() && !operation.is_null())
    {
        return Err(wrong_type(bad, "jsonpatch.Operation"));
    }
    if operations.len() > OPERATIONS_MAX {
        let count = operations.len();
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}"
        )));
    }
    let mut document = Document {
        root: live.clone(),
        copied_bytes: 0,
    };
    for operation in operations {
        document.apply(operation).map_err(PatchError::Unprocessable)?;
    }
    Ok(document.root)
}

/// The paths of members of operations that mean nothing: strict field validation tells them.
pub fn json_patch_unknown_fields(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().into_iter().flatten().enumerate();
    let mut paths = Vec::new();
    for (index, operation) in operations {
        for key in operation.as_object().into_iter().flatten().map(|(key, _)| key) {
            if !matches!(&**key, "op" | "path" | "from" | "value") {
                paths.push(format!("[{index}].{key}"));
            }
        }
    }
    paths
}

fn wrong_type(value: &Value, expected: &str) -> PatchError {
    let kind = crate::codec::json::kind_word(value);
    PatchError::BadRequest(format!(
        "json: cannot unmarshal {kind} into Go value of type {expected}"
    ))
}

struct Document {
    root: Value,
    copied_bytes: usize,
}

impl Document {
    fn apply(&mut self, operation: &Value) -> Result<(), String> {
        let kind = operation.get("op").and_then(Value::as_str).unwrap_or("unknown");
        match kind {
            "add" => self.add(operation),
            "remove" => self.remove(operation),
            "replace" => self.replace(operation),
            "move" => self.rename(operation),
            "test" => self.test(operation),
            "copy" => self.copy(operation),
            _ => Err(format!("Unexpected kind: {kind}")),
        }
    }

    fn add(&mut self, operation: &Value) -> Result<(), String> {
        let path = path(operation).map_err(|_| "add operation failed to decode path: missing value")?;
        let value = value(operation);
        check_depth(path, &value)?;
        let (container, key) = self
            .find(path)
            .ok_or_else(|| format!("add operation does not apply: doc is missing path: \"{path}\": missing value"))?;
        add(container, &key, value).map_err(|why| format!("error in add for path: '{path}': {why}"))
    }

    fn remove(&mut self, operation: &Value) -> Result<(), String> {
        let path = path(operation).map_err(|_| "remove operation failed to decode path: missing value")?;
        let (container, key) = self.find(path).ok_or_else(|| {
            format!("remove operation does not apply: doc is missing path: \"{path}\": missing value")
        })?;
        remove(container, &key)
            .map(drop)
            .map_err(|why| format!("error in remove for path: '{path}': {why}"))
    }

    fn replace(&mut self, operation: &Value) -> Result<(), String> {
        let path = path(operation).map_err(|why| format!("replace operation failed to decode path: {why}"))?;
        let value = value(operation);
        check_depth(path, &value)?;
        if path.is_empty() {
            if !value.is_object() && !value.is_array() {
                return Err("replace operation value must be object or array".into());
            }
            self.root = value;
            return Ok(());
        }
        let (container, key) = self
            .find(path)
            .ok_or_else(|| format!("replace operation does not apply: doc is missing path: {path}: missing value"))?;
        match container {
            Value::Object(map) => {
                map.insert(key, value);
            }
            list => {
                let slot = element(list, &key).map_err(|_| {
                    format!("replace operation does not apply: doc is missing key: {path}: missing value")
                })?;
                *slot = value;
            }
        }
        Ok(())
    }

    fn rename(&mut self, operation: &Value) -> Result<(), String> {
        let from = from(operation).map_err(|why| format!("move operation failed to decode from: {why}"))?;
        let (container, key) = self
            .find(from)
            .ok_or_else(|| format!("move operation does not apply: doc is missing from path: {from}: missing value"))?;
        let moved = remove(container, &key).map_err(|why| format!("error in move for path: '{key}': {why}"))?;
        let path = path(operation).map_err(|why| format!("move operation failed to decode path: {why}"))?;
        check_depth(path, &moved)?;
        let (container, key) = self.find(path).ok_or_else(|| {
            format!("move operation does not apply: doc is missing destination path: {path}: missing value")
        })?;
        add(container, &key, moved).map_err(|why| format!("error in move for path: '{path}': {why}"))
    }

    fn test(&mut self, operation: &Value) -> Result<(), String> {
        let path = path(operation).map_err(|why| format!("test operation failed to decode path: {why}"))?;
        let expected = operation.get("value");
        let failed = Err(format!("testing value {path} failed: test failed"));
        if path.is_empty() {
            return if expected == Some(&self.root) { Ok(()) } else { failed };
        }
        let (container, key) = self
            .find(path)
            .ok_or_else(|| format!("test operation does not apply: is missing path: {path}: missing value"))?;
        let found = get(container, &key).map_err(|why| format!("error in test for path: '{path}': {why}"))?;
        let equal = match expected {
            None | Some(Value::Null) => found.is_null(),
            Some(expected) => found == expected,
        };
        if equal { Ok(()) } else { failed }
    }

    fn copy(&mut self, operation: &Value) -> Result<(), String> {
        let from = from(operation).map_err(|why| format!("copy operation failed to decode from: {why}"))?;
        let (container, key) = self
            .find(from)
            .ok_or_else(|| format!("copy operation does not apply: doc is missing from path: {from}: missing value"))?;
        let found = get(container, &key).map_err(|why| format!("error in copy for from: '{from}': {why}"))?;
        let size = if found.is_null() { 0 } else { found.to_string().len() };
        let copied = self.copied_bytes + size;
        if copied > COPY_BYTES_MAX {
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {COPY_BYTES_MAX}"
            ));
        }
        let (container, key) = self.find(from).expect("invariant: found above");
        let copy = get(container, &key).expect("invariant: read above").clone();
        self.copied_bytes = copied;
        let path = path(operation).map_err(|_| "copy operation failed to decode path: missing value")?;
        check_depth(path, &copy)?;
        let (container, key) = self.find(path).ok_or_else(|| {
            format!("copy operation does not apply: doc is missing destination path: {path}: missing value")
        })?;
        add(container, &key, copy).map_err(|why| format!("error while adding value during copy: {why}"))
    }

    /// The object or list that holds the last step of the path, and that step.
    fn find(&mut self, path: &str) -> Option<(&mut Value, String)> {
        let (_, steps) = path.split_once('/')?;
        let (parents, last) = match steps.rsplit_once('/') {
            Some((parents, last)) => (Some(parents), last),
            None => (None, steps),
        };
        let mut container = &mut self.root;
        for step in parents.into_iter().flat_map(|parents| parents.split('/')) {
            let step = unescape(step);
            container = match container {
                Value::Object(map) => map.get_mut(&step)?,
                list => element(list, &step).ok()?,
            };
        }
        (container.is_object() || container.is_array()).then(|| (container, unescape(last)))
    }
}

/// A patch may not nest deeper than a decoder would read: every pass over a tree is a recursion, and a few copies into
/// themselves would make any depth. Upstream's decoder refuses such a result in the same words.
fn check_depth(path: &str, value: &Value) -> Result<(), String> {
    if path.matches('/').count() + depth(value) > DEPTH_MAX {
        return Err("exceeded max depth".into());
    }
    Ok(())
}

fn path(operation: &Value) -> Result<&str, String> {
    text(operation, "path").ok_or_else(|| missing(operation, "path", "operation missing path field"))
}

fn from(operation: &Value) -> Result<&str, String> {
    text(operation, "from").ok_or_else(|| missing(operation, "from", "operation, missing from field"))
}

fn text<'a>(operation: &'a Value, field: &str) -> Option<&'a str> {
    operation.get(field).and_then(Value::as_str)
}

fn missing(operation: &Value, field: &str, absent: &str) -> String {
    match operation.get(field) {
        None | Some(Value::Null) => format!("{absent}: missing value"),
        Some(other) => wrong_type(other, "string").to_string(),
    }
}

/// The operation's value; an absent one is null.
fn value(operation: &Value) -> Value {
    operation.get("value").cloned().unwrap_or(Value::Null)
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn index(key: &str) -> Result<i64, String> {
    key.parse::<i64>().map_err(|error| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {}: {why}", crate::field::quote(key))
    })
}

fn bad_index(index: i64) -> String {
    format!("Unable to access invalid index: {index}: invalid index referenced")
}

/// An index in range; negative ones count from the end.
fn position(index: i64, length: usize) -> Result<usize, String> {
    let from_start = if index < 0 {
        index.checked_add(length as i64)
    } else {
        Some(index)
    };
    let found = from_start.and_then(|index| usize::try_from(index).ok());
    found.filter(|index| *index < length).ok_or_else(|| bad_index(index))
}

fn element<'a>(list: &'a mut Value, key: &str) -> Result<&'a mut Value, String> {
    let items = list.as_array_mut().ok_or("unknown object type")?;
    let position = position(index(key)?, items.len())?;
    Ok(&mut items[position])
}

static NULL: Value = Value::Null;

fn get<'a>(container: &'a mut Value, key: &str) -> Result<&'a Value, String> {
    match container {
        Value::Object(map) => Ok(map.get(key).unwrap_or(&NULL)),
        list => element(list, key).map(|found| &*found),
    }
}

fn add(container: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match container {
        Value::Object(map) => {
            map.insert(key.into(), value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let index = index(key).map_err(|why| format!("value was not a proper array index: '{key}': {why}"))?;
            // One past the end is a place too.
            let position = position(index, items.len() + 1)?;
            items.insert(position, value);
        }
        _ => return Err("unknown object type".into()),
    }
    Ok(())
}

fn remove(container: &mut Value, key: &str) -> Result<Value, String> {
    match container {
        Value::Object(map) => map
            .remove(key)
            .ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value")),
        Value::Array(items) => {
            let position = position(index(key)?, items.len())?;
            Ok(items.remove(position))
        }
        _ => Err("unknown object type".into()),
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
