//! From bytes to a tree.

use base64::Engine as _;

use super::{Envelope, PREFIX};
use crate::codec::time::{Moment, Precision};
use crate::codec::{DEPTH_MAX, DecodeError, Limits, json};
use crate::normalize::BASE64;
use crate::schema::{Field, Node, Scalar, Shape, WireStep};
use crate::{Map, Value};

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const GROUP_START: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// Messages inside messages. Twice what the deepest CRD has; a debug build takes several KiB of stack for each.
pub(super) const MESSAGE_DEPTH_MAX: usize = 128;

/// How deep groups of unknown fields may nest; nothing writes groups.
const GROUP_DEPTH_MAX: usize = 16;

/// Reads a `runtime.Unknown`.
pub(super) fn envelope(message: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let mut envelope = Envelope {
        api_version: String::new(),
        kind: String::new(),
        raw: &[],
    };
    let mut reader = Reader { rest: message };
    while let Some((tag, wire)) = reader.tag()? {
        match tag {
            1 => {
                let mut meta = Reader {
                    rest: reader.bytes_of("TypeMeta", wire)?,
                };
                while let Some((tag, wire)) = meta.tag()? {
                    match tag {
                        1 => envelope.api_version = text(meta.bytes_of("APIVersion", wire)?),
                        2 => envelope.kind = text(meta.bytes_of("Kind", wire)?),
                        _ => meta.skip(wire, 0)?,
                    }
                }
            }
            2 => envelope.raw = reader.bytes_of("Raw", wire)?,
            _ => reader.skip(wire, 0)?,
        }
    }
    Ok(envelope)
}

/// Reads the message of an object type.
pub(super) fn object(bytes: &[u8], node: Node<'_>, depth: usize) -> Result<Value, DecodeError> {
    let mut map = Map::new();
    object_into(bytes, node, &mut map, depth)?;
    Ok(Value::Object(map))
}

fn object_into(bytes: &[u8], node: Node<'_>, map: &mut Map, depth: usize) -> Result<(), DecodeError> {
    let Some(steps) = node.graph().wire(node.id()) else {
        return Err(DecodeError::syntax(
            super::EncodeError::NoMessage(node.go_type()).to_string(),
        ));
    };
    message(bytes, node, steps, map, depth)
}

fn message(bytes: &[u8], node: Node<'_>, steps: &[WireStep], map: &mut Map, depth: usize) -> Result<(), DecodeError> {
    if depth >= MESSAGE_DEPTH_MAX {
        return Err(DecodeError::too_deep());
    }
    let mut reader = Reader { rest: bytes };
    while let Some((tag, wire)) = reader.tag()? {
        let found = steps.binary_search_by_key(&tag, |step| u64::from(step.tag()));
        match found.map(|index| steps[index]) {
            Err(_) => reader.skip(wire, 0)?,
            Ok(WireStep::Inline { start, len, .. }) => {
                let inner = reader.bytes_of("inlined struct", wire)?;
                message(inner, node, node.graph().wire_in(start, len), map, depth + 1)?;
            }
            Ok(WireStep::Field { field, .. }) => {
                let field = node.graph().field_of(node.id(), field);
                set(&mut reader, tag, wire, field, map, depth + 1)?;
            }
        }
    }
    Ok(())
}

