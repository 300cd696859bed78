//! The apiextensions.k8s.io group: CustomResourceDefinition.
//!
//! Its conditions are decided by plain functions ([`conditions`]); what serves the resources it defines is in
//! [`crate::custom`].
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions` and `pkg/registry/customresourcedefinition`.

pub mod conditions;

mod defaults;
mod definition;
mod schema;
mod structural;

use api::Value;
use api::field::ErrorList;

use crate::build::Row;
use crate::custom::formats;
use crate::row::{StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// Keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

const WEBHOOK_PORT: i64 = 443;

/// The kinds.
pub fn rows() -> Vec<StorageKind> {
    let row = Row::cluster(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    )
    .stored_under("apiextensions.k8s.io/customresourcedefinitions")
    .short(&["crd", "crds"])
    .categories(&["api-extensions"])
    .strategy(Definitions)
    .generation()
    .conditional_update()
    .status();
    vec![row.build()]
}

struct Definitions;

impl Strategy for Definitions {
    fn default(&self, object: &mut Value) {
        let kind = object.text("spec.names.kind").to_owned();
        let names = object.object("spec.names");
        let is_unset = |value: Option<&Value>| value.and_then(Value::as_str).is_none_or(str::is_empty);
        if is_unset(names.get("singular")) && !kind.is_empty() {
            names.insert("singular".into(), kind.to_lowercase().into());
        }
        if is_unset(names.get("listKind")) && !kind.is_empty() {
            names.insert("listKind".into(), format!("{kind}List").into());
        }
        if !object.has("spec.conversion") {
            object
                .object("spec.conversion")
                .insert("strategy".into(), "None".into());
        }
        if let Some(service) = object.existing("spec.conversion.webhook.clientConfig.service") {
            service.put_default("port", WEBHOOK_PORT);
        }
        if object.list("status.storedVersions").is_empty() {
            store_version(object);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", Value::Object(api::Map::new()));
        store_version(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        if context.subresource == "status" {
            object.copy_from(old, "spec");
            return;
        }
        object.copy_from(old, "status");
        store_version(object);
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        definition::validate(object, None)
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        match context.subresource {
            "status" => definition::validate_status(object),
            _ => definition::validate(object, Some(old)),
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        if context.subresource == "status" {
            return Vec::new();
        }
        let known = old.map(unknown_formats).unwrap_or_default();
        let mut formats = unknown_formats(object);
        formats.retain(|format| !known.contains(format));
        formats
            .iter()
            .map(|format| format!("unrecognized format {}", api::field::quote(format)))
            .collect()
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// Notes that objects are stored in the storage version from now on.
fn store_version(object: &mut Value) {
    let versions = object.list("spec.versions").iter();
    let Some(storage) = versions.clone().find(|version| version.flag("storage")) else {
        return;
    };
    let name = storage.at("name").clone();
    let status = object.object("status");
    let stored = status.entry("storedVersions").or_insert(Value::Null);
    if !stored.is_array() {
        *stored = Value::Array(Vec::new());
    }
    if let Value::Array(stored) = stored
        && !stored.contains(&name)
    {
        stored.push(name);
    }
}

fn unknown_formats(crd: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for version in crd.list("spec.versions") {
        schema::visit(version.at("schema.openAPIV3Schema"), &mut |schema| {
            let format = schema.text("format");
            if !format.is_empty() && !formats::is_known(schema.text("type"), format) {
                unknown.push(format.to_owned());
            }
        });
    }
    unknown
}

#[cfg(test)]
mod tests;
