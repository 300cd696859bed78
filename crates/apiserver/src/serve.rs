//! Connections: TLS with optional client certificates, HTTP/1.1 and HTTP/2 by ALPN, upgrades, and limits on all of it.
//! Without ALPN it is HTTP/1.1, as with Go's servers.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::Shutdown;
use futures::future::{Either, ready};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustix::net::sockopt;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::ResolvesServerCert;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::call::BodyError;
use crate::connect::upgrade::{Offer, say_goodbye};
use crate::pipeline::{Peer, handle};
use crate::request::UserInfo;
use crate::respond::body;
use crate::server::{Running, Server};

mod lingering;
mod paced;
mod verifier;

use lingering::Lingering;
use paced::Paced;
pub use verifier::AnyClientCertificate;

/// HTTP/2 in ALPN.
const HTTP2: &[u8] = b"h2";
/// Connections at once: a few thousand nodes with a handful each; past it new ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// How long the listener rests after an accept that failed. Nothing tells when descriptors are free again; a tight loop would
/// burn a core until then, and clients that wait in the kernel's queue do not notice this much.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(10);
/// How long a handshake may take: a client that says nothing must not hold a place.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is silent before the kernel asks whether its other side is there, and how often it asks again: whoever is
/// gone without a word would hold a tunnel for ever in which nothing is said (upstream: `defaultKeepAlivePeriod`).
const KEEP_ALIVE: Duration = Duration::from_secs(3 * 60);
/// How long the head of a request may take (upstream: `ReadHeaderTimeout`).
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// The largest head of a request, in bytes (upstream: Go's default of 1 MiB; nobody needs it). hyper looks at it between two
/// reads, so a larger head that came at once gets through there: [`is_too_large`] looks again.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// Requests at once on one HTTP/2 connection (upstream: `--http2-max-streams-per-connection`): an informer a resource.
const HTTP2_STREAMS_MAX: u32 = 250;
/// Windows of HTTP/2: a list flows at the link's speed, and a stream that nobody reads pins little.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 25 * 256 * 1024;
/// What one stream may have waiting to be sent.
const HTTP2_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Pings find connections whose other side is gone.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(15);

/// A TLS configuration for the API server: any client certificate is taken (its owner has to prove it has the key), and
/// what it is worth is for authentication to say. The resolver may change its certificate while running.
pub fn tls_config(certificates: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("invariant: ring has the default protocol versions")
        .with_client_cert_verifier(Arc::new(AnyClientCertificate::new(provider)))
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

impl Running {
    /// Serves HTTPS on a listener until the server ends.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>) -> io::Result<()> {
        self.serve_on(listener, tls).await
    }

    /// Serves HTTPS on a Unix socket: for nodes of this machine, whose networks lead nowhere else.
    pub async fn serve_unix(&self, listener: UnixListener, tls: Arc<ServerConfig>) -> io::Result<()> {
        self.serve_on(listener, tls).await
    }

    async fn serve_on<L: Listen>(&self, listener: L, tls: Arc<ServerConfig>) -> io::Result<()> {
        let acceptor = TlsAcceptor::from(tls);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let shutdown = self.server.shutdown.clone();
        while let Some(place) = shutdown.until(places.clone().acquire_owned()).await {
            let place = place.expect("invariant: the semaphore is never closed");
            let Some(accepted) = shutdown.until(listener.accept()).await else {
                break;
            };
            let (socket, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or the client is gone already: others still get through.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };
            let (server, acceptor) = (self.server.clone(), acceptor.clone());
            shutdown.spawn(async move {
                if let Err(error) = connection(server, acceptor, socket, remote).await {
                    tracing::debug!(%remote, error = %error, "a connection ended");
                }
                drop(place);
            });
        }
        Ok(())
    }
}

/// Serves a connection that this server made to itself: it is the server who asks.
pub(crate) fn serve_own(server: &Arc<Server>, socket: DuplexStream) {
    let (own, shutdown) = (server.clone(), server.shutdown.clone());
    server.shutdown.spawn(async move {
        let peer = Peer::InProcess(Arc::new(UserInfo::api_server()));
        let service = service_fn(move |request: Request<Incoming>| {
            let request = request.map(|body| body.map_err(|error| BodyError(error.to_string())).boxed_unsync());
            let answer = handle(own.clone(), peer.clone(), request);
            async move { Ok::<_, std::convert::Infallible>(answer.await.map(Paced::new)) }
        });
        let connection = Box::pin(http1_builder().serve_connection(TokioIo::new(socket), service));
        if let Err(error) = run(connection, |connection| connection.graceful_shutdown(), shutdown).await {
            tracing::debug!(error = %error, "a connection of the server to itself ended");
        }
    });
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where connections come from.
trait Listen: Send + Sync {
    type Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one, and the address of its other side.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;
}

impl Listen for TcpListener {
    type Socket = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, remote) = TcpListener::accept(self).await?;
        socket.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, KEEP_ALIVE)?;
        sockopt::set_tcp_keepintvl(&socket, KEEP_ALIVE)?;
        Ok((socket, remote))
    }
}

