//! Aggregation through the whole server: another server of the test's own answers for a group version.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apiserver::admission::{ValidatingWebhooks, WebhookConfig};
use apiserver::aggregation::ProxyConfig;
use apiserver::authorization::AlwaysAllow;
use apiserver::dial::{ServiceDialer, Stream};
use apiserver::pipeline::Plugin;
use apiserver::pki::{Authority, Pair};
use apiserver::request::{SYSTEM_MASTERS, UserInfo};
use apiserver::serve::tls_config;
use base::{Clock, Random, Shutdown};
use base64::Engine as _;
use bytes::Bytes;
use client::Client;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use crate::connect;
use crate::world::{Answer, Api, Watch, World};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "wardle.example.com";
const NAME: &str = "v1alpha1.wardle.example.com";
const VERSION: &str = "/apis/wardle.example.com/v1alpha1";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Nothing takes this long on any machine.
const LIMIT: Duration = Duration::from_secs(60);

type Reply = Response<BoxBody<Bytes, io::Error>>;

/// What was asked.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    uri: String,
    headers: HeaderMap,
    /// The certificate that was shown.
    certificate: Option<Vec<u8>>,
}

/// How the extension server behaves.
#[derive(Default)]
struct Says {
    /// Whether it knows aggregated discovery and OpenAPI v3.
    is_modern: bool,
    /// Whether it fails.
    is_broken: bool,
    /// Who watches.
    watchers: Vec<mpsc::UnboundedSender<Bytes>>,
    asked: Vec<Asked>,
}

/// The extension server.
#[derive(Clone)]
struct Extension {
    address: SocketAddr,
    ca_bundle: String,
    says: Arc<Mutex<Says>>,
    /// Answers that have begun break off.
    breaks: Arc<Notify>,
}

fn certified(pair: &Pair) -> CertifiedKey {
    let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes()).collect();
    let key = rustls_pemfile::private_key(&mut pair.key_pem.as_bytes())
        .unwrap()
        .unwrap();
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain.unwrap(), key, &provider).unwrap()
}

impl Extension {
    async fn start() -> Extension {
        Extension::named(&["sample.default.svc"]).await
    }

