//! The connections to one server: as few as carry what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::sign::CertifiedKey;

use super::Connector;
use super::tls::Tls;
use crate::TransportError;

/// Requests and watches that share one connection; servers usually allow 100 to 250 streams (upstream's: 100).
const STREAMS_PER_CONNECTION: usize = 90;
/// A silent connection is asked for a sign of life this often. Source: apimachinery `pkg/util/net/http.go`.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// It is given up when no sign comes in this time. Source: as above.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Flow-control windows, so that a large list is not a round trip for each 64 kB.
const WINDOW_BYTES: u32 = 4 << 20;

pub(super) struct Pool {
    connector: Arc<dyn Connector>,
    authority: String,
    tls: Tls,
    connections: Mutex<Vec<Shared>>,
    /// Held while a connection is made, so that a crowd of requests makes one and not a hundred.
    making: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Full<Bytes>>,
    used: Arc<AtomicUsize>,
}

/// A connection in use; dropping it gives its place to the next.
pub(super) struct Lease {
    sender: http2::SendRequest<Full<Bytes>>,
    used: Arc<AtomicUsize>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Lease {
    /// Sends a request. One that certainly did not leave comes back with the error.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unsent> {
        let lost = |error: &hyper::Error| TransportError::Lost(error.to_string());
        if let Err(error) = self.sender.ready().await {
            return Err((lost(&error), Some(request)));
        }
        self.sender.try_send_request(request).await.map_err(|mut error| {
            let request = error.take_message();
            (lost(error.error()), request)
        })
    }
}

/// Why a request failed, and the request itself when the server has not seen any of it.
pub(super) type Unsent = (TransportError, Option<Request<Full<Bytes>>>);

impl Pool {
    pub(super) fn new(connector: Arc<dyn Connector>, authority: String, tls: Tls) -> Pool {
        let connections = Mutex::new(Vec::new());
        Pool {
            connector,
            authority,
            tls,
            connections,
            making: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn set_identity(&self, identity: Arc<CertifiedKey>) -> Result<(), TransportError> {
        self.tls.set_identity(identity)?;
        self.drain();
        Ok(())
    }

    pub(super) fn drain(&self) {
        self.connections.lock().clear();
    }

    pub(super) async fn connection(&self) -> Result<Lease, TransportError> {
        if let Some(lease) = self.free() {
            return Ok(lease);
        }
        let _one_at_a_time = self.making.lock().await;
        if let Some(lease) = self.free() {
            return Ok(lease);
        }
        let sender = self.connect().await?;
        let shared = Shared {
            sender,
            used: Arc::new(AtomicUsize::new(0)),
        };
        let lease = shared.take();
        self.connections.lock().push(shared);
        Ok(lease)
    }

    /// Uses this connection no more for new requests.
    pub(super) fn discard(&self, lease: &Lease) {
        self.connections
            .lock()
            .retain(|connection| !Arc::ptr_eq(&connection.used, &lease.used));
    }

    fn free(&self) -> Option<Lease> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        let free = connections
            .iter()
            .find(|connection| connection.used.load(Ordering::Acquire) < STREAMS_PER_CONNECTION);
        free.map(Shared::take)
    }

    async fn connect(&self) -> Result<http2::SendRequest<Full<Bytes>>, TransportError> {
        let failed = |why: String| TransportError::Connect {
            server: self.authority.clone(),
            why,
        };
        let stream = self
            .connector
            .connect(&self.authority)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let stream = self.tls.wrap(stream).await.map_err(|error| failed(error.to_string()))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(false)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        // Ends by itself when the last sender and the last stream are gone, or when the connection breaks.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the API server ended");
            }
        });
        Ok(sender)
    }
}

impl Shared {
    fn take(&self) -> Lease {
        self.used.fetch_add(1, Ordering::AcqRel);
        Lease {
            sender: self.sender.clone(),
            used: self.used.clone(),
        }
    }
}
