//! WATCH: a cursor on the store's ring, turned into frames.
//!
//! Guarantees (upstream's): every change after the start exactly once and in order; an object that enters or leaves the
//! selector is ADDED or DELETED; a bookmark promises that everything up to it was sent; a watcher that is too slow gets
//! 410 and nobody waits for it.
//!
//! A watcher holds a cursor and at most one handful of events from it. It encodes only when the connection asks for more,
//! and then everything that is there up to a chunk: under load many events are one write. Frames are shared
//! ([`frames`]).

mod encoder;
mod frames;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Response;
use prometheus_client::metrics::histogram::Histogram;
use store::{Cursor, Interest, WatchBatch, WatchError};
use tokio::time::{Instant, Sleep};

use api::{GroupVersionResource, Status};
use client::{Body, TransportError};

use crate::call::Call;
use crate::cluster::Object;
use crate::connect::websocket;
use crate::custom;
use crate::metrics::{WatchMetrics, scope};
use crate::options::{ListOptions, Selector};
use crate::registry::Served;
use crate::respond::body;
use crate::storage::{Stored, WatchStart, event_objects, object_of};

use super::read;
use encoder::Encoder;
pub use frames::Frames;
use frames::{Open, Word};

/// How often a watcher that asked for bookmarks gets one (upstream: `defaultBookmarkFrequency`).
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest watch without a `timeoutSeconds` (upstream: `--min-request-timeout`); up to twice as long, at random,
/// so that they do not all end together.
const TIMEOUT_MIN_SECONDS: u64 = 1800;
/// How much is encoded before it is handed to the connection.
const CHUNK_BYTES: usize = 64 * 1024;

/// WATCH.
pub async fn watch(call: &Arc<Call>, served: &Arc<Served>) -> Result<Response<Body>, Status> {
    let began = Instant::now();
    let options = ListOptions::parse(call, served, true)?;
    let encoder = Encoder::new(call, served)?;
    let start = match start(call, served, &options).await {
        Ok(start) => start,
        // Whoever may watch and asks properly is answered by events only (upstream: `newErrWatcher`).
        Err(refused) => Start {
            refused: Some(refused),
            ..Start::default()
        },
    };
    let seconds = options.timeout_seconds.unwrap_or_else(|| {
        let random = &call.server.random;
        random.range(TIMEOUT_MIN_SECONDS..2 * TIMEOUT_MIN_SECONDS)
    });
    let GroupVersionResource {
        group,
        version,
        resource,
    } = &served.gvr;
    let now = Instant::now();
    let deadline = now + Duration::from_secs(seconds);
    let asked_to_list = options.initial_events == Some(true) && options.bookmarks;
    let next_bookmark = options.bookmarks.then(|| now + BOOKMARK_INTERVAL);
    let state = Watcher {
        encoder,
        cursor: start.cursor,
        refused: start.refused,
        selector: options.selector,
        backlog: start.backlog.into_iter(),
        pending: Vec::new().into_iter(),
        raw: Vec::new(),
        more: false,
        large: None,
        end_of_backlog: start.initial && options.bookmarks,
        next_bookmark,
        marked: 0,
        from: start.from,
        deadline,
        timer: Box::pin(tokio::time::sleep_until(
            next_bookmark.unwrap_or(deadline).min(deadline),
        )),
        metrics: call.server.metrics.reads.watch(group, version, resource),
        listing: asked_to_list.then(|| {
            (
                began,
                call.server
                    .metrics
                    .reads
                    .watch_list(&served.gvr, scope(&call.attributes)),
            )
        }),
        open: Open::new(&served.frames),
        call: call.clone(),
        ended: is_of_the_past(call, served),
    };
    let chunks = futures::stream::unfold(state, |mut state| async move {
        let chunk = state.chunk().await?;
        Some((Ok::<Bytes, TransportError>(chunk), state))
    });
    let answer = body::streaming(call.output.media.stream_str(), chunks);
    if websocket::is_asked(call) {
        return websocket::events(call, call.output.media, answer);
    }
    Ok(answer)
}

