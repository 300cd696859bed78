//! Hooks: services of others that the API server asks over HTTP (authorization, audit), each described by a file in
//! kubeconfig format; and what they have in common with admission webhooks, which objects describe.
//!
//! A [`Target`] says where a service is, whom to trust and who we are; a [`Caller`] puts one question to it, and a [`Hook`]
//! insists. Invariants: a question has a deadline, an answer a greatest size, and a question that fails for the moment is
//! asked again by a hook, a few times.
//!
//! Source: `k8s.io/apiserver/pkg/util/webhook`.

mod caller;
mod connector;
mod kubeconfig;
mod remembered;
mod trusted;
mod users;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use base::{Backoff, Random};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{StatusCode, Uri};
use tokio::time::Instant;

pub(crate) use caller::{CallError, Caller, reason};
pub(crate) use connector::{Connector, Dial, Protocols, dialed, machine_roots, unreached};
pub use kubeconfig::{Certificate, Login, Target};
pub(crate) use remembered::Remembered;
pub(crate) use users::Users;

/// Reads a file that a configuration names: only the composition root knows of files.
pub type ReadFile = Arc<dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync>;

/// The deadline of a question when nobody says: upstream's `defaultRequestTimeout`.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// The first pause before a question is asked again, when nobody says: upstream's.
pub const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How often a question is asked in all, how much longer each pause is than the one before, and how much of it is chance.
/// Source: `DefaultRetryBackoffWithInitialDelay`.
const ATTEMPTS: u32 = 5;
const PAUSE_FACTOR: f64 = 1.5;
const PAUSE_JITTER: f64 = 0.2;
/// Longer pauses do not occur with the numbers above and upstream's first pauses of at most 10 s.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The largest answer. A verdict is a few hundred bytes; nobody makes us hold more than an object may have.
const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What we call ourselves.
const AGENT: &str = concat!("trireme/", env!("CARGO_PKG_VERSION"));

/// A service that is asked.
pub struct Hook {
    url: Uri,
    caller: Caller,
    timeout: Duration,
    retry_pause: Duration,
    random: Random,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Post {url}: {why}", url = api::field::quote(url))]
pub struct HookError {
    url: String,
    why: String,
    is_passing: bool,
    is_late: bool,
}

// === impl HookError ===

impl HookError {
    /// Whether there was no answer in time.
    pub(crate) fn is_late(&self) -> bool {
        self.is_late
    }
}

// === impl Hook ===

impl Hook {
    /// A hook that asks that service. Nothing is connected yet.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(target: Target, timeout: Duration, retry_pause: Duration, random: Random) -> Result<Hook, String> {
        let connector = Connector::new(&target, Protocols::Both)?;
        Ok(Hook {
            url: target.url,
            caller: Caller::new(connector, target.login, AGENT),
            timeout,
            retry_pause,
            random,
        })
    }

    /// Asks, and asks again what fails for the moment.
    ///
    /// # Errors
    /// Of the last attempt.
    pub async fn ask(&self, question: &Value) -> Result<Value, HookError> {
        self.ask_told(question, |_, _| {}).await
    }

    /// The same; `told` hears how each attempt ended and how long it took.
    ///
    /// # Errors
    /// Of the last attempt.
    pub(crate) async fn ask_told(
        &self,
        question: &Value,
        told: impl Fn(Result<(), &HookError>, Duration),
    ) -> Result<Value, HookError> {
        let answer = self.send(question, told).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| self.error(format_args!("the answer is no JSON: {error}"), false))
    }

    /// Tells, and tells again what fails for the moment. What the service says to it does not matter.
    ///
    /// # Errors
    /// Of the last attempt.
    pub async fn tell(&self, what: &Value) -> Result<(), HookError> {
        self.send(what, |_, _| {}).await.map(drop)
    }

    async fn send(
        &self,
        question: &Value,
        told: impl Fn(Result<(), &HookError>, Duration),
    ) -> Result<Bytes, HookError> {
        let question = Bytes::from(question.to_string());
        let mut pauses = Backoff::new(self.retry_pause, PAUSE_MAX)
            .with_factor(PAUSE_FACTOR)
            .with_jitter(PAUSE_JITTER, self.random.fork());
        loop {
            let began = Instant::now();
            let outcome = self.ask_once(question.clone()).await;
            told(outcome.as_ref().map(|_| ()), began.elapsed());
            match outcome {
                Err(error) if error.is_passing && pauses.failures() + 1 < ATTEMPTS => {
                    tokio::time::sleep(pauses.next_delay()).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn ask_once(&self, question: Bytes) -> Result<Bytes, HookError> {
        match tokio::time::timeout(self.timeout, self.exchange(question)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(HookError {
                is_late: true,
                ..self.error("context deadline exceeded", false)
            }),
        }
    }

    async fn exchange(&self, question: Bytes) -> Result<Bytes, HookError> {
        let answer = self
            .caller
            .post(self.url.clone(), question, ANSWER_BYTES_MAX, None)
            .await;
        let (head, body) = answer.map_err(|error| self.error(error.why, error.is_passing))?;
        if !head.status.is_success() {
            let asks_to_wait = head.headers.contains_key(RETRY_AFTER);
            return Err(self.refused(head.status, asks_to_wait, &body));
        }
        Ok(body)
    }

    /// A status other than success, in the words of the server when it has any.
    fn refused(&self, status: StatusCode, asks_to_wait: bool, body: &[u8]) -> HookError {
        let said = serde_json::from_slice::<Value>(body).ok();
        let said = said.as_ref().and_then(|said| said["message"].as_str());
        let passing = [
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::GATEWAY_TIMEOUT,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        let why = match said {
            Some(said) => format!("{}: {said}", status.as_u16()),
            None => status.to_string(),
        };
        HookError {
            is_late: status == StatusCode::GATEWAY_TIMEOUT,
            ..self.error(why, asks_to_wait || passing.contains(&status))
        }
    }

    fn error(&self, why: impl std::fmt::Display, is_passing: bool) -> HookError {
        HookError {
            url: self.url.to_string(),
            why: why.to_string(),
            is_passing,
            is_late: false,
        }
    }

    /// Where it is.
    pub fn url(&self) -> &Uri {
        &self.url
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
