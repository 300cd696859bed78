//! The DNS server's sockets: UDP and TCP on the cluster's DNS address.
//!
//! Names of the cluster are answered on the spot, in the task that read the query: that takes microseconds, less than
//! starting a task. Only foreign names wait for somebody, each in a task of its own and no more than
//! [`FOREIGN_QUERIES_MAX`] at once; the next one is told to try later instead of queueing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Random, Shutdown};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use parking_lot::RwLock;
use sys::netns::NetworkNamespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::answer::{self, Outcome};
use super::upstream::{LoopProbe, Transport, Upstream};
use super::zone::Zone;
use crate::dial::{listen_in, udp_in};

/// Foreign names asked for at once. CoreDNS' documentation suggests 1000 for its forward plugin, at 2 kB each.
pub const FOREIGN_QUERIES_MAX: usize = 1000;
/// TCP connections at once: TCP is for answers that do not fit, and each one costs a task and a buffer.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a TCP client may say nothing (RFC 7766 asks for "a few seconds").
const TCP_IDLE: Duration = Duration::from_secs(10);
/// The longest UDP query; anything longer is not a question.
const QUERY_BYTES_MAX: usize = 4096;
/// Pause after a failed receive or accept, so that a lasting failure does not spin.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The sockets of the server.
#[derive(Debug)]
pub struct DnsSockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl DnsSockets {
    /// Binds both inside `namespace`. The address must be there already.
    pub fn bind(namespace: &NetworkNamespace, address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            udp: udp_in(namespace, address)?,
            tcp: listen_in(namespace, address)?,
        })
    }
}

