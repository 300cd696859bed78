//! A server for one test, and the two ways to it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use api::Value;
use apiserver::pipeline::{Authenticator, Authorizer, Credentials, Decision, Identity, Plugin, Refusal, RuleSet};
use apiserver::pki::Authority;
use apiserver::request::{Attributes, UserInfo};
use apiserver::serve::tls_config;
use apiserver::{ApiServer, Config, Parts, Running};
use base::{Clock, Random};
use bytes::{Bytes, BytesMut};
use client::https::{Credentials as ClientCredentials, HttpsTransport};
use client::{Body, Transport};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::json;
use store::Engine;

/// Tokens are user names; `bad` is refused, none is nobody.
struct Tokens;

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Option<Identity>, Refusal>> {
        let header = credentials
            .headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|header| header.strip_prefix("Bearer "))
            .map(str::to_owned);
        Box::pin(async move {
            match token {
                None => Ok(None),
                Some(token) => self.authenticate_token(&token, &[]).await,
            }
        })
    }

    fn authenticate_token<'a>(
        &'a self,
        token: &'a str,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, Refusal>> {
        let identity = Identity {
            user: UserInfo::new(token, ["testers"]).into(),
            ..Identity::default()
        };
        let outcome = if token == "bad" {
            Err("a bad token".to_owned().into())
        } else {
            Ok(Some(identity))
        };
        Box::pin(std::future::ready(outcome))
    }
}

/// Everybody may do everything, but `mallory` nothing, `reader` only read, and the anonymous only look at health.
struct Rights;

impl Authorizer for Rights {
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        let decision = match &*user.name {
            "mallory" => Decision::NoOpinion("no rule".into()),
            "reader" if attributes.verb != "get" => Decision::NoOpinion("no rule".into()),
            "system:anonymous" if attributes.path != "/healthz" => Decision::NoOpinion(String::new()),
            _ => Decision::Allow("open".into()),
        };
        decision.now()
    }

    fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
        let rule = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
        RuleSet {
            resource_rules: vec![rule],
            ..RuleSet::default()
        }
    }
}

/// A started server.
pub struct World {
    pub running: Running,
    pub engine: Arc<dyn Engine>,
}

impl World {
    /// A server with all rows and no admission.
    pub async fn start() -> World {
        World::with(|_| {}).await
    }

    /// The same, with admission plug-ins.
    pub async fn with_plugins(plugins: Vec<Arc<dyn Plugin>>) -> World {
        let engine = store::testing::engine_in_memory(Clock::real(), Random::seeded(1)).await;
        World::over(engine, plugins, |_| {}).await
    }

    /// The same, with changes to the configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> World {
        let engine = store::testing::engine_in_memory(Clock::real(), Random::seeded(1)).await;
        World::over(engine, Vec::new(), change).await
    }

    /// A server over an engine.
    pub async fn over(
        engine: Arc<dyn Engine>,
        plugins: Vec<Arc<dyn Plugin>>,
        change: impl FnOnce(&mut Config),
    ) -> World {
        let parts = move |_| Parts {
            authenticator: Arc::new(Tokens),
            authorizer: Arc::new(Rights),
            admission: plugins,
            tokens: None,
        };
        let mut config = Config::new(engine.clone(), kinds::rows(), Box::new(parts));
        config.random = Random::seeded(7);
        change(&mut config);
        let running = ApiServer::start(config).await.unwrap();
        World { running, engine }
    }

    /// The way in for a component of this process.
    pub fn api(&self) -> Api {
        Api {
            transport: self.running.transport(UserInfo::new("tester", ["testers"])),
            token: None,
        }
    }

    /// HTTPS on loopback.
    pub async fn https(&self) -> Api {
        let (address, ca) = self.listen().await;
        let transport = HttpsTransport::new(&format!("https://{address}"), &ca, ClientCredentials::Anonymous).unwrap();
        Api {
            transport: Arc::new(transport),
            token: Some("tester".into()),
        }
    }

    /// Both of them.
    pub async fn both(&self) -> [Api; 2] {
        [self.api(), self.https().await]
    }

    /// Serves HTTPS; answers with the address and the authority's certificate.
    pub async fn listen(&self) -> (std::net::SocketAddr, String) {
        let now = Clock::real().now();
        let authority = Authority::generate("test", now, Random::real()).unwrap();
        let pair = authority
            .issue_server(
                "api",
                None,
                &["kubernetes.default.svc"],
                &[Ipv4Addr::LOCALHOST.into()],
                now,
            )
            .unwrap();
        let certificates: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes()).collect();
        let key = rustls_pemfile::private_key(&mut pair.key_pem.as_bytes())
            .unwrap()
            .unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(certificates.unwrap(), key, &provider).unwrap();
        let tls = tls_config(Arc::new(SingleCertAndKey::from(certified)));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = self.running.clone();
        tokio::spawn(async move { running.serve(listener, tls).await });
        (address, authority.pair().certificate_pem.clone())
    }
}

