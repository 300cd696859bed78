//! Events in the negotiated shape, as frames.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

use api::{Map, Status, Value};

use crate::call::Call;
use crate::cluster::Object;
use crate::registry::Served;
use crate::respond::negotiate::Form;
use crate::respond::table::{IncludeObject, TableWriter};
use crate::respond::{body, table, view};

use super::frames::Word;

/// Frames of at least this size are handed to the connection as they are, shared; smaller ones are copied together, since
/// a copy costs less than a write of their own.
const SHARED_FRAME_BYTES_MIN: usize = 16 * 1024;

/// Makes frames in the negotiated shape.
pub(super) struct Encoder {
    served: Arc<Served>,
    form: Form,
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
            form: call.output.form,
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
    /// answers with it when it is large enough to be sent by itself.
    pub(super) fn event(
        &mut self,
        word: Word,
        object: &Arc<Object>,
        revision: u64,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, Status> {
        // Cells of a Table depend on the time (D1).
        if matches!(self.form, Form::Table(_)) || !self.served.frames.are_shared() {
            self.write(word, object, revision, out)?;
            return Ok(None);
        }
        let frame = self.served.frames.get(object, revision, word, self.form, || {
            let mut out = BytesMut::with_capacity(object.json_len() + FRAME_AROUND_BYTES);
            self.made.inc();
            write_object(&self.served, self.form, word, object, revision, &mut out)?;
            Ok(out.freeze())
        })?;
        if frame.len() >= SHARED_FRAME_BYTES_MIN {
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
        let Form::Table(version) = self.form else {
            return write_object(&self.served, self.form, word, object, revision, out);
        };
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), revision.to_string().into());
        let rows = std::iter::once((object, revision));
        let table = self.table(version).table(rows, metadata, !self.headings_sent)?;
        self.headings_sent = true;
        framed(word.as_str(), &body::encode(&table, false), out);
        Ok(())
    }

    fn table(&self, version: &'static str) -> TableWriter<'_> {
        TableWriter::new(&self.served, self.include, version, self.clock.now().as_second())
    }

    pub(super) fn bookmark(&mut self, revision: u64, end_of_backlog: bool, out: &mut BytesMut) {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end_of_backlog {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (api_version, kind) = match self.form {
            Form::Plain => (self.served.gvk.api_version(), &*self.served.gvk.kind),
            Form::Partial(version) | Form::PartialList(version) | Form::Table(version) => {
                (format!("meta.k8s.io/{version}"), "PartialObjectMetadata")
            }
        };
        let object: Value = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        let object = match self.form {
            Form::Table(version) => self.table(version).bookmark(&object, !self.headings_sent),
            _ => object,
        };
        self.headings_sent = true;
        framed("BOOKMARK", &body::encode(&object, false), out);
    }

    /// The last frame of a watch that failed.
    pub(super) fn error(&self, status: &Status, out: &mut BytesMut) {
        framed("ERROR", &status.to_json(), out);
    }
}

/// What stands around an object in a frame, at most.
const FRAME_AROUND_BYTES: usize = 64;

fn write_object(
    served: &Served,
    form: Form,
    word: Word,
    object: &Object,
    revision: u64,
    out: &mut BytesMut,
) -> Result<(), Status> {
    open(word.as_str(), out);
    match form {
        Form::Partial(version) | Form::PartialList(version) => table::write_partial(object, revision, version, out),
        Form::Plain | Form::Table(_) => view::write(served, object, revision, out)?,
    }
    out.put_slice(b"}\n");
    Ok(())
}

fn framed(word: &str, object: &[u8], out: &mut BytesMut) {
    open(word, out);
    out.put_slice(object);
    out.put_slice(b"}\n");
}

fn open(word: &str, out: &mut BytesMut) {
    out.put_slice(br#"{"type":""#);
    out.put_slice(word.as_bytes());
    out.put_slice(br#"","object":"#);
}
