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
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Target;
use crate::dial::Stream;

/// Connects to one target.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Option<Arc<ClientConfig>>,
    /// The name that the server's certificate must have, when it is not the URL's.
    server_name: Option<ServerName<'static>>,
}

/// A connection to a hook.
pub(super) struct Wire {
    io: TokioIo<Stream>,
    speaks_http2: bool,
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(target: &Target) -> Result<Connector, String> {
        let tls = match target.url.scheme_str() {
            Some("https") => Some(Arc::new(config(target)?)),
            _ => None,
        };
        let name = target.server_name.clone().map(ServerName::try_from).transpose();
        Ok(Connector {
            tls,
            server_name: name.map_err(|error| format!("tls-server-name: {error}"))?,
        })
    }

    async fn connect(self, url: Uri) -> io::Result<Wire> {
        let host = url.host().unwrap_or("").trim_start_matches('[').trim_end_matches(']');
        let port = url.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = self.tls else {
            return Ok(Wire {
                io: TokioIo::new(Box::new(stream)),
                speaks_http2: false,
            });
        };
        let name = match self.server_name {
            Some(name) => name,
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        Ok(Wire {
            speaks_http2: stream.get_ref().1.alpn_protocol() == Some(b"h2"),
            io: TokioIo::new(Box::new(stream)),
        })
    }
}

fn config(target: &Target) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &target.ca_pem {
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(client::https::anybody(&provider)),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
                let certificate = certificate.map_err(|error| format!("certificate-authority: {error}"))?;
                // Of a machine's many roots some may be of a kind that is not supported; those trust nobody.
                let _ = roots.add(certificate);
            }
            if roots.is_empty() {
                return Err("certificate-authority: the PEM holds no certificate".into());
            }
            builder.with_root_certificates(roots)
        }
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
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
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