    /// With a certificate for these names.
    async fn named(names: &[&str]) -> Extension {
        let now = Clock::real().now();
        let authority = Authority::generate("extension", now, Random::real()).unwrap();
        let pair = authority
            .issue_server("sample.default.svc", None, names, &[], now)
            .unwrap();
        let tls = tls_config(Arc::new(SingleCertAndKey::from(certified(&pair))));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let extension = Extension {
            address: listener.local_addr().unwrap(),
            ca_bundle: base64::engine::general_purpose::STANDARD.encode(&authority.pair().certificate_pem),
            says: Arc::default(),
            breaks: Arc::default(),
        };
        let (acceptor, served) = (tokio_rustls::TlsAcceptor::from(tls), extension.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, served) = (acceptor.clone(), served.clone());
                tokio::spawn(async move {
                    // Whoever does not trust the server does not stay.
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let shown = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
                    let answer = service_fn(move |request| {
                        let (served, shown) = (served.clone(), shown.clone());
                        async move { Ok::<_, Infallible>(served.answer(request, shown).await) }
                    });
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection_with_upgrades(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        extension
    }

    async fn answer(&self, mut request: Request<Incoming>, certificate: Option<Vec<u8>>) -> Reply {
        let path = request.uri().path().to_owned();
        let asked = Asked {
            method: request.method().to_string(),
            uri: request.uri().path_and_query().unwrap().to_string(),
            headers: request.headers().clone(),
            certificate,
        };
        let (is_modern, is_broken) = {
            let mut says = self.says.lock();
            says.asked.push(asked);
            (says.is_modern, says.is_broken)
        };
        if is_broken {
            return text(403, "text/plain", "broken");
        }
        let query = request.uri().query().unwrap_or("").to_owned();
        match &*path {
            "/apis" if is_modern => {
                let media = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
                text(200, media, &aggregated().to_string())
            }
            VERSION => text(200, "application/json", &resources().to_string()),
            "/openapi/v2" => text(200, "application/json", &swagger().to_string()),
            "/openapi/v3" if is_modern => {
                let url = "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC";
                let index = json!({"paths": {"apis/wardle.example.com/v1alpha1": {"serverRelativeURL": url},
                    "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=BAD"}}});
                text(200, "application/json", &index.to_string())
            }
            "/openapi/v3/apis/wardle.example.com/v1alpha1" if is_modern => text(
                200,
                "application/json",
                r#"{"openapi": "3.0.0", "info": {"title": "theirs"}}"#,
            ),
            FLUNDERS if query.contains("watch=1") => {
                let (sender, receiver) = mpsc::unbounded_channel();
                self.says.lock().watchers.push(sender);
                let frames = futures::stream::unfold(receiver, |mut receiver| async move {
                    let bytes: Bytes = receiver.recv().await?;
                    Some((Ok(Frame::data(bytes)), receiver))
                });
                Response::new(BoxBody::new(StreamBody::new(frames)))
            }
            path if path.ends_with("/reviews") => {
                let user = request.headers()["x-remote-user"].to_str().unwrap().to_owned();
                let groups = request.headers().get_all("x-remote-group").iter();
                let groups: Vec<String> = groups.map(|group| group.to_str().unwrap().to_owned()).collect();
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                let asked: Value = serde_json::from_slice(&asked).unwrap();
                let message = format!("{user} of {} asks", groups.join(" and "));
                let response =
                    json!({"uid": asked["request"]["uid"], "allowed": false, "status": {"message": message}});
                let review =
                    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
                text(200, "application/json", &review.to_string())
            }
            path if path.ends_with("/redirect") => {
                let mut reply = text(302, "text/plain", "");
                reply
                    .headers_mut()
                    .insert("location", "https://192.0.2.1/".parse().unwrap());
                reply
            }
            path if path.ends_with("/exec") => {
                let upgraded = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(upgraded.await.unwrap());
                    let mut buffer = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        stream.write_all(&buffer[..count]).await.unwrap();
                    }
                });
                let mut reply = text(101, "text/plain", "");
                for (name, value) in [("upgrade", "echo"), ("connection", "Upgrade")] {
                    reply.headers_mut().insert(name, value.parse().unwrap());
                }
                reply
            }
            path if path.contains("/breaks-off") => {
                let breaks = self.breaks.clone();
                let first = futures::stream::iter([Ok(Frame::data(Bytes::from("half")))]);
                let rest = futures::stream::once(async move {
                    breaks.notified().await;
                    Err(io::Error::other("no more"))
                });
                let mut reply = Response::new(BoxBody::new(StreamBody::new(first.chain(rest))));
                if path.ends_with("-early") {
                    reply.headers_mut().insert("content-length", "8".parse().unwrap());
                }
                reply
            }
            path if path.ends_with("/refused") => text(418, "text/plain", "a teapot"),
            path if path.starts_with(FLUNDERS) => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut reply = text(200, "application/json", &String::from_utf8_lossy(&body));
                for (name, value) in [
                    ("access-control-allow-origin", "*"),
                    ("x-own", "1"),
                    ("keep-alive", "5"),
                ] {
                    reply.headers_mut().insert(name, value.parse().unwrap());
                }
                reply
            }
            _ => text(404, "text/plain", "404 page not found"),
        }
    }

    /// What was asked of it by whoever, under a path.
    fn asked(&self, path: &str) -> Vec<Asked> {
        let says = self.says.lock();
        let under = says.asked.iter().filter(|asked| asked.uri.starts_with(path));
        under.cloned().collect()
    }

    fn api_service(&self) -> Value {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME},
            "spec": {"group": GROUP, "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
                "service": {"namespace": "default", "name": "sample"}, "caBundle": self.ca_bundle},
        })
    }
}

fn text(code: u16, media: &str, text: &str) -> Reply {
    let body = BoxBody::new(Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}));
    let reply = Response::builder().status(code).header("content-type", media);
    reply.body(body).unwrap()
}

fn aggregated() -> Value {
    let kind = json!({"group": GROUP, "version": "v1alpha1", "kind": "Flunder"});
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2beta1", "metadata": {}, "items": [
        {"metadata": {"name": GROUP}, "versions": [
            {"version": "v1alpha1", "freshness": "Current", "resources": [
                {"resource": "flunders", "responseKind": kind, "scope": "Namespaced", "singularResource": "flunder",
                    "verbs": ["get", "list"], "subresources": [{"subresource": "status", "verbs": ["get"]}]},
            ]},
        ]},
        {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": []}]},
    ]})
}

fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
        {"name": "fischers", "singularName": "fischer", "namespaced": false, "kind": "Fischer", "verbs": ["get"]},
    ]})
}

