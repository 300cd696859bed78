//! The one normal form of an object: what upstream's Go types would write for the same input.
//!
//! [`normalize`] is pure and idempotent and runs after every decode, patch and mutation. It drops (and reports)
//! unknown fields, leaves out what Go omits, writes what Go always writes, and gives every scalar its one spelling.
//! Wrong types are answered in the words of upstream's JSON decoder (`sigs.k8s.io/json`, a fork of Go's).
//!
//! A list without `omitempty` that is empty becomes null, because that is what upstream serves after the object went
//! through protobuf into etcd and back.
//!
//! Values of custom resources keep their types: there a wrong type is for validation against the schema to tell.

mod scalar;

pub(crate) use scalar::{BASE64, number_of};

use crate::codec::{DecodeError, DecodeErrorKind};
use crate::schema::{Absent, Field, Fields, Node, Scalar, SchemaRef, Shape};
use crate::{Map, Value};

/// What to do with fields that the schema does not know. They are dropped either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Say nothing.
    Ignore,
    /// Tell their paths (`fieldValidation` `Warn` and `Strict`).
    Report,
}

/// The path of a field that the schema does not know. Printed as upstream prints it: `unknown field "spec.foo"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// Its path: `spec.containers[0].foo`.
    pub path: String,
}

impl std::fmt::Display for UnknownField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unknown field {}", crate::field::quote(&self.path))
    }
}

/// Brings a tree into normal form and returns the unknown fields that were dropped, in the order of their paths.
///
/// On an error the tree is left half done and has to be thrown away.
pub fn normalize(
    value: &mut Value,
    schema: &SchemaRef,
    unknown: UnknownFields,
) -> Result<Vec<UnknownField>, DecodeError> {
    tracing::trace!(target: "walk", "brought into normal form");
    normalize_node(value, schema.node(), unknown)
}

/// As [`normalize`], for a type that is at hand as a node.
pub fn normalize_node(
    value: &mut Value,
    node: Node<'_>,
    unknown: UnknownFields,
) -> Result<Vec<UnknownField>, DecodeError> {
    let mut pass = Pass {
        report: unknown == UnknownFields::Report,
        unknown: Vec::new(),
    };
    if value.is_null() {
        *value = zero(node);
    }
    pass.value(value, node, &At::ROOT)?;
    Ok(pass.unknown)
}

/// Go's zero value of a type in normal form: `""`, `0`, `{"metadata":{}}`.
pub fn zero(node: Node<'_>) -> Value {
    match node.shape() {
        Shape::Object(fields) => {
            let mut map = Map::new();
            insert_missing(&mut map, fields);
            Value::Object(map)
        }
        Shape::Scalar(Scalar::String | Scalar::Bytes) => Value::String(String::new()),
        Shape::Scalar(Scalar::Quantity) => Value::String("0".into()),
        Shape::Scalar(Scalar::Bool | Scalar::SchemaOrBool) => Value::Bool(false),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString) => Value::from(0),
        Shape::Map { .. } | Shape::List { .. } | Shape::Scalar(_) => Value::Null,
    }
}

fn insert_missing(map: &mut Map, fields: Fields<'_>) {
    for field in fields.iter() {
        let absent = field.data().absent;
        if absent == Absent::Leave || map.contains_key(field.name()) {
            continue;
        }
        let value = match absent {
            Absent::Zero => zero(field.schema()),
            Absent::Leave | Absent::Null => Value::Null,
        };
        map.insert(field.name().into(), value);
    }
}

