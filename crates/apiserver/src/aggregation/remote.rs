//! One server that answers for group versions: connections to a ready endpoint of its Service, with the front proxy's
//! certificate shown and the user told in headers.
//!
//! Invariant: the address that was checked is the one that is dialled (D14), and a server is asked for nothing else than what
//! this module sends: no redirect is followed.
//! Source: `BuildTransportConfig` of `k8s.io/kube-aggregator/pkg/controllers/status/remote`, and `SetAuthProxyHeaders` of
//! `k8s.io/client-go/transport/round_trippers.go`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::Random;
use base64::Engine as _;
use bytes::Bytes;
use http::header::{ACCEPT, HeaderName, HeaderValue, IF_NONE_MATCH, USER_AGENT};
use http::response::Parts;
use http::uri::Authority;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use client::{Body, TransportError};

use super::service::Backend;
use crate::authentication::clear_standard;
use crate::call::RequestBody;
use crate::cluster::Cluster;
use crate::dial::{ServiceDialer, Stream};
use crate::endpoints::{Way, checked, resolve};
use crate::hook::{Certificate, Connector, Dial, Login, Protocols, ReadFile, Target, machine_roots, reason};
use crate::request::UserInfo;

/// Connections to one endpoint that wait for the next request, and how long (upstream: `idleConnsPerHost` and Go's default).
const IDLE_CONNECTIONS_MAX: usize = 25;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// What the server calls itself when it asks for itself.
const AGENT: &str = concat!("trireme/", env!("CARGO_PKG_VERSION"), " kube-aggregator");

const REMOTE_USER: HeaderName = HeaderName::from_static("x-remote-user");
const REMOTE_UID: HeaderName = HeaderName::from_static("x-remote-uid");
const REMOTE_GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const REMOTE_EXTRA_PREFIX: &str = "x-remote-extra-";

/// What connections to other servers are made with.
pub(crate) struct Ways {
    /// Where Services and their endpoints are found.
    pub cluster: Arc<dyn Cluster>,
    /// The way to pods.
    pub services: Option<Arc<dyn ServiceDialer>>,
    /// Which endpoint.
    pub random: Random,
    /// Reads this machine's roots.
    pub read: Option<ReadFile>,
}

/// One server.
pub(crate) struct Remote {
    backend: Backend,
    certificate: Option<Certificate>,
    ways: Arc<Ways>,
    /// Requests, judged by the APIService's own words.
    verified: Result<Connections, String>,
    /// The question whether it is there at all, which any certificate answers.
    unverified: Result<Connections, String>,
}

/// Ways to one server that judge its certificate alike.
struct Connections {
    client: Client<Connector, RequestBody>,
    /// For connections that become something else than HTTP.
    upgradable: Connector,
}

/// A question that the API server asks for itself.
pub(crate) struct Question<'a> {
    /// The path.
    pub path: &'a str,
    /// What it takes for an answer; empty: anything.
    pub accept: &'a str,
    /// What it has already; empty: nothing.
    pub etag: &'a str,
    /// As whom it asks.
    pub user: UserInfo,
    /// How long the answer may be, in bytes.
    pub bytes_max: usize,
}

// === impl Remote ===

impl Remote {
    /// A server, to which nothing is connected yet.
    pub fn new(backend: &Backend, certificate: Option<Certificate>, ways: &Arc<Ways>) -> Remote {
        Remote {
            verified: authorities(backend, ways)
                .and_then(|ca_pem| Connections::new(backend, ca_pem, certificate.clone(), ways)),
            unverified: Connections::new(backend, None, certificate.clone(), ways),
            backend: backend.clone(),
            certificate,
            ways: ways.clone(),
        }
    }

    /// Whether it is that server, spoken to in that way.
    pub fn is(&self, backend: &Backend, certificate: Option<&Certificate>) -> bool {
        self.backend == *backend && self.certificate.as_ref() == certificate
    }

    /// The Service that leads to it.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Why nothing can be sent to it, whatever its Service is.
    pub fn unusable(&self) -> Option<&str> {
        self.verified.as_ref().err().map(String::as_str)
    }

