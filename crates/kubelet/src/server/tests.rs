//! The server as its clients see it: over TLS on loopback, with certificates of an authority of the test's own.

use std::net::SocketAddr;
use std::path::Path;

use base::Shutdown;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;

struct FakePods {
    log_path: PathBuf,
    ended: watch::Receiver<bool>,
}

impl Pods for FakePods {
    fn pods(&self) -> Vec<Arc<Pod>> {
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}});
        vec![Arc::new(serde_json::from_value(pod).unwrap())]
    }

    fn log<'a>(
        &'a self,
        _namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        previous: bool,
    ) -> BoxFuture<'a, Result<Run, PodsError>> {
        Box::pin(async move {
            if previous {
                let why = format!("previous terminated container \"{container}\" in pod \"{pod}\" not found");
                return Err(PodsError::BadRequest(why));
            }
            self.running("", pod, container).await
        })
    }

    fn sandbox<'a>(&'a self, _namespace: &'a str, _pod: &'a str) -> BoxFuture<'a, Result<String, PodsError>> {
        Box::pin(std::future::ready(Ok("sandbox".into())))
    }

    fn running<'a>(
        &'a self,
        _namespace: &'a str,
        _pod: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<Run, PodsError>> {
        Box::pin(async move {
            match container {
                "c" => Ok(Run {
                    id: "id".into(),
                    log_path: self.log_path.clone(),
                }),
                other => Err(PodsError::NotFound(format!("container not found (\"{other}\")"))),
            }
        })
    }

    fn ended(&self, _id: &str) -> BoxFuture<'static, ()> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            let _ = ended.wait_for(|ended| *ended).await;
        })
    }

    fn node_name(&self) -> String {
        "node".into()
    }
}

/// A runtime whose streaming server switches protocols and echoes.
struct FakeRuntime {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<rpc::cri::ExecRequest>>>,
    head: Arc<Mutex<String>>,
}

impl FakeRuntime {
    async fn new() -> FakeRuntime {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, head) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(String::new())));
        let noted = head.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let noted = noted.clone();
                tokio::spawn(async move {
                    let mut received = Vec::new();
                    while !received.ends_with(b"\r\n\r\n") {
                        received.push(stream.read_u8().await.unwrap());
                    }
                    *noted.lock() = String::from_utf8(received).unwrap();
                    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                                  Sec-WebSocket-Accept: yes\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        FakeRuntime {
            address,
            asked: Arc::default(),
            head,
        }
    }
}

impl Runtime for FakeRuntime {
    fn exec(&self, request: rpc::cri::ExecRequest) -> BoxFuture<'_, Result<String, CriError>> {
        self.asked.lock().push(request);
        Box::pin(std::future::ready(Ok(format!("http://{}/exec/token", self.address))))
    }

    fn attach(&self, _request: rpc::cri::AttachRequest) -> BoxFuture<'_, Result<String, CriError>> {
        Box::pin(std::future::ready(Ok(format!("http://{}/attach/token", self.address))))
    }

    fn port_forward(&self, _request: rpc::cri::PortForwardRequest) -> BoxFuture<'_, Result<String, CriError>> {
        Box::pin(std::future::ready(Ok(format!(
            "http://{}/portforward/token",
            self.address
        ))))
    }

    fn container_stats(&self) -> BoxFuture<'_, Result<Vec<rpc::cri::ContainerStats>, CriError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// Allows the API server everything, and everybody else only to ask for the kubelet's health.
struct Rules;

impl Authorizer for Rules {
    fn allows<'a>(&'a self, user: &'a User, _verb: &'static str, subresource: &'static str) -> BoxFuture<'a, bool> {
        let allowed = user.groups.iter().any(|group| group == "apiservers") || subresource == "healthz";
        Box::pin(std::future::ready(allowed))
    }
}

struct Node {
    issuer: CertifiedIssuer<'static, KeyPair>,
    address: SocketAddr,
    shutdown: Shutdown,
    end: watch::Sender<bool>,
    asked: Arc<Mutex<Vec<rpc::cri::ExecRequest>>>,
    head: Arc<Mutex<String>>,
}

