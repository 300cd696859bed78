//! Binding, eviction, logs, exec and proxies, with a kubelet and a pod made of a task each.

use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::dial::{NodeDialer, ServiceDialer, Stream};
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Api, World};

pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// Answers requests with what was asked, and upgrades with an echo.
struct Fake;

impl Fake {
    fn connect(&self, who: String) -> Stream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        Self::serve(theirs, who);
        Box::new(ours)
    }

    /// The same with TLS, and a certificate that nobody signed.
    fn connect_tls(&self, who: String) -> Stream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let acceptor = acceptor(&rcgen::generate_simple_self_signed(["nobody".to_owned()]).unwrap());
        tokio::spawn(async move { Self::serve(acceptor.accept(theirs).await.unwrap(), who) });
        Box::new(ours)
    }

    fn serve(theirs: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static, who: String) {
        let service = service_fn(move |request: Request<Incoming>| {
            let who = who.clone();
            async move { Ok::<_, std::convert::Infallible>(Fake::answer(&who, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
        tokio::spawn(connection.with_upgrades());
    }

    async fn answer(who: &str, mut request: Request<Incoming>) -> Response<Full<bytes::Bytes>> {
        for (word, code) in [("refuses", 403), ("redirects", 302)] {
            if request.uri().path().contains(word) {
                let response = Response::builder()
                    .status(code)
                    .header("location", "https://169.254.169.254/secret");
                return response.body(Full::from(format!("{who} {word}"))).unwrap();
            }
        }
        if request.headers().contains_key("upgrade") {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.unwrap());
                let mut buffer = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..count]).await.unwrap();
                }
            });
            let mut response = Response::new(Full::default());
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            for (name, value) in [
                ("upgrade", "websocket"),
                ("connection", "Upgrade"),
                ("sec-websocket-protocol", "v5.channel.k8s.io"),
            ] {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            let said = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
            let asked = format!(
                "{who} {} host={} for={}",
                request.uri(),
                said("host"),
                said("x-forwarded-for")
            );
            response.headers_mut().insert("x-asked", asked.parse().unwrap());
            return response;
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if parts.uri.path() == "/host" {
            let host = parts.headers["host"].to_str().unwrap().to_owned();
            let link = format!("https://{host}/next");
            return Response::builder()
                .header("location", link)
                .body(Full::from(host))
                .unwrap();
        }
        let text = format!(
            "{who} {} {} {}",
            parts.method,
            parts.uri,
            String::from_utf8_lossy(&body)
        );
        let mut response = Response::new(Full::from(text));
        if parts.uri.path().contains("missing") {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
        }
        response
    }
}

/// TLS with a certificate that nobody signed.
fn acceptor(own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> tokio_rustls::TlsAcceptor {
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

impl NodeDialer for Fake {
    fn dial(&self, node: &str, address: &str, port: u16) -> BoxFuture<'static, std::io::Result<Stream>> {
        if node == "down" {
            return Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) });
        }
        let stream = self.connect(format!("{node}@{address}:{port}"));
        Box::pin(std::future::ready(Ok(stream)))
    }
}

impl ServiceDialer for Fake {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, std::io::Result<Stream>> {
        let stream = match address.port() {
            9 => return Box::pin(async { Err(std::io::Error::other("connection refused")) }),
            443 => self.connect_tls(address.to_string()),
            _ => self.connect(address.to_string()),
        };
        Box::pin(std::future::ready(Ok(stream)))
    }
}

pub async fn world() -> World {
    World::with(|config| {
        config.nodes = Some(Arc::new(Fake));
        config.services = Some(Arc::new(Fake));
    })
    .await
}

pub async fn pod(api: &Api, name: &str, node: Value) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": node,
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 8080}]}]}});
    api.post(PODS, &pod).await.ok();
}

pub async fn node(api: &Api, name: &str) {
    api.post("/api/v1/nodes", &json!({"metadata": {"name": name}}))
        .await
        .ok();
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}});
    api.patch(&format!("/api/v1/nodes/{name}/status"), "merge", &status)
        .await
        .ok();
}

