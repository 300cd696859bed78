//! From a tree in normal form to bytes.

use base64::Engine as _;

use super::EncodeError;
use crate::codec::json;
use crate::codec::time::{Moment, Precision};
use crate::normalize::BASE64;
use crate::schema::{Field, Node, Scalar, Shape, WireStep};
use crate::{Map, Value};

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

static NOTHING: Value = Value::Null;

/// A `runtime.Unknown` with the object inside.
pub(super) fn envelope(out: &mut Vec<u8>, value: &Value, node: Node<'_>) -> Result<(), EncodeError> {
    let word = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("");
    nested(out, 1, |out| {
        bytes(out, 1, word("apiVersion").as_bytes());
        bytes(out, 2, word("kind").as_bytes());
        Ok(())
    })?;
    nested(out, 2, |out| object(out, value, node))?;
    // Content encoding and type are always written, and always empty.
    bytes(out, 3, b"");
    bytes(out, 4, b"");
    Ok(())
}

/// The message of an object type. Null stands for an empty object.
pub(super) fn object(out: &mut Vec<u8>, value: &Value, node: Node<'_>) -> Result<(), EncodeError> {
    static EMPTY: std::sync::LazyLock<Map> = std::sync::LazyLock::new(Map::new);
    let map = match value {
        Value::Object(map) => map,
        Value::Null => &*EMPTY,
        _ => return Err(EncodeError::WrongValue(node.name().into())),
    };
    let Some(steps) = node.graph().wire(node.id()) else {
        return Err(EncodeError::NoMessage(node.go_type()));
    };
    message(out, map, node, steps)
}

fn message(out: &mut Vec<u8>, map: &Map, node: Node<'_>, steps: &[WireStep]) -> Result<(), EncodeError> {
    for step in steps {
        match *step {
            WireStep::Inline { tag, start, len } => {
                let inner = node.graph().wire_in(start, len);
                nested(out, tag, |out| message(out, map, node, inner))?;
            }
            WireStep::Field { tag, field } => {
                let field = node.graph().field_of(node.id(), field);
                let value = map.get(field.name()).unwrap_or(&NOTHING);
                write_field(out, tag, value, field)?;
            }
        }
    }
    Ok(())
}

fn write_field(out: &mut Vec<u8>, tag: u16, value: &Value, field: Field<'_>) -> Result<(), EncodeError> {
    let node = field.schema();
    let wrong = || EncodeError::WrongValue(field.name().into());
    if value.is_null() && field.is_pointer() {
        return Ok(());
    }
    match (node.shape(), value) {
        (Shape::List { .. } | Shape::Map { .. } | Shape::Scalar(Scalar::Bytes), Value::Null) => Ok(()),
        (Shape::List { item, .. }, Value::Array(items)) if field.data().wrapped => {
            wrapped_list(out, tag, items, item, field)
        }
        (Shape::List { item, .. }, Value::Array(items)) => items
            .iter()
            .try_for_each(|element| write_value(out, tag, element, item, field)),
        (Shape::Map { value: of }, Value::Object(entries)) => {
            for (key, element) in entries {
                nested(out, tag, |out| {
                    bytes(out, 1, key.as_bytes());
                    match (of.shape(), element) {
                        (Shape::List { .. }, Value::Null) => Ok(()),
                        (Shape::List { item, .. }, Value::Array(items)) => wrapped_list(out, 2, items, item, field),
                        _ => write_value(out, 2, element, of, field),
                    }
                })?;
            }
            Ok(())
        }
        (Shape::List { .. } | Shape::Map { .. }, _) => Err(wrong()),
        _ => write_value(out, tag, value, node, field),
    }
}

fn wrapped_list(
    out: &mut Vec<u8>,
    tag: u16,
    items: &[Value],
    item: Node<'_>,
    field: Field<'_>,
) -> Result<(), EncodeError> {
    nested(out, tag, |out| {
        items
            .iter()
            .try_for_each(|element| write_value(out, 1, element, item, field))
    })
}