/// The way to the value at hand, as a list on the stack: it costs nothing until an error is told.
struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Root,
    /// A field of an object of this type.
    Field(&'a str, Node<'a>),
    Key(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    const ROOT: At<'static> = At {
        parent: None,
        step: Step::Root,
    };

    fn then(&'a self, step: Step<'a>) -> At<'a> {
        At {
            parent: Some(self),
            step,
        }
    }

    fn steps(&self) -> Vec<&At<'a>> {
        let mut steps = Vec::new();
        let mut at = Some(self);
        while let Some(here) = at {
            steps.push(here);
            at = here.parent;
        }
        steps.reverse();
        steps
    }

    /// `spec.containers[0].foo`, as strict field validation prints paths.
    fn path(&self) -> String {
        let mut path = String::new();
        for at in self.steps() {
            match at.step {
                Step::Root => {}
                Step::Field(name, _) | Step::Key(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    /// Go's error for a value of another type: the innermost struct's name, and the names of all fields on the way.
    fn type_error(&self, found: &str, go_type: &str) -> DecodeError {
        let mut owner = None;
        let mut fields: Vec<&str> = Vec::new();
        for at in self.steps() {
            if let Step::Field(name, node) = at.step {
                fields.push(name);
                owner = Some(node);
            }
        }
        let message = match owner {
            None => format!("json: cannot unmarshal {found} into Go value of type {go_type}"),
            Some(owner) => {
                let owner = owner.name().rsplit('.').next().unwrap_or("");
                let path = fields.join(".");
                format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {go_type}")
            }
        };
        DecodeError::new(DecodeErrorKind::Type, message)
    }
}

struct Pass {
    report: bool,
    unknown: Vec<UnknownField>,
}

impl Pass {
    fn value(&mut self, value: &mut Value, node: Node<'_>, at: &At<'_>) -> Result<(), DecodeError> {
        match node.shape() {
            Shape::Scalar(scalar) => self.scalar(value, scalar, node, at),
            Shape::Object(fields) => match value {
                Value::Object(map) => self.object(map, node, fields, at),
                other => wrong_type(other, node, at),
            },
            Shape::Map { value: of } => match value {
                Value::Object(map) => {
                    for (key, element) in map {
                        self.element(element, of, &at.then(Step::Key(key)))?;
                    }
                    Ok(())
                }
                other => wrong_type(other, node, at),
            },
            Shape::List { item, .. } => match value {
                Value::Array(items) => {
                    for (index, element) in items.iter_mut().enumerate() {
                        self.element(element, item, &at.then(Step::Index(index)))?;
                    }
                    Ok(())
                }
                other => wrong_type(other, node, at),
            },
        }
    }

    fn object(&mut self, map: &mut Map, node: Node<'_>, fields: Fields<'_>, at: &At<'_>) -> Result<(), DecodeError> {
        let keep_unknown = node.preserves_unknown();
        // Nearly always none: an object is in normal form already, or its client is a program of Kubernetes' own types.
        let mut dropped: Vec<String> = Vec::new();
        let mut known = fields.in_order();
        for (name, value) in map.iter_mut() {
            let keep = match known.find(name) {
                Some(field) => self.field(value, field, &at.then(Step::Field(name, node)))?,
                None => {
                    if self.report && !keep_unknown {
                        let path = at.then(Step::Key(name)).path();
                        self.unknown.push(UnknownField { path });
                    }
                    keep_unknown
                }
            };
            if !keep {
                dropped.push(name.clone());
            }
        }
        for name in dropped {
            map.remove(&name);
        }
        insert_missing(map, fields);
        Ok(())
    }

    /// Whether the field stays.
    fn field(&mut self, value: &mut Value, field: Field<'_>, at: &At<'_>) -> Result<bool, DecodeError> {
        let data = field.data();
        let node = field.schema();
        if !value.is_null() {
            self.value(value, node, at)?;
        }
        let is_absent = value.is_null() || (data.drop_zero && is_zero(value));
        if !is_absent || data.omit == crate::schema::Omit::AsGiven {
            return Ok(true);
        }
        match data.absent {
            Absent::Leave => return Ok(false),
            Absent::Null => *value = Value::Null,
            Absent::Zero if value.is_null() => *value = zero(node),
            Absent::Zero => {}
        }
        Ok(true)
    }

    /// An element of a list or map, where null is the zero value.
    fn element(&mut self, value: &mut Value, node: Node<'_>, at: &At<'_>) -> Result<(), DecodeError> {
        if value.is_null() {
            if node.is_builtin() {
                *value = zero(node);
            }
            return Ok(());
        }
        self.value(value, node, at)?;
        // A list that is empty comes back from protobuf as none.
        let is_list = matches!(node.shape(), Shape::List { .. });
        if is_list && node.is_builtin() && value.as_array().is_some_and(Vec::is_empty) {
            *value = Value::Null;
        }
        Ok(())
    }

    fn scalar(&mut self, value: &mut Value, scalar: Scalar, node: Node<'_>, at: &At<'_>) -> Result<(), DecodeError> {
        match scalar {
            Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings => {
                self.schema_or(value, scalar, node, at)
            }
            Scalar::Quantity if matches!(at.step, Step::Key(_)) => scalar::canonical_quantity(value),
            _ if !node.is_builtin() => Ok(()),
            _ => scalar::normalize(value, scalar, |found| at.type_error(found, scalar_go_type(node))),
        }
    }

    /// The three places where a `JSONSchemaProps` shares its place with something simpler.
    fn schema_or(&mut self, value: &mut Value, scalar: Scalar, node: Node<'_>, at: &At<'_>) -> Result<(), DecodeError> {
        let props = Node::new(node.graph(), node.graph().inner(node.id()));
        match (scalar, &mut *value) {
            (_, Value::Object(_)) => self.value(value, props, at),
            (Scalar::SchemaOrBool, Value::Bool(_)) => Ok(()),
            (Scalar::SchemaOrBool, _) => Err(DecodeError::format("boolean or JSON schema expected")),
            (Scalar::SchemaOrArray, Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.element(item, props, &at.then(Step::Index(index)))?;
                }
                Ok(())
            }
            (Scalar::SchemaOrStrings, Value::Array(items)) => {
                for item in items {
                    match item {
                        Value::String(_) => {}
                        Value::Null => *item = Value::String(String::new()),
                        other => {
                            let found = scalar::describe(other);
                            return Err(At::ROOT.type_error(&found, "string"));
                        }
                    }
                }
                Ok(())
            }
            // Go's decoders of these two look at the first byte only and take anything else for nothing.
            _ => {
                *value = Value::Null;
                Ok(())
            }
        }
    }
}

fn scalar_go_type(node: Node<'_>) -> &'static str {
    match node.shape() {
        Shape::Scalar(scalar) => scalar.go_type(),
        _ => unreachable!("invariant: asked for scalars only"),
    }
}

fn wrong_type(value: &Value, node: Node<'_>, at: &At<'_>) -> Result<(), DecodeError> {
    if !node.is_builtin() {
        return Ok(());
    }
    // Where Go expects a struct, a list or a map, a number is told without its digits.
    let found = match value {
        Value::Number(_) => "number".into(),
        other => scalar::describe(other),
    };
    Err(at.type_error(&found, &node.go_type()))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests;
