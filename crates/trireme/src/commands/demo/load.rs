//! Connections to the demo's Service at a steady rate, each of them new, each answer kept.
//!
//! The sockets are opened inside of the node's network: no packet leaves it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use base::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::layout::Layout;
use crate::server::dial::NodeNamespace;

/// Fewer would say nothing of updates without a lost connection. How many there are a second, which is told, is the
/// machine's matter: 200 and more where nothing else runs.
pub const CONNECTIONS_MIN: usize = 100;
/// The pause between two connections: 250 a second.
const PAUSE: Duration = Duration::from_micros(4000);
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// An answer of the demo.
pub struct Answer {
    /// The pod that answered.
    pub pod: String,
    /// How many answers it had given then, this one included.
    pub number: u64,
    /// What it said.
    pub text: String,
}

/// What was seen under load.
pub struct Seen {
    /// How many connections were made.
    pub connections: usize,
    /// What went wrong with some of them.
    pub failures: Vec<String>,
    /// The numbers that each pod told.
    answers: BTreeMap<String, Vec<u64>>,
    took: Duration,
}

/// A load that goes on until it is ended.
pub struct Load {
    stop: Shutdown,
    work: JoinHandle<Seen>,
}

// === impl Load ===

impl Load {
    /// Starts connecting to that address in the node's network.
    pub fn start(layout: &Layout, service: SocketAddr) -> Load {
        let (stop, node) = (Shutdown::new(), NodeNamespace::new(layout.clone()));
        let until = stop.clone();
        Load {
            stop,
            work: tokio::spawn(connect(node, service, until)),
        }
    }

    /// Ends it when all answers are there.
    pub async fn end(self) -> Seen {
        self.stop.trigger();
        match self.work.await {
            Ok(seen) => seen,
            Err(error) => Seen {
                connections: 0,
                failures: vec![error.to_string()],
                answers: BTreeMap::new(),
                took: Duration::ZERO,
            },
        }
    }
}

// === impl Seen ===

impl Seen {
    /// Connections a second.
    pub fn per_second(&self) -> f64 {
        self.connections as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// How many pods answered.
    pub fn pods(&self) -> usize {
        self.answers.len()
    }

    /// A pod whose numbers are not each one there once: an answer that nobody got, or a count that was lost.
    pub fn does_not_add_up(&self) -> Option<&str> {
        let gap = |numbers: &Vec<u64>| {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            sorted.windows(2).any(|pair| pair[1] != pair[0] + 1)
        };
        self.answers
            .iter()
            .find(|(_, numbers)| gap(numbers))
            .map(|(pod, _)| pod.as_str())
    }
}

async fn connect(node: NodeNamespace, service: SocketAddr, stop: Shutdown) -> Seen {
    let begun = Instant::now();
    let mut seen = Seen {
        connections: 0,
        failures: Vec::new(),
        answers: BTreeMap::new(),
        took: Duration::ZERO,
    };
    let mut open: JoinSet<Result<Answer, String>> = JoinSet::new();
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while stop.until(ticks.tick()).await.is_some() {
        let node = node.clone();
        open.spawn(async move { ask(node.dial(service).await).await });
        seen.connections += 1;
        while let Some(done) = open.try_join_next() {
            seen.take(done);
        }
    }
    seen.took = begun.elapsed();
    while let Some(done) = open.join_next().await {
        seen.take(done);
    }
    seen
}

impl Seen {
    fn take(&mut self, done: Result<Result<Answer, String>, tokio::task::JoinError>) {
        match done {
            Ok(Ok(answer)) => self.answers.entry(answer.pod).or_default().push(answer.number),
            Ok(Err(failure)) => self.failures.push(failure),
            Err(error) => self.failures.push(error.to_string()),
        }
    }
}

/// One request on a connection of its own.
pub async fn ask(stream: std::io::Result<TcpStream>) -> Result<Answer, String> {
    let answer = async {
        let mut stream = stream.map_err(|error| format!("connecting: {error}"))?;
        let request = b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n";
        stream
            .write_all(request)
            .await
            .map_err(|error| format!("asking: {error}"))?;
        let mut bytes = Vec::new();
        let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await;
        read.map_err(|error| format!("reading the answer: {error}"))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        parse(&text).ok_or(format!("an answer that is none: {text:?}"))
    };
    match tokio::time::timeout(ANSWER_LIMIT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
    }
}

/// `POD has answered N`, in an answer with code 200.
fn parse(response: &str) -> Option<Answer> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    if head.split_whitespace().nth(1)? != "200" {
        return None;
    }
    let line = body.lines().find(|line| line.contains(" has answered "))?;
    let (pod, number) = line.split_once(" has answered ")?;
    let number = number.split_whitespace().next()?.parse().ok()?;
    Some(Answer {
        pod: pod.trim().to_owned(),
        number,
        text: line.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = parse("HTTP/1.1 200 OK\r\n\r\ndemo-1 has answered 7\n").unwrap();
        assert_eq!((&*answer.pod, answer.number), ("demo-1", 7));
        assert!(parse("HTTP/1.1 503 No\r\n\r\ndemo-1 has answered 7\n").is_none());
        assert!(parse("").is_none());
    }

    #[test]
    fn every_number_has_to_be_there_once() {
        for (numbers, expect) in [
            (vec![3, 1, 2], None),
            (vec![1, 3], Some("a")),
            (vec![1, 1], Some("a")),
            (vec![], None),
        ] {
            let answers = BTreeMap::from([("a".to_owned(), numbers.clone())]);
            let seen = Seen {
                connections: 0,
                failures: vec![],
                answers,
                took: Duration::ZERO,
            };
            assert_eq!(seen.does_not_add_up(), expect, "{numbers:?}");
        }
    }
}
