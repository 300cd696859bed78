//! One question over HTTP: no deadline, no second attempt, no redirect followed.
//!
//! Errors are worded as Go's HTTP client words them: people search for those words.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::response::Parts;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connector::Connector;
use super::kubeconfig::Login;
use crate::trace::TRACEPARENT;

/// Connections that wait for the next question, and how long (upstream: `idleConnsPerHost` and Go's default).
const IDLE_CONNECTIONS_MAX: usize = 25;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Asks one service, over connections that are kept.
pub(crate) struct Caller {
    client: Client<Connector, Full<Bytes>>,
    login: Login,
    agent: &'static str,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallError {
    /// For people.
    pub why: String,
    /// Whether asking again may help.
    pub is_passing: bool,
}

// === impl Caller ===

impl Caller {
    /// A caller that says who it is. Nothing is connected yet.
    pub(crate) fn new(connector: Connector, login: Login, agent: &'static str) -> Caller {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        Caller {
            client: builder.build(connector),
            login,
            agent,
        }
    }

    /// Sends JSON, in a trace if there is one, and takes an answer of at most so many bytes, whatever its status.
    ///
    /// # Errors
    /// There is none, or it is longer.
    pub(crate) async fn post(
        &self,
        url: Uri,
        question: Bytes,
        bytes_max: usize,
        trace: Option<HeaderValue>,
    ) -> Result<(Parts, Bytes), CallError> {
        let mut request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, self.agent)
            .body(Full::new(question))
            .map_err(|error| CallError::lasting(error.to_string()))?;
        if let Some(value) = self.authorization()? {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        request.headers_mut().extend(trace.map(|trace| (TRACEPARENT, trace)));
        let response = self.client.request(request).await.map_err(|error| {
            // A connection that was reset may be a server that restarts; one that cannot be made is none.
            let is_passing = !error.is_connect() && !is_timeout(&error);
            let why = reason(&error);
            CallError { why, is_passing }
        })?;
        let (head, body) = response.into_parts();
        match Limited::new(body, bytes_max).collect().await {
            Ok(body) => Ok((head, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => {
                let why = format!("the answer is longer than {bytes_max} bytes");
                Err(CallError::lasting(why))
            }
            Err(error) => Err(CallError::lasting(chain(&*error))),
        }
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, CallError> {
        let text = match &self.login {
            Login::None => return Ok(None),
            Login::Token(token) => format!("Bearer {token}"),
            Login::TokenFile { path, read } => {
                let bytes = read(path);
                let bytes = bytes.map_err(|error| CallError::lasting(format!("{}: {error}", path.display())))?;
                format!("Bearer {}", String::from_utf8_lossy(&bytes).trim())
            }
            Login::Password { user, password } => {
                use base64::Engine as _;
                let pair = format!("{user}:{password}");
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
        };
        let value = HeaderValue::try_from(text);
        let mut value =
            value.map_err(|_| CallError::lasting("the credentials have characters that cannot be sent".into()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

// === impl CallError ===

impl CallError {
    fn lasting(why: String) -> CallError {
        CallError { why, is_passing: false }
    }
}

/// Why a request was not answered, as Go says it.
pub(crate) fn reason(error: &hyper_util::client::legacy::Error) -> String {
    match error.source().filter(|_| error.is_connect()) {
        Some(cause) => chain(cause),
        None => chain(error),
    }
}

fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) || error.source().is_some_and(is_timeout)
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.ends_with(&own) {
            text = format!("{text}: {own}");
        }
        cause = error.source();
    }
    text
}