/// The server.
pub struct DnsServer {
    zone: Arc<RwLock<Zone>>,
    upstream: Option<Arc<dyn Upstream>>,
    probe: LoopProbe,
    foreign: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl DnsServer {
    /// A server for `zone`. Without an upstream it answers its own names only and refuses the others.
    pub fn new(zone: Arc<RwLock<Zone>>, upstream: Option<Arc<dyn Upstream>>, random: &Random) -> Arc<Self> {
        Arc::new(Self {
            zone,
            upstream,
            probe: LoopProbe::new(random),
            foreign: Arc::new(Semaphore::new(FOREIGN_QUERIES_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        })
    }

    /// Serves until the shutdown; its tasks count as the shutdown's.
    pub fn start(self: &Arc<Self>, sockets: DnsSockets, shutdown: &Shutdown) {
        let DnsSockets { udp, tcp } = sockets;
        let (server, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move { stop.until(server.serve_udp(udp, &stop)).await });
        let (server, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move { stop.until(server.serve_tcp(tcp, &stop)).await });
        if let Some(upstream) = self.upstream.clone() {
            let (probe, stop) = (self.probe.clone(), shutdown.clone());
            shutdown.spawn(async move {
                if let Ok(query) = probe.query(1) {
                    // The answer says nothing; what counts is whether the query comes back to this server.
                    let _ = stop.until(upstream.ask(query, Transport::Udp)).await;
                }
            });
        }
    }

    async fn serve_udp(self: Arc<Self>, socket: UdpSocket, shutdown: &Shutdown) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; QUERY_BYTES_MAX];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(%error, "receiving a DNS query");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            match self.handle(&buffer[..length]) {
                Handled::Nothing => {}
                Handled::Reply { query, reply } => {
                    if let Some(bytes) = encode_udp(reply, query.as_ref()) {
                        // A client that cannot be reached asks again.
                        let _ = socket.send_to(&bytes, client).await;
                    }
                }
                Handled::Wait { query, wait } => {
                    let (server, socket, stop) = (self.clone(), socket.clone(), shutdown.clone());
                    shutdown.spawn(async move {
                        let Some(answer) = stop.until(server.ask(wait, Transport::Udp)).await else {
                            return;
                        };
                        let bytes = match answer {
                            Asked::Bytes(bytes) => Some(bytes),
                            Asked::Reply(reply) => encode_udp(reply, Some(&query)),
                        };
                        if let Some(bytes) = bytes {
                            let _ = socket.send_to(&bytes, client).await;
                        }
                    });
                }
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener, shutdown: &Shutdown) {
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (server, stop) = (self.clone(), shutdown.clone());
                    shutdown.spawn(async move {
                        // However a client ends its connection, nobody has to know.
                        let _ = stop.until(server.serve_connection(stream)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a DNS connection");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let read = async {
                let length = stream.read_u16().await?;
                let mut query = vec![0; usize::from(length)];
                stream.read_exact(&mut query).await?;
                Ok::<_, io::Error>(query)
            };
            let query = tokio::time::timeout(TCP_IDLE, read).await.map_err(io::Error::other)??;
            let bytes = match self.handle(&query) {
                Handled::Nothing => return Ok(()),
                Handled::Reply { reply, .. } => reply.to_vec().ok(),
                Handled::Wait { wait, .. } => match self.ask(wait, Transport::Tcp).await {
                    Asked::Bytes(bytes) => Some(bytes),
                    Asked::Reply(reply) => reply.to_vec().ok(),
                },
            };
            let Some(bytes) = bytes else { return Ok(()) };
            let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            tokio::time::timeout(TCP_IDLE, stream.write_all(&framed))
                .await
                .map_err(io::Error::other)??;
        }
    }

    fn handle(&self, bytes: &[u8]) -> Handled {
        let Ok(query) = Message::from_vec(bytes) else {
            return answer::malformed(bytes).map_or(Handled::Nothing, |reply| Handled::Reply { query: None, reply });
        };
        let recursion = self.upstream.is_some() && !self.probe.is_loop();
        let outcome = answer::answer(&self.zone.read(), &query, recursion);
        match outcome {
            Outcome::Ignore => Handled::Nothing,
            Outcome::Reply(reply) => Handled::Reply {
                query: Some(query),
                reply,
            },
            Outcome::Foreign(reply) => {
                let labels = query
                    .queries
                    .first()
                    .map(|question| answer::labels(question.name()))
                    .unwrap_or_default();
                if self.probe.meets(&labels) {
                    tracing::error!(
                        "the upstream resolver asks this cluster again; foreign names are refused from now on"
                    );
                }
                match recursion && !self.probe.is_loop() && query.metadata.recursion_desired {
                    true => Handled::Wait {
                        wait: Wait::Whole {
                            bytes: bytes.to_vec(),
                            reply,
                        },
                        query,
                    },
                    false => {
                        let reply = answer::refuse(reply, ResponseCode::Refused);
                        Handled::Reply {
                            query: Some(query),
                            reply,
                        }
                    }
                }
            }
            Outcome::ForeignAlias { reply, target } => match recursion && query.metadata.recursion_desired {
                true => Handled::Wait {
                    wait: Wait::Alias { reply, target },
                    query,
                },
                // The alias itself is true and all that is known here.
                false => Handled::Reply {
                    query: Some(query),
                    reply,
                },
            },
        }
    }

    async fn ask(&self, wait: Wait, transport: Transport) -> Asked {
        let failed = |reply| Asked::Reply(answer::refuse(reply, ResponseCode::ServFail));
        let (Some(upstream), Ok(_permit)) = (&self.upstream, self.foreign.try_acquire()) else {
            return failed(wait.into_reply());
        };
        match wait {
            Wait::Whole { bytes, reply } => match upstream.ask(bytes, transport).await {
                Ok(answer) => Asked::Bytes(answer),
                Err(error) => {
                    tracing::debug!(%error, "asking for a foreign name");
                    failed(reply)
                }
            },
            Wait::Alias { mut reply, target } => {
                let mut query = Message::new(reply.metadata.id, MessageType::Query, OpCode::Query);
                query.metadata.recursion_desired = true;
                query.add_query(target);
                let Ok(bytes) = query.to_vec() else {
                    return failed(reply);
                };
                // Over TCP, because the records are put into an answer of our own and must be complete.
                match upstream
                    .ask(bytes, Transport::Tcp)
                    .await
                    .map(|bytes| Message::from_vec(&bytes))
                {
                    Ok(Ok(answer)) => {
                        reply.metadata.authoritative = false;
                        reply.metadata.response_code = answer.metadata.response_code;
                        reply.answers.extend(answer.answers);
                        reply.authorities.extend(answer.authorities);
                        Asked::Reply(reply)
                    }
                    Ok(Err(_)) | Err(_) => failed(reply),
                }
            }
        }
    }
}

/// What came of a query.
enum Handled {
    Nothing,
    Reply { query: Option<Message>, reply: Message },
    Wait { query: Message, wait: Wait },
}

/// What is asked of the upstream, and the reply in case it fails.
enum Wait {
    Whole { bytes: Vec<u8>, reply: Message },
    Alias { reply: Message, target: Query },
}

impl Wait {
    fn into_reply(self) -> Message {
        match self {
            Wait::Whole { reply, .. } | Wait::Alias { reply, .. } => reply,
        }
    }
}

enum Asked {
    Bytes(Vec<u8>),
    Reply(Message),
}

fn encode_udp(reply: Message, query: Option<&Message>) -> Option<Vec<u8>> {
    match query {
        Some(query) => answer::encode_udp(reply, query),
        None => reply.to_vec().ok(),
    }
}