#[tokio::test]
async fn pods_are_bound_and_evicted() {
    let world = world().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let name = format!("p{index}");
        pod(&api, &name, Value::Null).await;
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
        let answer = api.post(&format!("{PODS}/{name}/binding"), &binding).await;
        assert_eq!((answer.code, &answer.value()["status"]), (201, &json!("Success")));
        let bound = api.get(&format!("{PODS}/{name}")).await.ok();
        assert_eq!(bound["spec"]["nodeName"], "n1");
        let scheduled = bound["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["status"] == "True");
        assert!(scheduled, "{bound}");
        api.post(&format!("{PODS}/{name}/binding"), &binding)
            .await
            .refused(409, "is already assigned to node");
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        let answer = api.post(&format!("{PODS}/{name}/eviction"), &eviction).await;
        assert_eq!((answer.code, &answer.value()["status"]), (201, &json!("Success")));
        assert!(api.get(&format!("{PODS}/{name}")).await.ok()["metadata"]["deletionTimestamp"].is_string());
        pod(&api, &format!("old{index}"), Value::Null).await;
        let binding = json!({"metadata": {"name": format!("old{index}")}, "target": {"name": "n2"}});
        assert_eq!(
            api.post("/api/v1/namespaces/default/bindings", &binding).await.code,
            201
        );
    }
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let world = world().await;
    let api = world.api();
    node(&api, "n1").await;
    pod(&api, "p", json!("n1")).await;
    pod(&api, "missing", json!("n1")).await;
    pod(&api, "free", Value::Null).await;
    for api in world.both().await {
        let answer = api.get(&format!("{PODS}/p/log?tailLines=5&timestamps=true")).await;
        assert_eq!(
            answer.bytes,
            "n1@192.0.2.7:10250 GET /containerLogs/default/p/c?timestamps=true&tailLines=5 "
        );
        assert_eq!(answer.headers["content-type"], "text/plain");
        api.get(&format!("{PODS}/missing/log")).await.refused(404, "");
        api.get(&format!("{PODS}/free/log"))
            .await
            .refused(400, "is waiting to start");
        api.get(&format!("{PODS}/p/log?container=x"))
            .await
            .refused(400, "container x is not valid for pod p");
        api.get(&format!("{PODS}/none/log"))
            .await
            .refused(404, "pods \"none\" not found");
    }
    api.get(&format!("{PODS}/p/log?insecureSkipTLSVerifyBackend=true"))
        .await;
    let metrics = String::from_utf8(api.get("/metrics").await.bytes.to_vec()).unwrap();
    for usage in ["enforce_tls", "skip_tls_allowed"] {
        let line = format!("kube_apiserver_pod_logs_insecure_backend_total{{usage=\"{usage}\"}}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

/// Kubelets that show a certificate that nobody signed, and are asked for a better one.
struct Untrusted;

impl NodeDialer for Untrusted {
    fn dial(&self, node: &str, _: &str, _: u16) -> BoxFuture<'static, std::io::Result<Stream>> {
        let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(stranger.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = rustls::pki_types::ServerName::try_from(node.to_owned()).unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let own = rcgen::generate_simple_self_signed([node.to_owned()]).unwrap();
        tokio::spawn(async move {
            // Whoever does not trust it does not stay.
            let _ = acceptor(&own).accept(theirs).await;
        });
        Box::pin(async move { Ok(Box::new(connector.connect(name, ours).await?) as Stream) })
    }
}

#[tokio::test]
async fn logs_of_a_kubelet_that_is_not_trusted_are_counted() {
    let world = World::with(|config| config.nodes = Some(Arc::new(Untrusted))).await;
    let api = world.api();
    node(&api, "n1").await;
    pod(&api, "p", json!("n1")).await;
    for api in world.both().await {
        let refused = "kube_apiserver_pod_logs_backend_tls_failure_total";
        let before = api.metric(refused).await;
        let answer = api.get(&format!("{PODS}/p/log")).await;
        let why = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        let url = "https://192.0.2.7:10250/containerLogs/default/p/c";
        answer.refused(500, &format!("Get \"{url}\": {why}"));
        assert_eq!(api.metric(refused).await, before + 1.0);
    }
}

#[tokio::test]
async fn exec_is_an_upgrade_handed_through() {
    let world = world().await;
    let api = world.api();
    node(&api, "n1").await;
    pod(&api, "p", json!("n1")).await;
    pod(&api, "free", Value::Null).await;
    let spdy = [("upgrade", "SPDY/3.1"), ("connection", "Upgrade")];
    let answer = api
        .call(&format!("POST {PODS}/free/exec?command=sh&stdout=1"), &spdy, "")
        .await;
    answer.refused(400, "pod free does not have a host assigned");
    for (headers, query, message) in [
        (vec![], "command=sh&stdout=1", "Upgrade request required"),
        (
            vec![("upgrade", "websocket"), ("connection", "Upgrade")],
            "stdout=1",
            "at least 1 command",
        ),
        (
            vec![("upgrade", "websocket"), ("connection", "Upgrade")],
            "command=sh",
            "at least one of stdin, stdout, stderr",
        ),
    ] {
        let answer = api.call(&format!("GET {PODS}/p/exec?{query}"), &headers, "").await;
        answer.refused(400, message);
    }
    for (path, message) in [
        ("p/attach", "at least one of stdin, stdout, stderr"),
        ("p/attach?stdout=1", "Upgrade request required"),
        ("free/attach?stdout=1", "pod free does not have a host assigned"),
        ("p/portforward", "Upgrade request required"),
        ("free/portforward", "pod free does not have a host assigned"),
    ] {
        let answer = api.call(&format!("POST {PODS}/{path}"), &[], "").await;
        answer.refused(400, message);
    }

    let (address, ca) = world.listen().await;
    let mut stream = tls(address, &ca).await;
    let path = format!("{PODS}/p/exec?command=sh&command=-c&stdin=1&stdout=1&tty=1");
    let head = upgrade(
        &mut stream,
        "tester",
        &path,
        "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n",
    )
    .await;
    assert!(
        head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: v5.channel.k8s.io"),
        "{head}"
    );
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
}

/// Asks for a WebSocket and reads the head of the answer, in small letters.
async fn upgrade(stream: &mut Tls, user: &str, path: &str, headers: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: the-server\r\nAuthorization: Bearer {user}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// Reads one answer: its code and its body.
pub async fn answer(stream: &mut Tls) -> (u16, String) {
    let (head, body) = whole_answer(stream).await;
    (head[9..12].parse().unwrap(), body)
}

/// Reads one answer: its head in small letters, and its body.
async fn whole_answer(stream: &mut Tls) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length.parse().unwrap(), 0);
            stream.read_exact(&mut body).await.unwrap();
        }
        None => {
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(stream.read_u8().await.unwrap());
            }
        }
    }
    (head, String::from_utf8(body).unwrap())
}

