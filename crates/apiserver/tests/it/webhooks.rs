//! Admission webhooks through the whole server, which asks an HTTPS service of the test's.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apiserver::admission::{MutatingPolicies, MutatingWebhooks, ValidatingWebhooks, WebhookConfig};
use apiserver::authorization::AlwaysAllow;
use apiserver::dial::{ServiceDialer, Stream};
use apiserver::pipeline::Plugin;
use apiserver::pki::Authority;
use apiserver::request::UserInfo;
use base::{Clock, Random};
use base64::Engine as _;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::connect;
use crate::custom::{WIDGETS, define, forget, widgets};
use crate::custom_versions::{BETA, versions};
use crate::world::{Api, World};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn base64(text: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What was asked: the path with its query, over which connection, in which trace, and the question.
#[derive(Clone, Debug)]
pub struct Asked {
    path: String,
    connection: usize,
    trace: Option<String>,
    question: Value,
}

/// The service. It answers as the path says.
pub struct Service {
    address: SocketAddr,
    ca_bundle: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Where conversions by the path `/held` wait: until one came, and until it may go on.
    held: Arc<[Semaphore; 2]>,
}

impl Service {
    pub async fn start() -> Service {
        Service::named(&["localhost", "hook.default.svc", "outside.default.svc"]).await
    }

    /// With a certificate for these names.
    async fn named(names: &[&str]) -> Service {
        let now = Clock::real().now();
        let authority = Authority::generate("webhooks", now, Random::real()).unwrap();
        let pair = authority.issue_server("localhost", None, names, &[], now).unwrap();
        let certificates: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes()).collect();
        let key = rustls_pemfile::private_key(&mut pair.key_pem.as_bytes())
            .unwrap()
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates.unwrap(), key)
            .unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let service = Service {
            address: listener.local_addr().unwrap(),
            ca_bundle: base64(&authority.pair().certificate_pem),
            asked: Arc::default(),
            held: Arc::new([Semaphore::new(0), Semaphore::new(0)]),
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (asked, held, connections) = (service.asked.clone(), service.held.clone(), AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, asked, held) = (acceptor.clone(), asked.clone(), held.clone());
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    // Whoever does not trust the service does not stay.
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let answer = service_fn(|request| answer(request, connection, &asked, &held));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        service
    }

    /// Until a conversion is held. It goes on with [`Service::go_on`].
    pub async fn holds(&self) {
        self.held[0].acquire().await.unwrap().forget();
    }

    pub fn go_on(&self) {
        self.held[1].add_permits(1);
    }

    /// What was asked since somebody looked.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock())
    }

    /// The same in one line each: path, operation, resource and subresource, kind, name.
    fn told(&self) -> Vec<String> {
        let line = |asked: &Asked| {
            let request = &asked.question["request"];
            let text = |field: &str| request[field].as_str().unwrap_or("").to_owned();
            let resource = match &*text("subResource") {
                "" => request["resource"]["resource"].as_str().unwrap_or("").to_owned(),
                sub => format!("{}/{sub}", request["resource"]["resource"].as_str().unwrap_or("")),
            };
            let kind = request["kind"]["kind"].as_str().unwrap_or("");
            format!("{} {resource} {kind} {}", text("operation"), text("name"))
        };
        self.asked().iter().map(line).collect()
    }

    /// As a Service of the cluster.
    fn by_service(&self, path: &str) -> Value {
        json!({"service": {"namespace": "default", "name": "hook", "port": 8443, "path": path}, "caBundle": self.ca_bundle})
    }

    /// By its URL.
    pub fn by_url(&self, path: &str) -> Value {
        json!({"url": format!("https://localhost:{}{path}", self.address.port()), "caBundle": self.ca_bundle})
    }
}

