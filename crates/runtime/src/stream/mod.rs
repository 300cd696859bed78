//! The streaming side of exec, attach and port-forward: an HTTP server on the loopback address that answers WebSocket and
//! SPDY requests for tokens which CRI's calls handed out.
//!
//! A token is random, good for one connection and for a minute, as in every CRI runtime.

mod channels;
mod forward;
mod peer;
mod process;
mod terminal;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rpc::cri;
use streams::channel::{self, Protocol};
use streams::spdy;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::error::{Error, Result};
use crate::exec::ExecSession;
use crate::runtime::Runtime;
use peer::{Peer, Spdy, WebSocket};

pub use terminal::Terminal;

/// How long a URL may be used after it was handed out.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// URLs that may be outstanding.
const TOKENS_MAX: usize = 1000;
/// The protocols of exec and attach inside of SPDY, the most capable first.
const SPDY_EXEC: &[&str] = &[
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
/// The ports of one WebSocket: each has two channels, and a channel is one digit in base64.
const FORWARDED_PORTS_MAX: usize = 5;
/// The protocol of port-forward inside of SPDY.
const SPDY_FORWARD: &[&str] = &["portforward.k8s.io"];

/// What was asked for and not begun.
#[derive(Default)]
pub(crate) struct Tokens {
    waiting: Mutex<HashMap<String, (Wanted, Instant)>>,
    address: Mutex<Option<SocketAddr>>,
}

/// What a token stands for.
#[derive(Clone)]
enum Wanted {
    /// Streams of a container.
    Process(WantedProcess),
    /// Connections into a sandbox. The ports are those that a WebSocket's channels are for; streams of SPDY name their own.
    Forward { sandbox: String, ports: Vec<u16> },
}

/// Streams of a process: a new one, or a container's first.
#[derive(Clone)]
struct WantedProcess {
    container: String,
    /// The command; `None` attaches to the container itself.
    command: Option<Vec<String>>,
    tty: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Runtime {
    /// A URL under which the command can be run once.
    pub(crate) fn exec_url(&self, request: cri::ExecRequest) -> Result<String> {
        let wanted = WantedProcess {
            container: request.container_id,
            command: Some(request.cmd),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        self.process_url("exec", wanted)
    }

    /// A URL under which one can attach to a container once.
    pub(crate) fn attach_url(&self, request: cri::AttachRequest) -> Result<String> {
        let wanted = WantedProcess {
            container: request.container_id,
            command: None,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        self.process_url("attach", wanted)
    }

    fn process_url(&self, word: &str, wanted: WantedProcess) -> Result<String> {
        let container = self.container(&wanted.container)?;
        if container.record.lock().state() != cri::ContainerState::ContainerRunning {
            return Err(Error::State("container is not running".into()));
        }
        if wanted.tty && wanted.stderr {
            return Err(Error::Invalid("tty and stderr cannot both be true".into()));
        }
        let container = container.id.clone();
        self.hand_out(word, Wanted::Process(WantedProcess { container, ..wanted }))
    }

    /// A URL under which connections into a sandbox can be made, over one connection.
    pub(crate) fn forward_url(&self, request: &cri::PortForwardRequest) -> Result<String> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.record.lock().ready {
            return Err(Error::State(format!("sandbox container {} is not running", sandbox.id)));
        }
        let ports: std::result::Result<Vec<u16>, _> = request.port.iter().map(|port| u16::try_from(*port)).collect();
        let ports = ports.map_err(|_| Error::Invalid(format!("ports {:?}", request.port)))?;
        if ports.len() > FORWARDED_PORTS_MAX {
            return Err(Error::Invalid(format!("more than {FORWARDED_PORTS_MAX} ports")));
        }
        let sandbox = sandbox.id.clone();
        self.hand_out("portforward", Wanted::Forward { sandbox, ports })
    }

    fn hand_out(&self, word: &str, wanted: Wanted) -> Result<String> {
        let address = *self.streams.address.lock();
        let address = address.ok_or_else(|| Error::State("the streaming server does not run".into()))?;
        let token = self.new_id();
        let mut waiting = self.streams.waiting.lock();
        let now = Instant::now();
        waiting.retain(|_, (_, since)| now.duration_since(*since) < TOKEN_LIFETIME);
        if waiting.len() >= TOKENS_MAX {
            return Err(Error::Internal("too many streams are waiting for their clients".into()));
        }
        waiting.insert(token.clone(), (wanted, now));
        Ok(format!("http://{address}/{word}/{token}"))
    }

    fn redeem(&self, token: &str) -> Option<Wanted> {
        let (wanted, since) = self.streams.waiting.lock().remove(token)?;
        (since.elapsed() < TOKEN_LIFETIME).then_some(wanted)
    }
}

/// Serves streams on a loopback port of the kernel's choice until `shutdown`.
pub(crate) async fn serve(runtime: Arc<Runtime>, shutdown: base::Shutdown) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    *runtime.streams.address.lock() = Some(listener.local_addr()?);
    shutdown.clone().spawn(async move {
        loop {
            let Some(accepted) = shutdown.until(listener.accept()).await else {
                break;
            };
            let Ok((socket, _)) = accepted else { continue };
            let _ = socket.set_nodelay(true);
            let (runtime, shutdown_of_connection) = (Arc::clone(&runtime), shutdown.clone());
            shutdown.spawn(async move {
                let until = shutdown_of_connection.clone();
                let service =
                    hyper::service::service_fn(move |request| answer(Arc::clone(&runtime), until.clone(), request));
                let server = hyper::server::conn::http1::Builder::new();
                let connection = server.serve_connection(TokioIo::new(socket), service).with_upgrades();
                // A client that hangs up is no event.
                let _ = shutdown_of_connection.until(connection).await;
            });
        }
        *runtime.streams.address.lock() = None;
    });
    Ok(())
}

/// How a connection goes on after its request.
enum Upgrade {
    WebSocket {
        protocol: Protocol,
        key: String,
        /// Whether the client asked for a protocol, and so is told which it got.
        told: bool,
    },
    Spdy {
        protocol: Option<&'static str>,
    },
}

async fn answer(
    runtime: Arc<Runtime>,
    until: base::Shutdown,
    mut request: Request<Incoming>,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let refuse = |(status, text): (StatusCode, String)| {
        let mut response = Response::new(Full::from(format!("{text}\n")));
        *response.status_mut() = status;
        Ok(response)
    };
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let Some((word, token)) = path.split_once('/') else {
        return refuse((StatusCode::NOT_FOUND, "there is nothing here".into()));
    };
    let upgrade = match upgrade(request.headers(), word == "portforward") {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refuse(refusal),
    };
    let Some(wanted) = runtime.redeem(token) else {
        let why = "the token is not known, used, or too old";
        return refuse((StatusCode::NOT_FOUND, why.into()));
    };
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade");
    match &upgrade {
        Upgrade::WebSocket { protocol, key, told } => {
            response = response
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
            if *told {
                response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol.name());
            }
        }
        Upgrade::Spdy { protocol } => {
            response = response.header(header::UPGRADE, spdy::UPGRADE);
            if let Some(protocol) = protocol {
                response = response.header(spdy::PROTOCOL_HEADER, *protocol);
            }
        }
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        until
            .until(go_on(runtime, wanted, upgrade, TokioIo::new(upgraded)))
            .await;
    });
    Ok(response
        .body(Full::default())
        .expect("invariant: the headers are valid"))
}