impl Listen for UnixListener {
    type Socket = UnixStream;

    /// Whoever opens the socket is on this machine.
    async fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (socket, _) = UnixListener::accept(self).await?;
        Ok((socket, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    socket: S,
    remote: SocketAddr,
) -> Result<(), BoxError> {
    // Apart: what a handshake takes is given back after it.
    let handshake = Box::pin(tokio::time::timeout(
        HANDSHAKE_TIMEOUT,
        acceptor.accept(Lingering::new(socket)),
    ));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        failed => {
            server.metrics.tls_handshake_errors.inc();
            failed??;
            return Ok(());
        }
    };
    tracing::trace!(target: "walk", "a connection");
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = Arc::new(
        chain
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect::<Vec<_>>(),
    );
    let offered = Arc::new(Mutex::new(None));
    let ended = speak(server, stream, remote, certificates, &offered).await;
    // Whoever was refused an upgrade has an end of its connection too: hyper keeps it for somebody to take, and would let
    // go of it without sending what is not sent yet, and without a goodbye.
    let left = offered.lock().take().and_then(|offer| offer.take());
    if let Some(left) = left
        && let Ok(connection) = left.await
    {
        say_goodbye(TokioIo::new(connection)).await;
    }
    ended
}

/// Serves a connection until it ends or becomes something else. `offered` is the last upgrade of it that could be taken.
async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    server: Arc<Server>,
    stream: TlsStream<Lingering<S>>,
    remote: SocketAddr,
    certificates: Arc<Vec<CertificateDer<'static>>>,
    offered: &Arc<Mutex<Option<Offer>>>,
) -> Result<(), BoxError> {
    let (shutdown, offered) = (server.shutdown.clone(), offered.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        if is_too_large(&request) {
            return Either::Left(ready(Ok(too_large())));
        }
        if let Some(offer) = Offer::of(&mut request) {
            *offered.lock() = Some(offer.clone());
            request.extensions_mut().insert(offer);
        }
        let peer = Peer::Connection {
            remote,
            certificates: certificates.clone(),
        };
        let request = request.map(|body| body.map_err(|error| BodyError(error.to_string())).boxed_unsync());
        let answer = handle(server.clone(), peer, request);
        Either::Right(async move { Ok::<_, Infallible>(answer.await.map(Paced::new)) })
    });
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    let stream = TokioIo::new(stream);
    if is_http2 {
        let connection = Box::pin(http2_builder().serve_connection(stream, service));
        return run(connection, |connection| connection.graceful_shutdown(), shutdown).await;
    }
    let connection = Box::pin(http1_builder().serve_connection(stream, service).with_upgrades());
    run(connection, |connection| connection.graceful_shutdown(), shutdown).await
}

fn is_too_large(request: &Request<Incoming>) -> bool {
    let uri = request.uri();
    let line = uri.path().len() + uri.query().map_or(0, str::len);
    let fields = request.headers().iter();
    line + fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum::<usize>()
        > HEADER_BYTES_MAX
}

/// Upstream's answer, which is Go's.
fn too_large() -> Response<Paced> {
    let mut answer = body::text(431, "431 Request Header Fields Too Large").map(Paced::new);
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Serves a connection until one of both sides ends it. `end`: our side does, when what is at work is answered. The connection is
/// boxed because a task has a place for whatever is handed on, again for each time.
async fn run<C>(mut connection: Pin<Box<C>>, end: impl FnOnce(Pin<&mut C>), shutdown: Shutdown) -> Result<(), BoxError>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = shutdown.cancelled() => end(connection.as_mut()),
    }
    // Watches end by themselves when the server ends; whoever does not read their end is cut off.
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connection).await {
        Ok(ended) => Ok(ended?),
        Err(_) => Ok(()),
    }
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(true);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_looks_for_clients_that_are_gone() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = Listen::accept(&listener).await.unwrap();
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        let times = [sockopt::tcp_keepidle(&socket), sockopt::tcp_keepintvl(&socket)];
        assert_eq!(times.map(Result::unwrap), [KEEP_ALIVE; 2]);
    }
}
