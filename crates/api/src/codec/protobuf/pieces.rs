//! Answers in pieces: an envelope around a message that is there already, a list that is written while it is walked, and
//! the frames of a watch.
//!
//! A length stands before everything in protobuf, so whoever writes a list while it is walked has to know the lengths of
//! its items first: [`item_len`].

use super::write::{bytes, object, varint};
use super::{EncodeError, PREFIX};
use crate::Value;
use crate::schema::SchemaRef;

/// What ends every envelope: content encoding and content type, always written, always empty.
pub const ENVELOPE_END: [u8; 4] = [0x1a, 0, 0x22, 0];

/// What stands before a message of `len` bytes in its envelope; [`ENVELOPE_END`] stands behind it.
pub fn envelope_start(api_version: &str, kind: &str, len: usize) -> Vec<u8> {
    let mut types = Vec::with_capacity(api_version.len() + kind.len() + 8);
    bytes(&mut types, 1, api_version.as_bytes());
    bytes(&mut types, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(types.len() + 16);
    out.extend_from_slice(PREFIX);
    bytes(&mut out, 1, &types);
    varint(&mut out, 2 << 3 | 2);
    varint(&mut out, len as u64);
    out
}

/// A message in its envelope.
pub fn enveloped(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = envelope_start(api_version, kind, message.len());
    out.reserve(message.len() + ENVELOPE_END.len());
    out.extend_from_slice(message);
    out.extend_from_slice(&ENVELOPE_END);
    out
}

fn of_meta(value: &Value, name: &str) -> Result<Vec<u8>, EncodeError> {
    let name = format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}");
    let schema = SchemaRef::builtin_type(&name).expect("invariant: the schema has the types of meta/v1");
    let mut message = Vec::with_capacity(512);
    object(&mut message, value, schema.node())?;
    let mut out = Vec::with_capacity(message.len() + 4);
    bytes(&mut out, 1, &message);
    Ok(out)
}

/// The first field of every list: its metadata. The items follow, each by [`item`].
pub fn list_metadata(metadata: &Value) -> Result<Vec<u8>, EncodeError> {
    of_meta(metadata, "ListMeta")
}

/// The message of a PartialObjectMetadata: it has the metadata and nothing else.
pub fn partial(metadata: &Value) -> Result<Vec<u8>, EncodeError> {
    of_meta(metadata, "ObjectMeta")
}

/// Appends an item of a list.
pub fn item(out: &mut Vec<u8>, message: &[u8]) {
    bytes(out, 2, message);
}

/// How many bytes [`item`] writes for a message of that length.
pub fn item_len(message_len: usize) -> usize {
    let bits = usize::BITS - message_len.leading_zeros();
    1 + (bits.div_ceil(7) as usize).max(1) + message_len
}

/// The frame of a watch event: four bytes of length, most significant first, and a `meta.v1.WatchEvent` without an
/// envelope around an object in its envelope. Source: `LengthDelimitedFramer` and `RawSerializer` of
/// apimachinery/pkg/runtime/serializer.
pub fn watch_frame(word: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + word.len() + 24);
    out.extend_from_slice(&[0; 4]);
    bytes(&mut out, 1, word.as_bytes());
    varint(&mut out, 2 << 3 | 2);
    varint(&mut out, item_len(object.len()) as u64);
    bytes(&mut out, 1, object);
    let len = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::GroupVersionKind;
    use crate::codec::protobuf::{decode_as, decode_raw, encode, encode_raw};

    #[test]
    fn pieces_make_what_the_whole_is() {
        let item_of = |name: &str, data: usize| json!({"metadata": {"name": name}, "data": {"k": "x".repeat(data)}});
        let items = [item_of("a", 0), item_of("b", 100), item_of("c", 20_000)];
        let metadata = json!({"resourceVersion": "7", "continue": "x", "remainingItemCount": 3});
        let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items});
        let gvk = |kind: &str| GroupVersionKind::new("", "v1", kind);
        let item_schema = SchemaRef::builtin(&gvk("ConfigMap")).unwrap();
        let mut message = list_metadata(&metadata).unwrap();
        for value in &items {
            let one = encode_raw(value, &item_schema).unwrap();
            let before = message.len();
            item(&mut message, &one);
            assert_eq!(message.len() - before, item_len(one.len()));
        }
        let whole = encode(&list, &SchemaRef::builtin(&gvk("ConfigMapList")).unwrap()).unwrap();
        assert_eq!(enveloped("v1", "ConfigMapList", &message), whole);
    }

    #[test]
    fn frames_are_watch_events() {
        let schema = SchemaRef::builtin(&GroupVersionKind::new("", "v1", "ConfigMap")).unwrap();
        let event = SchemaRef::builtin_type("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent").unwrap();
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        let frame = watch_frame("ADDED", &encode(&object, &schema).unwrap());
        let (length, message) = frame.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, message.len());
        let read = decode_raw(message, &event).unwrap();
        assert_eq!(
            (&read["type"], &read["object"]["metadata"]["name"]),
            (&json!("ADDED"), &json!("a"))
        );
    }

    #[test]
    fn metadata_alone_is_its_field() {
        let metadata = json!({"name": "a", "labels": {"x": "y"}, "creationTimestamp": "2026-01-01T00:00:00Z"});
        let bytes = enveloped("meta.k8s.io/v1", "PartialObjectMetadata", &partial(&metadata).unwrap());
        // Every object's message begins with its metadata.
        let schema = SchemaRef::builtin(&GroupVersionKind::new("", "v1", "ConfigMap")).unwrap();
        let (gvk, value) = decode_as(&bytes, &schema).unwrap();
        assert_eq!(
            (gvk.group.as_str(), gvk.kind.as_str()),
            ("meta.k8s.io", "PartialObjectMetadata")
        );
        assert_eq!(
            (&value["metadata"]["labels"], &value["metadata"]["name"]),
            (&json!({"x": "y"}), &json!("a"))
        );
    }

    #[test]
    fn every_list_has_its_metadata_first_and_its_items_second() {
        let mut lists = 0;
        for name in crate::schema::all_types().filter(|name| name.ends_with("List")) {
            let schema = SchemaRef::builtin_type(name).unwrap();
            let (Some(metadata), Some(items)) = (schema.node().field("metadata"), schema.node().field("items")) else {
                continue;
            };
            assert_eq!((metadata.tag(), items.tag()), (1, 2), "{name}");
            lists += 1;
        }
        assert!(lists > 50, "{lists}");
    }
}