/// CVE-2018-1002105 and CVE-2020-8559: a kubelet that refuses an upgrade, or points elsewhere, ends the matter. What the client
/// sends next on its connection is a request to the API server, and never one in the API server's name.
#[tokio::test]
async fn a_refused_upgrade_leads_nowhere() {
    let world = world().await;
    let api = world.api();
    node(&api, "n1").await;
    let (address, ca) = world.listen().await;
    for name in ["refuses", "redirects"] {
        pod(&api, name, json!("n1")).await;
        for upgrade in ["websocket", "SPDY/3.1"] {
            let mut stream = tls(address, &ca).await;
            let method = if upgrade == "websocket" { "GET" } else { "POST" };
            let request = format!(
                "{method} {PODS}/{name}/exec?command=sh&stdout=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tester\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let (code, body) = answer(&mut stream).await;
            assert!(
                code >= 300 && !body.contains("169.254"),
                "{name} {upgrade}: {code} {body}"
            );
            let next = "GET /containerLogs/default/p/c HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tester\r\n\r\n";
            stream.write_all(next.as_bytes()).await.unwrap();
            let (code, body) = answer(&mut stream).await;
            assert_eq!(code, 404, "{name} {upgrade}: {body}");
            assert!(!body.contains("n1@"), "{name} {upgrade}: the kubelet answered: {body}");
        }
        let answer = api.get(&format!("{PODS}/{name}/log")).await;
        assert!(
            answer.code >= 300 && !answer.headers.contains_key("location"),
            "{name}: {}",
            answer.code
        );
    }
}

/// CVE-2020-8555, CVE-2020-8562 and CVE-2022-3172: proxies hand a redirect to the client, and lead to no address of the server's
/// own.
#[tokio::test]
async fn proxies_follow_nobody_and_spare_the_server() {
    let world = world().await;
    let api = world.api();
    pod(&api, "p", json!("n1")).await;
    let at = |address: &str| json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    api.patch(&format!("{PODS}/p/status"), "merge", &at("10.244.0.9"))
        .await
        .ok();
    for api in world.both().await {
        let answer = api.get(&format!("{PODS}/p/proxy/redirects")).await;
        assert_eq!((answer.code, &*answer.bytes), (302, &b"10.244.0.9:8080 redirects"[..]));
    }
    for address in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"] {
        api.patch(&format!("{PODS}/p/status"), "merge", &at(address)).await;
        let answer = api.get(&format!("{PODS}/p/proxy/x")).await;
        let said = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert!(!said.starts_with(address), "{address}: {said}");
    }
    // Only the kubelet's own port of a node, with the kubelet's certificate.
    node(&api, "n2").await;
    api.get("/api/v1/nodes/n2:22/proxy/")
        .await
        .refused(400, "only the kubelet's port 10250 of a node can be proxied");
}

