//! A watch: the stream of what happens to the objects of a resource.
//!
//! On the wire it is one JSON object a line, `{"type", "object"}`; upstream's encoder ends each with a newline.

use std::collections::VecDeque;
use std::marker::PhantomData;

use api::Status;
use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::kind::{Object, PartialObject};
use crate::{Body, Error, Result, TransportError};

/// One event may be so large. Source: client-go's limit of a frame.
const FRAME_BYTES_MAX: usize = 16 << 20;
/// A bookmark with this annotation ends the initial events of a watch list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What happened.
#[derive(Clone, Debug)]
pub enum Event<T> {
    /// An object is there, or has come into the selection.
    Added(T),
    /// It changed.
    Modified(T),
    /// It is gone, or has left the selection; its last state.
    Deleted(T),
    /// Nothing happened up to this revision.
    Bookmark {
        /// The revision.
        resource_version: String,
        /// The initial events are complete.
        initial_events_end: bool,
    },
}

/// The events of one watch, in order. Dropping it ends the watch.
pub struct WatchStream<T> {
    body: Body,
    buffer: BytesMut,
    /// How far `buffer` was searched for a newline.
    searched: usize,
    ready: VecDeque<Result<Event<T>>>,
    ended: bool,
    resource: String,
    kind: PhantomData<fn() -> T>,
}

impl<T: Object> WatchStream<T> {
    pub(crate) fn new(body: Body, resource: String) -> Self {
        WatchStream {
            body,
            buffer: BytesMut::new(),
            searched: 0,
            ready: VecDeque::new(),
            ended: false,
            resource,
            kind: PhantomData,
        }
    }

    /// The next event; `None` when the server ended the watch. After an error other than [`Error::Decode`] the watch is
    /// over. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Event<T>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                // An object that cannot be read is one event; anything else that fails ends the watch.
                if matches!(event, Err(Error::Api(_) | Error::Transport(_))) {
                    self.ended = true;
                    self.ready.clear();
                }
                return Some(event);
            }
            if self.ended {
                return None;
            }
            match self.body.frame().await {
                None => {
                    self.ended = true;
                    let rest = std::mem::take(&mut self.buffer);
                    if !rest.trim_ascii().is_empty() {
                        self.ready.push_back(self.decode(&rest));
                    }
                }
                Some(Err(error)) => self.ready.push_back(Err(error.into())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.take_lines(&data);
                    }
                }
            }
        }
    }

    /// Events that came together with the last one and wait already; lets a reader apply a burst at once.
    pub fn next_ready(&mut self) -> Option<Result<Event<T>>> {
        if matches!(self.ready.front(), Some(Ok(_))) {
            self.ready.pop_front()
        } else {
            None
        }
    }

    fn take_lines(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
        while let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(self.searched + at);
            self.buffer.advance(1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                let event = self.decode(&line);
                self.ready.push_back(event);
            }
        }
        self.searched = self.buffer.len();
        if self.buffer.len() > FRAME_BYTES_MAX {
            self.ready
                .push_back(Err(TransportError::TooLarge(FRAME_BYTES_MAX).into()));
        }
    }

    fn decode(&self, line: &[u8]) -> Result<Event<T>> {
        #[derive(Deserialize)]
        struct Frame<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let wrong = |error| Error::decode(format!("watch event of {}", self.resource), error);
        let frame: Frame<'_> = serde_json::from_slice(line).map_err(wrong)?;
        let object = frame.object.get().as_bytes();
        match frame.kind {
            "ADDED" => T::decode(object).map(Event::Added).map_err(wrong),
            "MODIFIED" => T::decode(object).map(Event::Modified).map_err(wrong),
            "DELETED" => T::decode(object).map(Event::Deleted).map_err(wrong),
            "BOOKMARK" => {
                let bookmark = PartialObject::decode(object).map_err(wrong)?.metadata;
                let annotations = bookmark.annotations.unwrap_or_default();
                Ok(Event::Bookmark {
                    resource_version: bookmark.resource_version.unwrap_or_default(),
                    initial_events_end: annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true"),
                })
            }
            "ERROR" => Err(serde_json::from_slice::<Status>(object).map_err(wrong)?.into()),
            other => Err(wrong(serde::de::Error::custom(format!("unknown event type {other:?}")))),
        }
    }
}
