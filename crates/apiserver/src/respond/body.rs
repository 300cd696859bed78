//! Making answers: bodies that are there, bodies that stream, compression, and the headers that go with them.

use std::io::{Read as _, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use api::{Status, Value};
use client::{Body, TransportError, body_of};

/// Answers up to this size are not worth compressing (upstream: `defaultGzipThresholdBytes`).
pub const GZIP_THRESHOLD_BYTES: usize = 128 * 1024;

/// JSON bytes as an answer.
pub fn json(code: u16, bytes: impl Into<Bytes>) -> Response<Body> {
    typed(code, "application/json", bytes)
}

/// A tree as an answer, indented.
pub fn indented(code: u16, value: &Value) -> Response<Body> {
    json(code, document(value, true))
}

/// Encodes a tree without anything around it: as a part of something larger.
pub fn encode(value: &Value) -> Vec<u8> {
    api::codec::json::encode(value)
}

/// Encodes a tree as an answer is written: on one line, with its end, or indented with two spaces, and then without a last
/// newline. Source: `doEncode` of `k8s.io/apimachinery/pkg/runtime/serializer/json/json.go`.
pub fn document(value: &Value, pretty: bool) -> Vec<u8> {
    if pretty {
        return serde_json::to_vec_pretty(value).expect("invariant: a tree has only text keys");
    }
    let mut bytes = encode(value);
    bytes.push(b'\n');
    bytes
}

/// Bytes of a media type as an answer.
pub fn typed(code: u16, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body_of(bytes));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A line of text as an answer.
pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    let mut response = typed(code, "text/plain; charset=utf-8", text.into());
    response
        .headers_mut()
        .insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// A failure (or success) as an answer, with `Retry-After` when the status says so.
pub fn status(status: &Status) -> Response<Body> {
    let code = if status.code == 0 { 500 } else { status.code };
    let mut bytes = status.to_json();
    bytes.push(b'\n');
    let mut response = json(code, bytes);
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
    }
    response
}

/// A stream of chunks as an answer.
pub fn streaming(
    media_type: &'static str,
    chunks: impl Stream<Item = Result<Bytes, TransportError>> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Whether the client takes gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let refused = |part: &str| {
            part.replace(' ', "")
                .strip_prefix("q=")
                .is_some_and(|q| q.parse() == Ok(0.0_f32))
        };
        matches!(parts.next(), Some("gzip" | "*")) && !parts.any(refused)
    })
}

/// Compresses an answer when it is large and the client takes it. `size` is what is known of the body's length.
pub fn compressed(headers: &HeaderMap, size: usize, response: Response<Body>) -> Response<Body> {
    if size <= GZIP_THRESHOLD_BYTES || !takes_gzip(headers) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(parts, StreamBody::new(Gzip::new(body)).boxed_unsync())
}

/// An answer that is kept compressed, as the client takes it. `size` is what it is when it is not.
///
/// # Errors
/// The bytes are no gzip.
pub fn kept(
    headers: &HeaderMap,
    size: usize,
    media_type: &'static str,
    gzip: &Bytes,
) -> Result<Response<Body>, Status> {
    if size <= GZIP_THRESHOLD_BYTES || !takes_gzip(headers) {
        let mut bytes = Vec::with_capacity(size);
        GzDecoder::new(&**gzip)
            .read_to_end(&mut bytes)
            .map_err(Status::internal)?;
        return Ok(typed(200, media_type, bytes));
    }
    let mut response = typed(200, media_type, gzip.clone());
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Ok(response)
}

/// Compresses the chunks of a body as they come.
struct Gzip {
    body: Body,
    /// `None` once the trailer was sent.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    fn new(body: Body) -> Gzip {
        // Level 1, as upstream: the network is faster than higher levels are.
        Gzip {
            body,
            encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())),
        }
    }
}

impl Stream for Gzip {
    type Item = Result<Frame<Bytes>, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let broken = |error: std::io::Error| Poll::Ready(Some(Err(TransportError::Lost(error.to_string()))));
        loop {
            if self.encoder.is_none() {
                return Poll::Ready(None);
            }
            match http_body::Body::poll_frame(Pin::new(&mut self.body), context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let encoder = self.encoder.as_mut().expect("invariant: checked above");
                    if let Err(error) = encoder.write_all(&data) {
                        return broken(error);
                    }
                    let ready = std::mem::take(encoder.get_mut());
                    if !ready.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(ready.into()))));
                    }
                }
                Poll::Ready(None) => {
                    let encoder = self.encoder.take().expect("invariant: checked above");
                    return match encoder.finish() {
                        Ok(rest) => Poll::Ready(Some(Ok(Frame::data(rest.into())))),
                        Err(error) => broken(error),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_answers_are_compressed() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("deflate, gzip;q=0.5"));
        let text = "trireme ".repeat(GZIP_THRESHOLD_BYTES);
        let response = compressed(&headers, text.len(), json(200, text.clone()));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() < text.len() / 10);
        let mut back = String::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
        // What is compressed already is handed out so, or not.
        for (headers, expect) in [(&headers, &bytes[..]), (&HeaderMap::new(), text.as_bytes())] {
            let response = kept(headers, text.len(), "text/plain", &bytes).unwrap();
            let sent = response.into_body().collect().await.unwrap().to_bytes();
            assert!(*sent == *expect);
        }
    }

    #[test]
    fn small_or_unwanted_answers_are_not() {
        let mut headers = HeaderMap::new();
        assert!(
            !compressed(&headers, 1 << 20, json(200, "{}"))
                .headers()
                .contains_key(CONTENT_ENCODING)
        );
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0"));
        assert!(!takes_gzip(&headers));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        for (size, expect) in [
            (10, false),
            (GZIP_THRESHOLD_BYTES, false),
            (GZIP_THRESHOLD_BYTES + 1, true),
        ] {
            let response = compressed(&headers, size, json(200, "{}"));
            assert_eq!(response.headers().contains_key(CONTENT_ENCODING), expect, "{size}");
        }
    }
}
