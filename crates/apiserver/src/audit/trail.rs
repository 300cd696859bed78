//! One request on its way: what is added to its events, and when they are told.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::codec::{Limits, MediaType, json, protobuf, yaml};
use api::{Map, Value, meta};
use bytes::{Bytes, BytesMut};
use client::Body;
use flate2::read::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::json;

use super::held::Held;
use super::policy::Verdict;
use super::{Auditor, Level, Stage, Strictness};
use crate::respond::observed::observed;

/// Objects of answers up to here are told; a larger one is left out and the event says so. A line of the log that nothing
/// can read helps nobody; upstream's truncation begins at the same place (`--audit-log-truncate-max-event-size`).
const OBJECT_BYTES_MAX: usize = 10 * 1024 * 1024;

/// An event was lost that had to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to store audit event")]
pub struct AnnounceError;

/// Follows a request. Tells its last stage when dropped, if not before.
pub struct Trail {
    auditor: Arc<Auditor>,
    verdict: Verdict,
    event: Mutex<Map>,
    answer: Mutex<Answer>,
    is_finished: AtomicBool,
}

#[derive(Default)]
struct Answer {
    code: u16,
    media: Option<MediaType>,
    is_compressed: bool,
    bytes: BytesMut,
    truncated: bool,
}

impl Trail {
    pub(super) fn new(auditor: Arc<Auditor>, verdict: Verdict, event: Map) -> Trail {
        Trail {
            auditor,
            verdict,
            event: Mutex::new(event),
            answer: Mutex::default(),
            is_finished: AtomicBool::new(false),
        }
    }

    /// Tells that the request came.
    ///
    /// # Errors
    /// The event is lost, and the request must not go on then.
    pub async fn announce(&self) -> Result<(), AnnounceError> {
        if self.tell_and_wait(Stage::RequestReceived).await {
            return Ok(());
        }
        self.auditor.metrics.rejected();
        self.is_finished.store(true, Ordering::Relaxed);
        Err(AnnounceError)
    }

    /// Tells the last stage now, once.
    pub(super) async fn finish(&self) {
        if !self.is_finished.swap(true, Ordering::Relaxed) {
            self.tell_and_wait(Stage::ResponseComplete).await;
        }
    }

    /// Notes something about the request.
    pub fn annotate(&self, key: &str, value: &str) {
        let mut event = self.event.lock();
        let annotations = event.entry("annotations").or_insert_with(|| json!({}));
        annotations[key] = value.into();
    }

    /// Notes something that is only told with so much of the request.
    pub fn annotate_at(&self, level: Level, key: &str, value: &str) {
        if self.verdict.level >= level {
            self.annotate(key, value);
        }
    }

    /// Notes what was sent: the object, or the patch.
    pub fn received(&self, headers: &HeaderMap, body: &Bytes) {
        let media = match headers.contains_key(CONTENT_ENCODING) {
            true => None,
            false => media_of(headers),
        };
        let Some(mut object) = tree(media, body) else {
            return;
        };
        let mut event = self.event.lock();
        if let Some(reference) = event.get_mut("objectRef").and_then(Value::as_object_mut)
            && object["kind"].is_string()
        {
            let found = [
                ("name", meta::name(&object)),
                ("uid", meta::uid(&object)),
                ("resourceVersion", meta::resource_version(&object)),
            ];
            for (field, text) in found.into_iter().filter(|(_, text)| !text.is_empty()) {
                reference.entry(field).or_insert_with(|| text.into());
            }
        }
        if self.verdict.level >= Level::Request {
            self.trim(&mut object);
            event.insert("requestObject".into(), object);
        }
    }

    /// Follows an answer to its end. Of a request that runs long it is told that its answer begins, and not what it says:
    /// that comes in its own time, and nothing of it may be held back.
    pub async fn follow(self: Arc<Self>, response: Response<Body>, is_long_running: bool) -> Response<Body> {
        let code = response.status().as_u16();
        let streams = is_long_running && code < 400;
        {
            let mut answer = self.answer.lock();
            answer.code = code;
            let encoding = response.headers().get(CONTENT_ENCODING);
            answer.is_compressed = encoding.is_some_and(|encoding| encoding == "gzip");
            if answer.is_compressed || encoding.is_none() {
                answer.media = media_of(response.headers());
            }
        }
        if is_long_running {
            self.tell_and_wait(Stage::ResponseStarted).await;
        }
        let keep = !streams && (self.verdict.level == Level::RequestResponse || code >= 400);
        let holds = !streams && self.auditor.waits();
        if holds && response.body().is_end_stream() {
            // Nobody asks for the end of a body that has none.
            self.finish().await;
            return response;
        }
        response.map(|body| {
            let trail = self.clone();
            let body = observed(body, move |frame| {
                if let Some(data) = frame.data_ref().filter(|_| keep) {
                    trail.answer.lock().keep(data);
                }
            });
            match holds {
                true => Held::new(body, self).boxed_unsync(),
                false => body,
            }
        })
    }

