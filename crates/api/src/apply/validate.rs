//! Whether a value has the shape of its type: what upstream checks before it merges.
//!
//! Source of the texts: `sigs.k8s.io/structured-merge-diff/typed/validate.go`. People see them as
//! `failed to create typed patch object (...): .spec.foo: field not declared in schema`.

use std::collections::BTreeSet;
use std::fmt;

use super::element::PathElement;
use super::types::{Atom, ListOf, MapType, ScalarKind, Type};
use crate::Value;
use crate::field::{go_type, quote};
use crate::patch::go_value;

/// All that is wrong, each with its path; upstream's text of one or several errors.
pub(super) fn validate(value: &Value, ty: Type<'_>, allow_duplicates: bool) -> Result<(), String> {
    let mut walk = Walk {
        allow_duplicates,
        errors: Vec::new(),
    };
    walk.value(value, ty, &At::Root);
    match &walk.errors[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

/// Where the walk is; put into words only for an error.
enum At<'a> {
    Root,
    Field(&'a At<'a>, &'a str),
    Element(&'a At<'a>, &'a PathElement),
    Index(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Field(parent, name) => write!(f, "{parent}.{name}"),
            At::Element(parent, element) => write!(f, "{parent}{element}"),
            At::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

struct Walk {
    allow_duplicates: bool,
    errors: Vec<String>,
}

impl Walk {
    fn error(&mut self, at: &At<'_>, message: impl fmt::Display) {
        self.errors.push(match at {
            At::Root => message.to_string(),
            at => format!("{at}: {message}"),
        });
    }

    fn value(&mut self, value: &Value, ty: Type<'_>, at: &At<'_>) {
        match (ty.atom(Some(value)), value) {
            (_, Value::Null) => {}
            (Atom::Map(map), _) => self.map(value, map, at),
            (Atom::List(list), _) => self.list(value, list, at),
            (Atom::Scalar(kind), _) => self.scalar(value, kind, at),
        }
    }

    fn map(&mut self, value: &Value, ty: MapType<'_>, at: &At<'_>) {
        let Value::Object(map) = value else {
            return self.error(at, format!("expected map, got &{{{}}}", go_value(value)));
        };
        let mut children = ty.children();
        for (key, value) in map {
            let at = At::Field(at, key);
            match children.of(key) {
                Some(child) => self.value(value, child, &at),
                // Upstream stops at the first unknown field of an object.
                None => return self.error(&at, "field not declared in schema"),
            }
        }
    }

    fn list(&mut self, value: &Value, ty: ListOf<'_>, at: &At<'_>) {
        let Value::Array(items) = value else {
            return self.error(at, format!("expected list, got &{{{}}}", go_value(value)));
        };
        let mut seen: BTreeSet<PathElement> = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            if ty.is_atomic() {
                self.value(item, ty.item(), &At::Index(at, index));
                continue;
            }
            let element = match ty.element(item) {
                Ok(element) => element,
                Err(why) => return self.error(at, format!("element {index}: {why}")),
            };
            if !self.allow_duplicates && seen.contains(&element) {
                self.error(at, format!("duplicate entries for key {element}"));
            }
            self.value(item, ty.item(), &At::Element(at, &element));
            if !self.allow_duplicates {
                seen.insert(element);
            }
        }
    }

    fn scalar(&mut self, value: &Value, kind: ScalarKind, at: &At<'_>) {
        let fits = match kind {
            ScalarKind::Numeric => value.is_number(),
            ScalarKind::String => value.is_string(),
            ScalarKind::Boolean => value.is_boolean(),
            ScalarKind::Untyped => value.is_number() || value.is_string() || value.is_boolean(),
        };
        if fits {
            return;
        }
        let message = match kind {
            ScalarKind::Numeric => format!("expected numeric (int or float), got {}", go_type(value)),
            ScalarKind::String => {
                format!(
                    "expected string, got &value.valueUnstructured{{Value:{}}}",
                    go_syntax(value)
                )
            }
            ScalarKind::Boolean => format!("expected boolean, got &{{{}}}", go_value(value)),
            ScalarKind::Untyped => format!("expected any scalar, got &{{{}}}", go_value(value)),
        };
        self.error(at, message);
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
