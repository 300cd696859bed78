//! Whether a schema is structural: every field has a type, and value validation adds none.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/schema/{validation,complete}.go`.

use api::Value;
use api::field::{Error, ErrorList, Path};
use serde_json::json;

use crate::view::View;

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What makes a schema not structural, sorted as upstream sorts it.
pub fn validate(schema: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    invariants(schema, Level::Root, path, &mut errors);
    complete(schema, Some(schema), path, path, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

fn invariants(schema: &Value, level: Level, path: &Path, errors: &mut ErrorList) {
    let kind = schema.text("type");
    let items = schema.at("items");
    if kind == "array" && !items.is_object() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    if items.is_object() {
        invariants(items, Level::Item, &path.child("items"), errors);
    }
    for (name, property) in schema.entries("properties") {
        invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    let additional = schema.at("additionalProperties");
    if !additional.is_null() {
        if level == Level::Root {
            let path = path.child("additionalProperties");
            errors.push(Error::forbidden(&path, "must not be used at the root"));
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &path.child("additionalProperties"), errors);
        }
    }
    let embedded = schema.flag("x-kubernetes-embedded-resource");
    let preserves = schema.flag("x-kubernetes-preserve-unknown-fields");
    let either = schema.flag("x-kubernetes-int-or-string");
    for (flag, name) in [
        (preserves, "x-kubernetes-preserve-unknown-fields"),
        (embedded, "x-kubernetes-embedded-resource"),
    ] {
        if either && flag {
            let why = "must be false if x-kubernetes-int-or-string is true";
            errors.push(Error::invalid(&path.child(name), true, why));
        }
    }
    let either_of = json!([{"type": "integer"}, {"type": "string"}]);
    let skip_any = *schema.at("anyOf") == either_of;
    let skip_first = schema
        .list("allOf")
        .first()
        .is_some_and(|first| *first.at("anyOf") == either_of);
    value_validation(schema, skip_any, skip_first, path, errors);
    let is_resource = level == Level::Root || embedded;
    let at_type = path.child("type");
    if embedded && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match kind {
            "" => Error::required(&at_type, why),
            kind => Error::invalid(&at_type, kind, why),
        });
    } else if kind.is_empty() && !either && !preserves {
        let what = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(&at_type, what));
    }
    if embedded && !additional.is_null() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(Error::forbidden(&path.child("additionalProperties"), why));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(Error::invalid(&at_type, kind, "must be object at the root"));
    }
    let properties = schema.at("properties");
    for name in ["kind", "apiVersion"] {
        if let Some(own) = properties.get(name).filter(|_| is_resource)
            && own.text("type") != "string"
        {
            let path = path.child("properties").key(name).child("type");
            errors.push(Error::invalid(&path, own.text("type"), "must be string"));
        }
    }
    if let Some(metadata) = properties.get("metadata") {
        self::metadata(
            metadata,
            is_resource,
            level,
            &path.child("properties").key("metadata"),
            errors,
        );
    }
    if embedded && !preserves && properties.as_object().is_none_or(api::Map::is_empty) {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(Error::required(&path.child("properties"), why));
    }
}

fn metadata(schema: &Value, is_resource: bool, level: Level, path: &Path, errors: &mut ErrorList) {
    if is_resource && schema.text("type") != "object" {
        let kind = schema.text("type");
        errors.push(Error::invalid(&path.child("type"), kind, "must be object"));
    }
    if level != Level::Root {
        return;
    }
    let names: Vec<&str> = schema.entries("properties").map(|(name, _)| name).collect();
    let only_names = !names.is_empty() && names.iter().all(|name| matches!(*name, "name" | "generateName"));
    let says_more = schema.entries("").any(|(field, value)| match field {
        "type" | "default" => false,
        "properties" => !only_names && !names.is_empty(),
        _ => !value.is_null() && *value != Value::Bool(false) && *value != json!([]),
    });
    if says_more {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(Error::forbidden(path, why));
    }
}

