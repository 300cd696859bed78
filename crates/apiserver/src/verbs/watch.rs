//! WATCH: a cursor on the store's ring, turned into frames.
//!
//! Guarantees (upstream's): every change after the start exactly once and in order; an object that enters or leaves the
//! selector is ADDED or DELETED; a bookmark promises that everything up to it was sent; a watcher that is too slow gets
//! 410 and nobody waits for it.
//!
//! A frame of the stored version is the stored bytes with the version spliced in: a copy, which costs less than a cache of
//! frames would. Other versions and Tables are made for each watcher.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use serde_json::json;
use store::{Cursor, Interest, WatchError};
use tokio::time::Instant;

use api::{Map, Status, Value};
use client::{Body, TransportError};

use crate::call::Call;
use crate::cluster::Object;
use crate::metrics::ResourceLabels;
use crate::options::{ListOptions, Selector};
use crate::registry::Served;
use crate::respond::negotiate::Form;
use crate::respond::table::{IncludeObject, TableWriter};
use crate::respond::{body, table, view};
use crate::storage::{Stored, WatchStart, event_objects, object_of};

use super::read;

/// How often a watcher that asked for bookmarks gets one (upstream: `defaultBookmarkFrequency`).
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest watch without a `timeoutSeconds` (upstream: `--min-request-timeout`); up to twice as long, at random,
/// so that they do not all end together.
const TIMEOUT_MIN_SECONDS: u64 = 1800;
/// How much is encoded before it is handed to the connection.
const CHUNK_BYTES: usize = 64 * 1024;

/// WATCH.
pub async fn watch(call: &Arc<Call>, served: &Arc<Served>) -> Result<Response<Body>, Status> {
    let mut options = ListOptions::parse(call, served, true)?;
    let encoder = Encoder::new(call, served)?;
    let storage = &call.server.storage;
    // Without a version a watch begins with what is there (upstream: SetListOptionsDefaults).
    let version = options.resource_version.unwrap_or(0);
    let initial = options.initial_events.unwrap_or(version == 0);
    if version > 0 && (options.initial_events.is_some() || version > storage.revision()) {
        storage.wait_for(version).await?;
    }
    let interest = interest(call, served, &options.selector);
    let mut backlog = Vec::new();
    let from = match (initial, version) {
        (true, _) => {
            let snapshot = storage.table(&served.kind)?.snapshot();
            let prefix = served.kind.prefix(&options.selector.namespace);
            for entry in snapshot.prefix(prefix.as_bytes()) {
                let object = object_of(entry)?;
                if read::matches(&served.kind, &options.selector, &object) {
                    backlog.push(object);
                }
            }
            snapshot.revision()
        }
        (false, 0) => storage.revision(),
        (false, version) => version,
    };
    let cursor = match storage.watch(&served.kind, from, interest) {
        Ok(cursor) => Some(cursor),
        Err(WatchStart::Status(status)) => return Err(status),
        Err(WatchStart::Watch(_)) => None,
    };
    options.next.clear();
    let seconds = options.timeout_seconds.unwrap_or_else(|| {
        let random = &call.server.random;
        random.range(TIMEOUT_MIN_SECONDS..2 * TIMEOUT_MIN_SECONDS)
    });
    let labels = ResourceLabels {
        group: served.gvr.group.clone(),
        resource: served.gvr.resource.clone(),
    };
    let watches = call.server.metrics.watches.get_or_create(&labels).clone();
    watches.inc();
    let now = Instant::now();
    let state = Watcher {
        encoder,
        cursor,
        selector: options.selector,
        backlog: backlog.into_iter(),
        end_of_backlog: initial && options.bookmarks,
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK_INTERVAL,
        marked: 0,
        from,
        deadline: now + Duration::from_secs(seconds),
        events: call.server.metrics.watch_events.get_or_create(&labels).clone(),
        open: OpenWatch(watches),
        call: call.clone(),
        ended: false,
    };
    let chunks = futures::stream::unfold(state, |mut state| async move {
        let chunk = state.chunk().await?;
        Some((Ok::<Bytes, TransportError>(chunk), state))
    });
    Ok(body::streaming("application/json", chunks))
}

