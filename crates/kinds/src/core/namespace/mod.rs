//! Namespace.
//!
//! Source of the rules: `ValidateNamespace` and its siblings in `pkg/apis/core/validation/validation.go`,
//! `pkg/registry/core/namespace/strategy.go`.

#[cfg(test)]
mod tests;

use api::Value;
use api::field::ErrorList;
use api::validation::finalizer_name;
use serde_json::json;

use crate::build::Row;
use crate::check::{At, Report};
use crate::generic;
use crate::names;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The row. There is no deletecollection, and PUT is all that `finalize` takes.
pub fn row() -> StorageKind {
    Row::cluster("", "v1", "Namespace", "namespaces")
        .short(&["ns"])
        .named(names::label)
        .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
        .view_with("finalize", &["update"])
        .status()
        .strategy(Namespaces)
        .returns_deleted()
        .fields(&[("status.phase", |object| object.text("status.phase").into())])
        .reads(&["status.phase"])
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Status", "Active or Terminating."), AGE],
    cells: |object, context| vec![name(object), object.text("status.phase").into(), age(object, context)],
};

/// The label that lets selectors name a namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// What keeps a namespace until its content is gone.
const FINALIZER: &str = "kubernetes";

struct Namespaces;

impl Strategy for Namespaces {
    fn default(&self, object: &mut Value) {
        label(object);
        object.object("status");
        object["status"].put_default("phase", "Active");
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({"phase": "Active"}));
        object.object("spec");
        let mut finalizers = object.list("spec.finalizers").to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        object["spec"].put("finalizers", finalizers);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        match context.subresource {
            "status" => generic::keep_all_but_status(object, old),
            "finalize" => object.copy_from(old, "status"),
            _ => {
                object.copy_from(old, "spec");
                object.copy_from(old, "status");
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            let list = object.get("spec.finalizers");
            for finalizer in object.items("spec.finalizers") {
                // Upstream tells of the list and not of the element.
                self::finalizer(&list.elsewhere(list.path.clone(), finalizer.value));
            }
        })
    }

    fn validate_update(&self, object: &Value, _old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => phase(&object),
            "finalize" => object.items("spec.finalizers").iter().for_each(finalizer),
            _ => {}
        })
    }

    fn canonicalize(&self, object: &mut Value) {
        label(object);
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        match subresource {
            "finalize" => Some(&["status"]),
            _ => None,
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn label(object: &mut Value) {
    let name = object.text("metadata.name").to_string();
    if !name.is_empty() {
        object.object("metadata.labels").insert(NAME_LABEL.into(), name.into());
    }
}

fn finalizer(finalizer: &At) {
    finalizer.extend(finalizer_name(finalizer.text(), &finalizer.path));
    let standard = ["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer.text());
    if !finalizer.text().contains('/') && !standard {
        finalizer.invalid("name is neither a standard finalizer name nor is it fully qualified");
    }
}

fn phase(object: &At) {
    let phase = object.get("status.phase");
    let shown = phase.elsewhere(object.get("status").path.child("Phase"), phase.value);
    let deleting = api::meta::is_deleting(object.value);
    if !deleting && phase.text() != "Active" {
        shown.invalid("may only be 'Active' if `deletionTimestamp` is empty");
    }
    if deleting && phase.text() != "Terminating" {
        shown.invalid("may only be 'Terminating' if `deletionTimestamp` is not empty");
    }
}