type Sender = http1::SendRequest<Empty<Bytes>>;

// === impl Node ===

impl Node {
    async fn new(log_path: &Path) -> Node {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let (certificate, key) = issue(&issuer, "localhost", "");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = watch::channel(false);
        let runtime = FakeRuntime::new().await;
        let (asked, head) = (runtime.asked.clone(), runtime.head.clone());
        let pods = Arc::new(FakePods {
            log_path: log_path.to_owned(),
            ended,
        });
        let server = Server::new(pods, Arc::new(runtime), Arc::new(Rules), Clock::real());
        let shutdown = Shutdown::new();
        shutdown.spawn(server.serve(listener, Arc::new(config), shutdown.clone()));
        Node {
            issuer,
            address,
            shutdown,
            end,
            asked,
            head,
        }
    }

    /// A connection with a certificate of this name and group, or with none.
    async fn connect(&self, user: Option<(&str, &str)>) -> Sender {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match user {
            Some((name, group)) => {
                let (certificate, key) = issue(&self.issuer, name, group);
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
            .unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    async fn api_server(&self) -> Sender {
        self.connect(Some(("apiserver", "apiservers"))).await
    }
}

fn issue(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    group: &str,
) -> (rustls::pki_types::CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let certificate = params.signed_by(&key, issuer).unwrap();
    (
        certificate.der().clone(),
        PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    )
}

async fn get(sender: &mut Sender, path: &str) -> Response<Incoming> {
    let request = Request::get(path).header("host", "node").body(Empty::new()).unwrap();
    sender.send_request(request).await.unwrap()
}

async fn text(sender: &mut Sender, path: &str) -> (u16, String) {
    let response = get(sender, path).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn only_who_may() {
    let node = Node::new(Path::new("/none")).await;
    let mut nobody = node.connect(None).await;
    assert_eq!(text(&mut nobody, "/healthz").await, (401, "Unauthorized".into()));
    let mut somebody = node.connect(Some(("jane", "people"))).await;
    assert_eq!(text(&mut somebody, "/healthz").await, (200, "ok".into()));
    let (status, why) = text(&mut somebody, "/pods").await;
    assert_eq!(
        (status, why.as_str()),
        (
            403,
            "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[pods])"
        )
    );
    assert_eq!(text(&mut somebody, "/exec/n/p/c?command=x&output=1").await.0, 403);
    let mut api_server = node.api_server().await;
    let (status, pods) = text(&mut api_server, "/pods").await;
    let pods: serde_json::Value = serde_json::from_str(&pods).unwrap();
    assert_eq!(
        (status, &pods["kind"], &pods["items"][0]["metadata"]["name"]),
        (200, &json!("PodList"), &json!("p"))
    );
    assert!(
        text(&mut api_server, "/metrics")
            .await
            .1
            .contains("kubelet_running_pods 0")
    );
    assert!(
        text(&mut api_server, "/stats/summary")
            .await
            .1
            .contains("\"nodeName\":\"node\"")
    );
    assert_eq!(text(&mut api_server, "/run/n/p/c").await.0, 404);
    node.shutdown.finish().await;
}

#[tokio::test]
async fn logs_are_read_and_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    std::fs::write(
        &path,
        "2026-01-01T00:00:00Z stdout F a\n2026-01-01T00:00:01Z stderr F b\n",
    )
    .unwrap();
    let node = Node::new(&path).await;
    let mut api_server = node.api_server().await;
    for (path, expect) in [
        ("/containerLogs/n/p/c", (200, "a\nb\n")),
        ("/containerLogs/n/p/c?tailLines=1", (200, "b\n")),
        (
            "/containerLogs/n/p/c?stream=Stdout&timestamps=true",
            (200, "2026-01-01T00:00:00.000000000Z a\n"),
        ),
        ("/containerLogs/n/p/x", (404, "container not found (\"x\")")),
        (
            "/containerLogs/n/p/c?previous=true",
            (400, "previous terminated container \"c\" in pod \"p\" not found"),
        ),
        (
            "/containerLogs/n/p/c?tailLines=x",
            (400, "tailLines: \"x\" is not a number"),
        ),
    ] {
        let (status, body) = text(&mut api_server, path).await;
        assert_eq!((status, body.as_str()), expect, "{path}");
    }
    let mut body = get(&mut api_server, "/containerLogs/n/p/c?follow=true&tailLines=0")
        .await
        .into_body();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, b"2026-01-01T00:00:02Z stdout F more\n").unwrap();
    let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(chunk, "more\n");
    node.end.send(true).unwrap();
    assert!(body.frame().await.is_none());
    node.shutdown.finish().await;
}

#[tokio::test]
async fn exec_goes_through() {
    let node = Node::new(Path::new("/none")).await;
    let mut api_server = node.api_server().await;
    let required = "Upgrade request required";
    assert_eq!(
        text(&mut api_server, "/exec/n/p/c?command=ls&output=1").await,
        (400, required.into())
    );
    let request = |path: &str| {
        Request::get(path)
            .header("host", "node")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "key")
            .header("sec-websocket-protocol", "v5.channel.k8s.io")
            .header("authorization", "secret")
            .body(Empty::new())
            .unwrap()
    };
    let refused = api_server
        .send_request(request("/exec/n/p/x?command=ls&output=1"))
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    let mut api_server = node.api_server().await;
    let request = request("/exec/n/p/c?command=sh&command=-c&input=1&output=1&tty=1");
    let mut answer = api_server.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    assert_eq!(answer.headers()["sec-websocket-accept"], "yes");
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    stream.write_all(b"over and back").await.unwrap();
    let mut back = [0; 13];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"over and back");
    let head = node.head.lock().to_lowercase();
    assert!(
        head.starts_with("get /exec/token http/1.1\r\n") && head.contains("sec-websocket-key: key\r\n"),
        "{head}"
    );
    assert!(!head.contains("authorization"), "{head}");
    let asked = node.asked.lock().clone();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].container_id.as_str(), asked[0].cmd.join(" ").as_str()),
        ("id", "sh -c")
    );
    assert!(asked[0].tty && asked[0].stdin && asked[0].stdout && !asked[0].stderr);
    drop(stream);
    node.shutdown.finish().await;
}