/// What wakes the watcher: as little as the request allows.
fn interest(call: &Call, served: &Served, selector: &Selector) -> Interest {
    let kind = &served.kind;
    match (&selector.name, &*selector.namespace) {
        (Some(name), namespace) if !kind.row.namespaced || !namespace.is_empty() => {
            return Interest::Key(kind.key(namespace, name).into());
        }
        (_, namespace) if !namespace.is_empty() => return Interest::Namespace(kind.prefix(namespace).into()),
        _ => {}
    }
    // The only declared trigger of upstream is a pod's node; its row says how to read it from an object.
    let node = selector
        .fields
        .exact_value("spec.nodeName")
        .filter(|node| !node.is_empty());
    match (kind.row.trigger, node) {
        (Some(_), Some(node)) if call.attributes.resource == "pods" => Interest::Trigger(node.to_owned()),
        _ => Interest::All,
    }
}

/// Counts an open watch until it is dropped.
struct OpenWatch(prometheus_client::metrics::gauge::Gauge);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Watcher {
    encoder: Encoder,
    /// `None`: the history does not reach back to the start; the first frame says so.
    cursor: Option<Cursor<Stored>>,
    selector: Selector,
    backlog: std::vec::IntoIter<Arc<Object>>,
    /// Whether the bookmark that ends the initial events is still owed.
    end_of_backlog: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    /// The revision of the last bookmark.
    marked: u64,
    from: u64,
    deadline: Instant,
    events: prometheus_client::metrics::counter::Counter,
    #[allow(dead_code, reason = "held for its drop")]
    open: OpenWatch,
    call: Arc<Call>,
    ended: bool,
}