/// What the client can speak, and we too.
fn upgrade(headers: &HeaderMap, forward: bool) -> std::result::Result<Upgrade, (StatusCode, String)> {
    let all = |name: HeaderName| -> Vec<&str> {
        let values = headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).collect()
    };
    let asked = all(header::UPGRADE).first().copied().unwrap_or("");
    if asked.eq_ignore_ascii_case(spdy::UPGRADE) {
        let offered = all(HeaderName::from_static(spdy::PROTOCOL_HEADER));
        let known = if forward { SPDY_FORWARD } else { SPDY_EXEC };
        let protocol = spdy::negotiate(offered.iter().copied(), known);
        if protocol.is_none() && !offered.is_empty() {
            let why = format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                offered.join(" "),
                known.join(" ")
            );
            return Err((StatusCode::FORBIDDEN, why));
        }
        return Ok(Upgrade::Spdy { protocol });
    }
    let key = all(header::SEC_WEBSOCKET_KEY).first().map(|key| (*key).to_owned());
    let Some(key) = key.filter(|_| asked.eq_ignore_ascii_case("websocket")) else {
        let why = if forward {
            "only WebSocket (v4.channel.k8s.io) and SPDY/3.1 are served here"
        } else {
            "only WebSocket (v5.channel.k8s.io) and SPDY/3.1 are served here"
        };
        return Err((StatusCode::BAD_REQUEST, why.into()));
    };
    let offered = all(header::SEC_WEBSOCKET_PROTOCOL);
    let (known, unnamed) = match forward {
        true => (channel::FORWARD_PROTOCOLS, Protocol::V4),
        false => (channel::EXEC_PROTOCOLS, Protocol::V1),
    };
    let protocol = match Protocol::negotiate(offered.iter().copied(), known) {
        Some(protocol) => protocol,
        None if offered.is_empty() => unnamed,
        None => {
            let why = "none of the offered subprotocols is known";
            return Err((StatusCode::BAD_REQUEST, why.into()));
        }
    };
    Ok(Upgrade::WebSocket {
        protocol,
        key,
        told: !offered.is_empty(),
    })
}

