//! Bodies, answers and watch frames in one of the two encodings.

use api::codec::protobuf;
use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;
use api::{GroupVersionKind, Value, meta};
use bytes::{Buf, Bytes, BytesMut};
use client::Body;
use http_body_util::BodyExt;

use crate::world::{Answer, Api};

/// How objects are written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Protobuf,
}

pub const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

impl Encoding {
    pub fn media(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// A body. Protobuf is written from normal form; a field that the schema does not know is a mistake of the table.
    pub fn body(self, object: &Value) -> Bytes {
        if self == Encoding::Json {
            return object.to_string().into();
        }
        let gvk = meta::gvk(object);
        let schema = match &*gvk.kind {
            "DeleteOptions" => SchemaRef::builtin_type("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
            _ => SchemaRef::builtin(&gvk),
        };
        let schema = schema.unwrap_or_else(|| panic!("no schema of {gvk}"));
        let mut object = object.clone();
        let unknown = normalize(&mut object, &schema, UnknownFields::Report).unwrap();
        assert!(unknown.is_empty(), "{gvk}: {unknown:?}");
        protobuf::encode(&object, &schema).unwrap().into()
    }

    /// An answer's object.
    #[track_caller]
    pub fn read(self, answer: &Answer) -> Value {
        let text = String::from_utf8_lossy(&answer.bytes);
        assert_eq!(answer.headers["content-type"], self.media(), "{text}");
        match self {
            Encoding::Json => answer.value(),
            Encoding::Protobuf => decoded(&answer.bytes),
        }
    }

    /// An answer whose message is that of another kind (of metadata alone).
    pub fn read_as(self, answer: &Answer, of: &GroupVersionKind) -> Value {
        match self {
            Encoding::Json => answer.value(),
            Encoding::Protobuf => {
                let schema = SchemaRef::builtin(of).unwrap();
                let (gvk, mut value) = protobuf::decode_as(&answer.bytes, &schema).unwrap();
                normalize(&mut value, &schema, UnknownFields::Report).unwrap();
                value["kind"] = gvk.kind.to_string().into();
                value
            }
        }
    }

    /// Asks with a body, and for an answer, in this encoding; anything but a success fails the test.
    pub async fn ask(self, api: &Api, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.call(api, method, path, body).await;
        let read = self.read(&answer);
        assert!((200..300).contains(&answer.code), "{self:?} {method} {path}: {read:#}");
        read
    }

    /// The same, whatever comes of it.
    pub async fn call(self, api: &Api, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let headers = [("accept", self.media()), ("content-type", self.media())];
        let headers = if body.is_some() { &headers[..] } else { &headers[..1] };
        let bytes = body.map(|object| self.body(object)).unwrap_or_default();
        api.call(&format!("{method} {path}"), headers, bytes).await
    }

    /// Opens a watch in this encoding.
    pub async fn watch(self, api: &Api, path: &str) -> Watching {
        let headers = [("accept", self.media())];
        let response = api.open(&format!("GET {path}"), &headers, "").await;
        assert_eq!(response.status(), 200, "{path}");
        Watching {
            encoding: self,
            body: response.into_body(),
            buffer: BytesMut::new(),
        }
    }
}

/// An object in its envelope. Messages do not tell what is absent from what is empty: normal form does, by the schema.
fn decoded(bytes: &[u8]) -> Value {
    let (gvk, mut value) = protobuf::decode(bytes).unwrap();
    normalize(&mut value, &SchemaRef::builtin(&gvk).unwrap(), UnknownFields::Report).unwrap();
    value
}

/// What is left of an object that goes through a message.
pub fn as_message_tells(object: &Value) -> Value {
    decoded(&Encoding::Protobuf.body(object))
}

/// The events of a watch.
pub struct Watching {
    encoding: Encoding,
    body: Body,
    buffer: BytesMut,
}

impl Watching {
    /// The next event's type and object.
    pub async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(event) = self.take() {
                return event;
            }
            let frame = self.body.frame().await.expect("the watch goes on").unwrap();
            self.buffer.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    fn take(&mut self) -> Option<(String, Value)> {
        match self.encoding {
            Encoding::Json => {
                let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
                let mut event: Value = serde_json::from_slice(&self.buffer.split_to(end + 1)).unwrap();
                Some((event["type"].as_str().unwrap().to_owned(), event["object"].take()))
            }
            Encoding::Protobuf => {
                let len = u32::from_be_bytes(*self.buffer.first_chunk()?) as usize;
                if self.buffer.len() < 4 + len {
                    return None;
                }
                self.buffer.advance(4);
                Some(event(&self.buffer.split_to(len)))
            }
        }
    }
}

/// A `meta.v1.WatchEvent`: the type (1) and a RawExtension (2) whose only field (1) is the object in its envelope.
fn event(message: &[u8]) -> (String, Value) {
    let (tag, word, rest) = field(message);
    assert_eq!(tag, 0x0a);
    let (tag, extension, rest) = field(rest);
    assert_eq!((tag, rest), (0x12, &[][..]));
    let (tag, object, rest) = field(extension);
    assert_eq!((tag, rest), (0x0a, &[][..]));
    let word = String::from_utf8(word.to_vec()).unwrap();
    (word, decoded(object))
}

/// The tag and bytes of the first field, and what follows.
fn field(bytes: &[u8]) -> (u8, &[u8], &[u8]) {
    let (mut len, mut at) = (0, 1);
    loop {
        len |= usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if bytes[at - 1] < 0x80 {
            break;
        }
    }
    (bytes[0], &bytes[at..at + len], &bytes[at + len..])
}