/// Reads a field, and what follows of the same field, into the object's map.
fn set(
    reader: &mut Reader<'_>,
    tag: u64,
    wire: u8,
    field: Field<'_>,
    map: &mut Map,
    depth: usize,
) -> Result<(), DecodeError> {
    let name = field.name();
    let node = field.schema();
    match node.shape() {
        Shape::List { item, .. } if field.data().wrapped => {
            let items = wrapped_list(reader.bytes_of(name, wire)?, item, name, depth)?;
            map.insert(name.into(), items);
        }
        Shape::List { item, .. } => {
            let mut items = match map.remove(name) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            loop {
                if wire == BYTES && is_numeric(item) {
                    packed(reader.bytes_of(name, wire)?, item, name, &mut items)?;
                } else {
                    items.push(value(reader, wire, item, name, depth)?);
                }
                if !reader.next_is(tag, wire) {
                    break;
                }
            }
            map.insert(name.into(), Value::Array(items));
        }
        Shape::Map { value: of } => {
            let mut entries = match map.remove(name) {
                Some(Value::Object(entries)) => entries,
                _ => Map::new(),
            };
            loop {
                let entry = reader.bytes_of(name, wire)?;
                let (key, element) = map_entry(entry, of, field.data().wrapped, name, depth)?;
                entries.insert(key, element);
                if !reader.next_is(tag, wire) {
                    break;
                }
            }
            map.insert(name.into(), Value::Object(entries));
        }
        Shape::Object(_) => {
            let bytes = reader.bytes_of(name, wire)?;
            // A message that comes again is merged into the first.
            let mut inner = match map.remove(name) {
                Some(Value::Object(inner)) => inner,
                _ => Map::new(),
            };
            object_into(bytes, node, &mut inner, depth)?;
            map.insert(name.into(), Value::Object(inner));
        }
        Shape::Scalar(_) => {
            let read = value(reader, wire, node, name, depth)?;
            map.insert(name.into(), read);
        }
    }
    Ok(())
}

/// The elements of a packed list.
fn packed(bytes: &[u8], item: Node<'_>, name: &str, items: &mut Vec<Value>) -> Result<(), DecodeError> {
    let is_double = matches!(item.shape(), Shape::Scalar(Scalar::Double));
    let wire = if is_double { FIXED64 } else { VARINT };
    let mut reader = Reader { rest: bytes };
    while !reader.rest.is_empty() {
        items.push(value(&mut reader, wire, item, name, 0)?);
    }
    Ok(())
}

fn is_numeric(node: Node<'_>) -> bool {
    matches!(
        node.shape(),
        Shape::Scalar(Scalar::Bool | Scalar::Int32 | Scalar::Int64 | Scalar::Double)
    )
}

fn map_entry(
    bytes: &[u8],
    of: Node<'_>,
    wrapped: bool,
    name: &str,
    depth: usize,
) -> Result<(String, Value), DecodeError> {
    let mut key = String::new();
    let mut element = None;
    let mut reader = Reader { rest: bytes };
    while let Some((tag, wire)) = reader.tag()? {
        match (tag, of.shape()) {
            (1, _) => key = text(reader.bytes_of(name, wire)?),
            (2, Shape::List { item, .. }) if wrapped => {
                element = Some(wrapped_list(reader.bytes_of(name, wire)?, item, name, depth)?);
            }
            (2, _) => element = Some(value(&mut reader, wire, of, name, depth)?),
            _ => reader.skip(wire, 0)?,
        }
    }
    let element = element.unwrap_or_else(|| crate::normalize::zero(of));
    Ok((key, element))
}

/// A message that holds nothing but a list, so that upstream can tell an empty one from none.
fn wrapped_list(bytes: &[u8], item: Node<'_>, name: &str, depth: usize) -> Result<Value, DecodeError> {
    let mut items = Vec::new();
    let mut reader = Reader { rest: bytes };
    while let Some((tag, wire)) = reader.tag()? {
        match tag {
            1 => items.push(value(&mut reader, wire, item, name, depth)?),
            _ => reader.skip(wire, 0)?,
        }
    }
    Ok(Value::Array(items))
}

