//! From an authorized request to who answers it: a row, a virtual resource, discovery, health or metrics.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Method, Response};

use api::Status;
use client::Body;

use crate::call::{Call, RequestBody};
use crate::pipeline::TokenIssuer;
use crate::respond::body;
use crate::{aggregation, backup, health, openapi, reviews, verbs, virtuals};

/// Answers an authorized request.
pub async fn route(call: &Arc<Call>, request_body: RequestBody) -> Result<Response<Body>, Status> {
    if call.attributes.is_resource {
        return resource(call, request_body).await;
    }
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(verbs::method_not_allowed());
    }
    Box::pin(plain_path(call)).await
}

async fn resource(call: &Arc<Call>, request_body: RequestBody) -> Result<Response<Body>, Status> {
    let attributes = &call.attributes;
    let (group, version, plural) = (&*attributes.group, &*attributes.version, &*attributes.resource);
    // Streams and proxied answers choose their own media type.
    let own_answer = matches!(
        &*attributes.subresource,
        "log" | "exec" | "attach" | "portforward" | "proxy"
    );
    if let Some(refused) = call.not_acceptable.as_ref().filter(|_| !own_answer) {
        return Err(refused.clone());
    }
    if let Some(served) = call.registry.find(group, version, plural) {
        return verbs::serve(call, served, request_body).await;
    }
    match virtuals::find(group, version, plural) {
        Some(entry) => Box::pin(reviews::serve(call, entry, request_body)).await,
        None => Err(Status::no_such_path()),
    }
}

async fn plain_path(call: &Arc<Call>) -> Result<Response<Body>, Status> {
    let path = &*call.attributes.path;
    let trimmed = path.trim_matches('/');
    let parts: Vec<&str> = trimmed.split('/').collect();
    let discovery = call.server.discovery(&call.registry);
    match parts.as_slice() {
        [""] | ["index.html"] => Ok(paths(call)),
        ["healthz" | "livez" | "readyz"] => health::serve(call, parts[0], None),
        ["healthz" | "livez" | "readyz", name @ ..] => health::serve(call, parts[0], Some(&name.join("/"))),
        ["metrics"] => Ok(metrics(call)),
        ["metrics", "slis"] => Ok(metrics_text(call, call.server.metrics.health.text())),
        ["debug", "api_priority_and_fairness", what] if call.server.debug => match *what {
            "dump_priority_levels" => Ok(body::text(200, call.server.flow.dump_priority_levels())),
            "dump_queues" => Ok(body::text(200, call.server.flow.dump_queues())),
            _ => Ok(body::text(404, "404 page not found\n")),
        },
        ["trireme", "v1", "backup"] => backup::serve(call).await,
        ["version"] => Ok(body::indented(200, &crate::version::document())),
        ["api"] => discovery.core(call),
        ["api", version] => discovery.version(call, "", version),
        ["apis"] => aggregation::discovery::groups(call),
        ["apis", group] => aggregation::discovery::group(call, group),
        ["apis", group, version] => discovery.version(call, group, version),
        ["openapi", "v2"] => openapi::v2(call).await,
        ["openapi", "v3"] => openapi::v3_index(call).await,
        ["openapi", "v3", rest @ ..] => openapi::v3(call, &rest.join("/")).await,
        [".well-known", "openid-configuration"] => {
            let tokens = call.server.tokens.as_deref();
            optional(tokens, |tokens| tokens.openid_configuration(), "application/json")
        }
        ["openid", "v1", "jwks"] => {
            let tokens = call.server.tokens.as_deref();
            optional(tokens, |tokens| tokens.jwks(), "application/jwk-set+json")
        }
        _ => Ok(body::text(404, "404 page not found\n")),
    }
}

/// What others read to verify tokens: they may keep it for some time.
fn optional(
    tokens: Option<&dyn TokenIssuer>,
    document: impl FnOnce(&dyn TokenIssuer) -> Option<api::Value>,
    media: &'static str,
) -> Result<Response<Body>, Status> {
    let tokens = tokens.ok_or_else(Status::no_such_path)?;
    let document = document(tokens).ok_or_else(Status::no_such_path)?;
    let mut answer = body::typed(200, media, body::encode(&document));
    let kept = format!("public, max-age={}", tokens.max_age().as_secs());
    let kept = HeaderValue::try_from(kept).map_err(Status::internal)?;
    answer.headers_mut().insert(CACHE_CONTROL, kept);
    Ok(answer)
}

fn metrics(call: &Call) -> Response<Body> {
    let server = &call.server;
    server.measure();
    metrics_text(call, server.metrics.text(server.storage.revision()))
}

/// In the format that is asked for.
fn metrics_text(call: &Call, text: String) -> Response<Body> {
    match call.header("accept").contains("application/openmetrics-text") {
        true => body::typed(200, "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        false => body::typed(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            crate::metrics::plain(&text),
        ),
    }
}

/// All paths that somebody answers, but those of objects.
fn paths(call: &Call) -> Response<Body> {
    let server = &call.server;
    let fixed = [
        "/api",
        "/apis",
        "/apis/",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/version",
    ];
    let mut paths: BTreeSet<String> = fixed.map(String::from).into();
    if server.tokens.is_some() {
        paths.extend(["/.well-known/openid-configuration", "/openid/v1/jwks"].map(String::from));
    }
    paths.extend(health::paths(server));
    for group_version in server.discovery(&call.registry).group_versions() {
        paths.insert(format!("/{group_version}"));
    }
    for (group, version) in server.aggregation.table().remotes() {
        // The core group has no name.
        let group_version = (!group.is_empty()).then(|| format!("/apis/{group}/{version}"));
        paths.extend(group_version);
    }
    let groups: Vec<String> = paths.iter().filter_map(|path| group_of(path)).collect();
    paths.extend(groups);
    body::indented(200, &serde_json::json!({"paths": paths}))
}

/// `/apis/GROUP` of `/apis/GROUP/VERSION`.
fn group_of(path: &str) -> Option<String> {
    let (group, _) = path.strip_prefix("/apis/")?.split_once('/')?;
    Some(format!("/apis/{group}"))
}
