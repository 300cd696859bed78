//! Answers that stream, as the messages of a WebSocket: logs and watches, for clients that ask for an upgrade.
//!
//! Sources: `StreamObject` of apiserver/pkg/endpoints/handlers/responsewriters/writers.go, `HandleWS` of
//! apiserver/pkg/endpoints/handlers/watch.go and `wsstream` of `k8s.io/streaming`.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt, future, stream};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;

use api::{Reason, Status};
use client::Body;
use streams::channel::{CHUNK_BYTES, Message, Protocol, STDOUT, STREAM_PROTOCOLS};
use streams::{messages, tunnel};

use super::upgrade;
use crate::call::Call;
use crate::respond::negotiate::Media;

/// Whether the client wants the answer over a WebSocket.
pub fn is_asked(call: &Call) -> bool {
    let has = |header: &str, word: &str| {
        let value = call.header(header);
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    has("upgrade", "websocket") && has("connection", "upgrade")
}

/// The bytes of an answer, in the protocol that the client offers; without any, in binary messages. The first message is
/// empty, as upstream's: it tells that the connection works before there is a byte.
pub fn bytes(call: &Arc<Call>, answer: Response<Body>) -> Result<Response<Body>, Status> {
    let protocol = protocol(call)?;
    let chunks = chunks(answer.into_body()).flat_map(|chunk| stream::iter(pieces(chunk)));
    let used = protocol.unwrap_or(Protocol::Binary);
    let messages = stream::once(future::ready(Bytes::new()))
        .chain(chunks)
        .map(move |chunk| used.encode(STDOUT, &chunk));
    let chosen = protocol.map(|protocol| (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol.name())));
    accept(call, chosen, messages)
}

/// The events of a watch, one a message: text where the encoding is one, else bytes without the length before them.
pub fn events(call: &Arc<Call>, media: Media, answer: Response<Body>) -> Result<Response<Body>, Status> {
    let media_type = answer.headers().get(CONTENT_TYPE).cloned();
    let frames = Frames {
        chunks: chunks(answer.into_body()).boxed(),
        buffer: BytesMut::new(),
        media,
    };
    let messages = stream::unfold(frames, |mut frames| async move {
        let message = frames.next().await?;
        Some((message, frames))
    });
    accept(call, media_type.map(|value| (CONTENT_TYPE, value)), messages)
}

/// What the client offers, if anything; 403 when none of it is known.
fn protocol(call: &Call) -> Result<Option<Protocol>, Status> {
    let offered = call.headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&str> = offered.iter().filter_map(|value| value.to_str().ok()).collect();
    if offered.iter().all(|value| value.trim().is_empty()) {
        return Ok(None);
    }
    let chosen = Protocol::negotiate(offered.iter().copied(), STREAM_PROTOCOLS);
    chosen.map(Some).ok_or_else(|| {
        let known: Vec<&str> = STREAM_PROTOCOLS.iter().map(|protocol| protocol.name()).collect();
        let (offered, known) = (offered.join(", "), known.join(", "));
        let why = format!("requested protocol(s) are not supported: [{offered}]; supports [{known}]");
        Status::failure(Reason::Forbidden, why)
    })
}

/// Answers with the upgrade and sends the messages behind it.
fn accept(
    call: &Arc<Call>,
    more: Option<(HeaderName, HeaderValue)>,
    messages: impl Stream<Item = Message> + Send + 'static,
) -> Result<Response<Body>, Status> {
    let key = call.headers.get(SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| Status::bad_request("the request has no Sec-WebSocket-Key header"))?;
    let derived = tunnel::derive_accept_key(key.as_bytes());
    let derived = HeaderValue::from_str(&derived).map_err(Status::internal)?;
    let upgrade = upgrade::take(call)?;
    let open = call.clone();
    tokio::spawn(async move {
        let Ok(connection) = upgrade.await else { return };
        let sent = messages::send(TokioIo::new(connection), messages);
        open.server.shutdown.until(sent).await;
    });
    let headers = [
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, derived),
    ];
    Ok(upgrade::switching(headers.into_iter().chain(more)))
}

/// The data of a body, up to its end or the first error, which nobody could be told.
fn chunks(body: Body) -> impl Stream<Item = Bytes> + Send + 'static {
    let frames = body.into_data_stream();
    frames.scan((), |(), chunk| future::ready(chunk.ok()))
}

/// A chunk in messages that a client expects to buffer.
fn pieces(mut chunk: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while !chunk.is_empty() {
        pieces.push(chunk.split_to(chunk.len().min(CHUNK_BYTES)));
    }
    pieces
}

/// The frames of a watch's answer.
struct Frames {
    chunks: stream::BoxStream<'static, Bytes>,
    buffer: BytesMut,
    media: Media,
}

impl Frames {
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = take(&mut self.buffer, self.media) {
                return Some(message);
            }
            self.buffer.extend_from_slice(&self.chunks.next().await?);
        }
    }
}

/// The first whole frame. In JSON it is a line, which keeps its end; in protobuf four bytes of length and as many bytes.
fn take(buffer: &mut BytesMut, media: Media) -> Option<Message> {
    if media == Media::Protobuf {
        let len = u32::from_be_bytes(*buffer.first_chunk()?) as usize;
        if buffer.len() < 4 + len {
            return None;
        }
        buffer.advance(4);
        return Some(Message::Binary(buffer.split_to(len).freeze()));
    }
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    let line = buffer.split_to(end + 1);
    Some(Message::Text(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_where_they_end() {
        let text = |text: &str| Message::Text(text.into());
        let binary = |bytes: &'static [u8]| Message::Binary(Bytes::from_static(bytes));
        for (media, bytes, expect, rest) in [
            (
                Media::Json,
                &b"{1}\n{2}\n{"[..],
                vec![text("{1}\n"), text("{2}\n")],
                &b"{"[..],
            ),
            (Media::Json, b"", vec![], b""),
            (
                Media::Protobuf,
                b"\0\0\0\x02ab\0\0\0\0\0\0\0\x02a",
                vec![binary(b"ab"), binary(b"")],
                b"\0\0\0\x02a",
            ),
            (Media::Protobuf, b"\0\0\0", vec![], b"\0\0\0"),
        ] {
            let mut buffer = BytesMut::from(bytes);
            let got: Vec<Message> = std::iter::from_fn(|| take(&mut buffer, media)).collect();
            assert_eq!((got, &buffer[..]), (expect, rest), "{bytes:?}");
        }
    }

    #[test]
    fn long_chunks_are_several_messages() {
        assert!(pieces(Bytes::new()).is_empty());
        let lengths: Vec<usize> = pieces(vec![0; CHUNK_BYTES + 1].into()).iter().map(Bytes::len).collect();
        assert_eq!(lengths, [CHUNK_BYTES, 1]);
    }
}
