//! Kubernetes protobuf, driven by the schema instead of generated code.
//!
//! On the wire an object stands in an envelope: the bytes `k8s\0` and a `runtime.Unknown` message with `apiVersion`,
//! `kind` and the object's own message. Inside, the rules are those of upstream's generated code (`generated.pb.go`):
//! fields ascend by tag, a field that is no pointer is always written, lists are not packed, maps are sorted, inlined
//! structs are messages, times and quantities have messages of their own. Reading is more generous: any order, packed
//! lists, unknown tags, repeated messages merge.
//!
//! [`decode`] reads syntax only; run [`crate::normalize`] on what it returns.

mod pieces;
mod read;
mod write;

pub use pieces::{ENVELOPE_END, envelope_start, enveloped, item, item_len, list_metadata, partial, watch_frame};

use crate::codec::{DecodeError, DecodeErrorKind};
use crate::schema::SchemaRef;
use crate::{GroupVersionKind, Value};

/// What every body begins with.
pub const PREFIX: &[u8; 4] = b"k8s\0";

/// An object's message and what it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `apiVersion`; may be empty.
    pub api_version: String,
    /// `kind`; may be empty.
    pub kind: String,
    /// The object's own message.
    pub raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Opens an envelope.
    pub fn open(bytes: &'a [u8]) -> Result<Envelope<'a>, DecodeError> {
        let refused = match bytes.strip_prefix(PREFIX) {
            Some(message) if !message.is_empty() => return read::envelope(message),
            Some(_) => "empty body",
            None if bytes.is_empty() => "empty data",
            None => "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        };
        Err(DecodeError::syntax(refused))
    }

    /// The kind it says it is.
    pub fn gvk(&self) -> GroupVersionKind {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        GroupVersionKind::new(group, version, self.kind.as_str())
    }
}

/// Reads the envelope of a built-in kind and its object, with `apiVersion` and `kind` set.
pub fn decode(bytes: &[u8]) -> Result<(GroupVersionKind, Value), DecodeError> {
    decode_at(bytes, 0)
}

/// Reads an envelope whose object is of a type that the caller knows, whatever the envelope says.
pub fn decode_as(bytes: &[u8], schema: &SchemaRef) -> Result<(GroupVersionKind, Value), DecodeError> {
    let envelope = Envelope::open(bytes)?;
    let value = open_as(&envelope, schema, 0)?;
    Ok((envelope.gvk(), value))
}

/// Reads an object's message without an envelope.
pub fn decode_raw(bytes: &[u8], schema: &SchemaRef) -> Result<Value, DecodeError> {
    read::object(bytes, schema.node(), 0)
}

/// What upstream says of a kind that it does not know; its scheme is named by where it is made.
pub fn no_kind(api_version: &str, kind: &str) -> String {
    let (version, kind) = (crate::field::quote(api_version), crate::field::quote(kind));
    format!("no kind {kind} is registered for version {version} in scheme \"pkg/api/legacyscheme/scheme.go:30\"")
}

fn decode_at(bytes: &[u8], depth: usize) -> Result<(GroupVersionKind, Value), DecodeError> {
    let envelope = Envelope::open(bytes)?;
    let gvk = envelope.gvk();
    let Some(schema) = SchemaRef::builtin(&gvk) else {
        let message = no_kind(&envelope.api_version, &envelope.kind);
        return Err(DecodeError::new(DecodeErrorKind::UnknownKind, message));
    };
    let value = open_as(&envelope, &schema, depth)?;
    Ok((gvk, value))
}

fn open_as(envelope: &Envelope<'_>, schema: &SchemaRef, depth: usize) -> Result<Value, DecodeError> {
    let mut value = read::object(envelope.raw, schema.node(), depth)?;
    let map = value
        .as_object_mut()
        .expect("invariant: a message is read as an object");
    for (name, text) in [("apiVersion", &envelope.api_version), ("kind", &envelope.kind)] {
        if !text.is_empty() {
            map.insert(name.into(), Value::String(text.clone()));
        }
    }
    Ok(value)
}

/// Why a tree cannot be written as protobuf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The type has no message.
    #[error(
        "object *{0} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NoMessage(String),
    /// The tree is not in normal form.
    #[error("field {0} does not hold a value of its type")]
    WrongValue(String),
}

/// The object in its envelope. The tree has to be in normal form.
pub fn encode(value: &Value, schema: &SchemaRef) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(PREFIX);
    write::envelope(&mut out, value, schema.node())?;
    Ok(out)
}

/// The object's message without an envelope. The tree has to be in normal form.
pub fn encode_raw(value: &Value, schema: &SchemaRef) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(1024);
    write::object(&mut out, value, schema.node())?;
    Ok(out)
}

#[cfg(test)]
mod tests;