async fn answer(
    request: Request<Incoming>,
    connection: usize,
    asked: &Mutex<Vec<Asked>>,
    [came, goes_on]: &[Semaphore; 2],
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let question: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(parts.headers["user-agent"], "kube-apiserver-admission");
    let path = parts.uri.path().to_owned();
    let earlier = asked.lock().len();
    asked.lock().push(Asked {
        path: parts.uri.to_string(),
        connection,
        trace: parts
            .headers
            .get("traceparent")
            .map(|value| value.to_str().unwrap().to_owned()),
        question: question.clone(),
    });
    if question["kind"] == "ConversionReview" {
        if path == "/held" {
            came.add_permits(1);
            goes_on.acquire().await.unwrap().forget();
        }
        let review = crate::custom_versions::converted(&path, &question);
        return Ok(Response::new(Full::from(review.to_string())));
    }
    let request = &question["request"];
    let patched = |patch: Value| json!({"allowed": true, "patchType": "JSONPatch", "patch": base64(patch.to_string())});
    let response = match &*path {
        "/deny" => json!({"allowed": false}),
        "/deny-attach" => json!({"allowed": request["subResource"] != "attach", "status": {"message": "no attaching"}}),
        "/deny-reason" => {
            json!({"allowed": false, "status": {"code": 418, "reason": "Teapot", "message": "I am a teapot",
            "details": {"name": "x", "causes": [{"message": "tea"}]}}})
        }
        "/warn" => json!({"allowed": true, "warnings": ["careful", "careful", "x".repeat(300)]}),
        "/label" => {
            let labels = &request["object"]["metadata"]["labels"];
            let order = labels.as_object().map_or(0, serde_json::Map::len);
            match labels.is_object() {
                true => {
                    patched(json!([{"op": "add", "path": format!("/metadata/labels/label-{order}"), "value": "x"}]))
                }
                false => patched(json!([{"op": "add", "path": "/metadata/labels", "value": {"label-0": "x"}}])),
            }
        }
        "/sidecar" => {
            patched(json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "s", "image": "s"}}]))
        }
        "/replicas" => patched(json!([{"op": "replace", "path": "/spec/replicas", "value": 3}])),
        "/silent" => std::future::pending().await,
        // The first two are too many; the third is answered.
        "/busy" if earlier < 2 => {
            let code = [429, 503][earlier];
            let response = Response::builder().status(code).header("retry-after", "0");
            return Ok(response.body(Full::default()).unwrap());
        }
        "/busy-for-ever" => {
            let response = Response::builder().status(503).header("retry-after", "0");
            return Ok(response.body(Full::default()).unwrap());
        }
        "/busy-for-long" => {
            let response = Response::builder().status(429).header("retry-after", "3600");
            return Ok(response.body(Full::default()).unwrap());
        }
        "/redirect" => {
            let response = Response::builder().status(307).header("location", "/allow");
            return Ok(response.body(Full::default()).unwrap());
        }
        "/html" => return Ok(Response::new(Full::from("<html>"))),
        "/long" => return Ok(Response::new(Full::from(vec![b' '; 6 * 1024 * 1024 + 1]))),
        "/broken" => {
            let response = Response::builder().status(500).header("content-type", "text/plain");
            return Ok(response.body(Full::from("webhook internal server error")).unwrap());
        }
        _ => json!({"allowed": true}),
    };
    let mut response = response;
    response["uid"] = request["uid"].clone();
    let review = json!({"apiVersion": question["apiVersion"], "kind": "AdmissionReview", "response": response});
    Ok(Response::new(Full::from(review.to_string())))
}

/// Every pod is the service.
struct ToService(SocketAddr);

impl ServiceDialer for ToService {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, std::io::Result<Stream>> {
        assert_eq!(address.to_string(), "10.244.0.9:9443");
        let service = self.0;
        Box::pin(async move { Ok(Box::new(tokio::net::TcpStream::connect(service).await?) as Stream) })
    }

    fn dial_external(&self, host: &str, port: u16) -> BoxFuture<'static, std::io::Result<Stream>> {
        assert_eq!((host, port), ("hooks.example.org", 9999));
        let service = self.0;
        Box::pin(async move { Ok(Box::new(tokio::net::TcpStream::connect(service).await?) as Stream) })
    }
}

async fn world(service: &Service) -> (World, Api) {
    let config = WebhookConfig::default;
    let all = Arc::new(AlwaysAllow);
    let plugins: Vec<Arc<dyn Plugin>> = vec![
        Arc::new(MutatingPolicies::new(all.clone())),
        Arc::new(MutatingWebhooks::new(all.clone(), config(), Random::seeded(2))),
        Arc::new(ValidatingWebhooks::new(all, config(), Random::seeded(3))),
    ];
    let engine = store::testing::engine_in_memory(Clock::real(), Random::seeded(1)).await;
    let to_service = Arc::new(ToService(service.address));
    let world = World::over(engine, plugins, |config| config.services = Some(to_service)).await;
    let api = world.api();
    let namespace = json!({"metadata": {"name": "default"}});
    api.post("/api/v1/namespaces", &namespace).await.ok();
    let ports = json!([{"name": "web", "port": 8443, "targetPort": 9443}, {"name": "none", "port": 8444}]);
    let object = json!({"metadata": {"name": "hook"}, "spec": {"ports": ports}});
    api.post("/api/v1/namespaces/default/services", &object).await.ok();
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "web", "port": 9443}],
        "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.10"], "conditions": {"ready": false}}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    api.post(slices, &slice).await.ok();
    (world, api)
}

