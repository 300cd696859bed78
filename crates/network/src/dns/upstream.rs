//! Asking somebody else for foreign names.
//!
//! The server only knows the trait: in a test the other side is a function, in an isolated cluster there is none. The
//! [`Forwarder`] asks the resolvers of another network namespace, usually the host's, through sockets made there.
//!
//! A loop (the host's resolver asks the cluster, which asks the host's resolver) would multiply each query until both fall
//! over. So the forwarder's first act is to send a query for a name nobody else knows; a server that receives it back
//! forwards nothing more, which is what CoreDNS' loop plugin does, except that it then ends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::Random;
use futures::future::BoxFuture;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use sys::netns::NetworkNamespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dial::{dial_in, udp_in};

/// How long one resolver may take before the next one is asked.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Answers to earlier questions and forgeries that are read past before an attempt is given up.
const STRAY_ANSWERS_MAX: usize = 64;
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// How a query came, and is to be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP; the answer may be truncated.
    Udp,
    /// TCP.
    Tcp,
}

/// Somebody who knows foreign names.
pub trait Upstream: Send + Sync + 'static {
    /// Answers a whole query in wire form with a whole answer in wire form, of the same identifier.
    fn ask(&self, query: Vec<u8>, transport: Transport) -> BoxFuture<'static, io::Result<Vec<u8>>>;
}

/// The query that shows a loop, and whether it came back.
#[derive(Debug, Clone)]
pub struct LoopProbe {
    labels: Vec<String>,
    seen: Arc<AtomicBool>,
}

impl LoopProbe {
    /// A probe that nobody can guess.
    pub fn new(random: &Random) -> Self {
        let label = format!("{:016x}{:016x}", random.u64(), random.u64());
        let labels = vec![label, "loop".to_owned(), "trireme".to_owned(), "invalid".to_owned()];
        Self {
            labels,
            seen: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Whether these labels are the probe's; remembers that they came.
    pub fn meets(&self, labels: &[String]) -> bool {
        let own = labels == self.labels;
        if own {
            self.seen.store(true, Ordering::Relaxed);
        }
        own
    }

    /// Whether the probe came back.
    pub fn is_loop(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// The query to send.
    pub fn query(&self, identifier: u16) -> io::Result<Vec<u8>> {
        let name = Name::from_labels(self.labels.iter().map(String::as_bytes)).map_err(io::Error::other)?;
        let mut query = Message::new(identifier, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name, RecordType::HINFO));
        query.to_vec().map_err(io::Error::other)
    }
}

/// Asks resolvers in another network namespace, one after the other.
pub struct Forwarder {
    inner: Arc<Inner>,
}

struct Inner {
    namespace: NetworkNamespace,
    servers: Vec<SocketAddr>,
    random: Random,
}

impl Forwarder {
    /// Forwards to `servers` from inside `namespace`. `own` is this cluster's DNS address: a resolver configuration that
    /// names it would be a loop and is left out.
    pub fn new(namespace: NetworkNamespace, servers: Vec<SocketAddr>, own: IpAddr, random: Random) -> Self {
        let servers = servers.into_iter().filter(|server| server.ip() != own).collect();
        Self {
            inner: Arc::new(Inner {
                namespace,
                servers,
                random,
            }),
        }
    }
}

/// The name servers of a `resolv.conf`, as glibc reads it: `nameserver` lines, the first three of them, port 53. Link-local
/// scopes (`fe80::1%eth0`) name links of another namespace's numbering and are left out.
pub fn name_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    /// `MAXNS` of glibc.
    const SERVERS_MAX: usize = 3;
    let address = |line: &str| -> Option<SocketAddr> {
        let mut words = line.split_ascii_whitespace();
        let address: IpAddr = words
            .next()
            .filter(|word| *word == "nameserver")
            .and(words.next())?
            .parse()
            .ok()?;
        Some(SocketAddr::new(address, 53))
    };
    resolv_conf.lines().filter_map(address).take(SERVERS_MAX).collect()
}

impl Upstream for Forwarder {
    fn ask(&self, query: Vec<u8>, transport: Transport) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let mut last = io::Error::other("no upstream resolver is configured");
            for server in &inner.servers {
                let attempt = async {
                    match transport {
                        Transport::Udp => inner.ask_udp(*server, &query).await,
                        Transport::Tcp => inner.ask_tcp(*server, &query).await,
                    }
                };
                match tokio::time::timeout(ATTEMPT_LIMIT, attempt).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{server} did not answer")),
                }
            }
            Err(last)
        })
    }
}

