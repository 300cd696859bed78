//! Port-forward: for each connection of a client a stream of data and one for errors, and a connection inside the pod's
//! network.
//!
//! Source: `k8s.io/cri-streaming` (`portforward/httpstream.go`); the texts inside are containerd's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use streams::channel::CHUNK_BYTES;
use streams::spdy::{Receiver, Sender, Session, Stream};
use sys::netns::NetworkNamespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::runtime::Runtime;

/// How long the second stream of a connection may take. Source: `StreamCreationTimeout`.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections whose second stream is awaited.
const HALVES_MAX: usize = 256;
/// How long connecting inside the pod may take: it is the pod's own loopback.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection of the client with one of its streams.
struct Half {
    data: Option<Stream>,
    error: Option<Stream>,
    port: u16,
    since: Instant,
}

/// Forwards connections until the client is gone; then they end too.
pub(super) async fn serve(runtime: Arc<Runtime>, sandbox: String, mut session: Session) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = session.next() => {
                let Some(stream) = stream else { return };
                let now = Instant::now();
                halves.retain(|_, half| now.duration_since(half.since) < PAIR_TIMEOUT);
                match pair(&mut halves, stream, now) {
                    Ok(Some((port, data, error))) => {
                        let (runtime, sandbox) = (Arc::clone(&runtime), sandbox.clone());
                        connections.spawn(async move { forward(&runtime, &sandbox, port, data, error).await });
                    }
                    Ok(None) => {}
                    Err((why, stream)) => {
                        tracing::debug!(why, "a stream of port-forward");
                        stream.sender.reset().await;
                    }
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Takes a stream; with its other half it is a connection.
fn pair(
    halves: &mut HashMap<String, Half>,
    stream: Stream,
    now: Instant,
) -> Result<Option<(u16, Stream, Stream)>, (&'static str, Stream)> {
    let Some(port) = stream.header("port").parse().ok().filter(|port| *port > 0) else {
        return Err(("\"port\" header is required", stream));
    };
    let request = stream.header("requestid").to_owned();
    if !halves.contains_key(&request) && halves.len() >= HALVES_MAX {
        return Err(("too many connections are half open", stream));
    }
    let is_error = match stream.header("streamtype") {
        "error" => true,
        "data" => false,
        _ => return Err(("invalid stream type", stream)),
    };
    let half = halves.entry(request.clone()).or_insert(Half {
        data: None,
        error: None,
        port,
        since: now,
    });
    let place = if is_error { &mut half.error } else { &mut half.data };
    if place.is_some() {
        return Err(("this stream is there already", stream));
    }
    *place = Some(stream);
    if half.data.is_none() || half.error.is_none() {
        return Ok(None);
    }
    let whole = halves.remove(&request);
    Ok(whole.and_then(|whole| Some((whole.port, whole.data?, whole.error?))))
}

async fn forward(runtime: &Runtime, sandbox: &str, port: u16, data: Stream, error: Stream) {
    match connect(runtime, sandbox, port).await {
        Ok(connection) => join(connection, data.receiver, &data.sender).await,
        Err(why) => {
            let why = format!("error forwarding port {port} to pod {sandbox}, uid : {why}");
            error.sender.send(Bytes::from(why)).await;
        }
    }
    data.sender.finish().await;
    error.sender.finish().await;
}

/// Moves bytes both ways until both directions have ended.
async fn join(connection: TcpStream, mut from_client: Receiver, to_client: &Sender) {
    let (mut reader, mut writer) = connection.into_split();
    let outward = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            if !to_client.send(Bytes::copy_from_slice(&chunk[..count])).await {
                return;
            }
        }
        // Clients end their side when they hear this.
        to_client.finish().await;
    };
    let inward = async {
        while let Some(piece) = from_client.next().await {
            if writer.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    };
    tokio::join!(outward, inward);
}

/// A connection to a port inside of the sandbox's network; or why there is none, in containerd's words.
pub(super) async fn connect(runtime: &Runtime, id: &str, port: u16) -> Result<TcpStream, String> {
    let sandbox = runtime.sandbox(id).map_err(|err| err.to_string())?;
    let shim = sandbox.record.lock().shim_pid;
    let path = PathBuf::from(format!("/proc/{shim}/ns/net"));
    let namespace = NetworkNamespace::open(&path).map_err(|err| format!("the pod's network: {err}"))?;
    let mut whys = Vec::new();
    for (word, address) in [
        ("tcp4", IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ("tcp6", IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ] {
        let address = SocketAddr::new(address, port);
        match dial(&namespace, address).await {
            Ok(connection) => return Ok(connection),
            Err(err) => whys.push(format!("dial {word} {address}: {}", words(&err))),
        }
    }
    Err(format!(
        "failed to connect to localhost:{port} inside namespace {}, IPv4: {} IPv6: {}",
        format_args!("\"{id}\""),
        whys[0],
        whys[1]
    ))
}

/// An error in Go's words, which people look for.
fn words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        std::io::ErrorKind::AddrNotAvailable => "connect: cannot assign requested address".into(),
        std::io::ErrorKind::TimedOut => "i/o timeout".into(),
        _ => error.to_string(),
    }
}

async fn dial(namespace: &NetworkNamespace, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = namespace.tcp_socket(address)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address)).await;
    let stream = connected.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
