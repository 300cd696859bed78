//! What is wrong is refused with upstream's answer, nothing of it is stored, and the server goes on.
//!
//! Source of the texts: apiserver/pkg/endpoints/handlers (create.go, patch.go, rest.go), apimachinery/pkg/api/errors,
//! apimachinery/pkg/api/validation, apiserver/pkg/endpoints/filters.

mod bodies;
mod credentials;
mod fields;
mod patches;
mod paths;
mod wire;

use bytes::Bytes;
use client::{Transport, collect};
use serde_json::Value;

use crate::cluster::Cluster;

/// The API server's limit of a body. Source: apiserver/pkg/server/config.go (MaxRequestBodyBytes).
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// An answer that is longer is not an error.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

const MAPS: &str = "/api/v1/namespaces/bad-input/configmaps";
const KEPT: &str = "/api/v1/namespaces/bad-input/configmaps/kept";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Method, path, content type, body, and of the answer: code, reason, message (`…` at its end: it goes on).
type Case = (
    &'static str,
    &'static str,
    &'static str,
    String,
    u16,
    &'static str,
    &'static str,
);

async fn ask(server: &dyn Transport, method: &str, path: &str, content_type: &str, body: Vec<u8>) -> (u16, Value) {
    let mut request = http::Request::builder().method(method).uri(path);
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    let answer = server.send(request.body(Bytes::from(body)).unwrap()).await.unwrap();
    let code = answer.status().as_u16();
    let body = collect(answer.into_body(), ANSWER_BYTES_MAX).await.unwrap();
    (
        code,
        serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into())),
    )
}

fn run(cases: Vec<Case>) {
    let cluster = Cluster::start();
    cluster.kubectl_ok(&["create", "namespace", "bad-input"]);
    cluster.kubectl_ok(&["create", "configmap", "kept", "--from-literal=a=1", "-n", "bad-input"]);
    cluster.kubectl_ok(&[
        "wait",
        "--for=create",
        "configmap/kube-root-ca.crt",
        "-n",
        "bad-input",
        "--timeout=60s",
    ]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = cluster.transport(cluster.administrator());
        let (_, before) = ask(&*server, "GET", MAPS, "", Vec::new()).await;
        let mut wrong = String::new();
        for (method, path, content_type, body, code, reason, message) in cases {
            let (came_code, status) = ask(&*server, method, path, content_type, body.clone().into_bytes()).await;
            let came_message = status["message"].as_str().unwrap_or_default();
            let same = match message.strip_suffix('…') {
                Some(beginning) => came_message.starts_with(beginning),
                None => came_message == message,
            };
            let (came_reason, body) = (status["reason"].as_str().unwrap_or_default(), &body[..body.len().min(100)]);
            if came_code != code || came_reason != reason || !same || status["code"] != code {
                wrong += &format!(
                    "{method} {path} {content_type} {body}\n  expected {code} {reason}: {message}\n  came     {came_code} {came_reason}: {came_message}\n"
                );
            }
        }
        let (_, after) = ask(&*server, "GET", MAPS, "", Vec::new()).await;
        assert!(before["items"] == after["items"], "something was stored");
        assert!(wrong.is_empty(), "{wrong}");
        assert_eq!(ask(&*server, "GET", "/readyz", "", Vec::new()).await.1, Value::String("ok".into()));
    });
}

fn map(metadata: &str, rest: &str) -> String {
    format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{metadata}{rest}}}"#)
}

fn text(text: &str) -> String {
    text.to_owned()
}
