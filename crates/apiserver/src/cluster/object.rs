//! One object at one revision: its bytes, and the small header that decisions are taken from (D1).
//!
//! The bytes are normal-form JSON *without* `metadata.resourceVersion`; readers get it spliced in at a remembered offset.
//! Invariant: the bytes are one valid JSON object with a `metadata` object, and never change.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};

use api::codec::json;
use api::sparse::Fields;
use api::{Value, meta};

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
        Object::new(bytes, value, revision, fields)
    }

    /// An object of its stored bytes. `read` names what of them is looked at: [`Header::READ`] and what `fields` need.
    pub fn from_bytes(
        bytes: Bytes,
        revision: u64,
        read: &Fields,
        fields: impl FnOnce(&Value) -> Texts,
    ) -> Result<Object, ObjectError> {
        let text = std::str::from_utf8(&bytes).map_err(|error| ObjectError::Json(error.to_string()))?;
        let value = read.read(text).map_err(|error| ObjectError::Json(error.to_string()))?;
        let fields = fields(&value);
        Object::new(bytes, &value, revision, fields)
    }

    fn new(bytes: Bytes, value: &Value, revision: u64, fields: Texts) -> Result<Object, ObjectError> {
        let splice = find_splice(&bytes).ok_or(ObjectError::NoMetadata)?;
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
        let mut value: Value = serde_json::from_slice(&self.bytes).expect("invariant: the bytes are valid JSON");
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

/// Finds where `resourceVersion` belongs among the sorted keys of the top-level `metadata`.
fn find_splice(bytes: &[u8]) -> Option<Splice> {
    let mut scan = Scanner { bytes, at: 0 };
    scan.expect(b'{')?;
    let mut types = [NOWHERE; 2];
    loop {
        let at = scan.at as u32;
        match scan.key()? {
            b"metadata" => break,
            b"apiVersion" => types[0] = at,
            b"kind" => types[1] = at,
            _ => {}
        }
        scan.skip_value()?;
        scan.expect(b',')?;
    }
    let start = scan.at;
    scan.skip_value()?;
    let metadata = (start as u32, scan.at as u32);
    scan.at = start;
    scan.expect(b'{')?;
    let splice = |at: usize, before, after| Splice {
        at: at as u32,
        before,
        after,
        metadata,
        types,
    };
    if scan.peek()? == b'}' {
        return Some(splice(scan.at, false, false));
    }
    loop {
        let start = scan.at;
        let key = scan.key()?;
        if key > b"resourceVersion".as_slice() {
            return Some(splice(start, false, true));
        }
        scan.skip_value()?;
        match scan.peek()? {
            b',' => scan.at += 1,
            _ => return Some(splice(scan.at, true, false)),
        }
    }
}

/// Walks compact JSON that is known to be valid (it was parsed or written by us just before).
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// A key and its colon.
    fn key(&mut self) -> Option<&'a [u8]> {
        let start = self.at + 1;
        self.skip_string()?;
        let key = &self.bytes[start..self.at - 1];
        self.expect(b':')?;
        Some(key)
    }

    fn skip_string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            self.at += json::plain_len(self.bytes.get(self.at..)?);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    while !matches!(self.peek()?, b',' | b'}' | b']') {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
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