/// A webhook of everything in the namespace `default` that is written there, with other fields.
fn webhook(name: &str, client: &Value, fields: &Value) -> Value {
    let mut webhook = json!({"name": name, "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "scope": "Namespaced"}]});
    webhook
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    webhook
}

/// Writes the only configuration of a kind; none without webhooks.
async fn configure(api: &Api, plural: &str, webhooks: &[Value]) {
    let path = format!("{GROUP}/{plural}");
    api.delete(&format!("{path}/c")).await;
    if !webhooks.is_empty() {
        let object = json!({"metadata": {"name": "c"}, "webhooks": webhooks});
        api.post(&path, &object).await.ok();
    }
}

/// Questions one after another.
const QUESTIONS: usize = 20;
const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

#[tokio::test]
async fn services_are_reached_over_tls_and_connections_stay() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    for (client, host) in [
        (service.by_service("/deny"), "hook.default.svc"),
        (service.by_url("/deny"), "localhost"),
    ] {
        configure(&api, VALIDATING, &[webhook("w.x.y", &client, &json!({}))]).await;
        for _ in 0..QUESTIONS {
            let answer = api.post(MAPS, &map("a")).await;
            answer.refused(
                400,
                "admission webhook \"w.x.y\" denied the request without explanation",
            );
        }
        let asked = service.asked();
        assert!(asked.iter().all(|asked| asked.path == "/deny?timeout=10s"), "{host}");
        // When a connection is free again nobody promises; that each question gets its own would be another thing.
        let connections: BTreeSet<_> = asked.iter().map(|asked| asked.connection).collect();
        assert!(
            asked.len() == QUESTIONS && connections.len() < QUESTIONS,
            "{host}: {connections:?}"
        );
    }
    // What nobody trusts is not asked.
    let other = Service::start().await;
    for (mut client, why) in [
        (
            json!({"url": service.by_url("/deny")["url"], "caBundle": other.ca_bundle}),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
        (
            json!({"service": {"namespace": "default", "name": "hook", "port": 8443}, "caBundle": other.ca_bundle}),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
        (
            json!({"url": format!("https://127.0.0.1:{}/", service.address.port())}),
            "tls: failed to verify certificate: x509: certificate is valid for",
        ),
    ] {
        if client["caBundle"].is_null() {
            client["caBundle"] = service.ca_bundle.clone().into();
        }
        configure(&api, VALIDATING, &[webhook("w.x.y", &client, &json!({}))]).await;
        api.post(MAPS, &map("a")).await.refused(500, why);
    }
    assert!(service.asked().is_empty());
}

#[tokio::test]
async fn a_service_may_stand_for_a_host_outside() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    let outside =
        json!({"metadata": {"name": "outside"}, "spec": {"type": "ExternalName", "externalName": "hooks.example.org"}});
    api.post("/api/v1/namespaces/default/services", &outside).await.ok();
    // The name in the certificate is the Service's, as upstream.
    let client = json!({"service": {"namespace": "default", "name": "outside", "port": 9999, "path": "/deny"},
        "caBundle": service.ca_bundle});
    configure(&api, VALIDATING, &[webhook("w.x.y", &client, &json!({}))]).await;
    api.post(MAPS, &map("a"))
        .await
        .refused(400, "denied the request without explanation");
    assert_eq!(service.asked().len(), 1);
}

/// `default/kubernetes` is this server, however the network is and whatever is said of certificates: what it says to the
/// question is its own, to itself, which may ask anything.
#[tokio::test]
async fn a_service_may_stand_for_the_server_itself() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    let own = json!({"service": {"namespace": "default", "name": "kubernetes", "path": "/apis/x.y/v1/reviews"}});
    let mut other = own.clone();
    other["caBundle"] = service.ca_bundle.clone().into();
    for client in [own, other] {
        configure(&api, VALIDATING, &[webhook("w.x.y", &client, &json!({}))]).await;
        api.post(MAPS, &map("a")).await.refused(
            500,
            "failed calling webhook \"w.x.y\": failed to call webhook: the server could not find the requested resource",
        );
    }
}

#[tokio::test]
async fn whoever_asks_for_patience_is_asked_again() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    for (path, asked, refused) in [
        ("/busy", 3, None),
        (
            "/busy-for-ever",
            11,
            Some("the server is currently unable to handle the request"),
        ),
        ("/busy-for-long", 1, Some("context deadline exceeded")),
    ] {
        let fields = json!({"timeoutSeconds": if asked == 1 { 1 } else { 30 }});
        configure(&api, VALIDATING, &[webhook("w.x.y", &service.by_url(path), &fields)]).await;
        let answer = api.post(&format!("{MAPS}?dryRun=All"), &map("a")).await;
        match refused {
            None => drop(answer.ok()),
            Some(why) => answer.refused(500, why),
        }
        assert_eq!(service.asked().len(), asked, "{path}");
    }
}

