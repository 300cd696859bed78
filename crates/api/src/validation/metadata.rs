//! `ObjectMeta` when an object is created and when it changes.
//!
//! Source: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go` of the 1.36 branch. Metadata is taken as the tree
//! under `metadata`; a field of a wrong type counts as absent, because decoding has refused it before.

use super::{field_manager, label_name, label_value, name_is_dns_label, non_negative, qualified_name};
use crate::Value;
use crate::field::{Error, ErrorList, Path, quote};

/// All annotations of an object together: 256 KiB.
pub const ANNOTATIONS_SIZE_MAX: usize = 256 * 1024;
/// The name of a subresource in `managedFields` ends here.
const SUBRESOURCE_LENGTH_MAX: usize = 256;

/// What is wrong with a name; the flag tells that it is a `generateName`, to which something will be appended.
pub type NameRule = fn(name: &str, prefix: bool) -> Vec<String>;

/// Metadata of an object that is created; names have been generated before.
pub fn object_meta(metadata: &Value, namespaced: bool, name_rule: NameRule, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    let invalid = |field: &str, value: &str, prefix: bool| -> ErrorList {
        let broken = name_rule(value, prefix).into_iter();
        broken
            .map(|detail| Error::invalid(&path.child(field), value, detail))
            .collect()
    };
    let generate_name = text(metadata, "generateName");
    if !generate_name.is_empty() {
        errors.extend(invalid("generateName", generate_name, true));
    }
    match text(metadata, "name") {
        "" => errors.push(Error::required(&path.child("name"), "name or generateName is required")),
        name => errors.extend(invalid("name", name, false)),
    }
    errors.extend(object_meta_common(metadata, namespaced, path));
    errors
}

/// The rules of metadata that do not look at the name: for kinds whose name rules are errors of their own.
pub fn object_meta_common(metadata: &Value, namespaced: bool, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    let namespace = text(metadata, "namespace");
    let namespace_path = || path.child("namespace");
    match (namespaced, namespace) {
        (true, "") => errors.push(Error::required(&namespace_path(), "")),
        (true, _) => {
            let broken = name_is_dns_label(namespace, false).into_iter();
            errors.extend(broken.map(|detail| Error::invalid(&namespace_path(), namespace, detail)));
        }
        (false, "") => {}
        (false, _) => errors.push(Error::forbidden(&namespace_path(), "not allowed on this type")),
    }
    if number(metadata, "generation") < 0 {
        errors.extend(non_negative(number(metadata, "generation"), &path.child("generation")));
    }
    errors.extend(maps_and_lists(
        metadata,
        &[
            ("labels", labels),
            ("annotations", annotations),
            ("ownerReferences", owner_references),
            ("finalizers", finalizers),
            ("managedFields", managed_fields),
        ],
        path,
    ));
    errors
}

/// The rules of fields that are there; most objects have few of them.
fn maps_and_lists(metadata: &Value, rules: &[(&str, fn(&Value, &Path) -> ErrorList)], path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    for (field, rule) in rules {
        if let Some(value) = metadata.get(field).filter(|value| !value.is_null()) {
            errors.extend(rule(value, &path.child(field)));
        }
    }
    errors
}

/// Metadata of an object that changes.
pub fn object_meta_update(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    if !old["deletionTimestamp"].is_null() {
        errors.extend(no_new_finalizers(
            &new["finalizers"],
            &old["finalizers"],
            &path.child("finalizers"),
        ));
    }
    if text(new, "resourceVersion").is_empty() {
        let path = path.child("resourceVersion");
        errors.push(Error::invalid(&path, "", "must be specified for an update"));
    }
    let (generation, before) = (number(new, "generation"), number(old, "generation"));
    if generation < before {
        let path = path.child("generation");
        errors.push(Error::invalid(&path, generation, "must not be decremented"));
    }
    for field in ["name", "namespace", "uid"] {
        let (new, old) = (text(new, field), text(old, field));
        if new != old {
            errors.extend(immutable(&new.into(), &old.into(), &path.child(field)));
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new[field] != old[field] {
            errors.extend(immutable(&new[field], &old[field], &path.child(field)));
        }
    }
    errors.extend(maps_and_lists(
        new,
        &[
            ("labels", labels),
            ("annotations", annotations),
            ("ownerReferences", owner_references),
            ("managedFields", managed_fields),
        ],
        path,
    ));
    errors
}

/// `field is immutable` unless both are equal; empty maps and lists equal absent ones.
pub fn immutable(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if new == old || (empty(new) && empty(old)) {
        return Vec::new();
    }
    vec![Error::invalid(path, new.clone(), "field is immutable")]
}

/// Keys and values of labels.
pub fn labels(labels: &Value, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        errors.extend(label_name(key, path));
        let value = value.as_str().unwrap_or_default();
        errors.extend(
            label_value(value)
                .into_iter()
                .map(|detail| Error::invalid(path, value, detail)),
        );
    }
    errors
}