/// One way to a server.
#[derive(Clone)]
pub struct Api {
    pub transport: Arc<dyn Transport>,
    pub token: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    /// The body as JSON (null when it is none).
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// The message of a Status.
    pub fn message(&self) -> String {
        self.value()["message"].as_str().unwrap_or("").to_owned()
    }

    /// The value of a success; anything else fails the test.
    #[track_caller]
    pub fn ok(self) -> Value {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        assert!((200..300).contains(&self.code), "{} {text}", self.code);
        self.value()
    }

    /// A success that is compared with a code and part of a message.
    #[track_caller]
    pub fn refused(&self, code: u16, message: &str) {
        let text = String::from_utf8_lossy(&self.bytes);
        assert!(
            self.code == code && self.message().contains(message),
            "{} {text}\nexpected: {code} {message}",
            self.code
        );
    }

    pub fn warnings(&self) -> Vec<String> {
        self.headers
            .get_all("warning")
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into())
            .collect()
    }
}

impl Api {
    /// The same way for another user.
    pub fn as_user(&self, name: &str) -> Api {
        Api {
            token: Some(name.into()),
            ..self.clone()
        }
    }

    /// Sends `METHOD /path` with headers and a body; the answer's body streams.
    pub async fn open(&self, request: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
        let (method, uri) = request.split_once(' ').unwrap();
        let mut builder = Request::builder().method(method).uri(uri);
        if let Some(token) = &self.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        self.transport.send(builder.body(body.into()).unwrap()).await.unwrap()
    }

    /// The same, with the body read to its end.
    pub async fn call(&self, request: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let response = self.open(request, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            bytes,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(&format!("GET {path}"), &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(
            &format!("POST {path}"),
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(
            &format!("PUT {path}"),
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(&format!("DELETE {path}"), &[], "").await
    }

    /// PATCH; `kind` is `json`, `merge`, `strategic` or `apply`.
    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let media = match kind {
            "json" => "application/json-patch+json",
            "merge" => "application/merge-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            "apply" => "application/apply-patch+yaml",
            other => other,
        };
        self.call(&format!("PATCH {path}"), &[("content-type", media)], body.to_string())
            .await
    }

    /// What the metrics whose lines begin so are together.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").await;
        let page = String::from_utf8_lossy(&page.bytes);
        let lines = page.lines().filter(|line| line.starts_with(series));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Creates a ConfigMap in `default`.
    pub async fn config_map(&self, name: &str, labels: Value) -> Value {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}});
        self.post("/api/v1/namespaces/default/configmaps", &object).await.ok()
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        let response = self.open(&format!("GET {path}"), &[], "").await;
        assert_eq!(response.status(), 200, "{path}");
        Watch::of(response)
    }
}

/// The frames of a watch.
pub struct Watch {
    body: Body,
    buffer: BytesMut,
}

impl Watch {
    /// The frames of an answer.
    pub fn of(response: Response<Body>) -> Watch {
        Watch {
            body: response.into_body(),
            buffer: BytesMut::new(),
        }
    }

    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match self.body.frame().await? {
                Ok(frame) => self.buffer.extend_from_slice(frame.data_ref().unwrap()),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next frame as `TYPE name`.
    pub async fn word(&mut self) -> String {
        let Some(frame) = self.next().await else {
            return "END".into();
        };
        let name = frame["object"]["metadata"]["name"].as_str().unwrap_or("");
        format!("{} {name}", frame["type"].as_str().unwrap())
            .trim_end()
            .to_owned()
    }

    /// The next `count` frames.
    pub async fn words(&mut self, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(self.word().await);
        }
        words
    }
}
