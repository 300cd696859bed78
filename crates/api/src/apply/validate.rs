//! Whether a value has the shape of its type: what upstream checks before it merges.
//!
//! Source of the texts: `sigs.k8s.io/structured-merge-diff/typed/validate.go`. People see them as
//! `failed to create typed patch object (...): .spec.foo: field not declared in schema`.

use super::element::PathElement;
use super::types::{Atom, ListOf, MapType, ScalarKind, Type};
use crate::Value;
use crate::field::quote;

/// All that is wrong, each with its path; upstream's text of one or several errors.
pub(super) fn validate(value: &Value, ty: Type<'_>, allow_duplicates: bool) -> Result<(), String> {
    let mut walk = Walk {
        allow_duplicates,
        errors: Vec::new(),
    };
    walk.value(value, ty, "");
    match &walk.errors[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Walk {
    allow_duplicates: bool,
    errors: Vec<String>,
}

impl Walk {
    fn error(&mut self, path: &str, message: impl std::fmt::Display) {
        self.errors.push(if path.is_empty() {
            message.to_string()
        } else {
            format!("{path}: {message}")
        });
    }

    fn value(&mut self, value: &Value, ty: Type<'_>, path: &str) {
        match (ty.atom(Some(value)), value) {
            (_, Value::Null) => {}
            (Atom::Map(map), _) => self.map(value, map, path),
            (Atom::List(list), _) => self.list(value, list, path),
            (Atom::Scalar(kind), _) => self.scalar(value, kind, path),
        }
    }

    fn map(&mut self, value: &Value, ty: MapType<'_>, path: &str) {
        let Value::Object(map) = value else {
            return self.error(
                path,
                format!("expected map, got &{{{}}}", crate::patch::go_value(value)),
            );
        };
        for (key, value) in map {
            let path = format!("{path}.{key}");
            match ty.child(key) {
                Some(child) => self.value(value, child, &path),
                // Upstream stops at the first unknown field of an object.
                None => return self.error(&path, "field not declared in schema"),
            }
        }
    }

    fn list(&mut self, value: &Value, ty: ListOf<'_>, path: &str) {
        let Value::Array(items) = value else {
            return self.error(
                path,
                format!("expected list, got &{{{}}}", crate::patch::go_value(value)),
            );
        };
        let mut seen: Vec<PathElement> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let element = if ty.is_atomic() {
                PathElement::Index(index as i64)
            } else {
                match ty.element(item) {
                    Ok(element) => element,
                    Err(why) => return self.error(path, format!("element {index}: {why}")),
                }
            };
            if !ty.is_atomic() && !self.allow_duplicates {
                match seen.binary_search(&element) {
                    Ok(_) => self.error(path, format!("duplicate entries for key {element}")),
                    Err(place) => seen.insert(place, element.clone()),
                }
            }
            self.value(item, ty.item(), &format!("{path}{element}"));
        }
    }

    fn scalar(&mut self, value: &Value, kind: ScalarKind, path: &str) {
        let fits = match kind {
            ScalarKind::Numeric => value.is_number(),
            ScalarKind::String => value.is_string(),
            ScalarKind::Boolean => value.is_boolean(),
            ScalarKind::Untyped => value.is_number() || value.is_string() || value.is_boolean(),
        };
        if fits {
            return;
        }
        let printed = || crate::patch::go_value(value);
        let message = match kind {
            ScalarKind::Numeric => format!("expected numeric (int or float), got {}", go_type(value)),
            ScalarKind::String => {
                format!(
                    "expected string, got &value.valueUnstructured{{Value:{}}}",
                    go_syntax(value)
                )
            }
            ScalarKind::Boolean => format!("expected boolean, got &{{{}}}", printed()),
            ScalarKind::Untyped => format!("expected any scalar, got &{{{}}}", printed()),
        };
        self.error(path, message);
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::String(text) => quote(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{}:{}", quote(k), go_syntax(v)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}
