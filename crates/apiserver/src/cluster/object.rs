//! One object at one revision: its bytes, and the small header that decisions are taken from (D1).
//!
//! The bytes are normal-form JSON *without* `metadata.resourceVersion`; readers get it spliced in at a remembered offset.
//! Invariant: the bytes are one valid JSON object with a `metadata` object, and never change.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};

use api::codec::json::{self, Walk};
use api::codec::{DecodeError, Limits};
use api::sparse::Fields;
use api::{Map, Value, meta};

use super::Texts;
use crate::sealing::Mark;

/// What is known of an object without reading its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.namespace`, or empty.
    pub namespace: Box<str>,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.labels`: names and values in turn.
    pub labels: Texts,
    /// The uids of `metadata.ownerReferences`.
    pub owners: Box<[Box<str>]>,
    /// The values of the kind's selectable fields, in the order of the kind's list of them.
    pub fields: Texts,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
}

impl Header {
    /// All that it is made of, beside what the selectable fields read.
    pub const READ: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.labels",
        "metadata.ownerReferences",
        "metadata.deletionTimestamp",
    ];
}

/// One object at one revision.
#[derive(Clone, Debug)]
pub struct Object {
    header: Header,
    revision: u64,
    bytes: Bytes,
    splice: Splice,
    message_len: OnceLock<u32>,
    stale: bool,
    mark: Mark,
}

/// Where the resourceVersion goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Splice {
    /// The offset.
    at: u32,
    /// Whether a comma goes before it.
    before: bool,
    /// Whether a comma goes after it.
    after: bool,
    /// Where the value of `metadata` starts and ends.
    metadata: (u32, u32),
    /// Where `"apiVersion":` and `"kind":` start, in this order; [`NOWHERE`] for what is not there. A comma follows each
    /// of them: `metadata` sorts behind both.
    types: [u32; 2],
}

/// As much as a pod takes: an object that is written seldom has to move while it grows.
const TYPICAL_BYTES: usize = 4096;

/// No offset: an object is never that long.
const NOWHERE: u32 = u32::MAX;

/// Why stored bytes are no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// JSON, but not an object with metadata.
    #[error("no metadata")]
    NoMetadata,
}

impl Object {
    /// An object of a normal-form tree. A resourceVersion in the tree is left out.
    pub fn from_value(value: &Value, revision: u64, fields: Texts) -> Result<Object, ObjectError> {
        let bytes = to_stored(value);
        let (splice, _) = look_through(&bytes, None)?;
        Object::new(bytes, splice, value, revision, fields)
    }

    /// An object of its stored bytes. `read` names what of them is looked at: [`Header::READ`] and what `fields` need.
    pub fn from_bytes(
        bytes: Bytes,
        revision: u64,
        read: &Fields,
        fields: impl FnOnce(&Value) -> Texts,
    ) -> Result<Object, ObjectError> {
        std::str::from_utf8(&bytes).map_err(|error| ObjectError::Json(error.to_string()))?;
        let (splice, value) = look_through(&bytes, Some(read))?;
        let fields = fields(&value);
        Object::new(bytes, splice, &value, revision, fields)
    }

    fn new(bytes: Bytes, splice: Splice, value: &Value, revision: u64, fields: Texts) -> Result<Object, ObjectError> {
        let metadata = meta::metadata(value).ok_or(ObjectError::NoMetadata)?;
        let labels = metadata.get("labels").and_then(Value::as_object).into_iter().flatten();
        let owners = metadata
            .get("ownerReferences")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let header = Header {
            name: meta::name(value).into(),
            namespace: meta::namespace(value).into(),
            uid: meta::uid(value).into(),
            labels: labels
                .flat_map(|(key, value)| [key.as_str(), value.as_str().unwrap_or("")])
                .collect(),
            owners: owners
                .map(|owner| owner.get("uid").and_then(Value::as_str).unwrap_or("").into())
                .collect(),
            fields,
            deleting: meta::is_deleting(value),
        };
        Ok(Object {
            header,
            revision,
            bytes,
            splice,
            message_len: OnceLock::new(),
            stale: false,
            mark: Mark::default(),
        })
    }

    /// The same object, marked as stored under an older schema.
    pub fn of_older_schema(self) -> Object {
        Object { stale: true, ..self }
    }

    /// The same object, with what had sealed it.
    pub fn sealed_by(self, mark: Mark) -> Object {
        Object { mark, ..self }
    }

    /// The same state of the object in another version.
    ///
    /// # Errors
    /// The tree is no object.
    pub fn in_version(&self, value: &Value, fields: Texts) -> Result<Object, ObjectError> {
        let made = Object::from_value(value, self.revision, fields)?;
        Ok(Object {
            stale: self.stale,
            mark: self.mark,
            ..made
        })
    }

    /// Whether it is stored otherwise than it would be now that values like it are sealed by `mark`: under an older schema,
    /// not sealed, or with an older key. A write that changes nothing brings it up to date.
    pub fn is_stale(&self, mark: Mark) -> bool {
        self.stale || self.mark != mark
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The revision that wrote this state.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.header.name
    }

    /// `metadata.namespace`, or empty.
    pub fn namespace(&self) -> &str {
        &self.header.namespace
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        &self.header.uid
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.header.labels.value_of(key)
    }

    /// Whether the object is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.header.deleting
    }

    /// How long the object's protobuf message is in the stored version, once somebody has made it.
    pub fn message_len(&self) -> &OnceLock<u32> {
        &self.message_len
    }

    /// The stored bytes, without a resourceVersion.
    pub fn stored(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole object as a tree, with its resourceVersion.
    pub fn value(&self) -> Value {
        let mut value = json::read(&self.bytes).expect("invariant: the bytes are valid JSON");
        if self.revision > 0 {
            meta::set_text(&mut value, "resourceVersion", &self.revision.to_string());
        }
        value
    }

    /// How many bytes [`Object::write_json`] writes at most.
    pub fn json_len(&self) -> usize {
        self.bytes.len() + 48
    }

    /// Appends the JSON with `revision` as the resourceVersion (a deletion's event shows the deletion's own).
    pub fn write_json(&self, revision: u64, out: &mut BytesMut) {
        out.reserve(self.json_len());
        self.write_range(0..self.bytes.len(), revision, out);
    }

    /// Appends the JSON as an item of a list, without `apiVersion` and `kind`: the list says them for all its items.
    pub fn write_item(&self, revision: u64, out: &mut BytesMut) {
        out.reserve(self.json_len());
        let mut from = 0;
        for at in self.splice.types {
            if at == NOWHERE {
                continue;
            }
            let at = at as usize;
            out.put_slice(&self.bytes[from..at]);
            // Names of kinds and versions have neither commas nor quotes in them.
            let comma = self.bytes[at..].iter().position(|byte| *byte == b',');
            from = comma.map_or(at, |comma| at + comma + 1);
        }
        self.write_range(from..self.bytes.len(), revision, out);
    }

    /// Appends the value of `metadata` with `revision` as the resourceVersion.
    pub fn write_metadata(&self, revision: u64, out: &mut BytesMut) {
        let (start, end) = self.splice.metadata;
        self.write_range(start as usize..end as usize, revision, out);
    }

    fn write_range(&self, range: std::ops::Range<usize>, revision: u64, out: &mut BytesMut) {
        let at = self.splice.at as usize;
        let (head, tail) = (&self.bytes[range.start..at], &self.bytes[at..range.end]);
        out.put_slice(head);
        // A dry run's object was never written: it has no version.
        if revision == 0 {
            out.put_slice(tail);
            return;
        }
        if self.splice.before {
            out.put_u8(b',');
        }
        out.put_slice(b"\"resourceVersion\":\"");
        out.put_slice(revision.to_string().as_bytes());
        out.put_u8(b'"');
        if self.splice.after {
            out.put_u8(b',');
        }
        out.put_slice(tail);
    }

    /// The JSON with the resourceVersion.
    pub fn json(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.write_json(self.revision, &mut out);
        out.freeze()
    }
}

/// The bytes to store for a tree: its JSON without a resourceVersion.
pub fn to_stored(value: &Value) -> Bytes {
    let write = |value: &Value| {
        let mut bytes = Vec::with_capacity(TYPICAL_BYTES);
        json::write(value, &mut bytes);
        Bytes::from(bytes)
    };
    if meta::resource_version(value).is_empty() {
        return write(value);
    }
    let mut value = value.clone();
    meta::set_text(&mut value, "resourceVersion", "");
    write(&value)
}

/// Where `resourceVersion` belongs among the sorted keys of the top-level `metadata`, and what `read` names of the object: both
/// in one walk, which each object takes that is written or loaded.
fn look_through(bytes: &[u8], read: Option<&Fields>) -> Result<(Splice, Value), ObjectError> {
    let limits = Limits::default();
    let mut walk = Walk::new(bytes, &limits);
    if !walk.is_object() {
        return Err(ObjectError::NoMetadata);
    }
    let (mut splice, mut types, mut value) = (None, [NOWHERE; 2], Map::new());
    let looked = walk.object(|walk| {
        let at = walk.at() as u32;
        let name = walk.name()?;
        match &*name {
            "metadata" if walk.is_object() => {
                let below = read.and_then(|read| read.below(&name));
                let (found, metadata) = look_through_metadata(walk, types, below)?;
                splice = Some(found);
                value.insert("metadata".into(), metadata);
                return Ok(());
            }
            "apiVersion" if splice.is_none() => types[0] = at,
            "kind" if splice.is_none() => types[1] = at,
            _ => {}
        }
        match read {
            Some(read) => read.read_member(&name, walk, &mut value),
            None => walk.skip(),
        }
    });
    let looked = looked.and_then(|()| walk.end());
    looked.map_err(|error| ObjectError::Json(error.to_string()))?;
    Ok((splice.ok_or(ObjectError::NoMetadata)?, Value::Object(value)))
}

fn look_through_metadata(
    walk: &mut Walk<'_>,
    types: [u32; 2],
    read: Option<&Fields>,
) -> Result<(Splice, Value), DecodeError> {
    let start = walk.at() as u32;
    let (mut place, mut is_empty, mut value) = (None, true, Map::new());
    walk.object(|walk| {
        let at = walk.at() as u32;
        let name = walk.name()?;
        is_empty = false;
        if place.is_none() && &*name > "resourceVersion" {
            place = Some(at);
        }
        match read {
            Some(read) => read.read_member(&name, walk, &mut value),
            None => walk.skip(),
        }
    })?;
    let end = walk.at() as u32;
    let splice = Splice {
        // Behind all others, before the bracket.
        at: place.unwrap_or(end - 1),
        before: place.is_none() && !is_empty,
        after: place.is_some(),
        metadata: (start, end),
        types,
    };
    Ok((splice, Value::Object(value)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_resource_version_is_spliced_where_it_sorts() {
        for (value, expect) in [
            (json!({"metadata": {}}), r#"{"metadata":{"resourceVersion":"7"}}"#),
            (
                json!({"metadata": {"name": "a", "uid": "u"}}),
                r#"{"metadata":{"name":"a","resourceVersion":"7","uid":"u"}}"#,
            ),
            (
                json!({"metadata": {"name": "a"}}),
                r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#,
            ),
            (
                json!({"a": {"metadata": {"x": [1, {"y": "}\"\\"}]}}, "kind": "K", "metadata": {"uid": "u"}, "spec": 1}),
                r#"{"a":{"metadata":{"x":[1,{"y":"}\"\\"}]}},"kind":"K","metadata":{"resourceVersion":"7","uid":"u"},"spec":1}"#,
            ),
            (
                json!({"metadata": {"labels": {}, "ownerReferences": [], "resourceVersion": "1", "uid": "u"}}),
                r#"{"metadata":{"labels":{},"ownerReferences":[],"resourceVersion":"7","uid":"u"}}"#,
            ),
        ] {
            let object = Object::from_value(&value, 7, Texts::default()).unwrap();
            let read = Fields::of(Header::READ.iter().copied());
            assert_eq!(std::str::from_utf8(&object.json()).unwrap(), expect);
            let mut metadata = BytesMut::new();
            object.write_metadata(7, &mut metadata);
            let metadata: Value = serde_json::from_slice(&metadata).unwrap();
            assert_eq!(Some(&metadata), object.value().get("metadata"));
            let again = Object::from_bytes(object.stored().clone(), 7, &read, |_| Texts::default()).unwrap();
            assert_eq!((again.json(), again.header()), (object.json(), object.header()));
            assert_eq!(meta::resource_version(&object.value()), "7");
        }
    }

    #[test]
    fn items_of_lists_leave_out_what_they_are() {
        for (value, expect) in [
            (
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"kind": "x"}}),
                r#"{"metadata":{"name":"a","resourceVersion":"7"},"spec":{"kind":"x"}}"#,
            ),
            (
                json!({"addressType": "IPv4", "apiVersion": "discovery.k8s.io/v1", "endpoints": [{"kind": 1, "apiVersion": 2}],
                    "kind": "EndpointSlice", "metadata": {"uid": "u"}, "ports": []}),
                r#"{"addressType":"IPv4","endpoints":[{"apiVersion":2,"kind":1}],"metadata":{"resourceVersion":"7","uid":"u"},"ports":[]}"#,
            ),
            (
                json!({"kind": "K", "metadata": {}}),
                r#"{"metadata":{"resourceVersion":"7"}}"#,
            ),
            (json!({"metadata": {}}), r#"{"metadata":{"resourceVersion":"7"}}"#),
        ] {
            let object = Object::from_value(&value, 7, Texts::default()).unwrap();
            let mut item = BytesMut::new();
            object.write_item(7, &mut item);
            assert_eq!(std::str::from_utf8(&item).unwrap(), expect);
        }
    }

    #[test]
    fn what_nests_as_deep_as_we_take_it_is_read_back() {
        let mut deep = json!({"last": true});
        for _ in 0..200 {
            deep = json!({"a": deep});
        }
        let value = json!({"data": deep, "metadata": {"name": "a"}});
        let object = Object::from_value(&value, 0, Texts::default()).unwrap();
        assert_eq!(object.value(), value);
        for read in [Fields::default(), Fields::of(Header::READ.iter().copied())] {
            let again = Object::from_bytes(object.stored().clone(), 0, &read, |_| Texts::default()).unwrap();
            assert_eq!((again.json(), again.header()), (object.json(), object.header()));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let read = Fields::of(Header::READ.iter().copied());
        for text in [
            "",
            "[]",
            "{}",
            r#"{"metadata":1}"#,
            r#"{"metadata":"x"}"#,
            "{\"metadata\":{}",
            "7",
        ] {
            let object = Object::from_bytes(Bytes::from_static(text.as_bytes()), 1, &read, |_| Texts::default());
            assert!(object.is_err(), "{text}");
        }
    }

    #[test]
    fn the_header_names_what_decisions_need() {
        let value = json!({"metadata": {
            "name": "a", "namespace": "n", "uid": "u", "labels": {"app": "web"},
            "ownerReferences": [{"uid": "o1"}, {"uid": "o2"}], "deletionTimestamp": "2026-01-01T00:00:00Z",
        }});
        let object = Object::from_value(&value, 1, ["x"].iter().collect()).unwrap();
        assert_eq!((object.name(), object.namespace(), object.uid()), ("a", "n", "u"));
        assert_eq!(object.label("app"), Some("web"));
        assert_eq!(
            object.header().owners.iter().map(|o| &**o).collect::<Vec<_>>(),
            ["o1", "o2"]
        );
        assert!(object.is_deleting());
        let read = Fields::of(Header::READ.iter().copied());
        let again = Object::from_bytes(object.stored().clone(), 1, &read, |_| ["x"].iter().collect()).unwrap();
        assert_eq!(again.header(), object.header());
    }
}