#[tokio::test]
async fn the_clients_trace_is_handed_on() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let service = Service::start().await;
    let (world, api) = world(&service).await;
    configure(
        &api,
        VALIDATING,
        &[webhook("w.x.y", &service.by_url("/allow"), &json!({}))],
    )
    .await;
    // Somebody whose traces count, whether anybody listens here or not.
    let monitor = UserInfo::new("monitor", ["system:monitoring"]);
    let api = Api {
        transport: world.running.transport(monitor),
        token: None,
    };
    let create = format!("POST {MAPS}");
    let headers = [("content-type", "application/json"), ("traceparent", TRACE)];
    api.call(&create, &headers, map("a").to_string()).await.ok();
    api.post(MAPS, &map("b")).await.ok();
    let traces: Vec<_> = service.asked().into_iter().map(|asked| asked.trace).collect();
    assert_eq!(traces, [Some(TRACE.to_owned()), None]);
}

#[tokio::test]
async fn failures_are_told_or_ignored() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let port = service.address.port();
    for (client, why) in [
        (
            json!({"service": {"namespace": "default", "name": "none", "path": "/p"}, "caBundle": service.ca_bundle}),
            "Post \"https://none.default.svc:443/p?timeout=1s\": service \"none\" not found".to_owned(),
        ),
        (
            json!({"service": {"namespace": "default", "name": "hook", "port": 1}, "caBundle": service.ca_bundle}),
            "Post \"https://hook.default.svc:1/?timeout=1s\": no service port 1 found for service \"hook\"".to_owned(),
        ),
        (
            json!({"service": {"namespace": "default", "name": "hook", "port": 8444}, "caBundle": service.ca_bundle}),
            "Post \"https://hook.default.svc:8444/?timeout=1s\": no endpoints available for service \"hook\""
                .to_owned(),
        ),
        (
            json!({"url": format!("https://{nobody}/"), "caBundle": service.ca_bundle}),
            format!("Post \"https://{nobody}/?timeout=1s\": dial tcp {nobody}: connect: connection refused"),
        ),
        (
            service.by_service("/silent"),
            "Post \"https://hook.default.svc:8443/silent?timeout=1s\": context deadline exceeded".to_owned(),
        ),
        (
            service.by_url("/redirect"),
            "the server responded with the status code 307 but did not return more information".to_owned(),
        ),
        (
            service.by_url("/broken"),
            "an error on the server (\"webhook internal server error\") has prevented the request from succeeding"
                .to_owned(),
        ),
        (
            service.by_url("/html"),
            "couldn't get version/kind; json parse error: expected value at line 1 column 1".to_owned(),
        ),
        (
            service.by_url("/long"),
            format!("Post \"https://localhost:{port}/long?timeout=1s\": the answer is longer than 6291456 bytes"),
        ),
    ] {
        for plural in [MUTATING, VALIDATING] {
            // Only the silent one is waited for; whoever answers has all the time there is.
            let seconds = if why.contains("deadline") { 1 } else { 30 };
            let fields = json!({"timeoutSeconds": seconds});
            configure(&api, plural, &[webhook("w.x.y", &client, &fields)]).await;
            let why = why.replace("timeout=1s", &format!("timeout={seconds}s"));
            let answer = api.post(MAPS, &map("a")).await;
            assert_eq!((answer.code, &answer.value()["reason"]), (500, &json!("InternalError")));
            let expect =
                format!("Internal error occurred: failed calling webhook \"w.x.y\": failed to call webhook: {why}");
            assert_eq!(answer.message(), expect);
            let fields = json!({"timeoutSeconds": seconds, "failurePolicy": "Ignore"});
            configure(&api, plural, &[webhook("w.x.y", &client, &fields)]).await;
            api.post(&format!("{MAPS}?dryRun=All"), &map("a")).await.ok();
            configure(&api, plural, &[]).await;
        }
    }
    let followed = service.asked().iter().any(|asked| asked.path.starts_with("/allow"));
    assert!(!followed, "a redirect was followed");
}