pub type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

pub async fn tls(address: SocketAddr, ca: &str) -> Tls {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut ca.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::from(address.ip());
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

#[tokio::test]
async fn proxies_reach_pods_services_and_nodes() {
    let world = world().await;
    let api = world.api();
    node(&api, "n1").await;
    pod(&api, "p", json!("n1")).await;
    let status = json!({"status": {"podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}]}});
    api.patch(&format!("{PODS}/p/status"), "merge", &status).await.ok();
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}]}});
    api.post("/api/v1/namespaces/default/services", &service).await.ok();
    let services = "/api/v1/namespaces/default/services";
    for api in world.both().await {
        for (request, expect) in [
            (format!("GET {PODS}/p/proxy/a/b?x=1"), "10.244.0.9:8080 GET /a/b?x=1 "),
            (format!("POST {PODS}/p:9090/proxy/"), "10.244.0.9:9090 POST / body"),
            (
                format!("DELETE {PODS}/http:p:9090/proxy/x"),
                "10.244.0.9:9090 DELETE /x body",
            ),
            (format!("GET {PODS}/https:p:443/proxy/x"), "10.244.0.9:443 GET /x "),
            (
                "GET /api/v1/nodes/n1/proxy/stats".to_owned(),
                "n1@192.0.2.7:10250 GET /stats ",
            ),
        ] {
            let body = if request.starts_with("GET") { "" } else { "body" };
            let answer = api.call(&request, &[], body).await;
            assert_eq!(String::from_utf8_lossy(&answer.bytes), expect, "{request}");
        }
        let answer = api.get(&format!("{PODS}/p/proxy")).await;
        assert_eq!(
            (answer.code, answer.headers["location"].to_str().unwrap()),
            (301, &*format!("{PODS}/p/proxy/"))
        );
        api.get(&format!("{services}/none/proxy/"))
            .await
            .refused(404, "services \"none\" not found");
        api.get(&format!("{services}/s:81/proxy/"))
            .await
            .refused(503, "no service port \"81\" found for service \"s\"");
    }
    api.get(&format!("{services}/s/proxy/"))
        .await
        .refused(503, "no endpoints available for service \"s\"");
    let slice = json!({"metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
        "ports": [{"name": "web", "port": 8081, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": true}}]});
    api.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice)
        .await
        .ok();
    for name in ["s", "s:80", "s:web"] {
        let answer = api.get(&format!("{services}/{name}/proxy/x")).await;
        assert_eq!(
            String::from_utf8_lossy(&answer.bytes),
            "10.244.0.9:8081 GET /x ",
            "{name}"
        );
    }
}

/// A pod, a service and a node, and the paths to the same port of each of them, with what is asked there.
async fn proxied(api: &Api) -> [(String, &'static str); 4] {
    node(api, "n1").await;
    pod(api, "p", json!("n1")).await;
    let status = json!({"status": {"podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}]}});
    api.patch(&format!("{PODS}/p/status"), "merge", &status).await.ok();
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}]}});
    let services = "/api/v1/namespaces/default/services";
    api.post(services, &service).await.ok();
    let slice = json!({"metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
        "ports": [{"name": "web", "port": 8081, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": true}}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    api.post(slices, &slice).await.ok();
    [
        (format!("{PODS}/p:9090/proxy"), "10.244.0.9:9090"),
        (format!("{PODS}/https:p:443/proxy"), "10.244.0.9:443"),
        (format!("{services}/s:web/proxy"), "10.244.0.9:8081"),
        ("/api/v1/nodes/n1/proxy".to_owned(), "n1@192.0.2.7:10250"),
    ]
}

#[tokio::test]
async fn proxies_hand_upgrades_through() {
    let world = world().await;
    let api = world.api();
    let (address, ca) = world.listen().await;
    for (base, who) in proxied(&api).await {
        for (path, asked) in [("", "/"), ("/", "/"), ("/ws/a%20b?c=d", "/ws/a%20b?c=d")] {
            let mut stream = tls(address, &ca).await;
            let head = upgrade(
                &mut stream,
                "tester",
                &format!("{base}{path}"),
                "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n",
            )
            .await;
            let asked = format!("x-asked: {who} {asked} host=the-server for=192.0.2.1, 192.0.2.2, 127.0.0.1\r\n");
            assert!(
                head.starts_with("http/1.1 101 ")
                    && head.contains("upgrade: websocket\r\n")
                    && head.contains("sec-websocket-protocol: v5.channel.k8s.io\r\n")
                    && head.contains(&asked),
                "{head}{asked}"
            );
            // More than any buffer on the way, both ways at once; then the client has said all, and still hears the rest.
            let sent = vec![b'x'; 300_000];
            let (mut from, mut to) = tokio::io::split(stream);
            let said = sent.clone();
            let saying = tokio::spawn(async move {
                to.write_all(&said).await.unwrap();
                to.shutdown().await.unwrap();
                to
            });
            let mut heard = Vec::new();
            from.read_to_end(&mut heard).await.expect("an orderly end");
            assert!(heard == sent, "{base}{path}: {} bytes", heard.len());
            saying.await.unwrap();
        }
    }
}

/// Whoever answers for several names knows by the client's Host which one is meant; links to it lead back through the proxy.
#[tokio::test]
async fn proxies_tell_which_host_was_asked() {
    let world = world().await;
    let api = world.api();
    let (address, ca) = world.listen().await;
    for (base, who) in proxied(&api).await {
        let mut stream = tls(address, &ca).await;
        let request = format!("GET {base}/host HTTP/1.1\r\nHost: the-server\r\nAuthorization: Bearer tester\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, body) = whole_answer(&mut stream).await;
        assert_eq!(body, "the-server", "{base}");
        let link = format!("location: https://the-server{base}/next\r\n");
        assert!(head.contains(&link), "{head}{link}");
        // A call of this process asks no host, so that it is the other side's address.
        let answer = api.get(&format!("{base}/host")).await;
        let own = who.split('@').next_back().unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.bytes), own, "{base}");
        assert_eq!(answer.headers["location"], format!("{base}/next"));
    }
}

/// In Go's words, as upstream's clients know them.
#[tokio::test]
async fn kubelets_that_are_not_there_are_told() {
    let world = world().await;
    let api = world.api();
    node(&api, "down").await;
    pod(&api, "p", json!("down")).await;
    let why = "dial tcp 192.0.2.7:10250: connect: connection refused";
    let log = api.get(&format!("{PODS}/p/log?follow=true")).await;
    let path = "/containerLogs/default/p/c?follow=true";
    log.refused(500, &format!("Get \"https://192.0.2.7:10250{path}\": {why}"));
    let stats = api.get("/api/v1/nodes/down/proxy/stats").await;
    stats.refused(503, &format!("error trying to reach service: {why}"));
    let (address, ca) = world.listen().await;
    for path in [
        "pods/p/exec?command=sh&stdout=1",
        "pods/p/attach?stdout=1",
        "pods/p/portforward?ports=80",
    ] {
        let mut stream = tls(address, &ca).await;
        let request = format!(
            "GET /api/v1/namespaces/default/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tester\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let (code, body) = answer(&mut stream).await;
        let status: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(code, 500, "{path}: {body}");
        assert_eq!(status["message"], format!("error dialing backend: {why}"), "{path}");
    }
}

#[tokio::test]
async fn proxies_tell_how_an_upgrade_was_refused() {
    let world = world().await;
    let api = world.api();
    let (address, ca) = world.listen().await;
    for (base, who) in proxied(&api).await {
        let mut stream = tls(address, &ca).await;
        // One connection: it stays one of HTTP, with this server.
        for (path, code, text) in [
            ("refuses", 403, format!("{who} refuses")),
            ("redirects", 500, "invalid upgrade response: status code 302".to_owned()),
        ] {
            let request = format!(
                "GET {base}/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tester\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let (got, body) = answer(&mut stream).await;
            assert_eq!(got, code, "{body}");
            assert!(body.contains(&text), "{body}");
        }
    }
    let mut stream = tls(address, &ca).await;
    let head = upgrade(&mut stream, "tester", &format!("{PODS}/p:9/proxy/"), "").await;
    assert!(head.starts_with("http/1.1 500"), "{head}");
    // There is nothing to become of a call of this process; what is wrong with the request comes before it.
    let asks = [("connection", "Upgrade"), ("upgrade", "websocket")];
    api.call(&format!("GET {PODS}/p:9/proxy/"), &asks, "")
        .await
        .refused(400, "use HTTP/1.1");
}

/// `get` is enough for a WebSocket to a pod's port, as upstream; one to its containers takes `create`.
#[tokio::test]
async fn upgrades_take_the_rights_of_their_subresource() {
    let world = world().await;
    proxied(&world.api()).await;
    let (address, ca) = world.listen().await;
    for (path, code) in [("p:9090/proxy/ws", 101), ("p/exec?command=sh&stdout=1", 403)] {
        let mut stream = tls(address, &ca).await;
        let head = upgrade(&mut stream, "reader", &format!("{PODS}/{path}"), "").await;
        assert!(head.starts_with(&format!("http/1.1 {code}")), "{path}: {head}");
    }
}

/// A tunnel counts as a request that runs until it ends, and the end of the server is told to whoever is in it.
#[tokio::test]
async fn tunnels_are_counted_and_end_with_the_server() {
    let world = world().await;
    let api = world.api();
    proxied(&api).await;
    let (address, ca) = world.listen().await;
    let open = || async {
        let text = String::from_utf8(api.get("/metrics").await.bytes.to_vec()).unwrap();
        let mut lines = text.lines().filter(|line| {
            line.starts_with("apiserver_longrunning_requests{") && line.contains("subresource=\"proxy\"")
        });
        lines.next().map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
    };
    let mut stream = tls(address, &ca).await;
    let head = upgrade(&mut stream, "tester", &format!("{PODS}/p:9090/proxy/ws"), "").await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert_eq!(open().await.as_deref(), Some("1"));
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    let ending = tokio::spawn({
        let running = world.running.clone();
        async move { running.shutdown().await }
    });
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("an orderly end");
    assert!(rest.is_empty());
    ending.await.unwrap();
}
