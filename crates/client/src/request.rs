//! One request and its answer: the path from a verb to the transport, with time limits and the server's "try later".

use std::sync::Arc;
use std::time::Duration;

use api::{Reason, Status};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use tokio::time::Instant;

use crate::metrics::{self, RequestMetrics};
use crate::{Body, Error, Result, Transport, TransportError, collect};

/// An answer to anything but a watch comes in this time, or the call fails: the server's own limit for a request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a call is repeated when the server asks to come back later. Source: client-go `rest/request.go`.
const RETRIES_MAX: u32 = 10;
/// No longer than this is waited because a server asks for it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The longest list this client reads at once: a million small objects.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 30;

/// A client of one server under one identity. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    user_agent: Arc<str>,
    timeout: Duration,
    metrics: Arc<RequestMetrics>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("user_agent", &self.user_agent)
            .finish_non_exhaustive()
    }
}

/// What goes into a request besides the path.
pub(crate) struct Call<'a> {
    pub method: Method,
    pub path: String,
    pub query: Vec<(&'static str, String)>,
    pub accept: &'static str,
    pub body: Option<(&'a str, Bytes)>,
}

impl Call<'_> {
    fn body_len(&self) -> usize {
        self.body.as_ref().map_or(0, |(_, bytes)| bytes.len())
    }
}

impl Client {
    /// A client over a transport; who it is decides the transport.
    pub fn new(transport: Arc<dyn Transport>) -> Client {
        Client {
            metrics: RequestMetrics::new(metrics::of_process(), transport.host()),
            transport,
            user_agent: "trireme".into(),
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// Names the program in the server's audit log, and as the field manager of its writes.
    pub fn with_user_agent(mut self, user_agent: &str) -> Client {
        self.user_agent = user_agent.into();
        self
    }

    /// Another limit than [`REQUEST_TIMEOUT`].
    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        self.timeout = timeout;
        self
    }

    /// The program's name.
    pub fn user_agent(&self) -> &str {
        &self.user_agent
    }

    /// Sends a request of the caller's own making; the answer may be a failure.
    pub async fn send(&self, request: Request<Bytes>) -> Result<http::Response<Body>, TransportError> {
        self.transport.send(request).await
    }

    /// Reads any path, such as `/version`. A failure answer is an error.
    pub async fn get_raw(&self, path_and_query: &str, accept: &'static str) -> Result<Bytes> {
        let call = Call {
            method: Method::GET,
            path: path_and_query.to_string(),
            query: Vec::new(),
            accept,
            body: None,
        };
        self.call(call).await
    }

    /// Sends, reads the answer to its end, and turns a failure into an error.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Bytes> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let began = Instant::now();
            let exchange = async {
                let response = self.transport.send(self.build(&call)?).await?;
                let (head, body) = response.into_parts();
                Ok::<_, Error>((head, collect(body, ANSWER_BYTES_MAX).await?))
            };
            let outcome = tokio::time::timeout(self.timeout, exchange)
                .await
                .unwrap_or_else(|_| Err(TransportError::Timeout(self.timeout).into()));
            let (code, read) = match &outcome {
                Ok((head, bytes)) => (Some(head.status.as_u16()), Some(bytes.len())),
                Err(_) => (None, None),
            };
            self.metrics
                .answered(&call.method, code, call.body_len(), read, began.elapsed());
            let (head, bytes) = outcome?;
            if head.status.is_success() {
                return Ok(bytes);
            }
            match retry_delay(&head) {
                Some(delay) if attempt <= RETRIES_MAX => {
                    self.metrics.retried(&call.method, head.status.as_u16());
                    tokio::time::sleep(delay).await;
                }
                _ => return Err(failure(head.status, &bytes)),
            }
        }
    }

    /// Sends and returns the body as it comes; a failure is an error.
    pub(crate) async fn stream(&self, call: Call<'_>) -> Result<Body> {
        let began = Instant::now();
        let response = tokio::time::timeout(self.timeout, self.transport.send(self.build(&call)?))
            .await
            .unwrap_or(Err(TransportError::Timeout(self.timeout)));
        let code = response.as_ref().ok().map(|response| response.status().as_u16());
        self.metrics
            .answered(&call.method, code, call.body_len(), None, began.elapsed());
        let (head, body) = response?.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let bytes = tokio::time::timeout(self.timeout, collect(body, ANSWER_BYTES_MAX))
            .await
            .map_err(|_| TransportError::Timeout(self.timeout))??;
        Err(failure(head.status, &bytes))
    }

    fn build(&self, call: &Call<'_>) -> Result<Request<Bytes>> {
        let mut uri = call.path.clone();
        for (index, (key, value)) in call.query.iter().enumerate() {
            uri.push(if index == 0 { '?' } else { '&' });
            uri.push_str(key);
            uri.push('=');
            escape_query(&mut uri, value);
        }
        let mut builder = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(header::ACCEPT, call.accept)
            .header(header::USER_AGENT, &*self.user_agent);
        if let Some((content_type, _)) = &call.body {
            builder = builder.header(header::CONTENT_TYPE, *content_type);
        }
        let body = call.body.as_ref().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        builder
            .body(body)
            .map_err(|error| TransportError::Invalid(error.to_string()).into())
    }
}

/// How long the server asks to wait; `None` when repeating is pointless.
fn retry_delay(head: &http::response::Parts) -> Option<Duration> {
    if head.status != StatusCode::TOO_MANY_REQUESTS && !head.status.is_server_error() {
        return None;
    }
    let seconds: u64 = head.headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The failure an answer tells; one that is not a `Status` (a proxy's page) becomes one.
fn failure(code: StatusCode, body: &[u8]) -> Error {
    if let Ok(status) = serde_json::from_slice::<Status>(body)
        && status.kind == "Status"
    {
        return status.into();
    }
    let reason = match code.as_u16() {
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        406 => Reason::NotAcceptable,
        409 => Reason::Conflict,
        410 => Reason::Gone,
        413 => Reason::RequestEntityTooLarge,
        415 => Reason::UnsupportedMediaType,
        422 => Reason::Invalid,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        500.. => Reason::InternalError,
        _ => Reason::Unknown,
    };
    let text = String::from_utf8_lossy(&body[..body.len().min(1024)]);
    let mut status = Status::failure(reason, format!("the server answered {code}: {}", text.trim()));
    status.code = code.as_u16();
    status.into()
}

fn escape_query(out: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
}
