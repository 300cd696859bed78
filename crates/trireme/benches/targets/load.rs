//! Clients that send one request after the other, all at once, and what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::usage::cpu_seconds;

/// A request of the load.
pub struct Ask {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
    /// Its body.
    pub body: Bytes,
}

/// When the load ends.
#[derive(Clone, Copy)]
pub enum End {
    /// After this time.
    Span(Duration),
    /// After this many requests.
    Count(u64),
}

/// What came of it.
pub struct Outcome {
    /// Answers, all of them good ones.
    pub answers: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// The server's processor time, in microseconds an answer.
    pub cpu_us: f64,
    /// How long answers took, in milliseconds: in the middle, and for the slowest hundredth.
    pub p50_ms: f64,
    /// See there.
    pub p99_ms: f64,
}

impl Outcome {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.seconds
    }
}

/// Lets each connection ask what `ask` says for a number, until the end. The first answer that is not a good one ends it.
pub async fn run<F>(connections: Vec<Connection>, server: i32, end: End, ask: F) -> anyhow::Result<Outcome>
where
    F: Fn(u64) -> Ask + Send + Sync + 'static,
{
    let (next, ask) = (Arc::new(AtomicU64::new(0)), Arc::new(ask));
    let (cpu, begun) = (cpu_seconds(&[server]), Instant::now());
    let clients: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (next, ask) = (next.clone(), ask.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let over = match end {
                        End::Span(span) => begun.elapsed() >= span,
                        End::Count(count) => number >= count,
                    };
                    if over {
                        return anyhow::Ok(took);
                    }
                    let Ask { method, path, body } = ask(number);
                    let started = Instant::now();
                    connection.count(method, &path, body).await?;
                    took.push(started.elapsed());
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = cpu_seconds(&[server]) - cpu;
    Ok(Outcome {
        answers: took.len() as u64,
        seconds,
        cpu_us: cpu / took.len() as f64 * 1e6,
        p50_ms: percentile(&mut took, 50) * 1000.0,
        p99_ms: percentile(&mut took, 99) * 1000.0,
    })
}

/// The given hundredth of the durations, in seconds; 0 of none.
pub fn percentile(durations: &mut [Duration], hundredth: usize) -> f64 {
    durations.sort_unstable();
    let at = (durations.len() * hundredth / 100).min(durations.len().saturating_sub(1));
    durations.get(at).map_or(0.0, Duration::as_secs_f64)
}