/// Reads one value of a type that is neither list nor map.
fn value(reader: &mut Reader<'_>, wire: u8, node: Node<'_>, name: &str, depth: usize) -> Result<Value, DecodeError> {
    let scalar = match node.shape() {
        Shape::Scalar(scalar) => scalar,
        Shape::Object(_) => return object(reader.bytes_of(name, wire)?, node, depth),
        Shape::Map { .. } | Shape::List { .. } => {
            return Err(DecodeError::syntax(format!(
                "proto: {name}: lists of lists have no form"
            )));
        }
    };
    Ok(match scalar {
        Scalar::Bool => Value::Bool(reader.varint_of(name, wire)? != 0),
        // Go truncates.
        Scalar::Int32 => Value::from(reader.varint_of(name, wire)? as i32),
        Scalar::Int64 => Value::from(reader.varint_of(name, wire)? as i64),
        Scalar::Double => {
            let float = f64::from_bits(reader.fixed64_of(name, wire)?);
            if !float.is_finite() {
                return Err(DecodeError::format(format!("json: unsupported value: {float}")));
            }
            crate::normalize::number_of(float)
        }
        Scalar::String => Value::String(text(reader.bytes_of(name, wire)?)),
        Scalar::Bytes => Value::String(BASE64.encode(reader.bytes_of(name, wire)?)),
        _ => special(reader.bytes_of(name, wire)?, scalar, node, name, depth)?,
    })
}

/// Types that have a message of their own and another form in JSON.
fn special(bytes: &[u8], scalar: Scalar, node: Node<'_>, name: &str, depth: usize) -> Result<Value, DecodeError> {
    if depth >= MESSAGE_DEPTH_MAX {
        return Err(DecodeError::too_deep());
    }
    let mut reader = Reader { rest: bytes };
    let (mut numbers, mut texts): ([u64; 3], [Option<&[u8]>; 4]) = ([0; 3], [None; 4]);
    let mut schemas = Vec::new();
    let props = || Node::new(node.graph(), node.graph().inner(node.id()));
    while let Some((tag, wire)) = reader.tag()? {
        match (scalar, tag) {
            (Scalar::Time | Scalar::MicroTime | Scalar::IntOrString, 1 | 2) | (Scalar::SchemaOrBool, 1) => {
                numbers[tag as usize] = reader.varint_of(name, wire)?;
            }
            (Scalar::IntOrString, 3) => texts[3] = Some(reader.bytes_of(name, wire)?),
            (Scalar::Quantity | Scalar::Any | Scalar::FieldsV1 | Scalar::RawObject, 1) => {
                texts[1] = Some(reader.bytes_of(name, wire)?);
            }
            (Scalar::SchemaOrBool, 2) | (Scalar::SchemaOrArray | Scalar::SchemaOrStrings, 1) => {
                texts[1] = Some(reader.bytes_of(name, wire)?);
            }
            (Scalar::SchemaOrArray, 2) => {
                schemas.push(object(reader.bytes_of(name, wire)?, props(), depth + 1)?);
            }
            (Scalar::SchemaOrStrings, 2) => schemas.push(Value::String(text(reader.bytes_of(name, wire)?))),
            _ => reader.skip(wire, 0)?,
        }
    }
    Ok(match (scalar, texts[1]) {
        (Scalar::Time | Scalar::MicroTime, _) if bytes.is_empty() => Value::Null,
        (Scalar::Time, _) => moment(numbers[1], 0, Precision::Seconds)?,
        (Scalar::MicroTime, _) => moment(numbers[1], numbers[2], Precision::Micros)?,
        (Scalar::IntOrString, _) => match numbers[1] {
            0 => Value::from(numbers[2] as i32),
            1 => Value::String(text(texts[3].unwrap_or_default())),
            _ => return Err(DecodeError::format("impossible IntOrString.Type")),
        },
        (Scalar::Quantity, given) => Value::String(given.map_or("0".into(), text)),
        (Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings, Some(bytes)) => {
            object(bytes, props(), depth + 1)?
        }
        (Scalar::SchemaOrBool, None) => Value::Bool(numbers[1] != 0),
        (Scalar::SchemaOrArray | Scalar::SchemaOrStrings, None) => Value::Array(schemas),
        (_, None | Some([])) => Value::Null,
        (Scalar::RawObject, Some(bytes)) if bytes.starts_with(PREFIX) => super::decode_at(bytes, depth + 1)?.1,
        (_, Some(bytes)) => {
            let limits = Limits {
                depth_max: DEPTH_MAX - depth,
            };
            json::decode(bytes, &limits)?.value
        }
    })
}