#[tokio::test]
async fn a_service_whose_certificate_names_nobody_is_counted() {
    let service = Service::named(&[]).await;
    let (_world, api) = world(&service).await;
    let refused = "apiserver_webhooks_x509_missing_san_total";
    for client in [service.by_url("/allow"), service.by_service("/allow")] {
        let before = api.metric(refused).await;
        configure(&api, VALIDATING, &[webhook("w.x.y", &client, &json!({}))]).await;
        let expect = "certificate relies on legacy Common Name field, use SANs instead";
        api.post(MAPS, &map("a")).await.refused(500, expect);
        // One set of them is the process': others may count too.
        assert!(api.metric(refused).await > before);
        configure(&api, VALIDATING, &[]).await;
    }
    assert!(service.asked().is_empty());
}

#[tokio::test]
async fn refusals_and_warnings_reach_the_client() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    configure(
        &api,
        VALIDATING,
        &[webhook("w.x.y", &service.by_url("/deny-reason"), &json!({}))],
    )
    .await;
    let answer = api.post(MAPS, &map("a")).await;
    let expect = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "admission webhook \"w.x.y\" denied the request: I am a teapot", "reason": "Teapot", "code": 418,
        "details": {"name": "x", "causes": [{"message": "tea"}]}});
    assert_eq!((answer.code, answer.value()), (418, expect));
    configure(
        &api,
        VALIDATING,
        &[webhook("w.x.y", &service.by_url("/warn"), &json!({}))],
    )
    .await;
    let answer = api.post(MAPS, &map("a")).await;
    let long = format!("299 - \"{}\"", "x".repeat(300));
    assert_eq!(answer.warnings(), ["299 - \"careful\"".to_owned(), long]);
    answer.ok();
}

#[tokio::test]
async fn every_kind_of_write_is_told() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    api.post(PODS, &pod("p")).await.ok();
    configure(
        &api,
        VALIDATING,
        &[webhook("w.x.y", &service.by_service("/allow"), &json!({}))],
    )
    .await;
    api.post(MAPS, &map("a")).await.ok();
    api.patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"k": "v"}}))
        .await
        .ok();
    let asked = service.asked();
    let update = &asked[1].question["request"];
    assert_eq!(update["options"]["kind"], "UpdateOptions");
    assert_eq!(
        (&update["object"]["data"], &update["oldObject"]["data"]),
        (&json!({"k": "v"}), &Value::Null)
    );
    api.delete(&format!("{MAPS}/a?gracePeriodSeconds=7")).await.ok();
    let asked = service.asked();
    let deletion = &asked[0].question["request"];
    assert_eq!(
        (&deletion["object"], &deletion["options"]["gracePeriodSeconds"]),
        (&Value::Null, &json!(7))
    );
    assert_eq!(deletion["oldObject"]["metadata"]["name"], "a");

    api.post(MAPS, &map("b")).await.ok();
    api.delete(MAPS).await.ok();
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    api.post(DEPLOYMENTS, &deployment).await.ok();
    let scale = json!({"spec": {"replicas": 2}});
    api.patch(&format!("{DEPLOYMENTS}/d/scale"), "merge", &scale).await.ok();
    let status = json!({"status": {"replicas": 2}});
    api.patch(&format!("{DEPLOYMENTS}/d/status"), "merge", &status)
        .await
        .ok();
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    api.post(&format!("{PODS}/p/binding"), &binding).await.ok();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    api.post(&format!("{PODS}/p/eviction"), &eviction).await;
    let told = service.told();
    let expect = [
        "CREATE configmaps ConfigMap b",
        "DELETE configmaps ConfigMap b",
        "CREATE deployments Deployment d",
        "UPDATE deployments/scale Scale d",
        "UPDATE deployments/status Deployment d",
        "CREATE pods/binding Binding p",
        "CREATE pods/eviction Eviction p",
    ];
    assert_eq!(told[..expect.len()], expect);
}

