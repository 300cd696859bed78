//! gRPC's frames inside of HTTP/2: the one message of a request, the one of an answer, and the end.
//!
//! Source: `PROTOCOL-HTTP2.md` of gRPC. Messages are not compressed; whoever sends a compressed one is told so.

use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tonic::{Response, Status};

use super::REQUEST_BYTES_MAX;
use super::output::Lender;

/// What is before a message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;
/// The header of a request that says how its messages are compressed.
const ENCODING: &str = "grpc-encoding";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether a request can be read, by its headers.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get(ENCODING) {
        Some(encoding) if encoding != "identity" => {
            let encoding = encoding.to_str().unwrap_or("?");
            let what = format!("content is compressed with `{encoding}`, which is not supported");
            Err(Status::unimplemented(what))
        }
        _ => Ok(()),
    }
}

/// The body of a request that has one message.
pub(super) struct Body {
    stream: RecvStream,
    /// What came so far. Most messages come in one piece, which is not copied.
    first: Bytes,
    rest: BytesMut,
}

// === impl Body ===

impl Body {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            first: Bytes::new(),
            rest: BytesMut::new(),
        }
    }

    /// Waits for the message. Nothing is asked of the body after its end.
    pub(super) fn poll_message<M: Message + Default>(&mut self, context: &mut Context<'_>) -> Poll<Result<M, Status>> {
        while !self.stream.is_end_stream() {
            let Some(data) = ready!(self.stream.poll_data(context)) else {
                break;
            };
            let data = data.map_err(|error| Status::cancelled(format!("the request ended early: {error}")))?;
            // A stream that has ended has no window any more.
            let _ = self.stream.flow_control().release_capacity(data.len());
            if self.first.len() + self.rest.len() + data.len() > PREFIX_BYTES + REQUEST_BYTES_MAX {
                return Poll::Ready(Err(too_large()));
            }
            if self.first.is_empty() {
                self.first = data;
            } else {
                self.rest.extend_from_slice(&data);
            }
        }
        let whole = if self.rest.is_empty() {
            std::mem::take(&mut self.first)
        } else {
            let mut whole = BytesMut::with_capacity(self.first.len() + self.rest.len());
            whole.extend_from_slice(&std::mem::take(&mut self.first));
            whole.extend_from_slice(&std::mem::take(&mut self.rest));
            whole.freeze()
        };
        Poll::Ready(decode(whole))
    }

    /// The message, when it is all there.
    pub(super) async fn message<M: Message + Default>(mut self) -> Result<M, Status> {
        std::future::poll_fn(|context| self.poll_message(context)).await
    }
}

fn too_large() -> Status {
    Status::out_of_range(format!("the message is larger than {REQUEST_BYTES_MAX} bytes"))
}

/// The one message in the bytes of a body. What it holds are parts of them.
fn decode<M: Message + Default>(mut body: Bytes) -> Result<M, Status> {
    if body.len() < PREFIX_BYTES {
        return Err(Status::internal("the request has no message"));
    }
    if body.get_u8() != 0 {
        return Err(Status::internal("a message is compressed, and no header said how"));
    }
    let length = body.get_u32() as usize;
    if length > REQUEST_BYTES_MAX {
        return Err(too_large());
    }
    if length != body.len() {
        return Err(Status::internal("the request is not one message"));
    }
    M::decode(body).map_err(|error| Status::internal(error.to_string()))
}

/// A message behind its prefix.
fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    // Above 4 GiB no client takes it: gRPC has no larger messages.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode(&mut bytes).expect("invariant: there is room for it");
    bytes.freeze()
}

/// Answers a request. Nobody may be there any more to hear it. What may be large is lent.
pub(super) fn answer(
    respond: SendResponse<Bytes>,
    answer: Result<Response<impl Message>, Status>,
    lender: Option<&Lender>,
) {
    match answer {
        Ok(message) => heard(tell(respond, message.get_ref(), lender)),
        Err(status) => refuse(respond, status),
    }
}

/// Answers a request with an error.
pub(super) fn refuse(mut respond: SendResponse<Bytes>, status: Status) {
    heard(respond.send_response(status.into_http::<()>(), true).map(drop));
}

fn heard(told: Result<(), h2::Error>) {
    if let Err(error) = told {
        tracing::trace!(%error, "an answer was not heard");
    }
}

fn tell(mut respond: SendResponse<Bytes>, message: &impl Message, lender: Option<&Lender>) -> Result<(), h2::Error> {
    let mut response = http::Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    let mut stream = respond.send_response(response, false)?;
    let message = encode(message);
    if let Some(lender) = lender {
        lender.lend(&message);
    }
    stream.send_data(message, false)?;
    let mut end = HeaderMap::with_capacity(1);
    end.insert(STATUS, HeaderValue::from_static("0"));
    stream.send_trailers(end)
}

#[cfg(test)]
mod tests {
    use rpc::etcd::etcdserverpb::PutRequest;

    use super::*;

    #[test]
    fn a_body_is_one_message() {
        let put = PutRequest {
            key: "k".into(),
            value: "v".into(),
            ..PutRequest::default()
        };
        let whole = encode(&put);
        assert_eq!(decode::<PutRequest>(whole.clone()).unwrap(), put);
        let changed = |at: usize, byte: u8| {
            let mut bytes = whole.to_vec();
            bytes[at] = byte;
            bytes
        };
        let refused = [
            (Vec::new(), "no message"),
            (whole[..PREFIX_BYTES - 1].to_vec(), "no message"),
            (whole[..whole.len() - 1].to_vec(), "not one message"),
            ([&whole[..], b"x"].concat(), "not one message"),
            (changed(0, 1), "compressed"),
            (changed(1, 200), "larger"),
            (changed(PREFIX_BYTES, 0xff), "protobuf"),
        ];
        for (bytes, why) in refused {
            let status = decode::<PutRequest>(bytes.clone().into()).unwrap_err();
            assert!(status.message().to_lowercase().contains(why), "{bytes:?}: {status}");
        }
    }

    #[test]
    fn compressed_requests_are_told_so() {
        let headers = |encoding: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ENCODING, HeaderValue::from_static(encoding));
            headers
        };
        assert!(check(&HeaderMap::new()).is_ok() && check(&headers("identity")).is_ok());
        let status = check(&headers("gzip")).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().contains("gzip"));
    }
}
