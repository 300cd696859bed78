//! Events on their way to watchers: encoded once, however many watches ask the same.
//!
//! A watch's answer is a head of its own (its id, the header) and events that are the same for every watch with the same
//! question. In protobuf the two encoded one after the other are the whole message, so the events are shared as bytes.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes};
use parking_lot::Mutex;
use prost::Message as _;
use rpc::etcd::etcdserverpb::{WatchRequest, WatchResponse};
use rpc::etcd::mvccpb::Event;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::watch::Question;
use crate::engine::Revision;

/// Answers that are kept for others with the same question: the watches of a few questions at a few positions. Most watches
/// are where the newest commit is.
const KEPT_MAX: usize = 16;
/// The largest answer that is kept, so that together they stay below 8 MiB.
const KEPT_BYTES_MAX: usize = 512 * 1024;

/// A message of a watch.
#[derive(Debug)]
pub(super) struct Answer {
    /// All but the events.
    pub(super) head: WatchResponse,
    /// The events, as [`encoded`] makes them.
    pub(super) events: Bytes,
}

/// The field `events` of a message.
pub(super) fn encoded(events: Vec<Event>) -> Bytes {
    let alone = WatchResponse {
        events,
        ..WatchResponse::default()
    };
    alone.encode_to_vec().into()
}

/// The commits after a revision, up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) after: Revision,
    pub(super) upto: Revision,
}

/// The newest answers.
#[derive(Debug, Default)]
pub(super) struct Telling {
    kept: Mutex<VecDeque<(Interval, Question, Bytes)>>,
}

impl Telling {
    /// The answer to a question about an interval, made when nobody has asked it.
    pub(super) fn get(&self, question: &Question, interval: Interval, make: impl FnOnce() -> Bytes) -> Bytes {
        let asked = |(about, what, _): &&(Interval, Question, Bytes)| *about == interval && what == question;
        if let Some((_, _, known)) = self.kept.lock().iter().rev().find(asked) {
            return known.clone();
        }
        // Two may make the same at the same time, which harms nobody.
        let made = make();
        if made.len() <= KEPT_BYTES_MAX {
            let mut kept = self.kept.lock();
            if kept.len() >= KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back((interval, question.clone(), made.clone()));
        }
        made
    }
}

/// Encodes answers, decodes requests.
#[derive(Debug)]
pub(super) struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = Answer;
    type Decode = WatchRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for WatchCodec {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(answer.head.encoded_len() + answer.events.len());
        let encoded = answer.head.encode(buffer);
        encoded.map_err(|error| Status::internal(error.to_string()))?;
        buffer.put(answer.events);
        Ok(())
    }
}

impl Decoder for WatchCodec {
    type Item = WatchRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<WatchRequest>, Status> {
        let decoded = WatchRequest::decode(buffer);
        decoded.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::KeyRange;

    fn question(with_previous: bool) -> Question {
        Question {
            range: KeyRange::all(),
            with_previous,
            without_puts: false,
            without_deletes: false,
        }
    }

    #[test]
    fn an_answer_is_made_once_for_each_question_and_interval() {
        let telling = Telling::default();
        let made = std::cell::Cell::new(0);
        let ask = |with_previous, after| {
            let interval = Interval { after, upto: 9 };
            telling.get(&question(with_previous), interval, || {
                made.set(made.get() + 1);
                Bytes::from(made.get().to_string())
            })
        };
        for (with_previous, after, expect) in [
            (false, 1, "1"),
            (false, 1, "1"),
            (true, 1, "2"),
            (false, 2, "3"),
            (true, 1, "2"),
        ] {
            assert_eq!(ask(with_previous, after), expect, "{with_previous} after {after}");
        }
        for after in 10..10 + KEPT_MAX as u64 {
            ask(false, after);
        }
        let before = made.get();
        ask(false, 1);
        assert_eq!(made.get(), before + 1, "the oldest is forgotten");
        assert_eq!(telling.kept.lock().len(), KEPT_MAX);
    }

    #[test]
    fn head_and_events_are_one_message() {
        let whole = WatchResponse {
            watch_id: 7,
            events: vec![
                Event::default(),
                Event {
                    r#type: 1,
                    ..Event::default()
                },
            ],
            ..WatchResponse::default()
        };
        let head = WatchResponse {
            events: Vec::new(),
            ..whole.clone()
        };
        let joined = [head.encode_to_vec(), encoded(whole.events.clone()).into()].concat();
        assert_eq!(WatchResponse::decode(&joined[..]).unwrap(), whole);
    }
}