/// One value that is neither list nor map; null is the zero value.
fn write_value(
    out: &mut Vec<u8>,
    tag: u16,
    value: &Value,
    node: Node<'_>,
    field: Field<'_>,
) -> Result<(), EncodeError> {
    let wrong = || EncodeError::WrongValue(field.name().into());
    let scalar = match node.shape() {
        Shape::Object(_) => return nested(out, tag, |out| object(out, value, node)),
        Shape::Scalar(scalar) => scalar,
        Shape::Map { .. } | Shape::List { .. } => return Err(wrong()),
    };
    match (scalar, value) {
        (Scalar::String, Value::String(text)) => bytes(out, tag, text.as_bytes()),
        (Scalar::String | Scalar::Bytes, Value::Null) => bytes(out, tag, b""),
        (Scalar::Bytes, Value::String(text)) => {
            let raw = BASE64.decode(text).map_err(|_| wrong())?;
            bytes(out, tag, &raw);
        }
        (Scalar::Bool, Value::Bool(flag)) => number(out, tag, u64::from(*flag)),
        (Scalar::Bool | Scalar::Int32 | Scalar::Int64, Value::Null) => number(out, tag, 0),
        // Negative numbers take ten bytes, 32 bit ones too.
        (Scalar::Int32 | Scalar::Int64, _) => number(out, tag, value.as_i64().ok_or_else(wrong)? as u64),
        (Scalar::Double, _) => {
            let float = if value.is_null() {
                0.0
            } else {
                value.as_f64().ok_or_else(wrong)?
            };
            varint(out, u64::from(tag) << 3 | FIXED64);
            out.extend_from_slice(&float.to_bits().to_le_bytes());
        }
        (Scalar::String | Scalar::Bytes | Scalar::Bool, _) => return Err(wrong()),
        _ => return nested(out, tag, |out| special(out, value, scalar, node, field)),
    }
    Ok(())
}

/// Types that have a message of their own and another form in JSON.
fn special(
    out: &mut Vec<u8>,
    value: &Value,
    scalar: Scalar,
    node: Node<'_>,
    field: Field<'_>,
) -> Result<(), EncodeError> {
    let wrong = || EncodeError::WrongValue(field.name().into());
    let props = || Node::new(node.graph(), node.graph().inner(node.id()));
    match (scalar, value) {
        (Scalar::Time | Scalar::MicroTime | Scalar::Any | Scalar::FieldsV1 | Scalar::RawObject, Value::Null) => {}
        (Scalar::SchemaOrArray | Scalar::SchemaOrStrings, Value::Null) => {}
        (Scalar::Time | Scalar::MicroTime, Value::String(text)) => {
            let precision = if scalar == Scalar::Time {
                Precision::Seconds
            } else {
                Precision::Micros
            };
            let moment = Moment::parse(text, precision).map_err(|_| wrong())?;
            let nanos = if scalar == Scalar::Time {
                0
            } else {
                moment.nanos / 1000 * 1000
            };
            number(out, 1, moment.seconds as u64);
            number(out, 2, u64::from(nanos));
        }
        (Scalar::Quantity, Value::Null) => bytes(out, 1, b"0"),
        (Scalar::Quantity, Value::String(text)) => bytes(out, 1, text.as_bytes()),
        (Scalar::IntOrString, Value::String(text)) => {
            number(out, 1, 1);
            number(out, 2, 0);
            bytes(out, 3, text.as_bytes());
        }
        (Scalar::IntOrString, _) => {
            let int = if value.is_null() {
                0
            } else {
                value.as_i64().ok_or_else(wrong)?
            };
            number(out, 1, 0);
            number(out, 2, int as u64);
            bytes(out, 3, b"");
        }
        (Scalar::Any | Scalar::FieldsV1 | Scalar::RawObject, _) => bytes(out, 1, &json::encode(value)),
        (Scalar::SchemaOrBool, Value::Bool(flag)) => number(out, 1, u64::from(*flag)),
        (Scalar::SchemaOrBool, Value::Null) => number(out, 1, 0),
        (Scalar::SchemaOrBool, Value::Object(_)) => {
            number(out, 1, 1);
            nested(out, 2, |out| object(out, value, props()))?;
        }
        (Scalar::SchemaOrArray | Scalar::SchemaOrStrings, Value::Object(_)) => {
            nested(out, 1, |out| object(out, value, props()))?;
        }
        (Scalar::SchemaOrArray, Value::Array(items)) => {
            for item in items {
                nested(out, 2, |out| object(out, item, props()))?;
            }
        }
        (Scalar::SchemaOrStrings, Value::Array(items)) => {
            for item in items {
                bytes(out, 2, item.as_str().ok_or_else(wrong)?.as_bytes());
            }
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// A message inside: its length stands before it and is known after it.
fn nested(
    out: &mut Vec<u8>,
    tag: u16,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    varint(out, u64::from(tag) << 3 | BYTES);
    let start = out.len();
    out.push(0);
    write(out)?;
    let len = (out.len() - start - 1) as u64;
    if len < 0x80 {
        out[start] = len as u8;
    } else {
        let mut prefix = Vec::with_capacity(5);
        varint(&mut prefix, len);
        out.splice(start..=start, prefix);
    }
    Ok(())
}

pub(super) fn bytes(out: &mut Vec<u8>, tag: u16, bytes: &[u8]) {
    varint(out, u64::from(tag) << 3 | BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, tag: u16, number: u64) {
    varint(out, u64::from(tag) << 3 | VARINT);
    varint(out, number);
}

pub(super) fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
