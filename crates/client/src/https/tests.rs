//! Against a small TLS server on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;

use super::*;
use crate::{Client, collect};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    fn issue(&self, name: &str) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key)
    }
}

#[derive(Default)]
struct Log {
    connections: AtomicUsize,
    /// The client certificate's DER and the Authorization header of each request.
    requests: Mutex<Vec<(Vec<u8>, String)>>,
    /// Tells all connections that the server wants to end them.
    going: tokio::sync::Notify,
}

async fn serve(authority: &Authority) -> (SocketAddr, Arc<Log>) {
    let (chain, key) = authority.issue("localhost");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let chain = rustls_pemfile::certs(&mut chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Arc::new(Log::default());
    let returned = log.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, log) = (acceptor.clone(), log.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                log.connections.fetch_add(1, Ordering::SeqCst);
                let peer = stream.get_ref().1.peer_certificates();
                let peer = peer.map(|chain| chain[0].to_vec()).unwrap_or_default();
                let log_of_connection = log.clone();
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let token = request
                        .headers()
                        .get("authorization")
                        .map(|v| v.to_str().unwrap().to_string());
                    log.requests.lock().push((peer.clone(), token.unwrap_or_default()));
                    let answer = format!("{} {}", request.method(), request.uri().path());
                    async move { Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(answer)))) }
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                let mut serving = std::pin::pin!(serving);
                tokio::select! {
                    _ = serving.as_mut() => return,
                    () = log_of_connection.going.notified() => serving.as_mut().graceful_shutdown(),
                }
                let _ = serving.await;
            });
        }
    });
    (address, returned)
}

#[tokio::test]
async fn certificates_are_used_and_exchanged() {
    let authority = Authority::new();
    let (address, log) = serve(&authority).await;
    let (chain, key) = authority.issue("first");
    let server = format!("https://localhost:{}", address.port());
    let credentials = Credentials::Certificate {
        chain_pem: chain.clone(),
        key_pem: key.serialize_pem(),
    };
    let transport = Arc::new(HttpsTransport::new(&server, &authority.issuer.pem(), credentials).unwrap());
    let client = Client::new(transport.clone());
    for _ in 0..3 {
        assert_eq!(
            client.get_raw("/version?x=1", "application/json").await.unwrap(),
            "GET /version"
        );
    }
    assert_eq!(log.connections.load(Ordering::SeqCst), 1, "one connection serves all");
    let (second, second_key) = authority.issue("second");
    transport
        .set_client_certificate(&second, &second_key.serialize_pem())
        .unwrap();
    client.get_raw("/version", "application/json").await.unwrap();
    let seen: Vec<Vec<u8>> = log.requests.lock().iter().map(|(peer, _)| peer.clone()).collect();
    let der = |pem: &str| {
        rustls_pemfile::certs(&mut pem.as_bytes())
            .next()
            .unwrap()
            .unwrap()
            .to_vec()
    };
    assert_eq!(seen, [der(&chain), der(&chain), der(&chain), der(&second)]);
    assert!(
        transport
            .set_client_certificate(&chain, &second_key.serialize_pem())
            .is_err(),
        "key of another"
    );
}

#[tokio::test]
async fn tokens_are_asked_for_each_time() {
    let authority = Authority::new();
    let (address, log) = serve(&authority).await;
    let count = Arc::new(AtomicUsize::new(0));
    let token = {
        let count = count.clone();
        Arc::new(move || format!("t{}\n", count.fetch_add(1, Ordering::SeqCst)))
    };
    let server = format!("https://localhost:{}", address.port());
    let transport = HttpsTransport::new(&server, &authority.issuer.pem(), Credentials::Token(token)).unwrap();
    for _ in 0..2 {
        let request = Request::builder().uri("/x").body(Bytes::new()).unwrap();
        let response = transport.send(request).await.unwrap();
        assert_eq!(collect(response.into_body(), 100).await.unwrap(), "GET /x");
    }
    let tokens: Vec<String> = log.requests.lock().iter().map(|(_, token)| token.clone()).collect();
    assert_eq!(tokens, ["Bearer t0", "Bearer t1"]);
}

/// A server that restarts says goodbye at any moment; no request may be lost by that.
#[tokio::test]
async fn a_goodbye_costs_no_request() {
    let authority = Authority::new();
    let (address, log) = serve(&authority).await;
    let server = format!("https://localhost:{}", address.port());
    let transport = HttpsTransport::new(&server, &authority.issuer.pem(), Credentials::Anonymous).unwrap();
    let client = Client::new(Arc::new(transport));
    for round in 0..50 {
        let answer = client.get_raw("/x", "application/json").await;
        assert_eq!(
            answer.unwrap_or_else(|error| panic!("round {round}: {error}")),
            "GET /x"
        );
        log.going.notify_waiters();
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(log.connections.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn strangers_are_not_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (address, _) = serve(&authority).await;
    let server = format!("https://localhost:{}", address.port());
    let transport = HttpsTransport::new(&server, &other.issuer.pem(), Credentials::Anonymous).unwrap();
    let request = Request::builder().uri("/x").body(Bytes::new()).unwrap();
    let Err(error) = transport.send(request).await else {
        panic!("trusted a stranger")
    };
    assert!(matches!(error, TransportError::Connect { .. }), "{error}");
}

#[test]
fn what_cannot_be_used_is_refused_at_once() {
    let authority = Authority::new();
    let ca = authority.issuer.pem();
    for (server, ca) in [
        ("http://a", ca.as_str()),
        ("https://", &ca),
        ("https://a", ""),
        ("https://a", "nonsense"),
    ] {
        assert!(
            HttpsTransport::new(server, ca, Credentials::Anonymous).is_err(),
            "{server}"
        );
    }
}
