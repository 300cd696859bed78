//! The defaults in the schema of a custom resource are themselves good values.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/schema/defaulting/validation.go`.

use api::Value;
use api::field::{Error, ErrorList, Path};
use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;

use crate::custom::embedded;
use crate::custom::openapi::{self, Patterns};
use crate::custom::rules::Rules;
use crate::view::View;

/// What is wrong with the defaults of a structural schema.
pub fn validate(schema: &Value, path: &Path, require_pruned: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    walk(schema, path, true, false, require_pruned, &mut errors);
    errors
}

/// Whether no default has fields that its schema does not know.
pub fn are_pruned(schema: &Value) -> bool {
    let mut pruned = true;
    super::schema::visit(schema, &mut |schema| {
        if schema.has("default") {
            pruned = pruned && is_pruned(schema, schema.at("default"));
        }
    });
    pruned
}

fn is_pruned(schema: &Value, default: &Value) -> bool {
    // The schema of a field is read as that of the field of an object, since a root is taken for a resource.
    let whole = serde_json::json!({"type": "object", "properties": {"default": schema}});
    let Ok(graph) = SchemaRef::from_json_schema(&whole) else {
        return true;
    };
    let mut value = serde_json::json!({"default": default});
    match normalize(&mut value, &graph, UnknownFields::Report) {
        Ok(unknown) => unknown.is_empty(),
        // Of a wrong type, which is told elsewhere.
        Err(_) => true,
    }
}

fn walk(schema: &Value, path: &Path, is_root: bool, in_metadata: bool, require_pruned: bool, errors: &mut ErrorList) {
    let is_resource = is_root || schema.flag("x-kubernetes-embedded-resource");
    let in_metadata = in_metadata && !is_resource;
    let default = schema.at("default");
    if !default.is_null() {
        let at = path.child("default");
        if !in_metadata && require_pruned && !is_pruned(schema, default) {
            errors.push(Error::invalid(&at, default.clone(), "must not have unknown fields"));
        }
        let embedded = match in_metadata {
            true => ErrorList::new(),
            false => embedded::validate(default, schema, Some(&at), is_root),
        };
        if embedded.is_empty() {
            let mut found = openapi::validate(Some(&at), default, schema, None, &Patterns::default());
            if found.is_empty()
                && let Some(rules) = Rules::of(schema, is_resource)
            {
                // As an update from itself, and as something new: rules may ask for either.
                found = rules.validate(Some(&at), default, Some(default), schema, false);
                if found.is_empty() {
                    found = rules.validate(Some(&at), default, None, schema, false);
                }
            }
            errors.extend(found);
        } else {
            errors.extend(embedded);
        }
    }
    let items = schema.at("items");
    if items.is_object() {
        walk(items, &path.child("items"), false, in_metadata, require_pruned, errors);
    }
    for (name, property) in schema.entries("properties") {
        let in_metadata = in_metadata || (is_resource && matches!(name, "metadata" | "apiVersion" | "kind"));
        let at = path.child("properties").key(name);
        walk(property, &at, false, in_metadata, require_pruned, errors);
    }
}