/// Whether a custom resource is another one by now. When its definition changed the watches that there were ended; this one
/// may have waited then (for a seat, for a version, for a webhook), and ends too.
fn is_of_the_past(call: &Call, served: &Arc<Served>) -> bool {
    let registry = call.server.registry.load();
    let gvr = &served.gvr;
    let now = registry.find(&gvr.group, &gvr.version, &gvr.resource);
    served.kind.custom.is_some() && !now.is_some_and(|now| Arc::ptr_eq(now, served))
}

/// Where a watch begins.
#[derive(Default)]
struct Start {
    cursor: Option<Cursor<Stored>>,
    /// Why there is no cursor.
    refused: Option<Status>,
    /// The revision that the cursor follows.
    from: u64,
    /// Whether the watch tells first what is there.
    initial: bool,
    /// What is there.
    backlog: Vec<Arc<Object>>,
}

async fn start(call: &Call, served: &Served, options: &ListOptions) -> Result<Start, Status> {
    let storage = &call.server.storage;
    // Without a version a watch begins with what is there (upstream: SetListOptionsDefaults).
    let version = options.resource_version.unwrap_or(0);
    let initial = options.initial_events.unwrap_or(version == 0);
    if options.resource_version.is_none() {
        storage.fresh().await?;
    }
    // Without initial events, a watch from a version of the future has nothing to tell until then.
    if initial {
        call.wait_for(&served.kind.resource, version).await?;
    }
    let mut backlog = Vec::new();
    let from = match (initial, version) {
        (true, _) => {
            let snapshot = storage.table(&served.kind)?.snapshot();
            let prefix = served.kind.prefix(&options.selector.namespace);
            for entry in snapshot.prefix(prefix.as_bytes()) {
                backlog.push(object_of(entry)?);
                // What is not selected is dropped at once, unless it has to be converted to tell.
                if !custom::is_converted(served) {
                    backlog.pop_if(|object| !read::matches(&served.kind, &options.selector, object));
                }
            }
            let revision = snapshot.revision();
            if custom::is_converted(served) {
                backlog = custom::shown(&call.server, served, backlog).await?;
                backlog.retain(|object| read::matches(&served.kind, &options.selector, object));
            }
            revision
        }
        (false, 0) => storage.revision(),
        (false, version) => version,
    };
    let interest = interest(call, served, &options.selector);
    match storage.watch(&served.kind, from, interest) {
        Ok(cursor) => Ok(Start {
            cursor: Some(cursor),
            refused: None,
            from,
            initial,
            backlog,
        }),
        Err(WatchStart::Status(status)) => Err(status),
        Err(WatchStart::Watch(_)) => Err(Status::expired(format!(
            "too old resource version: {from} ({})",
            storage.revision()
        ))),
    }
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

struct Watcher {
    encoder: Encoder,
    /// `None`: the watch could not start; the first frame says why.
    cursor: Option<Cursor<Stored>>,
    refused: Option<Status>,
    selector: Selector,
    backlog: std::vec::IntoIter<Arc<Object>>,
    /// Taken from the cursor and not encoded.
    pending: std::vec::IntoIter<Seen>,
    /// Taken from the cursor and to be converted to the version that is watched.
    raw: Vec<Seen>,
    /// Whether the cursor had more than it gave.
    more: bool,
    /// A frame that is sent by itself, after what was encoded before it.
    large: Option<Bytes>,
    /// Whether the bookmark that ends the initial events is still owed.
    end_of_backlog: bool,
    /// When the next bookmark is due, for those who asked for them.
    next_bookmark: Option<Instant>,
    /// The revision of the last bookmark.
    marked: u64,
    from: u64,
    deadline: Instant,
    /// Rings at the deadline or the next bookmark, whichever is first.
    timer: Pin<Box<Sleep>>,
    metrics: WatchMetrics,
    /// Since when the client waits for what is there, and where that is counted.
    listing: Option<(Instant, Histogram)>,
    #[allow(dead_code, reason = "held for its drop")]
    open: Open,
    call: Arc<Call>,
    ended: bool,
}

impl Watcher {
    /// The next bytes to send; `None` when the watch is over.
    async fn chunk(&mut self) -> Option<Bytes> {
        if let Some(large) = self.large.take() {
            return Some(large);
        }
        if self.ended {
            return None;
        }
        let mut out = BytesMut::new();
        if let Some(refused) = self.refused.take() {
            self.fail(&refused, &mut out);
            return Some(out.freeze());
        }
        loop {
            // Apart, because it is seldom and takes more memory than all the rest.
            if !self.raw.is_empty()
                && let Err(status) = Box::pin(self.convert()).await
            {
                self.fail(&status, &mut out);
            }
            self.fill(&mut out);
            if !out.is_empty() {
                return Some(out.freeze());
            }
            if let Some(large) = self.large.take() {
                return Some(large);
            }
            if self.ended {
                return None;
            }
            if self.raw.is_empty() {
                self.wait(&mut out).await;
            }
        }
    }

    /// Encodes what is there, up to a chunk or a frame that goes by itself.
    fn fill(&mut self, out: &mut BytesMut) {
        self.encode(out);
        self.metrics.publish();
    }

    fn encode(&mut self, out: &mut BytesMut) {
        while out.len() < CHUNK_BYTES && self.large.is_none() && !self.ended {
            let done = match self.next_there() {
                Ok(Next::Initial(object)) => {
                    self.metrics.sends_initial();
                    let before = out.len();
                    let written = self.encoder.write(Word::Added, &object, object.revision(), out);
                    self.metrics.sent(out.len() - before);
                    written
                }
                Ok(Next::InitialEnd) => {
                    if let Some((began, seconds)) = self.listing.take() {
                        seconds.observe(began.elapsed().as_secs_f64());
                    }
                    self.bookmark(out, true)
                }
                Ok(Next::Event(event)) => self.event(event, out),
                Ok(Next::Nothing) => return,
                Err(status) => Err(status),
            };
            if let Err(status) = done {
                self.fail(&status, out);
            }
        }
    }

    /// What comes next, if it is there.
    fn next_there(&mut self) -> Result<Next, Status> {
        if let Some(object) = self.backlog.next() {
            return Ok(Next::Initial(object));
        }
        if std::mem::take(&mut self.end_of_backlog) {
            return Ok(Next::InitialEnd);
        }
        if let Some(event) = self.pending.next() {
            return Ok(Next::Event(event));
        }
        // Whether something came meanwhile is asked once, by [`Watcher::wait`].
        if !self.more || !self.raw.is_empty() {
            return Ok(Next::Nothing);
        }
        let Some(cursor) = self.cursor.as_mut() else {
            return Ok(Next::Nothing);
        };
        self.more = false;
        match cursor.try_next() {
            Ok(None) => Ok(Next::Nothing),
            Ok(Some(batch)) => {
                self.take(batch);
                Ok(self.pending.next().map_or(Next::Nothing, Next::Event))
            }
            Err(error) => self.broken(&error).map(|()| Next::Nothing),
        }
    }

    /// Keeps what came from the cursor.
    fn take(&mut self, batch: WatchBatch<Stored>) {
        self.more = batch.more;
        let seen = batch.events.iter().map(|event| {
            let (before, after) = event_objects(event);
            Seen {
                before,
                after,
                revision: event.revision,
            }
        });
        let seen: Vec<Seen> = seen.collect();
        match custom::is_converted(self.encoder.served()) {
            true => self.raw = seen,
            false => self.pending = seen.into_iter(),
        }
    }

    /// Brings what waits for it into the version that is watched, with one question for all.
    async fn convert(&mut self) -> Result<(), Status> {
        let mut raw = std::mem::take(&mut self.raw);
        let slots = || raw.iter().flat_map(|seen| [&seen.before, &seen.after]);
        let objects: Vec<Arc<Object>> = slots().flatten().cloned().collect();
        let shown = custom::shown(&self.call.server, self.encoder.served(), objects).await?;
        let mut shown = shown.into_iter();
        for slot in raw.iter_mut().flat_map(|seen| [&mut seen.before, &mut seen.after]) {
            if slot.is_some() {
                *slot = shown.next();
            }
        }
        self.pending = raw.into_iter();
        Ok(())
    }

    /// What the end of a cursor means for the watch.
    fn broken(&mut self, error: &WatchError) -> Result<(), Status> {
        match error {
            WatchError::Expired { oldest } => {
                self.metrics.terminated.inc();
                let at = self.cursor.as_ref().map_or(self.from, Cursor::revision);
                Err(Status::expired(format!("too old resource version: {at} ({oldest})")))
            }
            WatchError::Closed => {
                self.ended = true;
                Ok(())
            }
        }
    }

    /// Waits until there is something to do, and does what is no event: bookmarks, the end.
    async fn wait(&mut self, out: &mut BytesMut) {
        let Some(cursor) = self.cursor.as_mut() else {
            self.ended = true;
            return;
        };
        // Events that never cease must not keep it beyond its time, nor beyond the server's.
        if self.call.server.shutdown.is_triggered() {
            self.deadline = Instant::now();
        }
        let outcome = if Instant::now() >= self.deadline {
            None
        } else {
            tokio::select! {
                biased;
                batch = cursor.next() => Some(batch),
                () = self.timer.as_mut() => None,
                () = self.call.server.shutdown.cancelled() => {
                    self.deadline = Instant::now();
                    None
                }
            }
        };
        match outcome {
            Some(Ok(batch)) => self.take(batch),
            Some(Err(error)) => {
                if let Err(status) = self.broken(&error) {
                    self.fail(&status, out);
                }
            }
            None => {
                self.ended = Instant::now() >= self.deadline;
                // At the end it is the last word: where to resume.
                if self.next_bookmark.is_some()
                    && let Err(status) = self.bookmark(out, false)
                {
                    self.fail(&status, out);
                }
                self.timer
                    .as_mut()
                    .reset(self.next_bookmark.unwrap_or(self.deadline).min(self.deadline));
            }
        }
    }

    fn event(&mut self, event: Seen, out: &mut BytesMut) -> Result<(), Status> {
        let Seen {
            before,
            after,
            revision,
        } = event;
        let kind = &self.encoder.served().kind;
        let selected = |object: &Arc<Object>| read::matches(kind, &self.selector, object);
        let (word, object) = match (before.filter(selected), after.filter(selected)) {
            (None, None) => return Ok(()),
            (None, Some(now)) => (Word::Added, now),
            (Some(_), Some(now)) => (Word::Modified, now),
            (Some(old), None) => (Word::Deleted, old),
        };
        let before = out.len();
        let alone = out.is_empty() && self.pending.len() == 0 && !self.more;
        self.large = self.encoder.event(word, &object, revision, alone, out)?;
        let large = self.large.as_ref().map_or(0, Bytes::len);
        self.metrics.sent(out.len() - before + large);
        Ok(())
    }

    /// A bookmark, unless nothing happened since the last one or events are waiting.
    fn bookmark(&mut self, out: &mut BytesMut, end_of_backlog: bool) -> Result<(), Status> {
        self.next_bookmark = self.next_bookmark.map(|_| Instant::now() + BOOKMARK_INTERVAL);
        let revision = match end_of_backlog {
            true => Some(self.from),
            false => self.cursor.as_mut().and_then(|cursor| cursor.progress().ok().flatten()),
        };
        let Some(revision) = revision.filter(|revision| *revision > self.marked || end_of_backlog) else {
            return Ok(());
        };
        self.marked = revision;
        self.encoder.bookmark(revision, end_of_backlog, out)
    }

    /// The last frame of a watch that failed.
    fn fail(&mut self, status: &Status, out: &mut BytesMut) {
        self.ended = true;
        self.encoder.error(status, out);
    }
}

/// A change as the watch sees it.
struct Seen {
    before: Option<Arc<Object>>,
    after: Option<Arc<Object>>,
    revision: u64,
}

/// What a watcher sends next.
enum Next {
    Initial(Arc<Object>),
    InitialEnd,
    Event(Seen),
    Nothing,
}
