//! For tests of every crate: objects made from the schema, the same ones each time: full, sparse, explicit zeros,
//! explicit nulls.

use serde_json::json;

use crate::schema::{Node, Scalar, Shape};
use crate::{GroupVersionKind, Map, Value};

/// How an object is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Every field, two elements a list and map, in normal form already.
    Full,
    /// Every third field, picked by its path.
    Sparse,
    /// Every field that is no pointer holds its zero value.
    Zeros,
    /// Pointers to scalars hold zero, the others are there; everything else is absent.
    Pointers,
    /// Every field is null.
    Nulls,
}

/// All of them.
pub const FILLS: [Fill; 5] = [Fill::Full, Fill::Sparse, Fill::Zeros, Fill::Pointers, Fill::Nulls];

/// How often a type may stand inside itself (`JSONSchemaProps`).
const RECURSION_MAX: usize = 2;

/// An object of a kind whose schema is `node`.
pub fn object(gvk: &GroupVersionKind, node: Node<'_>, fill: Fill) -> Value {
    let mut generator = Generator {
        fill,
        inside: Vec::new(),
    };
    let mut value = generator.value(node, "", 0);
    let map = value.as_object_mut().expect("invariant: a kind is an object");
    let version = match &*gvk.group {
        "" => gvk.version.clone(),
        group => format!("{group}/{}", gvk.version),
    };
    if node.field("kind").is_some() {
        map.insert("apiVersion".into(), version.into());
        map.insert("kind".into(), gvk.kind.clone().into());
    }
    value
}

struct Generator {
    fill: Fill,
    inside: Vec<String>,
}

/// FNV-1a: spreads paths without a dependency.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Generator {
    fn value(&mut self, node: Node<'_>, path: &str, seed: u64) -> Value {
        match node.shape() {
            Shape::Object(fields) => {
                let depth = self.inside.iter().filter(|name| *name == node.name()).count();
                let mut map = Map::new();
                if depth < RECURSION_MAX {
                    self.inside.push(node.name().into());
                    for field in fields.iter() {
                        let path = format!("{path}.{}", field.name());
                        if let Some(value) = self.field(field, &path) {
                            map.insert(field.name().into(), value);
                        }
                    }
                    self.inside.pop();
                }
                Value::Object(map)
            }
            Shape::Map { value } => {
                let element = |generator: &mut Self, key: &str| {
                    let value = generator.value(value, &format!("{path}.{key}"), hash(key));
                    (format!("{key}.example.com/x"), value)
                };
                Value::Object(Map::from_iter([element(self, "a"), element(self, "b")]))
            }
            Shape::List { item, .. } => Value::Array((0..2).map(|seed| self.value(item, path, seed)).collect()),
            Shape::Scalar(scalar) => self.scalar(scalar, hash(path).wrapping_add(seed)),
        }
    }

    fn field(&mut self, field: crate::schema::Field<'_>, path: &str) -> Option<Value> {
        let node = field.schema();
        let is_struct = matches!(node.shape(), Shape::Object(_));
        // Only the envelope carries these; of objects inside others they are lost in upstream's storage too.
        if field.tag() == 0 && matches!(field.name(), "apiVersion" | "kind") {
            return None;
        }
        match self.fill {
            Fill::Full => Some(self.value(node, path, 0)),
            Fill::Sparse if hash(path).is_multiple_of(3) => Some(self.value(node, path, 0)),
            Fill::Sparse => None,
            Fill::Nulls => Some(Value::Null),
            Fill::Zeros if field.is_pointer() => None,
            Fill::Zeros if is_struct => Some(self.value(node, path, 0)),
            Fill::Zeros => Some(zero(node)),
            Fill::Pointers if is_struct => Some(self.value(node, path, 0)),
            Fill::Pointers if field.is_pointer() => Some(zero(node)),
            Fill::Pointers => None,
        }
    }

    fn scalar(&mut self, scalar: Scalar, hash: u64) -> Value {
        match scalar {
            Scalar::String => json!(format!("text-{}", hash % 1000)),
            Scalar::Bytes => json!("/wAB"),
            Scalar::Bool => json!(true),
            Scalar::Int32 => json!(i32::MIN + (hash % 1000) as i32),
            Scalar::Int64 => json!(i64::MAX - (hash % 1000) as i64),
            Scalar::Double => json!(0.1 + (hash % 10) as f64),
            Scalar::Quantity => json!(["100m", "2Gi", "1e3", "-5"][(hash % 4) as usize]),
            Scalar::Time => json!(format!("2026-11-21T00:06:{:02}Z", hash % 60)),
            Scalar::MicroTime => json!(format!("2026-11-21T00:06:36.{:06}Z", hash % 1_000_000)),
            Scalar::IntOrString if hash.is_multiple_of(2) => json!(-1),
            Scalar::IntOrString => json!("25%"),
            Scalar::Any => json!({"a": [1, "b", null, 0.5]}),
            Scalar::FieldsV1 => json!({"f:metadata": {".": {}}}),
            Scalar::RawObject => json!({"apiVersion": "example.com/v1", "kind": "Thing", "x": [1]}),
            Scalar::SchemaOrBool if hash.is_multiple_of(2) => json!(true),
            Scalar::SchemaOrBool => json!({"type": "string"}),
            Scalar::SchemaOrArray if hash.is_multiple_of(2) => json!([{"type": "string"}, {"type": "object"}]),
            Scalar::SchemaOrArray => json!({"type": "integer"}),
            Scalar::SchemaOrStrings if hash.is_multiple_of(2) => json!(["a", "b"]),
            Scalar::SchemaOrStrings => json!({"nullable": true}),
        }
    }
}

fn zero(node: Node<'_>) -> Value {
    match node.shape() {
        Shape::Object(_) | Shape::Map { .. } => json!({}),
        Shape::List { .. } => json!([]),
        Shape::Scalar(scalar) => match scalar {
            Scalar::String => json!(""),
            // No bytes; empty ones are a value of their own where they are not omitted.
            Scalar::Bytes => Value::Null,
            Scalar::Bool | Scalar::SchemaOrBool => json!(false),
            Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString => json!(0),
            Scalar::Quantity => json!("0"),
            Scalar::Time | Scalar::MicroTime => Value::Null,
            Scalar::Any | Scalar::FieldsV1 | Scalar::RawObject => Value::Null,
            Scalar::SchemaOrArray | Scalar::SchemaOrStrings => json!({}),
        },
    }
}
