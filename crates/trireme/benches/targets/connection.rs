//! Connections to the API: HTTP over TLS with the administrator's certificate, one request at a time and nothing between
//! the measurement and the socket.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{IpAddr, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::events::Events;

/// Who we are and whom we trust.
#[derive(Clone)]
pub struct Access {
    address: SocketAddr,
    roots: Arc<RootCertStore>,
    chain_pem: String,
    key_pem: String,
}

/// The HTTP that is spoken on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One request at a time.
    Http1,
    /// Many at a time, as client-go does.
    Http2,
}

/// An open connection.
pub enum Connection {
    /// HTTP/1.1 with keep-alive.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2; clones share the connection.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Access {
    /// Reads the administrator's kubeconfig.
    pub fn of_kubeconfig(path: &Path) -> anyhow::Result<Access> {
        let text = std::fs::read_to_string(path).context("reading the kubeconfig")?;
        let config: Value = serde_saphyr::from_str(&text)?;
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let server = cluster["server"].as_str().and_then(|url| url.strip_prefix("https://"));
        let ca_pem = decode(&cluster["certificate-authority-data"])?;
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut ca_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        Ok(Access {
            address: server.context("the kubeconfig names no server")?.parse()?,
            roots: Arc::new(roots),
            chain_pem: decode(&user["client-certificate-data"])?,
            key_pem: decode(&user["client-key-data"])?,
        })
    }

    /// Opens a connection.
    pub async fn connect(&self, protocol: Protocol) -> anyhow::Result<Connection> {
        let stream = TokioIo::new(self.open(protocol).await?);
        Ok(match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Connection::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(connection);
                Connection::Http2(sender)
            }
        })
    }

    /// Opens as many connections as asked for, one after the other.
    pub async fn connect_many(&self, count: usize, protocol: Protocol) -> anyhow::Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(self.connect(protocol).await?);
        }
        Ok(connections)
    }

    /// Asks for something on a connection of its own and expects a good answer.
    pub async fn ask(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() {
            Bytes::new()
        } else {
            body.to_string().into()
        };
        let answer = self.connect(Protocol::Http1).await?.send(method, path, body).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Watches a collection on a connection of its own.
    pub async fn watch(&self, path_and_query: &str) -> anyhow::Result<Events> {
        let mut connection = self.connect(Protocol::Http1).await?;
        let answer = connection.start(Method::GET, path_and_query, Bytes::new()).await?;
        Ok(Events::new(connection, answer))
    }

    /// Returns when a node is ready.
    pub async fn node_ready(&self) -> anyhow::Result<()> {
        let mut events = self.watch("/api/v1/nodes?watch=true").await?;
        loop {
            let conditions = &events.next().await?["object"]["status"]["conditions"];
            let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
            if conditions.as_array().is_some_and(|all| all.iter().any(ready)) {
                return Ok(());
            }
        }
    }

    async fn open(&self, protocol: Protocol) -> anyhow::Result<TlsStream<TcpStream>> {
        let chain = rustls_pemfile::certs(&mut self.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = rustls_pemfile::private_key(&mut self.key_pem.as_bytes())?.context("the kubeconfig has no key")?;
        let mut config = ClientConfig::builder()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(IpAddr::from(self.address.ip()));
        Ok(TlsConnector::from(Arc::new(config)).connect(name, socket).await?)
    }
}

impl Connection {
    /// Sends a request and answers the head of the response with its body still to come.
    pub async fn start(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Incoming> {
        // The only patch that is measured is an apply.
        let content_type = match method {
            Method::PATCH => "application/apply-patch+yaml",
            _ => "application/json",
        };
        let mut request = Request::builder().method(method);
        request = match self {
            Connection::Http1(_) => request.uri(path).header("host", "kubernetes"),
            Connection::Http2(_) => request.uri(format!("https://kubernetes{path}")),
        };
        let request = request
            .header("accept", "application/json")
            .header("content-type", content_type)
            .body(Full::new(body))?;
        let response = match self {
            Connection::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Connection::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        if !matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
            let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(response.into_body())
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        Ok(self.start(method, path, body).await?.collect().await?.to_bytes())
    }

    /// Sends a request and counts the bytes of the answer without keeping them.
    pub async fn count(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<usize> {
        let mut answer = self.start(method, path, body).await?;
        let mut bytes = 0;
        while let Some(frame) = answer.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(bytes)
    }

    /// Another user of the same connection; none with HTTP/1.1.
    pub fn share(&self) -> Option<Connection> {
        match self {
            Connection::Http1(_) => None,
            Connection::Http2(sender) => Some(Connection::Http2(sender.clone())),
        }
    }
}

fn decode(base64_text: &Value) -> anyhow::Result<String> {
    let text = base64_text.as_str().context("the kubeconfig is not complete")?;
    Ok(String::from_utf8(
        base64::engine::general_purpose::STANDARD.decode(text)?,
    )?)
}
