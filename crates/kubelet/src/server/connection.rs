//! Connections: TLS, who is at the other end, and HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::Shutdown;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{Server, authorize, route};

/// Connections at a time. The API server opens one a request; each costs some 50 kB.
const CONNECTIONS_MAX: usize = 512;
/// TLS is agreed upon within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The head of a request is there within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a connection could not be accepted (no more descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// === impl Server ===

impl Server {
    /// Serves until `shutdown`. The configuration must demand and verify certificates of clients; a configuration that
    /// leaves them optional gives 401 to those without.
    pub async fn serve(self, listener: TcpListener, config: Arc<rustls::ServerConfig>, shutdown: Shutdown) {
        let _sessions = self.inner.sessions.trigger_on_drop();
        let acceptor = TlsAcceptor::from(config);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Some(place) = shutdown.until(places.clone().acquire_owned()).await {
            let place = place.expect("invariant: the semaphore is never closed");
            let Some(accepted) = shutdown.until(listener.accept()).await else {
                return;
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    if shutdown.until(tokio::time::sleep(ACCEPT_PAUSE)).await.is_none() {
                        return;
                    }
                    continue;
                }
            };
            let (server, acceptor, ended) = (self.clone(), acceptor.clone(), shutdown.clone());
            shutdown.spawn(async move {
                // A client that hangs up is no event.
                let _ = ended.until(server.connection(stream, acceptor)).await;
                drop(place);
            });
        }
    }

    async fn connection(self, stream: TcpStream, acceptor: TlsAcceptor) {
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS connection"),
            Err(_) => return,
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let user = certificates
            .and_then(|chain| chain.first())
            .and_then(authorize::user_of);
        let service = hyper::service::service_fn(move |request| {
            let (server, user) = (self.clone(), user.clone());
            async move { Ok::<_, Infallible>(route::answer(&server, user.as_ref(), request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new());
        if let Err(error) = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .await
        {
            tracing::debug!(%error, "a connection ended");
        }
    }
}