fn value_validation(schema: &Value, skip_any: bool, skip_first: bool, path: &Path, errors: &mut ErrorList) {
    if !skip_any {
        for (index, nested) in schema.list("anyOf").iter().enumerate() {
            self::nested(nested, false, &path.child("anyOf").index(index), errors);
        }
    }
    for (index, nested) in schema.list("allOf").iter().enumerate() {
        let skip = skip_first && index == 0;
        self::nested(nested, skip, &path.child("allOf").index(index), errors);
    }
    for (index, nested) in schema.list("oneOf").iter().enumerate() {
        self::nested(nested, false, &path.child("oneOf").index(index), errors);
    }
    if schema.at("not").is_object() {
        self::nested(schema.at("not"), false, &path.child("not"), errors);
    }
    let pattern = schema.text("pattern");
    if !pattern.is_empty()
        && let Err(error) = regex::Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(Error::invalid(&path.child("pattern"), pattern, why));
    }
}

/// What stands under a junctor only restricts values.
fn nested(schema: &Value, skip_any: bool, path: &Path, errors: &mut ErrorList) {
    value_validation(schema, skip_any, false, path, errors);
    if schema.at("items").is_object() {
        nested(schema.at("items"), false, &path.child("items"), errors);
    }
    for (name, property) in schema.entries("properties") {
        nested(property, false, &path.child("properties").key(name), errors);
    }
    let mut forbid = |name: &str, is_set: bool, why: &str| {
        if is_set {
            errors.push(Error::forbidden(
                &path.child(name),
                format!("must be {why} to be structural"),
            ));
        }
    };
    forbid("type", !schema.text("type").is_empty(), "empty");
    forbid("additionalProperties", schema.has("additionalProperties"), "undefined");
    forbid("default", schema.has("default"), "undefined");
    forbid("title", !schema.text("title").is_empty(), "empty");
    forbid("description", !schema.text("description").is_empty(), "empty");
    for flag in [
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        forbid(flag, schema.flag(flag), "false");
    }
    let keys = "x-kubernetes-list-map-keys";
    forbid(keys, !schema.list(keys).is_empty(), "empty");
    for kind in ["x-kubernetes-list-type", "x-kubernetes-map-type"] {
        forbid(kind, schema.has(kind), "undefined");
    }
    let rules = "x-kubernetes-validations";
    forbid(rules, !schema.list(rules).is_empty(), "empty");
    if schema.at("properties").get("metadata").is_some() {
        let path = path.child("properties").key("metadata");
        errors.push(Error::forbidden(&path, "must not be specified in a nested context"));
    }
}

/// Every field that value validation names is there outside of it.
fn complete(validation: &Value, schema: Option<&Value>, path: &Path, told: &Path, errors: &mut ErrorList) {
    let mut junctors: Vec<(&Value, Path)> = Vec::new();
    if validation.at("not").is_object() {
        junctors.push((validation.at("not"), told.child("not")));
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, nested) in validation.list(name).iter().enumerate() {
            junctors.push((nested, told.child(name).index(index)));
        }
    }
    for (nested, told) in junctors {
        complete_nested(nested, schema, path, &told, errors);
    }
}

fn complete_nested(nested: &Value, schema: Option<&Value>, path: &Path, told: &Path, errors: &mut ErrorList) {
    let Some(schema) = schema else {
        errors.push(Error::required(path, format!("because it is defined in {told}")));
        return;
    };
    complete(nested, Some(schema), path, told, errors);
    if nested.at("items").is_object() {
        let own = Some(schema.at("items")).filter(|items| items.is_object());
        complete_nested(
            nested.at("items"),
            own,
            &path.child("items"),
            &told.child("items"),
            errors,
        );
    }
    for (name, property) in nested.entries("properties") {
        let own = schema.at("properties").get(name);
        let at = |path: &Path| path.child("properties").key(name);
        complete_nested(property, own, &at(path), &at(told), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structural_schemas_name_every_type() {
        for (schema, expect) in [
            (
                json!({"type": "object", "properties": {"a": {"type": "string"}}}),
                vec![],
            ),
            (
                json!({"properties": {"a": {}}}),
                vec![
                    "s.properties[a].type: Required value: must not be empty for specified object fields",
                    "s.type: Required value: must not be empty at the root",
                ],
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                vec!["s.properties[a].items: Required value: must be specified"],
            ),
            (
                json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true,
                    "anyOf": [{"type": "integer"}, {"type": "string"}]}}}),
                vec![],
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"b": {"type": "string"}}}]}),
                vec![
                    "s.anyOf[0].properties[b].type: Forbidden: must be empty to be structural",
                    "s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]",
                ],
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
                vec![
                    "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
                ],
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}}}}),
                vec![],
            ),
        ] {
            let texts: Vec<String> = validate(&schema, &Path::new("s"))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(texts, expect, "{schema}");
        }
    }
}
