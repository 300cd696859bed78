//! The fake server's watches: cursors into its history.

use std::collections::VecDeque;

use api::{Status, Value};
use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;

use super::FakeApi;
use super::selecting::Selecting;
use crate::{Body, Resource, TransportError};

struct Watcher {
    api: FakeApi,
    resource: String,
    selecting: Selecting,
    cursor: u64,
    generation: u64,
    waiting: VecDeque<Value>,
    over: bool,
}

/// Opens a watch; a body of one JSON object a line.
pub(super) fn open(
    api: &FakeApi,
    resource: &Resource,
    selecting: Selecting,
    from: Option<u64>,
    initial_events: bool,
) -> Body {
    let generation = api.shared.valve.borrow().generation;
    let mut waiting = VecDeque::new();
    let state = api.shared.state.lock();
    let cursor = match from.filter(|from| *from > 0 && !initial_events) {
        Some(from) => from,
        None => {
            let objects = state.list(resource, "");
            let present = objects.into_iter().filter(|object| selecting.matches(object));
            waiting.extend(present.map(|object| json!({"type": "ADDED", "object": object})));
            if initial_events {
                waiting.push_back(json!({"type": "BOOKMARK", "object": {
                    "apiVersion": resource.api_version(), "kind": resource.kind,
                    "metadata": {
                        "resourceVersion": state.revision.to_string(),
                        "annotations": {"k8s.io/initial-events-end": "true"},
                    },
                }}));
            }
            state.revision
        }
    };
    drop(state);
    let watcher = Watcher {
        api: api.clone(),
        resource: resource.to_string(),
        selecting,
        cursor,
        generation,
        waiting,
        over: false,
    };
    StreamBody::new(stream::unfold(watcher, next)).boxed_unsync()
}

async fn next(mut watcher: Watcher) -> Option<(Result<Frame<Bytes>, TransportError>, Watcher)> {
    let mut revision = watcher.api.shared.revision.subscribe();
    let mut valve = watcher.api.shared.valve.subscribe();
    loop {
        if !watcher.waiting.is_empty() {
            let mut bytes = Vec::new();
            for event in watcher.waiting.drain(..) {
                bytes.extend(serde_json::to_vec(&event).expect("invariant: a Value has only text keys"));
                bytes.push(b'\n');
            }
            return Some((Ok(Frame::data(bytes.into())), watcher));
        }
        let limit = {
            let valve = valve.borrow_and_update();
            if watcher.over || valve.generation != watcher.generation {
                return None;
            }
            if valve.limited.is_empty() || valve.limited == watcher.resource {
                valve.limit
            } else {
                u64::MAX
            }
        };
        revision.borrow_and_update();
        watcher.read(limit);
        if watcher.waiting.is_empty() {
            tokio::select! {
                _ = revision.changed() => {}
                _ = valve.changed() => {}
            }
        }
    }
}

impl Watcher {
    fn read(&mut self, limit: u64) {
        let state = self.api.shared.state.lock();
        if self.cursor < state.compacted {
            let status = Status::expired(format!(
                "too old resource version: {} ({})",
                self.cursor, state.compacted
            ));
            self.waiting.push_back(json!({"type": "ERROR", "object": status}));
            self.over = true;
            return;
        }
        let from = state
            .history
            .partition_point(|happened| happened.revision <= self.cursor);
        for happened in state.history[from..]
            .iter()
            .take_while(|happened| happened.revision <= limit)
        {
            self.cursor = happened.revision;
            if happened.resource != self.resource {
                continue;
            }
            let old = happened.old.as_ref().filter(|object| self.selecting.matches(object));
            let new = happened.new.as_ref().filter(|object| self.selecting.matches(object));
            let event = match (old, new) {
                (None, Some(new)) => json!({"type": "ADDED", "object": new}),
                (Some(_), Some(new)) => json!({"type": "MODIFIED", "object": new}),
                (Some(old), None) => {
                    let mut old = old.clone();
                    api::meta::set_text(&mut old, "resourceVersion", &happened.revision.to_string());
                    json!({"type": "DELETED", "object": old})
                }
                (None, None) => continue,
            };
            self.waiting.push_back(event);
        }
    }
}