    /// Tells a stage, unless the policy leaves it out. Nobody waits.
    pub(super) fn tell(&self, stage: Stage) {
        let Some(event) = self.event_of(stage) else { return };
        for sink in &self.auditor.sinks {
            if sink.write(&event).is_err() {
                self.auditor.metrics.lost(sink.name());
            }
        }
    }

    /// The same, and waits for those who say so. Answers whether the request may go on.
    async fn tell_and_wait(&self, stage: Stage) -> bool {
        let Some(event) = self.event_of(stage) else { return true };
        let mut may_go_on = true;
        for sink in &self.auditor.sinks {
            let outcome = match sink.waits() {
                None => sink.write(&event),
                Some(_) => sink.deliver(&event).await,
            };
            if outcome.is_err() {
                self.auditor.metrics.lost(sink.name());
                may_go_on &= sink.waits() != Some(Strictness::Strict);
            }
        }
        may_go_on
    }

    fn event_of(&self, stage: Stage) -> Option<Value> {
        if self.verdict.omit_stages.contains(&stage) {
            return None;
        }
        let mut event = self.event.lock().clone();
        event.insert("stage".into(), stage.as_str().into());
        event.insert("stageTimestamp".into(), self.auditor.now().into());
        if stage == Stage::RequestReceived {
            // What is known only later is not told before: the object is read after this.
            event.remove("requestObject");
        } else {
            self.add_answer(&mut event, stage);
        }
        self.auditor.metrics.told();
        Some(Value::Object(event))
    }

    fn add_answer(&self, event: &mut Map, stage: Stage) {
        let mut answer = self.answer.lock();
        answer.decompress();
        let (code, said) = match (stage, answer.code) {
            (Stage::Panic, _) => (500, "an internal error: the server panicked"),
            (_, 0) => (504, "the request was given up before it was answered"),
            (_, code) => (code, ""),
        };
        let object = tree(answer.media, &answer.bytes.clone().freeze());
        let mut status = json!({"metadata": {}, "code": code});
        if !said.is_empty() {
            status["status"] = "Failure".into();
            status["message"] = said.into();
        }
        if let Some(object) = object.as_ref().filter(|object| object["kind"] == "Status") {
            for field in ["status", "message", "reason", "details"] {
                if !object[field].is_null() {
                    status[field] = object[field].clone();
                }
            }
        }
        event.insert("responseStatus".into(), status);
        if self.verdict.level < Level::RequestResponse || stage != Stage::ResponseComplete {
            return;
        }
        if answer.truncated {
            let annotations = event.entry("annotations").or_insert_with(|| json!({}));
            annotations["audit.k8s.io/truncated"] = "true".into();
        } else if let Some(mut object) = object {
            self.trim(&mut object);
            event.insert("responseObject".into(), object);
        }
    }

    fn trim(&self, object: &mut Value) {
        if !self.verdict.omit_managed_fields {
            return;
        }
        let forget = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        forget(object);
        for item in object
            .get_mut("items")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            forget(item);
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if *self.is_finished.get_mut() {
            return;
        }
        self.tell(match std::thread::panicking() {
            true => Stage::Panic,
            false => Stage::ResponseComplete,
        });
    }
}

impl Answer {
    fn keep(&mut self, data: &Bytes) {
        if self.truncated || self.bytes.len() + data.len() > OBJECT_BYTES_MAX {
            (self.truncated, self.bytes) = (true, BytesMut::new());
        } else {
            self.bytes.extend_from_slice(data);
        }
    }

    /// Large answers are compressed before they come by here.
    fn decompress(&mut self) {
        if !std::mem::take(&mut self.is_compressed) || self.bytes.is_empty() {
            return;
        }
        let mut plain = Vec::new();
        let mut limited = MultiGzDecoder::new(&self.bytes[..]).take(OBJECT_BYTES_MAX as u64 + 1);
        let outcome = limited.read_to_end(&mut plain);
        if outcome.is_err() || plain.len() > OBJECT_BYTES_MAX {
            (self.truncated, self.bytes) = (true, BytesMut::new());
        } else {
            self.bytes = plain.as_slice().into();
        }
    }
}

fn media_of(headers: &HeaderMap) -> Option<MediaType> {
    MediaType::parse(headers.get(CONTENT_TYPE)?.to_str().ok()?)
}

/// The object in a body; `None`: there is none that can be read.
fn tree(media: Option<MediaType>, bytes: &Bytes) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    let limits = Limits::default();
    match media {
        Some(MediaType::Protobuf) => {
            let (gvk, mut value) = protobuf::decode(bytes).ok()?;
            crate::respond::view::set_kind(&mut value, &gvk.api_version(), &gvk.kind);
            Some(value)
        }
        Some(MediaType::Yaml | MediaType::ApplyYaml) => yaml::decode(bytes, &limits).ok().map(|decoded| decoded.value),
        _ => json::decode(bytes, &limits).ok().map(|decoded| decoded.value),
    }
}