fn moment(seconds: u64, nanos: u64, precision: Precision) -> Result<Value, DecodeError> {
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let nanos = nanos.ok_or_else(|| DecodeError::format("nanoseconds out of range"))?;
    let moment = Moment::checked(seconds as i64, nanos)?;
    Ok(Value::String(moment.format(precision)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A cursor over a message. Its errors are those of upstream's generated code.
struct Reader<'a> {
    rest: &'a [u8],
}

fn truncated() -> DecodeError {
    DecodeError::syntax("unexpected EOF")
}

impl<'a> Reader<'a> {
    /// The next field's number and wire type; `None` at the end.
    fn tag(&mut self) -> Result<Option<(u64, u8)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let (tag, wire) = (key >> 3, (key & 7) as u8);
        if wire == GROUP_END {
            return Err(DecodeError::syntax("proto: wiretype end group for non-group"));
        }
        if tag == 0 || tag > u64::from(u32::MAX >> 3) {
            return Err(DecodeError::syntax(format!(
                "proto: illegal tag {tag} (wire type {wire})"
            )));
        }
        Ok(Some((tag, wire)))
    }

    /// Steps over the next field's tag when it is this one again.
    fn next_is(&mut self, tag: u64, wire: u8) -> bool {
        let before = self.rest;
        let same = matches!(self.tag(), Ok(Some(next)) if next == (tag, wire));
        if !same {
            self.rest = before;
        }
        same
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0u64;
        for place in 0..10 {
            let (byte, rest) = self.rest.split_first().ok_or_else(truncated)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << (place * 7);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::syntax("proto: integer overflow"))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        if len > i64::MAX as u64 {
            return Err(DecodeError::syntax("proto: negative length found during unmarshaling"));
        }
        if len > self.rest.len() as u64 {
            return Err(truncated());
        }
        let (taken, rest) = self.rest.split_at(len as usize);
        self.rest = rest;
        Ok(taken)
    }

    fn expect(name: &str, wire: u8, expect: u8) -> Result<(), DecodeError> {
        if wire == expect {
            Ok(())
        } else {
            Err(DecodeError::syntax(format!(
                "proto: wrong wireType = {wire} for field {name}"
            )))
        }
    }

    fn bytes_of(&mut self, name: &str, wire: u8) -> Result<&'a [u8], DecodeError> {
        Self::expect(name, wire, BYTES)?;
        let len = self.varint()?;
        self.take(len)
    }

    fn varint_of(&mut self, name: &str, wire: u8) -> Result<u64, DecodeError> {
        Self::expect(name, wire, VARINT)?;
        self.varint()
    }

    fn fixed64_of(&mut self, name: &str, wire: u8) -> Result<u64, DecodeError> {
        Self::expect(name, wire, FIXED64)?;
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(
            bytes.try_into().expect("invariant: eight bytes were taken"),
        ))
    }

    /// Steps over a field that the schema does not know.
    fn skip(&mut self, wire: u8, depth: usize) -> Result<(), DecodeError> {
        match wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            BYTES => {
                let len = self.varint()?;
                self.take(len).map(drop)
            }
            FIXED32 => self.take(4).map(drop),
            GROUP_START if depth < GROUP_DEPTH_MAX => loop {
                if self.rest.is_empty() {
                    return Err(truncated());
                }
                let inner = (self.varint()? & 7) as u8;
                if inner == GROUP_END {
                    return Ok(());
                }
                self.skip(inner, depth + 1)?;
            },
            GROUP_START => Err(DecodeError::too_deep()),
            other => Err(DecodeError::syntax(format!("proto: illegal wireType {other}"))),
        }
    }
}
