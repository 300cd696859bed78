//! Rules of metadata that hold for every write. Pure but for warnings.

use api::{Status, Value, meta};

use super::is_namespaces;
use crate::call::Call;
use crate::registry::Kind;

/// Random characters of a generated name, and the longest prefix that leaves room for them (upstream: `names.go`).
const NAME_SUFFIX_LENGTH: usize = 5;
const NAME_PREFIX_BYTES_MAX: usize = 63 - NAME_SUFFIX_LENGTH;

/// The object's namespace is the request's; a different one in the body is refused.
pub fn ensure_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let own = meta::namespace(object);
    if own == namespace {
        return Ok(());
    }
    if own.is_empty() || namespace.is_empty() {
        meta::set_text(object, "namespace", namespace);
        return Ok(());
    }
    let why = "the namespace of the provided object does not match the namespace sent on the request";
    Err(Status::bad_request(why))
}

pub fn check_name(object: &Value, name: &str) -> Result<(), Status> {
    let own = meta::name(object);
    if own == name {
        return Ok(());
    }
    if own.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    Err(Status::bad_request(format!(
        "the name of the object ({own}) does not match the name on the URL ({name})"
    )))
}

/// Removes repeated owners, with upstream's warnings.
pub(super) fn dedup_owners(call: &Call, object: &mut Value, after_admission: bool) {
    let Some(Value::Array(owners)) = meta::metadata_mut(object).get_mut("ownerReferences") else {
        return;
    };
    let mut seen: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        if seen.contains(&owner) {
            repeated.push(owner["uid"].as_str().unwrap_or("").to_owned());
        } else {
            seen.push(owner);
        }
    }
    *owners = seen;
    if !repeated.is_empty() {
        let when = if after_admission {
            " after mutating admission happens"
        } else {
            ""
        };
        let uids = repeated.join(", ");
        call.warn(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
        ));
    }
}

pub(super) fn generate_name(prefix: &str, random: &base::Random) -> String {
    let mut end = prefix.len().min(NAME_PREFIX_BYTES_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &prefix[..end], random.suffix(NAME_SUFFIX_LENGTH))
}

/// What an update can never change.
pub(super) fn keep_system_fields(object: &mut Value, old: &Value) {
    if meta::uid(object).is_empty() {
        keep_field(object, old, "uid");
    }
    if !meta::text(old, "creationTimestamp").is_empty() {
        keep_field(object, old, "creationTimestamp");
    }
    if meta::is_deleting(old) {
        keep_field(object, old, "deletionTimestamp");
    }
    if !old["metadata"]["deletionGracePeriodSeconds"].is_null()
        && object["metadata"]["deletionGracePeriodSeconds"].is_null()
    {
        keep_field(object, old, "deletionGracePeriodSeconds");
    }
}

/// Takes away who manages which field; false: nothing was said of it.
pub(super) fn forget_managers(object: &mut Value) -> bool {
    meta::metadata_mut(object).remove("managedFields").is_some()
}

pub(super) fn keep_field(object: &mut Value, old: &Value, field: &str) {
    let metadata = meta::metadata_mut(object);
    match old["metadata"].get(field) {
        Some(value) => {
            metadata.insert(field.into(), value.clone());
        }
        None => {
            metadata.remove(field);
        }
    }
}

/// Whether this update takes the last thing away that kept a deleted object (upstream: ShouldDeleteDuringUpdate).
pub(super) fn deletes_during_update(kind: &Kind, object: &Value, old: &Value) -> bool {
    if meta::finalizers(object).next().is_some() || !meta::is_deleting(old) {
        return false;
    }
    let content = object["spec"]["finalizers"]
        .as_array()
        .is_some_and(|finalizers| !finalizers.is_empty());
    if is_namespaces(kind) && content {
        return false;
    }
    old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let random = base::Random::seeded(1);
        let name = generate_name("web-", &random);
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generate_name(&"x".repeat(300), &random).len(), 63);
    }

    #[test]
    fn names_and_namespaces_must_agree() {
        let mut object = json!({"metadata": {"name": "a", "namespace": "n"}});
        assert!(ensure_namespace(&mut object, "n").is_ok() && check_name(&object, "a").is_ok());
        assert_eq!(ensure_namespace(&mut object, "m").unwrap_err().code, 400);
        assert_eq!(
            check_name(&object, "b").unwrap_err().message,
            "the name of the object (a) does not match the name on the URL (b)"
        );
        let mut object = json!({"metadata": {}});
        ensure_namespace(&mut object, "n").unwrap();
        assert_eq!(meta::namespace(&object), "n");
        ensure_namespace(&mut object, "").unwrap();
        assert_eq!(meta::namespace(&object), "");
    }

    #[test]
    fn an_update_never_changes_system_fields() {
        let old = json!({"metadata": {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-02T00:00:00Z", "deletionGracePeriodSeconds": 30}});
        let mut object = json!({"metadata": {"creationTimestamp": "2030-01-01T00:00:00Z"}});
        keep_system_fields(&mut object, &old);
        assert_eq!(object, old);
    }
}
