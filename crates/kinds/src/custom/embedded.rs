//! Whole objects inside of custom resources (`x-kubernetes-embedded-resource`) have a type and good metadata.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/schema/objectmeta/validation.go`.

use api::field::{Error, ErrorList, Path};
use api::validation::{dns1035_label, object_meta, path_segment_name, path_segment_prefix};
use api::{Value, meta};

use crate::view::{Edit, View};

/// What is wrong with the objects inside. The root is an object of its own only when `is_resource`.
pub fn validate(value: &Value, schema: &Value, path: Option<&Path>, is_resource: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = path.cloned().unwrap_or_default();
    walk(value, schema, &path, is_resource, &mut errors);
    errors
}

fn walk(value: &Value, schema: &Value, path: &Path, is_resource: bool, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            if is_resource || schema.flag("x-kubernetes-embedded-resource") {
                resource(value, path, errors);
            }
            let additional = schema.at("additionalProperties");
            for (name, value) in map {
                match schema.at("properties").get(name) {
                    Some(property) => walk(value, property, &path.child(name), false, errors),
                    None if additional.is_object() => walk(value, additional, &path.key(name), false, errors),
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            let of_items = schema.at("items");
            if of_items.is_object() {
                for (index, item) in items.iter().enumerate() {
                    walk(item, of_items, &path.index(index), false, errors);
                }
            }
        }
        _ => {}
    }
}

fn resource(value: &Value, path: &Path, errors: &mut ErrorList) {
    for name in ["apiVersion", "kind"] {
        let path = path.child(name);
        let Some(found) = value.get(name) else {
            errors.push(Error::required(&path, ""));
            continue;
        };
        let Some(text) = found.as_str() else {
            errors.push(Error::invalid(&path, found.clone(), "must be a string"));
            continue;
        };
        if text.is_empty() {
            errors.push(Error::invalid(&path, text, "must not be empty"));
        } else if name == "apiVersion" && text.matches('/').count() > 1 {
            errors.push(Error::invalid(
                &path,
                text,
                format!("unexpected GroupVersion string: {text}"),
            ));
        } else if name == "kind" {
            let wrong = dns1035_label(&text.to_lowercase());
            if !wrong.is_empty() {
                let rule = wrong.join(",");
                let detail = format!("may have mixed case, but should otherwise match: {rule}");
                errors.push(Error::invalid(&path, text, detail));
            }
        }
    }
    if let Some(metadata) = value.get("metadata").filter(|metadata| metadata.is_object()) {
        let mut metadata = metadata.clone();
        if metadata.text("name").is_empty() {
            // A template has no name; the rules ask for one.
            metadata.put("name", "fakename");
        }
        let namespaced = !meta::namespace(value).is_empty();
        errors.extend(object_meta(&metadata, namespaced, segment, &path.child("metadata")));
    }
}

fn segment(name: &str, prefix: bool) -> Vec<String> {
    match prefix {
        true => path_segment_prefix(name),
        false => path_segment_name(name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_inside_have_a_type() {
        let schema = json!({"type": "object", "properties": {"template": {"type": "object",
            "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}});
        for (template, expect) in [
            (
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}}}),
                vec![],
            ),
            (json!({"apiVersion": "v1"}), vec!["template.kind: Required value"]),
            (
                json!({"apiVersion": "", "kind": "Pod"}),
                vec![r#"template.apiVersion: Invalid value: "": must not be empty"#],
            ),
        ] {
            let value = json!({"template": template});
            let texts: Vec<String> = validate(&value, &schema, None, false)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(texts, expect, "{value}");
        }
    }
}