/// An upgraded connection.
type Socket = TokioIo<hyper::upgrade::Upgraded>;

async fn go_on(runtime: Arc<Runtime>, wanted: Wanted, upgrade: Upgrade, socket: Socket) {
    match (wanted, upgrade) {
        (Wanted::Process(wanted), Upgrade::WebSocket { protocol, .. }) => {
            let peer = Peer::WebSocket(WebSocket::new(protocol, messages(socket).await));
            process::converse(&runtime, &wanted, peer).await;
        }
        (Wanted::Process(wanted), Upgrade::Spdy { protocol }) => {
            let session = spdy::Session::new(socket);
            match Spdy::new(&wanted, protocol.unwrap_or("channel.k8s.io"), session).await {
                Some(peer) => process::converse(&runtime, &wanted, Peer::Spdy(Box::new(peer))).await,
                None => tracing::debug!("a client of SPDY did not open its streams"),
            }
        }
        (Wanted::Forward { sandbox, .. }, Upgrade::Spdy { .. }) => {
            forward::serve(runtime, sandbox, spdy::Session::new(socket)).await;
        }
        (Wanted::Forward { sandbox, ports }, Upgrade::WebSocket { protocol, .. }) => {
            let connect = |port| {
                let (runtime, sandbox) = (Arc::clone(&runtime), sandbox.clone());
                async move { forward::connect(&runtime, &sandbox, port).await }
            };
            channels::serve(messages(socket).await, protocol, &sandbox, &ports, connect).await;
        }
    }
}

/// The messages of a WebSocket on a connection that was upgraded.
async fn messages(socket: Socket) -> WebSocketStream<Socket> {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(channel::MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(channel::MESSAGE_BYTES_MAX);
    WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await
}

/// An exec for callers in this process, with a terminal that can be awaited.
pub struct ExecStream {
    /// The process and its pipes.
    pub session: ExecSession,
    /// Its terminal, if it was asked for.
    pub terminal: Option<Terminal>,
}

impl Runtime {
    /// Starts a command whose streams the caller moves itself.
    pub async fn exec_stream(
        self: &Arc<Self>,
        id: &str,
        args: Vec<String>,
        tty: bool,
        stdin: bool,
    ) -> Result<ExecStream> {
        let mut session = self.exec(id, args, tty, stdin).await?;
        let terminal = session.terminal.take().map(Terminal::new).transpose();
        let terminal = terminal.map_err(crate::error::doing("using the terminal"))?;
        Ok(ExecStream { session, terminal })
    }
}