/// An API server that allows `get` only, and counts.
struct Reviews(Arc<std::sync::atomic::AtomicUsize>);

impl client::Transport for Reviews {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Result<Response<client::Body>, client::TransportError>> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(
            request.uri().path(),
            "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        );
        let mut review: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(review["spec"]["groups"], json!(["g", "system:authenticated"]));
        let asked = &review["spec"]["resourceAttributes"];
        assert_eq!((&asked["resource"], &asked["name"]), (&json!("nodes"), &json!("node")));
        review["status"] = json!({"allowed": asked["verb"] == "get"});
        let response = Response::new(client::body_of(review.to_string()));
        Box::pin(std::future::ready(Ok(response)))
    }
}

#[tokio::test(start_paused = true)]
async fn verdicts_are_remembered_for_a_while() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let authorizer = ReviewAuthorizer::new(client::Client::new(Arc::new(Reviews(asked.clone()))), "node");
    let user = User {
        name: "u".into(),
        groups: vec!["g".into()],
    };
    let count = || asked.load(std::sync::atomic::Ordering::SeqCst);
    for (seconds, verb, expect, asks) in [
        (0, "get", true, 1),
        (299, "get", true, 1),
        (1, "get", true, 2),
        (0, "create", false, 3),
        (29, "create", false, 3),
        (1, "create", false, 4),
    ] {
        tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
        assert_eq!(
            (authorizer.allows(&user, verb, "proxy").await, count()),
            (expect, asks),
            "{seconds} {verb}"
        );
    }
}
