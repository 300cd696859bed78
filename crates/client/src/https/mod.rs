//! HTTPS to a server on another machine (or in another process): HTTP/2 over TLS with a client certificate or a token.
//!
//! Connections are shared by requests and watches and are kept alive by pings. Invariant: after
//! [`HttpsTransport::set_client_certificate`] no new request travels under the old certificate.

mod pool;
mod tls;
mod unverified;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::{Body, Transport, TransportError};
use pool::Pool;
pub use unverified::{anybody, tls_unverified};

/// A connection is made in this time or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A request that did not leave is sent over another connection, but not more often than this.
const SEND_ATTEMPTS: u32 = 3;

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// How bytes reach the server, when not by plain TCP from here (another network namespace, a Unix socket).
pub trait Connector: Send + Sync + 'static {
    /// Opens a connection to `authority` (`host:port`).
    fn connect(&self, authority: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

/// Plain TCP.
struct Tcp;

impl Connector for Tcp {
    fn connect(&self, authority: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let authority = authority.to_string();
        Box::pin(async move {
            let stream = TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Who the client is.
#[derive(Clone)]
pub enum Credentials {
    /// Nobody in particular.
    Anonymous,
    /// A certificate chain and its key, as PEM.
    Certificate {
        /// The chain, the client's own certificate first.
        chain_pem: String,
        /// The private key.
        key_pem: String,
    },
    /// A bearer token, asked for at each request (the file it stands in may be renewed).
    Token(Arc<dyn Fn() -> String + Send + Sync>),
}

/// The transport to one server.
pub struct HttpsTransport {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    token: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

impl HttpsTransport {
    /// A transport to `https://host[:port]`, trusted by this CA. Nothing is connected yet.
    ///
    /// # Errors
    /// When the URL, the CA or the certificate cannot be read.
    pub fn new(server: &str, ca_pem: &str, credentials: Credentials) -> Result<HttpsTransport, TransportError> {
        HttpsTransport::with_connector(server, ca_pem, credentials, Arc::new(Tcp))
    }

    /// The same over connections of the caller's making.
    ///
    /// # Errors
    /// As [`HttpsTransport::new`].
    pub fn with_connector(
        server: &str,
        ca_pem: &str,
        credentials: Credentials,
        connector: Arc<dyn Connector>,
    ) -> Result<HttpsTransport, TransportError> {
        let uri: http::Uri = server
            .parse()
            .map_err(|error| invalid(format!("server {server:?}: {error}")))?;
        if uri.scheme_str() != Some("https") {
            return Err(invalid(format!("server {server:?}: only https is spoken")));
        }
        let host = uri
            .host()
            .ok_or_else(|| invalid(format!("server {server:?} has no host")))?
            .to_string();
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        let (identity, token) = match credentials {
            Credentials::Anonymous => (None, None),
            Credentials::Certificate { chain_pem, key_pem } => (Some(tls::identity(&chain_pem, &key_pem)?), None),
            Credentials::Token(token) => (None, Some(token)),
        };
        let tls = tls::Tls::new(ca_pem, &host, identity)?;
        let pool = Pool::new(connector, authority, tls);
        Ok(HttpsTransport {
            shared: Arc::new(Shared { pool, token }),
        })
    }

    /// Uses another client certificate from now on: new requests get new connections; what runs ends as it would have.
    ///
    /// # Errors
    /// When the certificate or the key cannot be read; then the old one stays.
    pub fn set_client_certificate(&self, chain_pem: &str, key_pem: &str) -> Result<(), TransportError> {
        self.shared.pool.set_identity(tls::identity(chain_pem, key_pem)?)
    }

    /// Forgets all connections: the next request makes a new one.
    pub fn reconnect(&self) {
        self.shared.pool.drain();
    }
}

impl Transport for HttpsTransport {
    fn host(&self) -> &str {
        self.shared.pool.authority()
    }

    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            if let Some(token) = &shared.token {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token().trim()))
                    .map_err(|_| invalid("the token has characters that cannot be sent"))?;
                value.set_sensitive(true);
                head.headers.insert(header::AUTHORIZATION, value);
            }
            let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
            head.uri = format!("https://{}{path}", shared.pool.authority())
                .parse()
                .map_err(|error| invalid(format!("path {path:?}: {error}")))?;
            head.version = http::Version::HTTP_2;
            let mut request = Request::from_parts(head, Full::new(body));
            let mut attempts = 0;
            let (connection, response) = loop {
                attempts += 1;
                let mut connection = tokio::time::timeout(CONNECT_TIMEOUT, shared.pool.connection())
                    .await
                    .map_err(|_| TransportError::Timeout(CONNECT_TIMEOUT))??;
                match connection.send(request).await {
                    Ok(response) => break (connection, response),
                    // The server was about to close this connection; another one will do.
                    Err((_, Some(unsent))) if attempts < SEND_ATTEMPTS => {
                        shared.pool.discard(&connection);
                        request = unsent;
                    }
                    Err((error, _)) => return Err(error),
                }
            };
            // The connection counts as used until the body is at its end.
            let body = response.map(|body| {
                body.map_frame(move |frame| {
                    let _ = &connection;
                    frame
                })
                .map_err(|error| TransportError::Lost(error.to_string()))
                .boxed_unsync()
            });
            Ok(body)
        })
    }
}

fn invalid(why: impl Into<String>) -> TransportError {
    TransportError::Invalid(why.into())
}

#[cfg(test)]
mod tests;