/// Keys of annotations, in any case of letters, and the size of all together.
pub fn annotations(annotations: &Value, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        let broken = qualified_name(&key.to_lowercase()).into_iter();
        errors.extend(broken.map(|detail| Error::invalid(path, &**key, detail)));
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > ANNOTATIONS_SIZE_MAX {
        errors.push(Error::too_long(path, ANNOTATIONS_SIZE_MAX as i64));
    }
    errors
}

/// Owners: each one complete, at most one of them the controller.
pub fn owner_references(references: &Value, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    for reference in references.as_array().into_iter().flatten() {
        errors.extend(owner_reference(reference, path));
        if reference["controller"] != Value::Bool(true) {
            continue;
        }
        let name = format!("{}/{}", text(reference, "kind"), text(reference, "name"));
        match &controller {
            None => controller = Some(name),
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                errors.push(Error::invalid(path, references.clone(), detail));
            }
        }
    }
    errors
}

fn owner_reference(reference: &Value, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    let (api_version, kind) = (text(reference, "apiVersion"), text(reference, "kind"));
    // More than one slash leaves no version, as upstream reads it.
    let version = match api_version.split_once('/') {
        Some((_, version)) if version.contains('/') => "",
        Some((_, version)) => version,
        None => api_version,
    };
    if version.is_empty() {
        let detail = "version must not be empty";
        errors.push(Error::invalid(&path.child("apiVersion"), api_version, detail));
    }
    for field in ["kind", "name", "uid"] {
        if text(reference, field).is_empty() {
            errors.push(Error::invalid(&path.child(field), "", "must not be empty"));
        }
    }
    if (api_version, kind) == ("v1", "Event") || (api_version, kind) == ("/v1", "Event") {
        let detail = "/v1, Kind=Event is disallowed from being an owner";
        errors.push(Error::invalid(path, reference.clone(), detail));
    }
    errors
}

/// The name of one finalizer.
pub fn finalizer_name(name: &str, path: &Path) -> ErrorList {
    label_name(name, path)
}

/// Names of finalizers; `orphan` and `foregroundDeletion` exclude each other.
pub fn finalizers(finalizers: &Value, path: &Path) -> ErrorList {
    let names = texts(finalizers);
    let mut errors: ErrorList = names.iter().flat_map(|name| finalizer_name(name, path)).collect();
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, finalizers.clone(), detail));
    }
    errors
}

fn no_new_finalizers(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let old = texts(old);
    let mut extra: Vec<&str> = texts(new).into_iter().filter(|name| !old.contains(name)).collect();
    if extra.is_empty() {
        return Vec::new();
    }
    extra.sort_unstable();
    extra.dedup();
    // Go's %#v of a list of strings.
    let shown: Vec<String> = extra.into_iter().map(quote).collect();
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        shown.join(", ")
    );
    vec![Error::forbidden(path, detail)]
}

/// The shape of `managedFields`.
pub fn managed_fields(entries: &Value, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    for (index, entry) in entries.as_array().into_iter().flatten().enumerate() {
        let at = || path.index(index);
        match text(entry, "operation") {
            "" => errors.push(Error::required(&at().child("operation"), "must not be empty")),
            "Apply" | "Update" => {}
            other => {
                let supported = ["Apply", "Update"];
                errors.push(Error::not_supported(&at().child("operation"), other, &supported));
            }
        }
        let kind = text(entry, "fieldsType");
        if !kind.is_empty() && kind != "FieldsV1" {
            errors.push(Error::invalid(&at().child("fieldsType"), kind, "must be `FieldsV1`"));
        }
        let manager = text(entry, "manager");
        if !field_manager(manager, path).is_empty() {
            errors.extend(field_manager(manager, &at().child("manager")));
        }
        if text(entry, "subresource").len() > SUBRESOURCE_LENGTH_MAX {
            errors.push(Error::too_long(
                &at().child("subresource"),
                SUBRESOURCE_LENGTH_MAX as i64,
            ));
        }
    }
    errors
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
