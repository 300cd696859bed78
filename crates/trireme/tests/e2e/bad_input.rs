//! What is wrong is refused with upstream's answer, nothing of it is stored, and the server goes on.
//!
//! Source of the texts: apiserver/pkg/endpoints/handlers (create.go, patch.go, rest.go), apimachinery/pkg/api/errors,
//! apimachinery/pkg/api/validation, apiserver/pkg/endpoints/filters.

use bytes::Bytes;
use client::https::Credentials;
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

#[test]
fn bodies() {
    let deep = map(
        r#"{"name":"a"}"#,
        &format!(r#","data":{}{}"#, "[".repeat(10_000), "]".repeat(10_000)),
    );
    let large = map(
        r#"{"name":"a"}"#,
        &format!(r#","data":{{"a":"{}"}}"#, "x".repeat(BODY_BYTES_MAX)),
    );
    let too_long = map(
        r#"{"name":"a"}"#,
        &format!(r#","data":{{"a":"{}"}}"#, "x".repeat(1024 * 1024 + 1)),
    );
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
    let unrecognized = |rest: &str| -> &'static str { format!("{unrecognized}{rest}").leak() };
    let cannot = |rest: &str| -> &'static str {
        format!("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: {rest}").leak()
    };
    run(vec![
        (
            "POST",
            MAPS,
            JSON,
            text("{"),
            400,
            "BadRequest",
            unrecognized("unexpected end of JSON input ({)"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            text(""),
            400,
            "BadRequest",
            unrecognized("unexpected end of JSON input (<empty>)"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            text("[]"),
            400,
            "BadRequest",
            "couldn't get version/kind; json parse error: json: cannot unmarshal …",
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":"a"}"#, r#","data":{"a":1}"#),
            400,
            "BadRequest",
            cannot("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":"a"}"#, r#","data":[]"#),
            400,
            "BadRequest",
            cannot("json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":5}"#, ""),
            400,
            "BadRequest",
            cannot("json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            text(r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}"#),
            400,
            "BadRequest",
            "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (Secret) to (ConfigMap): unknown conversion",
        ),
        (
            "POST",
            MAPS,
            JSON,
            text(r#"{"kind":"ConfigMap","apiVersion":"v2","metadata":{"name":"a"}}"#),
            400,
            "BadRequest",
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            "POST",
            MAPS,
            YAML,
            text("a: [b"),
            400,
            "BadRequest",
            unrecognized("error converting YAML to JSON: yaml: line 1: …"),
        ),
        (
            "POST",
            MAPS,
            YAML,
            text("{kind: ConfigMap, apiVersion: v1, metadata: {name: a}, data: {a: 1}}"),
            400,
            "BadRequest",
            cannot("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        ),
        (
            "POST",
            MAPS,
            YAML,
            text("x: &x [a, a]\ny: &y [*x, *x]\nz: [*y, *y]\n\tkind"),
            400,
            "BadRequest",
            unrecognized("…"),
        ),
        (
            "POST",
            MAPS,
            PROTOBUF,
            text("nothing"),
            400,
            "BadRequest",
            unrecognized(
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (6e6f7468696e67)",
            ),
        ),
        (
            "POST",
            MAPS,
            PROTOBUF,
            text("k8s\0\u{1}\u{2}\u{3}"),
            400,
            "BadRequest",
            "…",
        ),
        (
            "POST",
            MAPS,
            "text/plain",
            text("{}"),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            "POST",
            MAPS,
            JSON,
            deep.clone(),
            400,
            "BadRequest",
            unrecognized("exceeded max depth …"),
        ),
        (
            "POST",
            MAPS,
            YAML,
            deep.clone(),
            400,
            "BadRequest",
            unrecognized("exceeded max depth …"),
        ),
        (
            "PATCH",
            KEPT,
            MERGE,
            deep.clone(),
            400,
            "BadRequest",
            "error decoding patch: exceeded max depth",
        ),
        (
            "PATCH",
            "/api/v1/namespaces/bad-input/configmaps/kept?fieldManager=x",
            APPLY,
            deep,
            400,
            "BadRequest",
            "error decoding YAML: exceeded max depth",
        ),
        (
            "POST",
            MAPS,
            JSON,
            large.clone(),
            413,
            "RequestEntityTooLarge",
            "Request entity is too large: limit is 3145728",
        ),
        (
            "PUT",
            KEPT,
            JSON,
            large.clone(),
            413,
            "RequestEntityTooLarge",
            "Request entity is too large: limit is 3145728",
        ),
        (
            "PATCH",
            KEPT,
            MERGE,
            large,
            413,
            "RequestEntityTooLarge",
            "Request entity is too large: limit is 3145728",
        ),
        (
            "POST",
            MAPS,
            JSON,
            too_long,
            422,
            "Invalid",
            "ConfigMap \"a\" is invalid: []: Too long: may not be more than 1048576 bytes",
        ),
    ]);
}

#[test]
fn fields_and_names() {
    let strict = "/api/v1/namespaces/bad-input/configmaps?fieldValidation=Strict";
    let pods = "/api/v1/namespaces/bad-input/pods";
    run(vec![
        (
            "POST",
            strict,
            JSON,
            map(r#"{"name":"a","x":1}"#, r#","nothing":1"#),
            400,
            "BadRequest",
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"metadata.x\", unknown field \"nothing\"",
        ),
        (
            "POST",
            strict,
            JSON,
            map(r#"{"name":"a"}"#, r#","data":{"a":"1","a":"2"}"#),
            400,
            "BadRequest",
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\"",
        ),
        (
            "POST",
            "/api/v1/namespaces/bad-input/configmaps?fieldValidation=Foo",
            JSON,
            map(r#"{"name":"a"}"#, ""),
            422,
            "Invalid",
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Foo\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
        (
            "POST",
            "/api/v1/namespaces/bad-input/configmaps?dryRun=Foo",
            JSON,
            map(r#"{"name":"a"}"#, ""),
            422,
            "Invalid",
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Foo\"]: supported values: \"All\"",
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":"A_1"}"#, ""),
            422,
            "Invalid",
            "ConfigMap \"A_1\" is invalid: metadata.name: Invalid value: \"A_1\": a lowercase RFC 1123 subdomain must consist of …",
        ),
        (
            "POST",
            MAPS,
            JSON,
            map("{}", ""),
            422,
            "Invalid",
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":"a","namespace":"other"}"#, ""),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":"a","labels":{"-":"x"}}"#, ""),
            422,
            "Invalid",
            "ConfigMap \"a\" is invalid: metadata.labels: Invalid value: \"-\": name part must consist of alphanumeric …",
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":"a"}"#, r#","data":{"a/b":""}"#),
            422,
            "Invalid",
            "ConfigMap \"a\" is invalid: data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, …",
        ),
        (
            "POST",
            "/api/v1/namespaces/nowhere/configmaps",
            JSON,
            map(r#"{"name":"a"}"#, ""),
            404,
            "NotFound",
            "namespaces \"nowhere\" not found",
        ),
        (
            "POST",
            "/api/v1/namespaces",
            JSON,
            text(r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"a.b"}}"#),
            422,
            "Invalid",
            "Namespace \"a.b\" is invalid: metadata.name: Invalid value: \"a.b\": must not contain dots",
        ),
        (
            "POST",
            "/api/v1/namespaces/bad-input/secrets",
            JSON,
            text(r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"},"data":{"a":"%%"}}"#),
            400,
            "BadRequest",
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0",
        ),
        (
            "POST",
            "/apis/apps/v1/namespaces/bad-input/deployments",
            JSON,
            text(r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"a"},"spec":{"replicas":"x"}}"#),
            400,
            "BadRequest",
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "POST",
            pods,
            JSON,
            text(r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{}}"#),
            422,
            "Invalid",
            "Pod \"a\" is invalid: spec.containers: Required value",
        ),
        (
            "POST",
            pods,
            JSON,
            text(
                r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"x"}}}]}}"#,
            ),
            400,
            "BadRequest",
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "PUT",
            KEPT,
            JSON,
            map(r#"{"name":"other"}"#, ""),
            400,
            "BadRequest",
            "the name of the object (other) does not match the name on the URL (kept)",
        ),
        (
            "PUT",
            KEPT,
            JSON,
            map(r#"{"name":"kept","resourceVersion":"1"}"#, ""),
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"kept\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            "DELETE",
            KEPT,
            JSON,
            text(r#"{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"x"}}"#),
            409,
            "Conflict",
            "Operation cannot be fulfilled on ConfigMap \"kept\": the UID in the precondition (x) does not match the UID in record (…",
        ),
        (
            "DELETE",
            KEPT,
            JSON,
            text(r#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Foo"}"#),
            422,
            "Invalid",
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Foo\": supported values: …",
        ),
        (
            "DELETE",
            KEPT,
            JSON,
            text(r#"{"kind":"Pod"}"#),
            400,
            "BadRequest",
            "decoded object cannot be converted to DeleteOptions",
        ),
        (
            "POST",
            "/api/v1/namespaces/bad-input/serviceaccounts/default/token",
            JSON,
            text(r#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"expirationSeconds":1}}"#),
            422,
            "Invalid",
            "TokenRequest.authentication.k8s.io \"default\" is invalid: spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
        ),
    ]);
}

#[test]
fn patches() {
    let apply = "/api/v1/namespaces/bad-input/configmaps/kept?fieldManager=x";
    run(vec![
        (
            "PATCH",
            KEPT,
            JSON,
            text("{}"),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        ),
        (
            "PATCH",
            KEPT,
            MERGE,
            text("{"),
            400,
            "BadRequest",
            "error decoding patch: unexpected end of JSON input",
        ),
        (
            "PATCH",
            KEPT,
            JSON_PATCH,
            text("{}"),
            400,
            "BadRequest",
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ),
        (
            "PATCH",
            KEPT,
            JSON_PATCH,
            text(r#"[{"op":"foo","path":"/a"}]"#),
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        (
            "PATCH",
            KEPT,
            JSON_PATCH,
            text(r#"[{"op":"test","path":"/data/a","value":"2"},{"op":"remove","path":"/data"}]"#),
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        ("PATCH", KEPT, STRATEGIC, text(r#"{"data":5}"#), 422, "Invalid", "…"),
        (
            "PATCH",
            KEPT,
            APPLY,
            text("{}"),
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            "PATCH",
            apply,
            APPLY,
            text(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"managedFields":[{}]}}"#),
            400,
            "BadRequest",
            "metadata.managedFields must be nil",
        ),
        (
            "PATCH",
            "/api/v1/namespaces/bad-input/configmaps/kept?force=true",
            MERGE,
            text("{}"),
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        ),
    ]);
}

#[test]
fn paths_and_selectors() {
    const NOT_FOUND: &str = "the server could not find the requested resource";
    let get = |path: &'static str, code: u16, reason: &'static str, message: &'static str| -> Case {
        ("GET", path, "", String::new(), code, reason, message)
    };
    run(vec![
        get(
            "/api/v1/namespaces/bad-input/configmaps?labelSelector=a%20in",
            400,
            "BadRequest",
            "unable to parse requirement: found '' expected: '('",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?labelSelector=a%3D%3D%3Db",
            400,
            "BadRequest",
            "unable to parse requirement: found '=', expected: identifier",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?fieldSelector=data.a%3Db",
            400,
            "BadRequest",
            "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?fieldSelector=metadata.name",
            400,
            "BadRequest",
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?limit=x",
            400,
            "BadRequest",
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?resourceVersion=x",
            400,
            "BadRequest",
            "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?resourceVersionMatch=Exact",
            422,
            "Invalid",
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?watch=1&sendInitialEvents=true",
            422,
            "Invalid",
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?resourceVersion=99999999",
            504,
            "Timeout",
            "Timeout: Too large resource version: 99999999, current: …",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps/nope",
            404,
            "NotFound",
            "configmaps \"nope\" not found",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps/a%2Fb",
            404,
            "NotFound",
            NOT_FOUND,
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps/kept/status",
            404,
            "NotFound",
            NOT_FOUND,
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps/kept/a/b/c",
            404,
            "NotFound",
            NOT_FOUND,
        ),
        get("/api/v1/namespaces/bad-input/nothings", 404, "NotFound", NOT_FOUND),
        get("/apis/nothing.io/v1", 404, "NotFound", NOT_FOUND),
        get("/apis/apps/v2/deployments", 404, "NotFound", NOT_FOUND),
        get("/api/v2", 404, "NotFound", NOT_FOUND),
        (
            "PUT",
            MAPS,
            JSON,
            text("{}"),
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "POST",
            KEPT,
            JSON,
            text("{}"),
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "FOO",
            MAPS,
            "",
            String::new(),
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/bad-input/configmaps/nope",
            "",
            String::new(),
            404,
            "NotFound",
            "configmaps \"nope\" not found",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/bad-input/configmaps?labelSelector=%21%21",
            "",
            String::new(),
            400,
            "BadRequest",
            "unable to parse requirement: found '!', expected: identifier",
        ),
    ]);
}

#[test]
fn certificates_and_tokens() {
    let cluster = Cluster::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let token = cluster.kubectl_ok(&["create", "token", "default"]).trim().to_owned();
    let stolen = {
        let other = Cluster::start();
        (
            other.kubectl_ok(&["create", "token", "default"]).trim().to_owned(),
            other.administrator(),
        )
    };
    // The last character of a signature has bits that say nothing: change one in the middle.
    let at = token.len() - 20;
    let mut forged = token.clone();
    forged.replace_range(at..=at, if &token[at..=at] == "A" { "B" } else { "A" });
    cluster.kubectl_ok(&["create", "serviceaccount", "gone"]);
    let gone = cluster.kubectl_ok(&["create", "token", "gone"]).trim().to_owned();
    cluster.kubectl_ok(&["delete", "serviceaccount", "gone"]);
    let other_audience = cluster
        .kubectl_ok(&["create", "token", "default", "--audience=vault"])
        .trim()
        .to_owned();
    let bearer = |token: &str| {
        let token = token.to_owned();
        Credentials::Token(std::sync::Arc::new(move || token.clone()))
    };
    let anonymous = "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
    let account = "pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
    runtime.block_on(async {
        for (what, credentials, code, reason, message) in [
            ("nobody", Credentials::Anonymous, 403, "Forbidden", anonymous),
            ("a service account", bearer(&token), 403, "Forbidden", account),
            (
                "a token that is none",
                bearer("x.y.z"),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            ("a forged token", bearer(&forged), 401, "Unauthorized", "Unauthorized"),
            (
                "a token of another cluster",
                bearer(&stolen.0),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            (
                "a token of an account that is gone",
                bearer(&gone),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            (
                "a token for somebody else",
                bearer(&other_audience),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            (
                "a certificate of another cluster",
                stolen.1.clone(),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
        ] {
            let server = cluster.transport(credentials);
            let (came, status) = ask(&*server, "GET", "/api/v1/pods", "", Vec::new()).await;
            let came = (
                came,
                status["reason"].as_str().unwrap_or_default(),
                status["message"].as_str().unwrap_or_default(),
            );
            assert_eq!(came, (code, reason, message), "{what}");
        }
        let server = cluster.transport(Credentials::Anonymous);
        for (path, code) in [
            ("/healthz", 200),
            ("/livez", 200),
            ("/readyz", 200),
            ("/version", 200),
            ("/metrics", 403),
            ("/api", 403),
        ] {
            assert_eq!(ask(&*server, "GET", path, "", Vec::new()).await.0, code, "{path}");
        }
    });
}