impl Watcher {
    /// The next bytes to send; `None` when the watch is over.
    async fn chunk(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = BytesMut::new();
        if self.cursor.is_none() {
            let current = self.call.server.storage.revision();
            let message = format!("too old resource version: {} ({current})", self.from);
            return Some(self.fail(&Status::expired(message)));
        }
        loop {
            if let Some(chunk) = self.backlog_chunk(&mut out) {
                return Some(chunk);
            }
            let batch = match self.step().await {
                Step::Batch(batch) => batch,
                Step::Bookmark => {
                    self.bookmark(&mut out, false);
                    if !out.is_empty() {
                        return Some(out.freeze());
                    }
                    continue;
                }
                Step::Over => {
                    self.ended = true;
                    // The last word: where to resume.
                    if self.bookmarks {
                        self.bookmark(&mut out, false);
                    }
                    return (!out.is_empty()).then(|| out.freeze());
                }
                Step::Failed(status) => return Some(self.fail(&status)),
            };
            for event in &batch.events {
                let (before, after) = event_objects(event);
                if let Err(status) = self.event(before.as_deref(), after.as_deref(), event.revision, &mut out) {
                    return Some(self.fail(&status));
                }
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
        }
    }

    /// Initial events, and the bookmark that ends them.
    fn backlog_chunk(&mut self, out: &mut BytesMut) -> Option<Bytes> {
        while out.len() < CHUNK_BYTES {
            let Some(object) = self.backlog.next() else { break };
            self.events.inc();
            if let Err(status) = self.encoder.frame("ADDED", &object, object.revision(), out) {
                return Some(self.fail(&status));
            }
        }
        if self.end_of_backlog && self.backlog.len() == 0 && out.len() < CHUNK_BYTES {
            self.end_of_backlog = false;
            self.bookmark(out, true);
        }
        (!out.is_empty()).then(|| out.split().freeze())
    }

    async fn step(&mut self) -> Step {
        let Some(cursor) = self.cursor.as_mut() else {
            return Step::Over;
        };
        let bookmark = if self.bookmarks {
            self.next_bookmark
        } else {
            self.deadline + BOOKMARK_INTERVAL
        };
        tokio::select! {
            biased;
            batch = cursor.next() => match batch {
                Ok(batch) => Step::Batch(batch),
                Err(WatchError::Expired { oldest }) => {
                    let at = cursor.revision();
                    Step::Failed(Status::expired(format!("too old resource version: {at} ({oldest})")))
                }
                Err(WatchError::Closed) => Step::Over,
            },
            () = tokio::time::sleep_until(self.deadline) => Step::Over,
            () = tokio::time::sleep_until(bookmark) => Step::Bookmark,
            () = self.call.server.shutdown.cancelled() => Step::Over,
        }
    }

    fn event(
        &mut self,
        before: Option<&Object>,
        after: Option<&Object>,
        revision: u64,
        out: &mut BytesMut,
    ) -> Result<(), Status> {
        let kind = &self.encoder.served.kind;
        let selected = |object: Option<&'_ Object>| object.is_some_and(|o| read::matches(kind, &self.selector, o));
        let was = before.filter(|_| selected(before));
        let is = after.filter(|_| selected(after));
        let (word, object) = match (was, is) {
            (None, None) => return Ok(()),
            (None, Some(now)) => ("ADDED", now),
            (Some(_), Some(now)) => ("MODIFIED", now),
            (Some(old), None) => ("DELETED", old),
        };
        self.events.inc();
        self.encoder.frame(word, object, revision, out)
    }

    /// A bookmark, unless nothing happened since the last one or events are waiting.
    fn bookmark(&mut self, out: &mut BytesMut, end_of_backlog: bool) {
        self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
        let revision = match end_of_backlog {
            true => Some(self.from),
            false => self.cursor.as_mut().and_then(|cursor| cursor.progress().ok().flatten()),
        };
        let Some(revision) = revision.filter(|revision| *revision > self.marked || end_of_backlog) else {
            return;
        };
        self.marked = revision;
        self.encoder.bookmark(revision, end_of_backlog, out);
    }

    /// The last frame of a watch that failed.
    fn fail(&mut self, status: &Status) -> Bytes {
        self.ended = true;
        let mut out = BytesMut::new();
        out.put_slice(br#"{"type":"ERROR","object":"#);
        out.put_slice(&status.to_json());
        out.put_slice(b"}\n");
        out.freeze()
    }
}

enum Step {
    Batch(store::WatchBatch<Stored>),
    Bookmark,
    Over,
    Failed(Status),
}

/// Makes frames in the negotiated shape.
struct Encoder {
    served: Arc<Served>,
    form: Form,
    include: IncludeObject,
    /// Whether a Table's headings were sent.
    headings_sent: bool,
    clock: base::Clock,
}

impl Encoder {
    fn new(call: &Call, served: &Arc<Served>) -> Result<Encoder, Status> {
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
        })
    }

    fn table(&self, version: &'static str) -> TableWriter<'_> {
        TableWriter::new(&self.served, self.include, version, self.clock.now().as_second())
    }

    fn frame(&mut self, word: &str, object: &Object, revision: u64, out: &mut BytesMut) -> Result<(), Status> {
        open(word, out);
        match self.form {
            Form::Plain => view::write(&self.served, object, revision, out)?,
            Form::Partial(version) | Form::PartialList(version) => {
                table::write_partial(object, revision, version, out);
            }
            Form::Table(version) => {
                let mut metadata = Map::new();
                metadata.insert("resourceVersion".into(), revision.to_string().into());
                let rows = std::iter::once((object, revision));
                let table = self.table(version).table(rows, metadata, !self.headings_sent)?;
                self.headings_sent = true;
                out.put_slice(&body::encode(&table, false));
            }
        }
        out.put_slice(b"}\n");
        Ok(())
    }

    fn bookmark(&mut self, revision: u64, end_of_backlog: bool, out: &mut BytesMut) {
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
        open("BOOKMARK", out);
        out.put_slice(&body::encode(&object, false));
        out.put_slice(b"}\n");
    }
}

fn open(word: &str, out: &mut BytesMut) {
    out.put_slice(br#"{"type":""#);
    out.put_slice(word.as_bytes());
    out.put_slice(br#"","object":"#);
}
