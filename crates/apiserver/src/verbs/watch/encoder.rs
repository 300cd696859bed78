//! Events in the negotiated shape and media type, as frames: lines of JSON, or protobuf with its length before it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

use api::codec::protobuf;
use api::{Map, Status, Value};

use crate::call::Call;
use crate::cluster::Object;
use crate::registry::Served;
use crate::respond::item::Item;
use crate::respond::negotiate::{Form, Media, Output};
use crate::respond::table::{IncludeObject, TableWriter};
use crate::respond::{self, body, view};

use super::frames::Word;

/// Frames of at least this size are handed to the connection as they are, shared; smaller ones are copied together when there
/// are several, since a copy costs less than a write of their own.
const SHARED_FRAME_BYTES_MIN: usize = 16 * 1024;

/// Makes frames in the negotiated shape.
pub(super) struct Encoder {
    served: Arc<Served>,
    output: Output,
    include: IncludeObject,
    /// Whether a Table's headings were sent.
    headings_sent: bool,
    clock: base::Clock,
    /// Counts the frames that were made.
    made: prometheus_client::metrics::counter::Counter,
}

impl Encoder {
    pub(super) fn new(call: &Call, served: &Arc<Served>) -> Result<Encoder, Status> {
        let include = match call.output.form {
            Form::Table(_) => IncludeObject::parse(&call.query)?,
            _ => IncludeObject::Metadata,
        };
        Ok(Encoder {
            served: served.clone(),
            output: call.output,
            include,
            headings_sent: false,
            clock: call.server.clock.clone(),
            made: call.server.metrics.watch_frames.clone(),
        })
    }

    pub(super) fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// An event that all watchers of the kind may see: made once for all that want this shape. Appends it to `out`, or
    /// answers with it when it is to be sent by itself: large enough, or alone.
    pub(super) fn event(
        &mut self,
        word: Word,
        object: &Arc<Object>,
        revision: u64,
        alone: bool,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, Status> {
        // Cells of a Table depend on the time (D1).
        let shared = Item::of(self.output.form).filter(|_| self.served.frames.are_shared());
        let Some(item) = shared else {
            self.write(word, object, revision, out)?;
            return Ok(None);
        };
        let media = self.output.media;
        let frame = self.served.frames.get(object, revision, word, (item, media), || {
            let mut out = BytesMut::with_capacity(object.json_len() + FRAME_AROUND_BYTES);
            self.made.inc();
            write_object(&self.served, item, media, word, object, revision, &mut out)?;
            Ok(out.freeze())
        })?;
        if alone || frame.len() >= SHARED_FRAME_BYTES_MIN {
            return Ok(Some(frame));
        }
        out.put_slice(&frame);
        Ok(None)
    }

    /// Appends an event that is this watcher's alone.
    pub(super) fn write(
        &mut self,
        word: Word,
        object: &Object,
        revision: u64,
        out: &mut BytesMut,
    ) -> Result<(), Status> {
        self.made.inc();
        let version = match (self.output.form, Item::of(self.output.form)) {
            (_, Some(item)) => {
                return write_object(&self.served, item, self.output.media, word, object, revision, out);
            }
            (Form::Table(version), None) => version,
            (_, None) => return Err(Status::internal("a shape without objects")),
        };
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), revision.to_string().into());
        let rows = std::iter::once((object, revision));
        let table = self
            .table(version, self.include)
            .table(rows, metadata, !self.headings_sent)?;
        self.headings_sent = true;
        framed(Media::Json, word.as_str(), &body::encode(&table), out);
        Ok(())
    }

    fn table(&self, version: &'static str, include: IncludeObject) -> TableWriter<'_> {
        TableWriter::new(&self.served, include, version, self.clock.now().as_second())
    }

    /// A bookmark: an otherwise empty object of the kind at a revision, in the shape of all the others.
    pub(super) fn bookmark(&mut self, revision: u64, end_of_backlog: bool, out: &mut BytesMut) -> Result<(), Status> {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if end_of_backlog {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let item = match self.output.form {
            Form::Table(version) => {
                let object = empty(&self.served, metadata)?;
                // The annotation that ends the initial events comes whatever the rows are to carry (upstream: asTable).
                let include = match self.include {
                    IncludeObject::None if end_of_backlog => IncludeObject::Metadata,
                    include => include,
                };
                let table = self
                    .table(version, include)
                    .bookmark(object, revision, !self.headings_sent);
                self.headings_sent = true;
                framed(Media::Json, BOOKMARK, &body::encode(&table), out);
                return Ok(());
            }
            form => Item::of(form).unwrap_or(Item::Object),
        };
        let (api_version, kind) = item.types(&self.served);
        let object = match item {
            Item::Object | Item::Listed => empty(&self.served, metadata)?,
            Item::Partial(_) => json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}),
        };
        if self.output.media == Media::Protobuf {
            let message = item.message_of(&self.served, &object)?;
            let object = protobuf::enveloped(&api_version, kind, &message);
            framed(Media::Protobuf, BOOKMARK, &object, out);
            return Ok(());
        }
        framed(Media::Json, BOOKMARK, &body::encode(&object), out);
        Ok(())
    }

    /// The last frame of a watch that failed.
    pub(super) fn error(&self, status: &Status, out: &mut BytesMut) {
        // A Status always has a message; were it not so, the watch would end without a word.
        if let Ok(bytes) = respond::status_bytes(self.output.media, status) {
            framed(self.output.media, "ERROR", &bytes, out);
        }
    }
}

/// The word of a bookmark's frame.
const BOOKMARK: &str = "BOOKMARK";

/// What upstream's types write for an object that has only metadata.
fn empty(served: &Served, metadata: Value) -> Result<Value, Status> {
    let mut object = json!({"metadata": metadata});
    view::set_kind(&mut object, &served.gvk.api_version(), &served.gvk.kind);
    view::renormalize(&mut object, served)?;
    Ok(object)
}

/// What stands around an object in a frame, at most.
const FRAME_AROUND_BYTES: usize = 64;

fn write_object(
    served: &Served,
    item: Item,
    media: Media,
    word: Word,
    object: &Object,
    revision: u64,
    out: &mut BytesMut,
) -> Result<(), Status> {
    if media == Media::Protobuf {
        framed(media, word.as_str(), &item.enveloped(served, object, revision)?, out);
        return Ok(());
    }
    open(word.as_str(), out);
    item.write_json(served, object, revision, out)?;
    out.put_slice(b"}\n");
    Ok(())
}

fn framed(media: Media, word: &str, object: &[u8], out: &mut BytesMut) {
    if media == Media::Protobuf {
        out.put_slice(&protobuf::watch_frame(word, object));
        return;
    }
    open(word, out);
    out.put_slice(object);
    out.put_slice(b"}\n");
}

fn open(word: &str, out: &mut BytesMut) {
    out.put_slice(br#"{"type":""#);
    out.put_slice(word.as_bytes());
    out.put_slice(br#"","object":"#);
}