#[tokio::test]
async fn connections_are_refused() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    connect::node(&api, "n").await;
    connect::pod(&api, "p", json!("n")).await;
    configure(
        &api,
        VALIDATING,
        &[webhook("w.x.y", &service.by_service("/deny-attach"), &json!({}))],
    )
    .await;
    let headers = [("upgrade", "websocket"), ("connection", "Upgrade")];
    let attach = format!("POST {PODS}/p/attach?container=c&stdin=true");
    let answer = api.call(&attach, &headers, "").await;
    answer.refused(400, "admission webhook \"w.x.y\" denied the request: no attaching");
    let asked = service.asked();
    let request = &asked[0].question["request"];
    assert_eq!(
        (&request["operation"], &request["options"]),
        (&json!("CONNECT"), &Value::Null)
    );
    assert_eq!(request["kind"]["kind"], "PodAttachOptions");
    let object = &request["object"];
    assert_eq!(
        (&object["kind"], &object["container"], &object["stdin"]),
        (&json!("PodAttachOptions"), &json!("c"), &json!(true))
    );
}

#[tokio::test]
async fn objects_are_changed_one_after_another_and_get_their_defaults() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    let label = service.by_service("/label");
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let hooks = [webhook("a.x.y", &label, &again), webhook("b.x.y", &label, &json!({}))];
    configure(&api, MUTATING, &hooks).await;
    let made = api.post(MAPS, &map("a")).await.ok();
    // The first is called again, for the second has changed the object.
    let labels = json!({"label-0": "x", "label-1": "x", "label-2": "x"});
    assert_eq!(made["metadata"]["labels"], labels);

    configure(
        &api,
        MUTATING,
        &[webhook("a.x.y", &service.by_service("/sidecar"), &json!({}))],
    )
    .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = api.post(PODS, &pod).await.ok();
    let sidecar = &made["spec"]["containers"][1];
    assert_eq!(
        (
            &sidecar["name"],
            &sidecar["terminationMessagePath"],
            &sidecar["imagePullPolicy"]
        ),
        (&json!("s"), &json!("/dev/termination-log"), &json!("Always"))
    );

    configure(&api, MUTATING, &[]).await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    api.post(DEPLOYMENTS, &deployment).await.ok();
    configure(
        &api,
        MUTATING,
        &[webhook("a.x.y", &service.by_service("/replicas"), &json!({}))],
    )
    .await;
    let scale = json!({"spec": {"replicas": 9}});
    let scaled = api.patch(&format!("{DEPLOYMENTS}/d/scale"), "merge", &scale).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 3);

    // A webhook changes nothing where there is nothing to change.
    configure(
        &api,
        MUTATING,
        &[webhook("a.x.y", &service.by_service("/sidecar"), &json!({}))],
    )
    .await;
    let why = "admission webhook \"a.x.y\" attempted to modify the object, which is not supported for this operation";
    api.delete(&format!("{MAPS}/a")).await.refused(500, why);
}

#[tokio::test]
async fn objects_are_seen_in_the_version_that_a_rule_names() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"],
        "resources": ["horizontalpodautoscalers"]}]);
    let scaler = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}})
    };
    let scalers = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let exact = json!({"rules": rules, "matchPolicy": "Exact"});
    configure(
        &api,
        VALIDATING,
        &[webhook("w.x.y", &service.by_service("/deny"), &exact)],
    )
    .await;
    api.post(scalers, &scaler("a")).await.ok();
    let equivalent = json!({"rules": rules});
    configure(
        &api,
        VALIDATING,
        &[webhook("w.x.y", &service.by_service("/deny"), &equivalent)],
    )
    .await;
    api.post(scalers, &scaler("b")).await.refused(400, "denied the request");
    let asked = service.asked();
    let request = &asked[0].question["request"];
    assert_eq!(
        (&request["kind"]["version"], &request["requestKind"]["version"]),
        (&json!("v2"), &json!("v1"))
    );
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v2");
    assert_eq!(
        request["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        50
    );
}

