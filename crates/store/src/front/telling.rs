//! Events on their way to watchers: encoded once, however many watches ask the same.
//!
//! A watch's answer is a head of its own (its id, the header) and events that are the same for every watch with the same
//! question. In protobuf the two encoded one after the other are the whole message, so the events are shared as bytes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use prost::Message as _;
use rpc::etcd::etcdserverpb::{WatchRequest, WatchResponse};
use rpc::etcd::mvccpb::Event;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};

use super::grpc::PREFIX_BYTES;
use super::watch::Question;
use crate::engine::Revision;

/// Answers that are kept for others with the same question: the watches of a few questions at a few positions. Most watches
/// are where the newest commit is.
const KEPT_MAX: usize = 16;
/// The largest answer that is kept, so that together they stay below 8 MiB.
const KEPT_BYTES_MAX: usize = 512 * 1024;

/// Events up to this are copied behind their head: a frame of their own would cost more.
const COPIED_BYTES_MAX: usize = 2048;

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

/// The answers of a stream of watches as HTTP/2 sends them, one after the other. Events are sent from where they lie: the same
/// bytes to every watch with the same question.
#[derive(Debug)]
pub(super) struct Answers {
    receiver: mpsc::Receiver<Result<Answer, Status>>,
    /// Of the answer whose head was sent.
    events: Bytes,
    ended: bool,
}

impl Answers {
    pub(super) fn new(receiver: mpsc::Receiver<Result<Answer, Status>>) -> Self {
        Self {
            receiver,
            events: Bytes::new(),
            ended: false,
        }
    }

    /// The beginning of an answer; the rest of it is in `events`.
    fn begin(&mut self, answer: Answer) -> Frame<Bytes> {
        let Answer { head, mut events } = answer;
        let head_bytes = head.encoded_len();
        let copied = if events.len() <= COPIED_BYTES_MAX {
            std::mem::take(&mut events)
        } else {
            Bytes::new()
        };
        let length = head_bytes + copied.len() + events.len();
        let mut begun = BytesMut::with_capacity(PREFIX_BYTES + head_bytes + copied.len());
        // Not compressed.
        begun.put_u8(0);
        begun.put_u32(length as u32);
        head.encode(&mut begun).expect("invariant: there is room for it");
        begun.extend_from_slice(&copied);
        self.events = events;
        Frame::data(begun.freeze())
    }
}

impl Body for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.events.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.events)))));
        }
        let status = match ready!(self.receiver.poll_recv(context)) {
            Some(Ok(answer)) => return Poll::Ready(Some(Ok(self.begin(answer)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(
            status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)),
        ))
    }
}

/// Decodes a client's requests.
#[derive(Debug)]
pub(super) struct WatchDecoder;

impl Decoder for WatchDecoder {
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
        for repeated in [1, COPIED_BYTES_MAX] {
            let whole = WatchResponse {
                events: std::iter::repeat_n(&whole.events, repeated)
                    .flatten()
                    .cloned()
                    .collect(),
                ..whole.clone()
            };
            let answer = Answer {
                head: head.clone(),
                events: encoded(whole.events.clone()),
            };
            let (sender, receiver) = mpsc::channel(2);
            sender.try_send(Ok(answer)).unwrap();
            sender.try_send(Err(Status::not_found("gone"))).unwrap();
            let mut body = std::pin::pin!(Answers::new(receiver));
            let mut context = Context::from_waker(std::task::Waker::noop());
            let (mut joined, mut frames) = (Vec::new(), 0);
            let trailers = loop {
                let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut context) else {
                    panic!("the body ended without trailers");
                };
                match frame.into_data() {
                    Ok(data) => joined.extend_from_slice(&data),
                    Err(frame) => break frame.into_trailers().unwrap(),
                }
                frames += 1;
            };
            assert_eq!(frames, if repeated == 1 { 1 } else { 2 });
            let (prefix, message) = joined.split_at(PREFIX_BYTES);
            assert_eq!(prefix[1..], (message.len() as u32).to_be_bytes());
            assert_eq!(WatchResponse::decode(message).unwrap(), whole);
            assert_eq!(trailers["grpc-status"], "5");
            assert!(matches!(body.poll_frame(&mut context), Poll::Ready(None)));
        }
    }
}