    /// A ready endpoint, or the host that the Service stands for.
    ///
    /// # Errors
    /// Why there is none.
    pub fn endpoint(&self) -> Result<Authority, String> {
        let service = &self.backend.service;
        let ways = &self.ways;
        let way = resolve(
            &*ways.cluster,
            &service.namespace,
            &service.name,
            service.port,
            &ways.random,
        )?;
        let authority = match way {
            Way::Endpoint(address) => address.to_string(),
            Way::External(host, port) => format!("{host}:{port}"),
            // It would ask itself the same question, for ever.
            Way::Own => return Err("the service \"kubernetes\" leads back to this server".into()),
        };
        authority.parse().map_err(|error| format!("{authority}: {error}"))
    }

    /// Sends a request, whose URI names an endpoint, and returns the answer while its body streams.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(&self, request: Request<RequestBody>) -> Result<Response<Body>, String> {
        self.verified.as_ref().map_err(Clone::clone)?.send(request).await
    }

    /// A connection of the caller's own that can be upgraded.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn open(&self, endpoint: &Authority) -> Result<Stream, String> {
        let connections = self.verified.as_ref().map_err(Clone::clone)?;
        let url = url(endpoint, "/")?;
        let opened = connections.upgradable.clone().open(url).await;
        opened.map_err(|error| error.to_string())
    }

    /// Asks for itself, as the APIService says.
    ///
    /// # Errors
    /// There is no answer, or it is too long.
    pub async fn ask(&self, endpoint: &Authority, question: &Question<'_>) -> Result<(Parts, Bytes), String> {
        let connections = self.verified.as_ref().map_err(Clone::clone)?;
        connections.ask(endpoint, question).await
    }

    /// Asks whoever is there.
    ///
    /// # Errors
    /// There is no answer, or it is too long.
    pub async fn ask_anybody(&self, endpoint: &Authority, question: &Question<'_>) -> Result<(Parts, Bytes), String> {
        let connections = self.unverified.as_ref().map_err(Clone::clone)?;
        connections.ask(endpoint, question).await
    }
}

/// Whom to trust there; `None`: anybody.
fn authorities(backend: &Backend, ways: &Ways) -> Result<Option<Vec<u8>>, String> {
    if backend.takes_any_certificate {
        return Ok(None);
    }
    if backend.ca_bundle.is_empty() {
        let roots = ways.read.as_ref().and_then(machine_roots);
        let why = "unable to load root certificates: there is no caBundle, and this machine has none";
        return roots.map(Some).ok_or_else(|| why.to_owned());
    }
    let pem = base64::engine::general_purpose::STANDARD.decode(&backend.ca_bundle);
    pem.map(Some)
        .map_err(|error| format!("unable to load root certificates: {error}"))
}

// === impl Connections ===

impl Connections {
    fn new(
        backend: &Backend,
        ca_pem: Option<Vec<u8>>,
        certificate: Option<Certificate>,
        ways: &Arc<Ways>,
    ) -> Result<Connections, String> {
        let service = &backend.service;
        let name = format!("{}.{}.svc", service.name, service.namespace);
        let target = Target {
            url: format!("https://{name}:{}", service.port)
                .parse()
                .map_err(|error| format!("the Service's name is none of a host: {error}"))?,
            ca_pem,
            server_name: Some(name),
            certificate,
            login: Login::None,
        };
        let ways = ways.clone();
        let dial: Dial = Arc::new(move |url: &Uri| {
            let (services, way) = (ways.services.clone(), way_of(url));
            Box::pin(async move { way.map_err(io::Error::other)?.dial(services.as_ref()).await })
        });
        let connector = |protocols| {
            let made = Connector::new(&target, protocols);
            made.map(|connector| connector.of_aggregation().over(dial.clone()))
                .map_err(|why| format!("unable to load root certificates: {why}"))
        };
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        Ok(Connections {
            client: builder.build(connector(Protocols::Both)?),
            upgradable: connector(Protocols::Http1)?,
        })
    }