fn swagger() -> Value {
    let reference = json!({"$ref": "#/definitions/com.example.Flunder"});
    json!({"swagger": "2.0", "info": {"title": "wardle"}, "paths": {
        FLUNDERS: {"get": {"produces": ["application/json"], "responses": {"200": {"description": "OK", "schema": reference}}}},
        "/apis/apps/v1/stolen": {"get": {}},
    }, "definitions": {"com.example.Flunder": {"type": "object", "description": "A fish."}, "unused": {}}})
}

/// Every pod is the extension server.
struct ToExtension(SocketAddr);

impl ServiceDialer for ToExtension {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, std::io::Result<Stream>> {
        assert_eq!(address.to_string(), "10.244.0.9:8443");
        let server = self.0;
        Box::pin(async move { Ok(Box::new(tokio::net::TcpStream::connect(server).await?) as Stream) })
    }

    fn dial_external(&self, host: &str, port: u16) -> BoxFuture<'static, std::io::Result<Stream>> {
        assert_eq!((host, port), ("sample.example.org", 8444));
        let server = self.0;
        Box::pin(async move { Ok(Box::new(tokio::net::TcpStream::connect(server).await?) as Stream) })
    }
}

/// A server, and the front proxy's certificate.
async fn world(extension: &Extension) -> (World, Shutdown, Pair) {
    world_with(extension, Vec::new()).await
}

/// The same, with admission plug-ins.
async fn world_with(extension: &Extension, plugins: Vec<Arc<dyn Plugin>>) -> (World, Shutdown, Pair) {
    let now = Clock::real().now();
    let authority = Authority::generate("front-proxy-ca", now, Random::real()).unwrap();
    let pair = authority.issue_client("front-proxy-client", None, now).unwrap();
    let shown = (
        pair.certificate_pem.clone().into_bytes(),
        pair.key_pem.clone().into_bytes(),
    );
    let engine = store::testing::engine_in_memory(Clock::real(), Random::seeded(1)).await;
    let world = World::over(engine, plugins, |config| {
        config.services = Some(Arc::new(ToExtension(extension.address)));
        config.aggregation = ProxyConfig {
            certificate: tokio::sync::watch::channel(Some(shown)).1,
            ..ProxyConfig::default()
        };
    })
    .await;
    let shutdown = keep(&world);
    let namespace = json!({"metadata": {"name": "default"}});
    world.api().post("/api/v1/namespaces", &namespace).await.ok();
    (world, shutdown, pair)
}

fn keep(world: &World) -> Shutdown {
    let shutdown = Shutdown::new();
    let own = UserInfo::new("system:apiserver", [SYSTEM_MASTERS]);
    let client = Client::new(world.running.transport(own));
    world.running.keep_api_services(&client, &shutdown);
    shutdown
}

/// Waits until the condition Available has a reason; answers with its message.
async fn available(api: &Api, reason: &str) -> String {
    let path = format!("{API_SERVICES}?watch=1&fieldSelector=metadata.name%3D{NAME}");
    let mut watch = api.watch(&path).await;
    let wait = async {
        while let Some(frame) = watch.next().await {
            let condition = &frame["object"]["status"]["conditions"][0];
            if condition["reason"] == reason {
                return condition["message"].as_str().unwrap().to_owned();
            }
        }
        panic!("the watch ended");
    };
    let found = tokio::time::timeout(LIMIT, wait).await;
    found.unwrap_or_else(|_| panic!("it never was {reason}"))
}

