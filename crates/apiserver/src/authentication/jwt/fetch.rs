//! Reads documents of issuers: one GET over TLS, with a deadline and a greatest size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// The deadline of all of it: upstream's.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest document. Key sets are a few thousand bytes.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// Trusts some authorities.
#[derive(Clone)]
pub(super) struct Fetcher(Arc<ClientConfig>);

// === impl Fetcher ===

impl Fetcher {
    /// One that trusts the authorities of a PEM bundle.
    pub(super) fn new(authorities_pem: &str) -> Result<Fetcher, String> {
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut authorities_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            // Among a machine's roots some may be of a kind that is not supported; those trust nobody.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err("data does not contain any valid RSA or ECDSA certificates".into());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Fetcher(Arc::new(config)))
    }

    /// The document at an `https` URL.
    pub(super) async fn get(&self, url: &str) -> Result<Bytes, String> {
        match tokio::time::timeout(TIMEOUT, self.exchange(url)).await {
            Ok(outcome) => outcome.map_err(|why| format!("Get {url:?}: {why}")),
            Err(_) => Err(format!("Get {url:?}: no answer in {} s", TIMEOUT.as_secs())),
        }
    }

    async fn exchange(&self, url: &str) -> Result<Bytes, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let url: Uri = url.parse().map_err(|error| text(&error))?;
        let (Some("https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err("only https is spoken".into());
        };
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let socket = TcpStream::connect((&*host, authority.port_u16().unwrap_or(443))).await;
        let name = ServerName::try_from(host.clone()).map_err(|error| text(&error))?;
        let tls = TlsConnector::from(self.0.clone());
        let stream = tls.connect(name, socket.map_err(|error| text(&error))?).await;
        let stream = TokioIo::new(stream.map_err(|error| text(&error))?);
        let opened = hyper::client::conn::http1::handshake(stream).await;
        let (mut sender, connection) = opened.map_err(|error| text(&error))?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(HOST, authority.as_str())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("trireme/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| text(&error))?;
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        let body = body.map_err(|error| text(&error))?.to_bytes();
        match status {
            StatusCode::OK => Ok(body),
            _ => Err(status.to_string()),
        }
    }
}
