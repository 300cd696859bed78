//! Answers: objects and lists in the negotiated shape and media type, and the HTTP around them.

pub mod body;
pub mod budget;
pub mod item;
pub mod list;
pub mod negotiate;
pub mod observed;
pub mod table;
pub mod view;

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;

use api::codec::protobuf::{self, EncodeError};
use api::codec::yaml;
use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;
use api::{Map, Reason, Status, Value, meta};
use client::Body;

use crate::call::Call;
use crate::cluster::Object;
use crate::registry::Served;

use item::Item;
use negotiate::{Form, Media, Output};
use table::{IncludeObject, TableWriter};

/// What an answer is longer than the stored object: its resourceVersion and the end of its line.
const AROUND_BYTES: usize = 64;

/// One object as an answer.
pub fn object(call: &Call, served: &Served, object: &Object, code: u16) -> Result<Response<Body>, Status> {
    let revision = object.revision();
    let item = match call.output.form {
        Form::Plain => Item::Object,
        Form::Partial(version) => Item::Partial(version),
        Form::Table(version) => {
            let include = IncludeObject::parse(&call.query)?;
            let writer = TableWriter::new(served, include, version, call.now_seconds());
            let mut metadata = Map::new();
            metadata.insert("resourceVersion".into(), revision.to_string().into());
            let table = writer.table(std::iter::once((object, revision)), metadata, true)?;
            return Ok(tree(call, &table, code));
        }
        Form::PartialList(_) => {
            return Err(not_acceptable(
                "you requested PartialObjectMetadataList, but the requested object is not a list",
            ));
        }
    };
    match call.output.media {
        Media::Protobuf => Ok(sized(call, item.enveloped(served, object, revision)?, code)),
        Media::Json if !call.output.pretty => {
            let mut out = BytesMut::with_capacity(object.json_len() + AROUND_BYTES);
            item.write_json(served, object, revision, &mut out)?;
            out.put_u8(b'\n');
            Ok(sized(call, out.freeze(), code))
        }
        _ => Ok(tree(call, &item.value(served, object, revision)?, code)),
    }
}

/// A tree that is no stored object (a Scale, a review, a Table) as an answer.
pub fn tree(call: &Call, value: &Value, code: u16) -> Response<Body> {
    match encode(&call.output, value) {
        Ok(bytes) => sized(call, bytes, code),
        Err(status) => failure(&call.output, &status),
    }
}

/// A tree as an answer outside of a call's own negotiation (discovery).
pub fn negotiated(output: &Output, value: &Value) -> Response<Body> {
    match encode(output, value) {
        Ok(bytes) => body::typed(200, output.media.as_str(), bytes),
        Err(status) => failure(output, &status),
    }
}

/// A status as a successful answer.
pub fn success(call: &Call, status: &Status) -> Response<Body> {
    let code = if status.code == 0 { 200 } else { status.code };
    tree(call, &status_value(status), code)
}

/// A failure as an answer, in the media type that was negotiated.
pub fn failure(output: &Output, status: &Status) -> Response<Body> {
    let mut response = body::status(status);
    if (output.media != Media::Json || output.pretty)
        && let Ok(bytes) = encode(
            &Output {
                form: Form::Plain,
                ..*output
            },
            &status_value(status),
        )
    {
        let typed = body::typed(response.status().as_u16(), output.media.as_str(), bytes);
        let (parts, body) = typed.into_parts();
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
    }
    response
}

/// A Status as a part of something larger, in a media type.
pub fn status_bytes(media: Media, status: &Status) -> Result<Bytes, Status> {
    let value = status_value(status);
    if media == Media::Json {
        return Ok(body::encode(&value).into());
    }
    let output = Output {
        form: Form::Plain,
        media,
        pretty: false,
    };
    encode(&output, &value)
}

fn status_value(status: &Status) -> Value {
    serde_json::to_value(status).expect("invariant: a Status has only text keys")
}

/// A tree of a built-in kind in the media type that was negotiated.
fn encode(output: &Output, value: &Value) -> Result<Bytes, Status> {
    match output.media {
        Media::Json => Ok(body::document(value, output.pretty).into()),
        Media::Yaml => Ok(yaml::encode(value).into()),
        Media::Protobuf => {
            let mut kind = meta::gvk(value);
            // `/api` leaves its version out, for clients of 2015; the type is of v1 all the same.
            if kind.version.is_empty() {
                kind.version = "v1".into();
            }
            let Some(schema) = SchemaRef::builtin(&kind) else {
                return Err(encode_failed(EncodeError::NoMessage(kind.kind)));
            };
            let mut value = value.clone();
            normalize(&mut value, &schema, UnknownFields::Ignore).map_err(Status::internal)?;
            Ok(protobuf::encode(&value, &schema).map_err(encode_failed)?.into())
        }
    }
}

/// What has no message is not acceptable; anything else is our mistake.
fn encode_failed(error: EncodeError) -> Status {
    match error {
        EncodeError::NoMessage(_) => not_acceptable(&error.to_string()),
        EncodeError::WrongValue(_) => Status::internal(error),
    }
}

fn sized(call: &Call, bytes: impl Into<Bytes>, code: u16) -> Response<Body> {
    let bytes = bytes.into();
    let size = bytes.len();
    let answer = body::typed(code, call.output.media.as_str(), bytes);
    body::compressed(&call.headers, size, answer)
}

fn not_acceptable(message: &str) -> Status {
    Status::failure(Reason::NotAcceptable, message)
}