/// Asks until the answer is as wanted: what the server knows of others follows what it stores.
async fn until(api: &Api, path: &str, accept: &str, enough: impl Fn(&Answer) -> bool) -> Answer {
    let wait = async {
        loop {
            let answer = api.call(&format!("GET {path}"), &[("accept", accept)], "").await;
            if enough(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(LIMIT, wait).await;
    found.unwrap_or_else(|_| panic!("{path} never was as wanted"))
}

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn service() -> Value {
    let ports = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
    json!({"metadata": {"name": "sample"}, "spec": {"ports": ports}})
}

fn slice(is_ready: bool) -> Value {
    json!({"metadata": {"name": "sample-1", "labels": {"kubernetes.io/service-name": "sample"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": 8443}],
        "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": is_ready}}]})
}

/// A server behind which the extension server is, and is known to be.
async fn aggregated_world(extension: &Extension) -> (World, Shutdown, Pair) {
    aggregated_world_with(extension, Vec::new()).await
}

async fn aggregated_world_with(extension: &Extension, plugins: Vec<Arc<dyn Plugin>>) -> (World, Shutdown, Pair) {
    let (world, shutdown, pair) = world_with(extension, plugins).await;
    let api = world.api();
    api.post(SERVICES, &service()).await.ok();
    api.post(SLICES, &slice(true)).await.ok();
    api.post(API_SERVICES, &extension.api_service()).await.ok();
    available(&api, "Passed").await;
    until(&api, FLUNDERS, "application/json", |answer| answer.code == 200).await;
    (world, shutdown, pair)
}

#[tokio::test]
async fn availability_follows_what_there_is() {
    let extension = Extension::start().await;
    let (world, shutdown, _) = world(&extension).await;
    let api = world.api();
    let made = api.post(API_SERVICES, &extension.api_service()).await.ok();
    assert_eq!(made["spec"]["service"]["port"], 443);
    let message = available(&api, "ServiceNotFound").await;
    assert_eq!(message, "service/sample in \"default\" is not present");
    let answer = api.get(FLUNDERS).await;
    // Before the server knows of it there is no such path; then there is nobody who answers.
    let answer = match answer.code {
        404 => until(&api, FLUNDERS, "", |answer| answer.code == 503).await,
        _ => answer,
    };
    assert_eq!((answer.code, &*answer.bytes), (503, &b"service unavailable\n"[..]));
    let metrics = String::from_utf8(api.get("/metrics").await.bytes.to_vec()).unwrap();
    let by_us = metrics.lines().find(|line| {
        line.starts_with("apiserver_request_terminations_total{")
            && line.contains("component=\"aggregator\",code=\"503\"")
    });
    assert!(by_us.is_some(), "{metrics}");
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    api.post(SERVICES, &service()).await.ok();
    available(&api, "EndpointsNotFound").await;
    api.post(SLICES, &slice(false)).await.ok();
    let message = available(&api, "MissingEndpoints").await;
    assert_eq!(
        message,
        "endpointslices for service/sample in \"default\" have no addresses with port name \"https\""
    );
    extension.says.lock().is_broken = true;
    let change = json!({"endpoints": slice(true)["endpoints"]});
    api.patch(&format!("{SLICES}/sample-1"), "merge", &change).await.ok();
    let message = available(&api, "FailedDiscoveryCheck").await;
    assert_eq!(
        message,
        "failing or missing response from https://10.244.0.9:8443/apis/wardle.example.com/v1alpha1: bad status from \
         https://10.244.0.9:8443/apis/wardle.example.com/v1alpha1: 403"
    );
    extension.says.lock().is_broken = false;
    assert_eq!(available(&api, "Passed").await, "all checks passed");
    let checks = extension.asked(VERSION);
    assert_eq!(checks[0].headers["x-remote-user"], "system:kube-aggregator");
    assert_eq!(checks[0].headers["x-remote-group"], "system:masters");
    until(&api, FLUNDERS, "", |answer| answer.code == 200).await;
    let row = until(
        &api,
        API_SERVICES,
        "application/json;as=Table;g=meta.k8s.io;v=v1",
        |_| true,
    )
    .await;
    let rows = row.value()["rows"].as_array().unwrap().clone();
    let mut cells = rows.iter().map(|row| &row["cells"]);
    assert!(cells.any(|cells| cells[0] == NAME && cells[1] == "default/sample" && cells[2] == "True"));
    // It goes: nobody answers any more, which is counted.
    api.delete(&format!("{SERVICES}/sample")).await.ok();
    available(&api, "ServiceNotFound").await;
    let text = String::from_utf8(api.get("/metrics").await.bytes.to_vec()).unwrap();
    for line in [
        format!("aggregator_unavailable_apiservice{{name=\"{NAME}\"}} 1"),
        "aggregator_unavailable_apiservice{name=\"v1.apps\"} 0".to_owned(),
        format!("aggregator_unavailable_apiservice_total{{name=\"{NAME}\",reason=\"ServiceNotFound\"}} 1"),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    shutdown.finish().await;
}

/// A host outside of the cluster answers behind a Service of type ExternalName: at the port that the APIService names, with the
/// Service's name in its certificate.
#[tokio::test]
async fn a_service_may_stand_for_a_host_outside() {
    let extension = Extension::start().await;
    let (world, shutdown, _) = world(&extension).await;
    let api = world.api();
    let outside =
        json!({"metadata": {"name": "sample"}, "spec": {"type": "ExternalName", "externalName": "sample.example.org"}});
    api.post(SERVICES, &outside).await.ok();
    let mut api_service = extension.api_service();
    api_service["spec"]["service"]["port"] = 8444.into();
    api.post(API_SERVICES, &api_service).await.ok();
    assert_eq!(available(&api, "Passed").await, "all checks passed");
    until(&api, FLUNDERS, "application/json", |answer| answer.code == 200).await;
    let asked = extension.asked(FLUNDERS);
    assert_eq!(asked[0].headers["x-forwarded-host"], "sample.example.org:8444");
    // An address that somebody gave for a name is none that may be asked.
    let change = json!({"spec": {"externalName": "127.0.0.1"}});
    api.patch(&format!("{SERVICES}/sample"), "merge", &change).await.ok();
    let why = available(&api, "FailedDiscoveryCheck").await;
    assert!(why.ends_with("address not allowed"), "{why}");
    // And the server's own Service leads to no other one.
    let change = json!({"spec": {"service": {"name": "kubernetes", "port": 443}}});
    api.patch(&format!("{API_SERVICES}/{NAME}"), "merge", &change)
        .await
        .ok();
    available(&api, "ServiceNotFound").await;
    let mut own = outside;
    own["metadata"]["name"] = "kubernetes".into();
    api.post(SERVICES, &own).await.ok();
    let wait = async {
        while !available(&api, "FailedDiscoveryCheck")
            .await
            .contains("leads back to this server")
        {}
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap();
    shutdown.finish().await;
}

/// An extension server answers webhooks, too: this server is asked for it, by itself.
#[tokio::test]
async fn a_webhook_may_be_served_behind_an_api_service() {
    let extension = Extension::start().await;
    let webhooks = ValidatingWebhooks::new(Arc::new(AlwaysAllow), WebhookConfig::default(), Random::seeded(3));
    let (world, shutdown, _) = aggregated_world_with(&extension, vec![Arc::new(webhooks)]).await;
    let api = world.api();
    let service = json!({"namespace": "default", "name": "kubernetes", "path": format!("{VERSION}/reviews")});
    let rules =
        json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    let webhook = json!({"name": "w.x.y", "clientConfig": {"service": service}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": rules});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let object = json!({"metadata": {"name": "c"}, "webhooks": [webhook]});
    api.post(path, &object).await.ok();
    let map = json!({"metadata": {"name": "a"}});
    api.post("/api/v1/namespaces/default/configmaps", &map).await.refused(
        400,
        "admission webhook \"w.x.y\" denied the request: system:apiserver of system:masters and system:authenticated asks",
    );
    shutdown.finish().await;
}

/// Whoever is ready has registered what is built in; the paths of all servers are listed.
#[tokio::test]
async fn readiness_waits_for_what_is_built_in() {
    let extension = Extension::start().await;
    let (world, shutdown, _) = world(&extension).await;
    let api = world.api();
    let path = "/readyz/autoregister-completion";
    // How far they are nobody promises.
    let answer = api.get(path).await;
    if answer.code != 200 {
        let said = String::from_utf8(answer.bytes.to_vec()).unwrap();
        assert!(
            said.starts_with("internal server error: missing APIService: [v1"),
            "{said}"
        );
    }
    until(&api, path, "", |answer| answer.code == 200).await;
    let all = api.get(&format!("{API_SERVICES}/v1.apps")).await.ok();
    assert_eq!(all["status"]["conditions"][0]["status"], "True");
    let said = api.get("/readyz?verbose").await.bytes;
    let said = String::from_utf8(said.to_vec()).unwrap();
    for name in [
        "autoregister-completion",
        "poststarthook/kube-apiserver-autoregistration",
    ] {
        assert!(said.contains(&format!("[+]{name} ok\n")), "{said}");
        assert_eq!(api.get(&format!("/livez/{name}")).await.code, 200);
    }
    api.post(API_SERVICES, &extension.api_service()).await.ok();
    until(&api, "/", "", |answer| {
        let paths = answer.value()["paths"].clone();
        let has = |path: &str| paths.as_array().unwrap().iter().any(|own| own == path);
        [
            "/apis/apps",
            "/apis/apps/v1",
            "/readyz/autoregister-completion",
            "/version",
        ]
        .iter()
        .all(|path| has(path))
            && has(VERSION)
            && has("/apis/wardle.example.com")
    })
    .await;
    shutdown.finish().await;
}

#[tokio::test]
async fn requests_are_handed_through() {
    let extension = Extension::start().await;
    let (world, shutdown, pair) = aggregated_world(&extension).await;
    let https = world.https().await;
    extension.says.lock().asked.clear();
    let body = json!({"metadata": {"name": "f"}, "what": "x".repeat(4 << 20)});
    let headers = [
        ("content-type", "application/json"),
        ("audit-id", "mine"),
        ("x-remote-user", "root"),
    ];
    let path = format!("{FLUNDERS}/f?fieldManager=a%20b&dryRun=All");
    let answer = https.call(&format!("PUT {path}"), &headers, body.to_string()).await;
    assert_eq!(answer.headers["x-own"], "1");
    assert!(!answer.headers.contains_key("access-control-allow-origin") && !answer.headers.contains_key("keep-alive"));
    assert_eq!(answer.ok(), body, "however long it is");
    let asked = extension.asked(FLUNDERS).remove(0);
    assert_eq!((&*asked.method, &*asked.uri), ("PUT", &*path));
    let own = certified(&pair).cert[0].to_vec();
    assert_eq!(asked.certificate, Some(own), "the front proxy's");
    for (name, expect) in [
        ("x-remote-user", "tester"),
        ("audit-id", "mine"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "10.244.0.9:8443"),
        ("x-forwarded-proto", "https"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(asked.headers[name], expect, "{name}");
    }
    let groups: Vec<&[u8]> = asked
        .headers
        .get_all("x-remote-group")
        .iter()
        .map(|value| value.as_bytes())
        .collect();
    assert_eq!(groups, [&b"testers"[..], b"system:authenticated"]);
    assert!(!asked.headers.contains_key("authorization"));
    // Who may not, is told so here.
    extension.says.lock().asked.clear();
    https
        .as_user("mallory")
        .get(FLUNDERS)
        .await
        .refused(403, "cannot list resource \"flunders\"");
    assert!(extension.asked(FLUNDERS).is_empty());
    let answer = https.get(&format!("{FLUNDERS}/redirect")).await;
    let refused = "the backend attempted to redirect this request, which is not permitted";
    assert_eq!((answer.code, &*answer.bytes), (502, refused.as_bytes()));
    let answer = https.get(&format!("{FLUNDERS}/refused")).await;
    assert_eq!((answer.code, &*answer.bytes), (418, &b"a teapot"[..]));
    // What is said in a watch is there at once.
    let mut watch = Watch::of(https.open(&format!("GET {FLUNDERS}?watch=1"), &[], "").await);
    for name in ["a", "b"] {
        let frame = json!({"type": "ADDED", "object": {"metadata": {"name": name}}});
        let watchers = extension.says.lock().watchers.clone();
        watchers[0].send(format!("{frame}\n").into()).unwrap();
        assert_eq!(watch.word().await, format!("ADDED {name}"));
    }
    shutdown.finish().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_counted() {
    let extension = Extension::start().await;
    let (world, shutdown, _) = aggregated_world(&extension).await;
    let aborts = "apiserver_request_aborts_total{verb=\"GET\"";
    for api in world.both().await {
        for name in ["breaks-off", "breaks-off-early"] {
            let before = api.metric(aborts).await;
            let response = api.open(&format!("GET {FLUNDERS}/{name}"), &[], "").await;
            assert_eq!(response.status(), 200);
            extension.breaks.notify_one();
            let body = response.into_body().collect().await;
            assert!(body.is_err(), "{name} came as a whole");
            assert_eq!(api.metric(aborts).await, before + 1.0, "{name}");
        }
        let before = api.metric(aborts).await;
        api.get(&format!("{FLUNDERS}/whole")).await;
        assert_eq!(api.metric(aborts).await, before);
    }
    shutdown.finish().await;
}

#[tokio::test]
async fn a_server_whose_certificate_names_nobody_is_counted() {
    let extension = Extension::named(&[]).await;
    let (world, shutdown, _) = world(&extension).await;
    let api = world.api();
    let refused = "apiserver_kube_aggregator_x509_missing_san_total";
    let before = api.metric(refused).await;
    api.post(SERVICES, &service()).await.ok();
    api.post(SLICES, &slice(true)).await.ok();
    api.post(API_SERVICES, &extension.api_service()).await.ok();
    // Whether it is there is asked without looking whether it is to be trusted.
    available(&api, "Passed").await;
    let expect = "certificate relies on legacy Common Name field, use SANs instead";
    let is_told = |answer: &Answer| String::from_utf8_lossy(&answer.bytes).contains(expect);
    let answer = until(&api, FLUNDERS, "application/json", is_told).await;
    assert_eq!(answer.code, 503);
    // One set of them is the process': others may count too.
    assert!(api.metric(refused).await > before);
    shutdown.finish().await;
}

#[tokio::test]
async fn upgrades_are_handed_through() {
    let extension = Extension::start().await;
    let (world, shutdown, _) = aggregated_world(&extension).await;
    let (address, ca) = world.listen().await;
    for (path, expect) in [
        ("exec", "101 switching protocols"),
        ("refused", "418 i'm a teapot"),
        ("f", "503"),
    ] {
        let mut stream = connect::tls(address, &ca).await;
        let head = format!(
            "GET {FLUNDERS}/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer tester\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {expect}")), "{path}: {answer}");
        if path == "exec" {
            stream.write_all(b"hello").await.unwrap();
            let mut echo = [0; 5];
            stream.read_exact(&mut echo).await.unwrap();
            assert_eq!(&echo, b"hello");
        }
    }
    shutdown.finish().await;
}

fn groups(answer: &Answer) -> Vec<String> {
    let value = answer.value();
    let name = |group: &Value| {
        let name = group["name"].as_str().or(group["metadata"]["name"].as_str());
        name.unwrap().to_owned()
    };
    let list = value["groups"].as_array().or(value["items"].as_array()).unwrap();
    list.iter().map(name).collect()
}

/// The entry of the extension server's group version in aggregated discovery.
fn listed(answer: &Answer) -> Value {
    let value = answer.value();
    let mut items = value["items"].as_array().into_iter().flatten();
    let group = items.find(|group| group["metadata"]["name"] == GROUP);
    group.map_or(Value::Null, |group| group["versions"][0].clone())
}

#[tokio::test]
async fn discovery_is_of_all_servers() {
    for is_modern in [true, false] {
        let extension = Extension::start().await;
        extension.says.lock().is_modern = is_modern;
        let (world, shutdown, _) = aggregated_world(&extension).await;
        let api = world.api();
        let resource = if is_modern { "flunders" } else { "fischers" };
        let is_known = |answer: &Answer| listed(answer)["resources"][0]["resource"] == resource;
        let answer = until(&api, "/apis", AGGREGATED, is_known).await;
        let entry = listed(&answer);
        assert_eq!(
            (&entry["freshness"], &entry["version"]),
            (&json!("Current"), &json!("v1alpha1"))
        );
        if is_modern {
            let nothing = json!({"group": "", "version": "", "kind": ""});
            assert_eq!(entry["resources"][0]["subresources"][0]["responseKind"], nothing);
        }
        let names = groups(&answer);
        assert_eq!(names[..2], ["apiregistration.k8s.io", "apps"]);
        assert_eq!(names.last().unwrap(), GROUP);
        let apps = answer.value()["items"][1]["versions"][0]["resources"]
            .as_array()
            .unwrap()
            .len();
        assert!(apps > 0, "nobody else tells of our own");
        let plain = api.get("/apis").await;
        assert_eq!(groups(&plain), names, "in the same order");
        let group = api.get(&format!("/apis/{GROUP}")).await.ok();
        assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
        assert_eq!(
            api.get(VERSION).await.ok()["resources"][0]["name"],
            "fischers",
            "asked there"
        );
        // Another priority, another place.
        let change = json!({"spec": {"groupPriorityMinimum": 17_799}});
        api.patch(&format!("{API_SERVICES}/{NAME}"), "merge", &change)
            .await
            .ok();
        for accept in [AGGREGATED, "application/json"] {
            let third = |answer: &Answer| groups(answer)[2] == GROUP;
            until(&api, "/apis", accept, third).await;
        }
        // It goes: there is more than is seen, and the rest stays.
        extension.says.lock().is_broken = true;
        let change = json!({"endpoints": []});
        api.patch(&format!("{SLICES}/sample-1"), "merge", &change).await.ok();
        let stale = |answer: &Answer| listed(answer) == json!({"version": "v1alpha1", "freshness": "Stale"});
        let answer = until(&api, "/apis", AGGREGATED, stale).await;
        assert_eq!(groups(&answer).len(), names.len());
        let client = Client::new(world.running.transport(UserInfo::new("tester", ["testers"])));
        let found = client.discover().await.unwrap();
        let why = "stale GroupVersion discovery: wardle.example.com/v1alpha1";
        assert_eq!(
            found.failed,
            [("wardle.example.com/v1alpha1".to_owned(), why.to_owned())]
        );
        assert!(found.resources.iter().any(|served| served.resource.plural == "pods"));
        api.delete(&format!("{API_SERVICES}/{NAME}")).await.ok();
        for accept in [AGGREGATED, "application/json"] {
            let gone = |answer: &Answer| !groups(answer).contains(&GROUP.to_owned());
            until(&api, "/apis", accept, gone).await;
        }
        assert_eq!(api.get(FLUNDERS).await.code, 404);
        shutdown.finish().await;
    }
}

#[tokio::test]
async fn openapi_is_of_all_servers() {
    for is_modern in [true, false] {
        let extension = Extension::start().await;
        extension.says.lock().is_modern = is_modern;
        let (world, shutdown, _) = aggregated_world(&extension).await;
        let api = world.api();
        let has_flunders = |answer: &Answer| answer.value()["paths"][FLUNDERS].is_object();
        let v2 = until(&api, "/openapi/v2", "application/json", has_flunders)
            .await
            .value();
        assert_eq!(v2["definitions"]["com.example.Flunder"]["description"], "A fish.");
        assert!(v2["definitions"]["unused"].is_null() && v2["paths"]["/apis/apps/v1/stolen"].is_null());
        assert!(
            v2["definitions"]["io.k8s.api.apps.v1.Deployment"].is_object(),
            "ours are there, too"
        );
        let media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        let message = api.call("GET /openapi/v2", &[("accept", media)], "").await;
        assert!(message.bytes.windows(7).any(|bytes| bytes == b"A fish."));
        let path = "apis/wardle.example.com/v1alpha1";
        let index = until(&api, "/openapi/v3", "application/json", |answer| {
            answer.value()["paths"][path].is_object()
        });
        let index = index.await.value();
        let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap().to_owned();
        assert!(
            !index["paths"]["apis/apps/v1"]["serverRelativeURL"]
                .as_str()
                .unwrap()
                .ends_with("BAD")
        );
        let document = api.get(&url).await.ok();
        if is_modern {
            assert!(url.ends_with("?hash=ABC"), "{url}");
            assert_eq!(document["info"]["title"], "theirs");
        } else {
            let content = &document["paths"][FLUNDERS]["get"]["responses"]["200"]["content"];
            let reference = json!({"$ref": "#/components/schemas/com.example.Flunder"});
            assert_eq!(content["application/json"]["schema"], reference);
        }
        shutdown.finish().await;
    }
}

#[tokio::test]
async fn local_group_versions_have_api_services() {
    let world = World::start().await;
    let api = world.api();
    let shutdown = keep(&world);
    let apps = format!("{API_SERVICES}/v1.apps");
    until(&api, &apps, "", |answer| answer.code == 200).await;
    let resources = until(&api, API_SERVICES, "", |answer| {
        let items = answer.value()["items"].as_array().unwrap().len();
        items == group_versions() - 1
    });
    let list = resources.await.value();
    for item in list["items"].as_array().unwrap() {
        let labels = json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"});
        assert_eq!(item["metadata"]["labels"], labels);
        let condition = &item["status"]["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("True"), &json!("Local"))
        );
    }
    let own = api.get(&format!("{API_SERVICES}/v1.apiregistration.k8s.io")).await;
    assert_eq!(own.code, 404, "the group itself has none");
    // Whoever deletes one or changes one has it so until the next start.
    api.delete(&apps).await.ok();
    let batch = format!("{API_SERVICES}/v1.batch");
    let change = json!({"spec": {"versionPriority": 7}});
    api.patch(&batch, "merge", &change).await.ok();
    let foreign = json!({"metadata": {"name": "v1.foreign.example.com",
            "labels": {"kube-aggregator.kubernetes.io/automanaged": "true"}},
        "spec": {"group": "foreign.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100}});
    api.post(API_SERVICES, &foreign).await.ok();
    // Nobody serves it.
    until(&api, &format!("{API_SERVICES}/v1.foreign.example.com"), "", |answer| {
        answer.code == 404
    })
    .await;
    assert_eq!(api.get(&apps).await.code, 404);
    assert_eq!(api.get(&batch).await.ok()["spec"]["versionPriority"], 7);
    shutdown.finish().await;
    let shutdown = keep(&world);
    until(&api, &apps, "", |answer| answer.code == 200).await;
    until(&api, &batch, "", |answer| {
        answer.value()["spec"]["versionPriority"] == 15
    })
    .await;
    shutdown.finish().await;
}

/// How many group versions the server has rows of.
fn group_versions() -> usize {
    let rows = kinds::rows();
    let served = rows.iter().flat_map(|row| &row.served);
    let mut all: Vec<(String, String)> = served
        .map(|served| (served.group.to_string(), served.version.to_string()))
        .collect();
    // Of reviews nothing is stored.
    for group in ["authentication.k8s.io", "authorization.k8s.io"] {
        all.push((group.to_owned(), "v1".to_owned()));
    }
    all.sort();
    all.dedup();
    all.len()
}
