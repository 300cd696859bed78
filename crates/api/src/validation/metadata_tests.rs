//! Upstream's cases (`objectmeta_test.go`).

use serde_json::json;

use super::super::name_is_dns_subdomain;
use super::*;

fn texts_of(errors: ErrorList) -> Vec<String> {
    errors.iter().map(Error::to_string).collect()
}

fn create(metadata: Value, namespaced: bool) -> Vec<String> {
    texts_of(object_meta(
        &metadata,
        namespaced,
        name_is_dns_subdomain,
        &Path::new("field"),
    ))
}

#[test]
fn created_metadata_is_checked() {
    for (metadata, namespaced, expect) in [
        (json!({"name": "test"}), false, &[][..]),
        (json!({"name": "test", "generateName": "foo-"}), false, &[]),
        (json!({"name": "test", "namespace": "ns"}), true, &[]),
        (
            json!({}),
            false,
            &["field.name: Required value: name or generateName is required"],
        ),
        (json!({"name": "test"}), true, &["field.namespace: Required value"]),
        (
            json!({"name": "test", "namespace": "foo.bar"}),
            true,
            &["field.namespace: Invalid value: \"foo.bar\": must not contain dots"],
        ),
        (
            json!({"name": "test", "namespace": "x"}),
            false,
            &["field.namespace: Forbidden: not allowed on this type"],
        ),
        (
            json!({"name": "test", "generation": -1}),
            false,
            &["field.generation: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            json!({"name": "test", "finalizers": ["orphan", "foregroundDeletion"]}),
            false,
            &[
                "field.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
            ],
        ),
        (
            json!({"name": "test", "managedFields": [{"operation": "Patch", "fieldsType": "V2"}, {}]}),
            false,
            &[
                "field.managedFields[0].operation: Unsupported value: \"Patch\": supported values: \"Apply\", \"Update\"",
                "field.managedFields[0].fieldsType: Invalid value: \"V2\": must be `FieldsV1`",
                "field.managedFields[1].operation: Required value: must not be empty",
            ],
        ),
    ] {
        assert_eq!(create(metadata, namespaced), expect);
    }
}

#[test]
fn owners_are_checked() {
    let owner = |api_version: &str, kind: &str, controller: Option<bool>| {
        let mut owner = json!({"apiVersion": api_version, "kind": kind, "name": "name", "uid": "1"});
        if let Some(controller) = controller {
            owner["controller"] = controller.into();
        }
        owner
    };
    for (owners, expect) in [
        (json!([owner("v1", "K", None)]), ""),
        (
            json!([
                owner("v", "K", Some(false)),
                owner("v", "K", Some(true)),
                owner("v", "K", None)
            ]),
            "",
        ),
        (
            json!([owner("v1", "Event", None)]),
            "/v1, Kind=Event is disallowed from being an owner",
        ),
        (json!([owner("events.k8s.io/v1", "Event", None)]), ""),
        (json!([owner("", "K", None)]), "version must not be empty"),
        (json!([owner("a/b/c", "K", None)]), "version must not be empty"),
        (json!([owner("a/v1", "", None)]), "must not be empty"),
        (
            json!([owner("v", "A", Some(true)), owner("v", "B", Some(true))]),
            "Only one reference can have Controller set to true. Found \"true\" in references for A/name and B/name",
        ),
    ] {
        let errors = owner_references(&owners, &Path::new("field"));
        let details: Vec<&str> = errors.iter().map(|error| &*error.detail).collect();
        assert_eq!(details.join("; "), expect);
    }
}

#[test]
fn changed_metadata_is_checked() {
    let base = || json!({"name": "test", "resourceVersion": "1"});
    let with = |changes: Value| {
        let mut metadata = base();
        for (key, value) in changes.as_object().expect("an object") {
            metadata[key] = value.clone();
        }
        metadata
    };
    for (new, old, expect) in [
        (json!({}), json!({}), &[][..]),
        (
            json!({"resourceVersion": ""}),
            json!({}),
            &["field.resourceVersion: Invalid value: \"\": must be specified for an update"],
        ),
        (
            json!({"name": "b", "namespace": "c", "uid": "d"}),
            json!({}),
            &[
                "field.name: Invalid value: \"b\": field is immutable",
                "field.namespace: Invalid value: \"c\": field is immutable",
                "field.uid: Invalid value: \"d\": field is immutable",
            ],
        ),
        (
            json!({}),
            json!({"creationTimestamp": "1970-01-01T00:16:40Z"}),
            &["field.creationTimestamp: Invalid value: null: field is immutable"],
        ),
        (
            json!({"deletionTimestamp": "1970-01-01T00:33:20Z"}),
            json!({"deletionTimestamp": "1970-01-01T00:16:40Z"}),
            &["field.deletionTimestamp: Invalid value: \"1970-01-01T00:33:20Z\": field is immutable"],
        ),
        (
            json!({"deletionGracePeriodSeconds": 40}),
            json!({"deletionGracePeriodSeconds": 30}),
            &["field.deletionGracePeriodSeconds: Invalid value: 40: field is immutable"],
        ),
        (
            json!({"generation": 4}),
            json!({"generation": 5}),
            &["field.generation: Invalid value: 4: must not be decremented"],
        ),
        (
            json!({"finalizers": ["x/a", "z/c", "y/b"], "deletionTimestamp": "t"}),
            json!({"finalizers": ["x/a"], "deletionTimestamp": "t"}),
            &[
                "field.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"y/b\", \"z/c\"}",
            ],
        ),
        (json!({"finalizers": ["x/a"]}), json!({}), &[]),
        (
            json!({"finalizers": [], "deletionTimestamp": "t"}),
            json!({"finalizers": ["x/a"], "deletionTimestamp": "t"}),
            &[],
        ),
    ] {
        let errors = object_meta_update(&with(new), &with(old), &Path::new("field"));
        assert_eq!(texts_of(errors), expect);
    }
}

#[test]
fn labels_and_annotations_are_checked() {
    let path = Path::new("field");
    let half = "b".repeat(ANNOTATIONS_SIZE_MAX / 2 - 1);
    for (value, expect) in [
        (json!({"UpperCase123": "bar", "1.2.3.4/5678": "x y"}), 0),
        (json!({"Now.With.Dots/simple": "bar"}), 0),
        (json!({"a": half, "c": half}), 0),
        (json!({"a": half, "cc": half}), 1),
        (json!({"nospecialchars^=@": "bar", "-dash": "x"}), 2),
    ] {
        assert_eq!(annotations(&value, &path).len(), expect);
    }
    let errors = annotations(&json!({"a": "b".repeat(ANNOTATIONS_SIZE_MAX)}), &path);
    assert_eq!(texts_of(errors), ["field: Too long: may not be more than 262144 bytes"]);
    for (value, expect) in [
        (json!({"simple": "bar", "now.with.dots/simple": ""}), 0),
        (json!({"Now.With.Dots/simple": "bar"}), 1),
        (json!({"ok": "a b"}), 1),
    ] {
        assert_eq!(labels(&value, &path).len(), expect);
    }
}