impl Inner {
    async fn ask_udp(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let (any, local) = match server {
            SocketAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), server),
            SocketAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), server),
        };
        // A socket a query: the kernel draws a new port each time. The identifier is drawn anew as well, because the
        // client's may be guessed.
        let socket = udp_in(&self.namespace, SocketAddr::new(any, 0))?;
        socket.connect(local).await?;
        let mut query = query.to_vec();
        let identifier = replace_identifier(&mut query, (self.random.u64() & 0xffff) as u16)?;
        socket.send(&query).await?;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        for _ in 0..STRAY_ANSWERS_MAX {
            let length = socket.recv(&mut buffer).await?;
            if belongs(&query, &buffer[..length]) {
                let mut answer = buffer[..length].to_vec();
                replace_identifier(&mut answer, identifier)?;
                return Ok(answer);
            }
        }
        Err(io::Error::other(format!(
            "{server} sent nothing but answers to other questions"
        )))
    }

    async fn ask_tcp(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = dial_in(&self.namespace, server, ATTEMPT_LIMIT).await?;
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(query);
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        match belongs(query, &answer) {
            true => Ok(answer),
            false => Err(io::Error::other(format!("{server} answered another question"))),
        }
    }
}

fn replace_identifier(message: &mut [u8], identifier: u16) -> io::Result<u16> {
    let Some(bytes) = message.get_mut(..2) else {
        return Err(io::Error::other("a message without an identifier"));
    };
    let old = u16::from_be_bytes([bytes[0], bytes[1]]);
    bytes.copy_from_slice(&identifier.to_be_bytes());
    Ok(old)
}

/// Whether `answer` is a response to `query`: same identifier, same question.
fn belongs(query: &[u8], answer: &[u8]) -> bool {
    if query.get(..2) != answer.get(..2) {
        return false;
    }
    match (Message::from_vec(query), Message::from_vec(answer)) {
        (Ok(query), Ok(answer)) => {
            // A server that cannot even read the question may leave it out.
            let same = query.queries == answer.queries || answer.queries.is_empty();
            answer.metadata.message_type == MessageType::Response && same
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_question_belongs() {
        let probe = LoopProbe::new(&Random::seeded(1));
        let query = probe.query(7).unwrap();
        let mut answer = Message::from_vec(&query).unwrap();
        answer.metadata.message_type = MessageType::Response;
        assert!(belongs(&query, &answer.to_vec().unwrap()));
        assert!(!belongs(&query, &query), "a query is no answer");
        answer.metadata.id = 8;
        assert!(!belongs(&query, &answer.to_vec().unwrap()));
        answer.metadata.id = 7;
        answer.queries[0].set_query_type(RecordType::A);
        assert!(!belongs(&query, &answer.to_vec().unwrap()));
        assert!(!belongs(&query, b""));
    }

    #[test]
    fn name_servers_are_read_as_glibc_does() {
        let check = |text: &str, expect: &[&str]| {
            let found: Vec<String> = name_servers(text).iter().map(SocketAddr::to_string).collect();
            assert_eq!(found, expect, "{text}");
        };
        check(
            "# c\nsearch a.b\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # x\n",
            &["192.0.2.1:53", "[2001:db8::1]:53"],
        );
        check(
            "#nameserver 192.0.2.1\nnameserver nonsense\nnameserver fe80::1%eth0\nnameserver",
            &[],
        );
        let four = "nameserver 192.0.2.1\n".repeat(4);
        assert_eq!(name_servers(&four).len(), 3);
    }

    #[test]
    fn a_probe_knows_itself_and_no_other() {
        let random = Random::seeded(1);
        let (first, second) = (LoopProbe::new(&random), LoopProbe::new(&random));
        let query = Message::from_vec(&first.query(1).unwrap()).unwrap();
        let labels = super::super::answer::labels(query.queries[0].name());
        assert!(!second.meets(&labels) && !second.is_loop());
        assert!(first.meets(&labels) && first.is_loop());
    }
}