#[tokio::test]
async fn custom_resources_are_changed_in_the_version_of_the_request() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    define(&api, &widgets(versions("v1"))).await;
    let of_v1 = json!([{"operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"]}]);
    for (name, fields) in [("any", json!({})), ("equivalent", json!({"rules": of_v1}))] {
        configure(
            &api,
            MUTATING,
            &[webhook("a.x.y", &service.by_service("/label"), &fields)],
        )
        .await;
        for (version, path) in [("v1", WIDGETS), ("v1beta1", BETA)] {
            let object = json!({"metadata": {"name": format!("{name}-{version}")}, "spec": {"both": "b"}});
            let made = api.post(path, &object).await.ok();
            let expect = (&json!(format!("example.com/{version}")), &json!({"label-0": "x"}));
            assert_eq!((&made["apiVersion"], &made["metadata"]["labels"]), expect, "{name}");
        }
    }
    let asked = service.asked();
    let versions: Vec<&Value> = asked
        .iter()
        .map(|asked| &asked.question["request"]["object"]["apiVersion"])
        .collect();
    let (v1, beta) = ("example.com/v1", "example.com/v1beta1");
    assert_eq!(versions, [v1, beta, v1, v1]);
}

#[tokio::test]
async fn a_conversion_webhook_stands_between_a_request_and_rules_of_another_version() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    let mut crd = widgets(versions("v1"));
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": service.by_url("/convert")}});
    define(&api, &crd).await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"]}]);
    let fields = json!({"rules": rules});
    for (plural, path) in [(MUTATING, "/label"), (VALIDATING, "/allow")] {
        configure(&api, plural, &[webhook("a.x.y", &service.by_service(path), &fields)]).await;
    }
    let object = json!({"metadata": {"name": "a"}, "spec": {"length": "l"}});
    let made = api.post(BETA, &object).await.ok();
    let expect = (
        &json!("example.com/v1beta1"),
        &json!({"length": "l"}),
        &json!({"label-0": "x"}),
    );
    assert_eq!(
        (&made["apiVersion"], &made["spec"], &made["metadata"]["labels"]),
        expect
    );
    let asked = service.asked();
    let reviews = asked.iter().filter(|asked| asked.question["kind"] == "AdmissionReview");
    let seen: Vec<(&Value, &Value)> = reviews
        .map(|asked| &asked.question["request"]["object"])
        .map(|object| (&object["apiVersion"], &object["spec"]))
        .collect();
    let as_v1 = (&json!("example.com/v1"), &json!({"size": "l"}));
    assert_eq!(seen, [as_v1, as_v1]);
}

/// A definition that goes takes its objects along, whatever a webhook says of it.
#[tokio::test]
async fn webhooks_do_not_keep_the_objects_of_a_definition() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    let made = define(&api, &widgets(versions("v1"))).await;
    let object = json!({"metadata": {"name": "a"}});
    api.post(WIDGETS, &object).await.ok();
    configure(
        &api,
        VALIDATING,
        &[webhook("w.x.y", &service.by_service("/deny"), &json!({}))],
    )
    .await;
    api.delete(&format!("{WIDGETS}/a")).await.refused(400, "w.x.y");
    forget(&api, made["metadata"]["name"].as_str().unwrap()).await;
    assert_eq!(api.get(WIDGETS).await.code, 404);
}

#[tokio::test]
async fn nobody_is_locked_out() {
    let service = Service::start().await;
    let (_world, api) = world(&service).await;
    let rules =
        json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    for plural in [MUTATING, VALIDATING] {
        configure(&api, plural, &[webhook("w.x.y", &service.by_service("/deny"), &rules)]).await;
    }
    api.post("/api/v1/namespaces", &map("n"))
        .await
        .refused(400, "denied the request");
    // What is not stored is a request as others.
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    api.post(reviews, &review).await.refused(400, "denied the request");
    let expect = [
        "CREATE namespaces Namespace n",
        "CREATE selfsubjectaccessreviews SelfSubjectAccessReview ",
    ];
    assert_eq!(service.told(), expect);
    for plural in [MUTATING, VALIDATING] {
        let path = format!("{GROUP}/{plural}");
        api.patch(
            &format!("{path}/c"),
            "merge",
            &json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await
        .ok();
        api.delete(&format!("{path}/c")).await.ok();
    }
    assert!(service.asked().is_empty());
    api.post("/api/v1/namespaces", &map("n")).await.ok();
}
