//! The one seam between a client and a server: a request goes in, an answer with a streaming body comes out.

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};

/// The body of an answer; a watch's body goes on until the server ends it.
pub type Body = UnsyncBoxBody<Bytes, TransportError>;

/// What metrics call a server in this process.
const IN_PROCESS: &str = "in-process";

/// What carries requests to a server: a call into the same process, or HTTPS.
pub trait Transport: Send + Sync + 'static {
    /// Sends one request, whose URI is a path with a query, and returns when the head of the answer is there.
    /// Dropping the returned future, or later the body, ends the request.
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'static, Result<http::Response<Body>, TransportError>>;

    /// The server, for metrics.
    fn host(&self) -> &str {
        IN_PROCESS
    }
}

/// The request or its answer did not get through; nothing is known about what the server did.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection could be made.
    #[error("connect to {server}: {why}")]
    Connect {
        /// The server's address.
        server: String,
        /// The cause.
        why: String,
    },
    /// The connection ended in the middle.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The server did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The answer is larger than this client accepts.
    #[error("answer over the limit of {0} bytes")]
    TooLarge(usize),
    /// The request cannot be sent at all (a bad name in the path, a bad certificate).
    #[error("bad request: {0}")]
    Invalid(String),
}

/// A body of bytes that are there already.
pub fn body_of(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a body to its end; an error when it is longer than `limit_bytes`.
pub async fn collect(body: Body, limit_bytes: usize) -> Result<Bytes, TransportError> {
    match Limited::new(body, limit_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => match error.downcast::<TransportError>() {
            Ok(error) => Err(*error),
            Err(_) => Err(TransportError::TooLarge(limit_bytes)),
        },
    }
}
