//! Connections that become something else than HTTP: who takes a client's connection, and the one tunnel that joins it with
//! another.
//!
//! Invariant: a connection is taken only for an answer of 101. One that nobody took ends as any other one does (see
//! `serve.rs`). Nothing of a client is joined with somebody who did not agree to the upgrade (CVE-2018-1002105).
//! Source: `k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::Shutdown;
use futures::stream;
use http::header::{CONNECTION, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use api::Status;
use client::{Body, TransportError};

use super::proxy;
use crate::call::{Call, RequestBody};
use crate::dial::Stream;

/// What is read of one side before it is written to the other: as much as a record of TLS holds.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long the words of a refusal may take (upstream's deadline for both sides).
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one direction may be silent when the other one has ended. Upstream ends both at once, which cuts off answers to
/// whoever says by the end of its words that they are all; without a limit, one that forgets a connection would hold it.
const HALF_CLOSED_SILENCE: Duration = Duration::from_secs(30);
/// How long a goodbye may take: whoever does not read it is gone.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// A client's connection, for the one who takes it.
#[derive(Clone)]
pub struct Offer(Arc<Mutex<Option<OnUpgrade>>>);

/// A connection that is no longer one of HTTP.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// What somebody says to an upgrade.
pub enum Answer {
    /// 101: its headers, and the connection.
    Agreed(HeaderMap, OnUpgrade),
    /// An error of its own.
    Refused(Response<Body>),
}

/// Whether a client asks for an upgrade (upstream: `httpstream.IsUpgradeRequest`).
pub fn is_asked(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    let mut values = values.filter_map(|value| value.to_str().ok());
    values.any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Refuses a request whose connection cannot become something else: HTTP/2 and calls of this process have none to give.
///
/// # Errors
/// 400.
pub fn must_be_possible(call: &Call) -> Result<(), Status> {
    let is_offered = call.upgrade.as_ref().is_some_and(Offer::is_open);
    is_offered.then_some(()).ok_or_else(impossible)
}

/// The client's connection, as it will be behind the answer of 101, which has to follow.
///
/// # Errors
/// 400: there is none.
pub fn take(call: &Call) -> Result<OnUpgrade, Status> {
    call.upgrade.as_ref().and_then(Offer::take).ok_or_else(impossible)
}

fn impossible() -> Status {
    Status::bad_request("this connection cannot be upgraded; use HTTP/1.1")
}

/// The answer that makes a connection something else.
pub fn switching(headers: impl IntoIterator<Item = (http::HeaderName, HeaderValue)>) -> Response<Body> {
    let mut answer = Response::new(client::body_of(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in headers {
        answer.headers_mut().append(name, value);
    }
    answer
}

/// Asks somebody for an upgrade, over a connection of its own.
///
/// # Errors
/// There is no answer, or one that says neither yes nor no.
pub async fn ask(stream: Stream, request: Request<RequestBody>) -> Result<Answer, String> {
    let sent = proxy::exchange(stream, request).await;
    let mut response = sent.map_err(|error| format!("error sending request: {error}"))?;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let connection = hyper::upgrade::on(&mut response);
        return Ok(Answer::Agreed(std::mem::take(response.headers_mut()), connection));
    }
    if status.as_u16() < 400 {
        return Err(format!("invalid upgrade response: status code {}", status.as_u16()));
    }
    let (head, body) = response.into_parts();
    let mut answer = Response::new(in_time(body, REFUSAL_TIMEOUT));
    *answer.status_mut() = head.status;
    proxy::copy_headers(&head.headers, answer.headers_mut());
    proxy::CORS
        .iter()
        .for_each(|name| drop(answer.headers_mut().remove(*name)));
    Ok(Answer::Refused(answer))
}

/// Asks somebody for the upgrade that a client wants, and joins both connections when it agrees. Its refusal is the answer.
///
/// # Errors
/// As [`ask`].
pub async fn hand_through(
    call: &Arc<Call>,
    stream: Stream,
    request: Request<RequestBody>,
) -> Result<Response<Body>, String> {
    match ask(stream, request).await? {
        Answer::Refused(answer) => Ok(answer),
        Answer::Agreed(headers, other_side) => {
            let client_side = take(call).map_err(|status| status.message)?;
            join(call, client_side, other_side, exchange);
            let mut answer = switching([]);
            *answer.headers_mut() = headers;
            Ok(answer)
        }
    }
}

/// Joins both sides once they are upgraded, by something that ends when it is told to. The call counts as open until then, and
/// the server's end waits for it.
pub fn join<J, F>(call: &Arc<Call>, client_side: OnUpgrade, other_side: OnUpgrade, join: J)
where
    J: FnOnce(Upgraded, Upgraded, Shutdown) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let open = call.clone();
    call.server.shutdown.spawn(async move {
        let stop = open.server.shutdown.clone();
        let upgraded = async { tokio::join!(client_side, other_side) };
        let Some((Ok(client_side), Ok(other_side))) = stop.until(upgraded).await else {
            return;
        };
        join(TokioIo::new(client_side), TokioIo::new(other_side), stop).await;
    });
}

/// Bytes both ways, until both sides have ended, one breaks off or is silent while the other has ended, or the server ends.
async fn exchange(mut one: Upgraded, mut other: Upgraded, stop: Shutdown) {
    stop.until(both_ways(&mut one, &mut other)).await;
    tokio::join!(say_goodbye(one), say_goodbye(other));
}

/// Sends what is still to be sent, and that there is no more.
pub async fn say_goodbye(mut connection: impl AsyncWrite + Unpin) {
    // Whoever is gone already, or reads nothing any more, is not told.
    let _ = timeout(GOODBYE_TIMEOUT, connection.shutdown()).await;
}

async fn both_ways(one: impl AsyncRead + AsyncWrite + Send, other: impl AsyncRead + AsyncWrite + Send) {
    let (from_one, to_one) = tokio::io::split(one);
    let (from_other, to_other) = tokio::io::split(other);
    let passed = AtomicU64::new(0);
    let mut there = pin!(one_way(from_one, to_other, &passed));
    let mut back = pin!(one_way(from_other, to_one, &passed));
    let mut rest: Pin<&mut (dyn Future<Output = io::Result<()>> + Send)> = tokio::select! {
        ended = there.as_mut() => match ended {
            Ok(()) => back,
            Err(_) => return,
        },
        ended = back.as_mut() => match ended {
            Ok(()) => there,
            Err(_) => return,
        },
    };
    let mut before = passed.load(Ordering::Relaxed);
    while timeout(HALF_CLOSED_SILENCE, rest.as_mut()).await.is_err() {
        let now = passed.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

/// What one side says, to the other, and that it has ended. `passed` counts the bytes.
async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        passed.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// A body that breaks off when it takes longer.
fn in_time(body: Body, limit: Duration) -> Body {
    let deadline = Instant::now() + limit;
    let frames = stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        let late = || TransportError::Lost("the refusal of an upgrade took too long".into());
        let frame: Option<Result<Frame<bytes::Bytes>, TransportError>> = timeout_at(deadline, body.frame())
            .await
            .unwrap_or_else(|_| Some(Err(late())));
        match frame? {
            Ok(frame) => Some((Ok(frame), Some(body))),
            Err(error) => Some((Err(error), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

// === impl Offer ===

impl Offer {
    /// What hyper offers with a request, if anything.
    pub fn of<B>(request: &mut Request<B>) -> Option<Offer> {
        let upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
        Some(Offer(Arc::new(Mutex::new(Some(upgrade)))))
    }

    /// Whether nobody took it yet.
    fn is_open(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Takes it, unless somebody has.
    pub fn take(&self) -> Option<OnUpgrade> {
        self.0.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[test]
    fn upgrades_are_asked_for_by_the_connection() {
        for (value, expect) in [("Upgrade", true), ("keep-alive, upgrade", true), ("keep-alive", false)] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, value.parse().unwrap());
            assert_eq!(is_asked(&headers), expect, "{value}");
        }
        assert!(!is_asked(&HeaderMap::new()));
    }

    /// One says all it has to say and ends; what the other says to it still comes, in its own time.
    #[tokio::test(start_paused = true)]
    async fn the_end_of_one_direction_is_handed_on() {
        let (mut client, ours) = duplex(64);
        let (theirs, mut server) = duplex(64);
        let tunnel = tokio::spawn(both_ways(ours, theirs));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        for word in ["an", "swer"] {
            tokio::time::sleep(HALF_CLOSED_SILENCE.mul_f32(0.9)).await;
            server.write_all(word.as_bytes()).await.unwrap();
        }
        server.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
        tunnel.await.unwrap();
    }

    /// Whoever never says anything to it does not hold the connection.
    #[tokio::test(start_paused = true)]
    async fn half_of_a_connection_does_not_stay() {
        let (mut client, ours) = duplex(64);
        let (theirs, _server) = duplex(64);
        let tunnel = tokio::spawn(both_ways(ours, theirs));
        // Both directions are open: silence is nothing special.
        tokio::time::sleep(HALF_CLOSED_SILENCE * 100).await;
        assert!(!tunnel.is_finished());
        let began = Instant::now();
        client.shutdown().await.unwrap();
        tunnel.await.unwrap();
        assert_eq!(began.elapsed(), HALF_CLOSED_SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_do_not_take_forever() {
        let silent = StreamBody::new(stream::pending()).boxed_unsync();
        let began = Instant::now();
        let outcome = in_time(silent, REFUSAL_TIMEOUT).collect().await;
        assert!(outcome.is_err() && began.elapsed() == REFUSAL_TIMEOUT);
        let quick = in_time(client::body_of("no"), REFUSAL_TIMEOUT).collect().await;
        assert_eq!(quick.unwrap().to_bytes(), "no");
    }
}