    async fn send(&self, request: Request<RequestBody>) -> Result<Response<Body>, String> {
        let response = self.client.request(request).await.map_err(|error| reason(&error))?;
        Ok(response.map(|body| {
            body.map_err(|error| TransportError::Lost(error.to_string()))
                .boxed_unsync()
        }))
    }

    async fn ask(&self, endpoint: &Authority, question: &Question<'_>) -> Result<(Parts, Bytes), String> {
        let mut request = Request::new(Full::default().map_err(|never| match never {}).boxed_unsync());
        *request.uri_mut() = url(endpoint, question.path)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in [(ACCEPT, question.accept), (IF_NONE_MATCH, question.etag)] {
            if !value.is_empty() {
                headers.insert(name, header(value)?);
            }
        }
        tell_user(headers, &question.user)?;
        let (head, body) = self.send(request).await?.into_parts();
        let body = Limited::new(body, question.bytes_max).collect().await;
        let body = body.map_err(|error| format!("the answer cannot be read: {error}"))?;
        Ok((head, body.to_bytes()))
    }
}

/// A URL at an endpoint.
///
/// # Errors
/// The path is none.
pub(crate) fn url(endpoint: &Authority, path_and_query: &str) -> Result<Uri, String> {
    let url = format!("https://{endpoint}{path_and_query}").parse();
    url.map_err(|error: http::uri::InvalidUri| error.to_string())
}

/// The way to what [`Remote::endpoint`] named. An address stays one that pods may have, also when somebody gave it for a name.
fn way_of(url: &Uri) -> Result<Way, &'static str> {
    let host = url.host().unwrap_or("").trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(443);
    if host.parse::<std::net::IpAddr>().is_err() {
        return Ok(Way::External(host.to_owned(), port));
    }
    checked(host, port).map(Way::Endpoint).ok_or("address not allowed")
}

/// Says for whom a request is, in place of whatever it said before.
///
/// # Errors
/// A name cannot stand in a header.
pub(crate) fn tell_user(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), String> {
    clear_standard(headers);
    headers.insert(REMOTE_USER, header(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(REMOTE_UID, header(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(REMOTE_GROUP, header(group)?);
    }
    for (key, values) in &user.extra {
        let name = format!("{REMOTE_EXTRA_PREFIX}{}", escaped(key));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("extra {key:?}: {error}"))?;
        for value in values {
            headers.append(name.clone(), header(value)?);
        }
    }
    Ok(())
}

fn header(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_bytes(value.as_bytes()).map_err(|error| format!("{value:?}: {error}"))
}

/// A fact's key as a part of a header's name: what may not stand there, and `%` itself, is percent-encoded.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(byte as char),
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' => {
                out.push(byte as char);
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_told_in_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-a", "b"),
            ("authorization", "Bearer secret"),
            ("accept", "application/json"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let mut user = UserInfo::new("jane", ["dev", "ops"]);
        user.uid = "7".into();
        user.extra = [("example.com/Scopes %".to_owned(), vec!["a".to_owned(), "ä".to_owned()])].into();
        tell_user(&mut headers, &user).unwrap();
        let mut told: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "accept: application/json",
                "x-remote-extra-example.com%2fscopes%20%25: a",
                "x-remote-extra-example.com%2fscopes%20%25: ä",
                "x-remote-group: dev",
                "x-remote-group: ops",
                "x-remote-group: system:authenticated",
                "x-remote-uid: 7",
                "x-remote-user: jane",
            ]
        );
        assert!(tell_user(&mut headers, &UserInfo::new::<String>("a\nb", [])).is_err());
    }

    #[test]
    fn endpoints_are_what_is_dialled() {
        let way = |endpoint: &str| way_of(&url(&endpoint.parse().unwrap(), "/apis").unwrap());
        for address in ["10.0.0.1:443", "10.0.0.1:8443", "[fd00::1]:443"] {
            assert_eq!(way(address), Ok(Way::Endpoint(address.parse().unwrap())));
        }
        assert_eq!(way("example.com:8443"), Ok(Way::External("example.com".into(), 8443)));
        assert_eq!(way("127.0.0.1:443"), Err("address not allowed"));
    }
}
