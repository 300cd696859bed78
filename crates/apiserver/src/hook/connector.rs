//! Connections to a hook: TCP, and TLS where the URL says so. HTTP/2 when the server offers it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Target;
use super::trusted::Trusted;
use crate::dial::Stream;
use crate::metrics::{RefusedCertificates, shared};

/// What a server may choose to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocols {
    /// HTTP/2 or HTTP/1.1.
    Both,
    /// HTTP/1.1 only: each question may go to another of several backends.
    Http1,
}

/// Makes the connection below TLS for a URL, when that is no plain TCP to the URL's host.
pub(crate) type Dial = Arc<dyn Fn(&Uri) -> BoxFuture<'static, io::Result<Stream>> + Send + Sync>;

/// Connects to one target.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: Option<Arc<ClientConfig>>,
    /// The name that the server's certificate must have, when it is not the URL's.
    server_name: Option<ServerName<'static>>,
    dial: Option<Dial>,
    /// What is counted of servers that are not trusted.
    refused: &'static RefusedCertificates,
}

/// A connection to a hook.
pub(crate) struct Wire {
    io: TokioIo<Stream>,
    speaks_http2: bool,
}

// === impl Connector ===

impl Connector {
    /// A connector to that target. Nothing is connected yet.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub(crate) fn new(target: &Target, protocols: Protocols) -> Result<Connector, String> {
        let tls = match target.url.scheme_str() {
            Some("https") => Some(Arc::new(config(target, protocols)?)),
            _ => None,
        };
        let name = target.server_name.clone().map(ServerName::try_from).transpose();
        Ok(Connector {
            tls,
            server_name: name.map_err(|error| format!("tls-server-name: {error}"))?,
            dial: None,
            refused: &shared().server_certificates.webhooks,
        })
    }

    /// The same, for a server that answers for other group versions.
    pub(crate) fn of_aggregation(self) -> Connector {
        Connector {
            refused: &shared().server_certificates.aggregated,
            ..self
        }
    }

    /// The same over connections of the caller's making.
    pub(crate) fn over(self, dial: Dial) -> Connector {
        Connector {
            dial: Some(dial),
            ..self
        }
    }

    /// A connection of the caller's own.
    pub(crate) async fn open(self, url: Uri) -> io::Result<Stream> {
        Ok(self.connect(url).await?.io.into_inner())
    }

    async fn connect(self, url: Uri) -> io::Result<Wire> {
        let host = url.host().unwrap_or("").trim_start_matches('[').trim_end_matches(']');
        let port = url.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = match &self.dial {
            Some(dial) => dial(&url).await?,
            None => tcp(host, port).await?,
        };
        let Some(tls) = self.tls else {
            return Ok(Wire {
                io: TokioIo::new(stream),
                speaks_http2: false,
            });
        };
        let name = match self.server_name {
            Some(name) => name,
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let refused = |error| of_tls(error, self.refused);
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(refused)?;
        Ok(Wire {
            speaks_http2: stream.get_ref().1.alpn_protocol() == Some(b"h2"),
            io: TokioIo::new(Box::new(stream)),
        })
    }
}

/// Plain TCP to the first address of a host that takes it.
async fn tcp(host: &str, port: u16) -> io::Result<Stream> {
    let addresses = tokio::net::lookup_host((host, port)).await;
    let addresses = addresses.map_err(|_| io::Error::other(format!("dial tcp: lookup {host}: no such host")))?;
    let mut last = io::Error::other(format!("dial tcp: lookup {host}: no such host"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            Err(error) => last = dialed(&address.to_string(), &error),
        }
    }
    Err(last)
}

/// Why an address could not be reached, as Go says it.
pub(crate) fn dialed(address: &str, error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => format!("connect: {error}"),
    };
    io::Error::new(error.kind(), format!("dial tcp {address}: {why}"))
}

/// Why a server could not be spoken to, as Go says it: its address cannot be reached, or what it says in TLS is no good.
pub(crate) fn unreached(address: &str, error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => untrusted(why),
        Some(other) => format!("tls: {other}"),
        None => dialed(address, error).to_string(),
    }
}

fn of_tls(error: io::Error, refused: &RefusedCertificates) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else {
        return error;
    };
    refused.refused(why);
    io::Error::new(error.kind(), untrusted(why))
}

/// Why a server is not trusted, as Go says it where it has the same reason.
fn untrusted(why: &rustls::CertificateError) -> String {
    use rustls::CertificateError;
    let why = match why {
        // A bad signature is that of another authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "certificate has expired or is not yet valid".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "certificate relies on legacy Common Name field, use SANs instead".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented: Vec<&str> = presented.iter().map(|name| dns_name(name)).collect();
            format!(
                "certificate is valid for {}, not {}",
                presented.join(", "),
                expected.to_str()
            )
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}

/// A name as it is written: rustls shows names of certificates as `DnsName("a")`.
fn dns_name(shown: &str) -> &str {
    let inner = shown.split_once('"').and_then(|(_, rest)| rest.split_once('"'));
    inner.map_or(shown, |(name, _)| name)
}

/// The roots that this machine trusts, if it has any.
pub(crate) fn machine_roots(read: &super::ReadFile) -> Option<Vec<u8>> {
    let mut places = super::kubeconfig::MACHINE_ROOTS.iter();
    places.find_map(|path| read(std::path::Path::new(path)).ok())
}

fn config(target: &Target, protocols: Protocols) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &target.ca_pem {
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(client::https::anybody(&provider)),
        Some(pem) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusted::new(pem, provider)?)),
    };
    let mut config = match &target.certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut chain.as_slice()).collect();
            let chain = chain.map_err(|error| format!("client-certificate: {error}"))?;
            let key = rustls_pemfile::private_key(&mut key.as_slice())
                .map_err(|error| format!("client-key: {error}"))?
                .ok_or("client-key: the PEM holds none")?;
            let set = builder.with_client_auth_cert(chain, key);
            set.map_err(|error| format!("client-certificate: {error}"))?
        }
    };
    config.alpn_protocols = match protocols {
        Protocols::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocols::Http1 => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

impl tower::Service<Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Wire>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        Box::pin(self.clone().connect(url))
    }
}

// === impl Wire ===

impl Connection for Wire {
    fn connected(&self) -> Connected {
        match self.speaks_http2 {
            true => Connected::new().negotiated_h2(),
            false => Connected::new(),
        }
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
