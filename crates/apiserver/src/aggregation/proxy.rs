//! Requests of other servers' group versions, handed through: what the client sent and what the server answers, with the user
//! told in headers; connections that become something else are joined.
//!
//! Errors are plain text, as upstream's.
//! Source: `k8s.io/kube-aggregator/pkg/apiserver/handler_proxy.go`, and `k8s.io/apimachinery/pkg/util/proxy`.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http::uri::Authority;
use http::{HeaderMap, Request, Response, StatusCode};

use client::Body;

use super::Entry;
use super::remote::{Remote, tell_user, url};
use crate::call::{Call, RequestBody};
use crate::connect::proxy::{CORS, append_forwarded_for, copy_headers};
use crate::connect::upgrade;
use crate::metrics::{HandedThrough, OfAggregator};
use crate::respond::body;

/// How long discovery of a group version may take: many clients wait for it. Source: `aggregatedDiscoveryTimeout`.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Said of a server that is not there.
const UNAVAILABLE: &str = "service unavailable";

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Why there is no answer of the other server.
struct Failure {
    code: u16,
    text: String,
}

/// Answers a request by what another server says to it.
pub(crate) async fn serve(call: &Arc<Call>, entry: &Entry, body: RequestBody) -> Response<Body> {
    let outcome = match &entry.remote {
        None => Err(error(404, "")),
        Some(_) if !entry.service.is_available => Err(error(503, UNAVAILABLE)),
        Some(remote) => match remote.unusable() {
            Some(why) => Err(error(500, why)),
            None if upgrade::is_asked(&call.headers) => hand_upgrade_through(call, remote, body).await,
            None => hand_through(call, remote, body).await,
        },
    };
    // A failure is one line of text.
    outcome.unwrap_or_else(|failure| {
        let mut answer = body::text(failure.code, format!("{}\n", failure.text));
        answer.extensions_mut().insert(OfAggregator);
        answer
    })
}

fn error(code: u16, text: impl Into<String>) -> Failure {
    Failure {
        code,
        text: text.into(),
    }
}

/// The request for an endpoint, with the headers that `copy` takes over.
fn request(
    call: &Call,
    remote: &Remote,
    body: RequestBody,
    copy: impl FnOnce(&HeaderMap, &mut HeaderMap),
) -> Result<(Request<RequestBody>, Authority), Failure> {
    let endpoint = remote.endpoint().map_err(|why| {
        let service = &remote.backend().service;
        tracing::warn!(namespace = %service.namespace, service = %service.name, %why, "a service cannot be resolved");
        error(503, UNAVAILABLE)
    })?;
    let internal = |why: String| error(500, why);
    let path = call.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = url(&endpoint, path).map_err(internal)?;
    let headers = request.headers_mut();
    copy(&call.headers, headers);
    tell_user(headers, &call.user).map_err(internal)?;
    append_forwarded_for(call, headers);
    for (name, value) in [
        (FORWARDED_URI, call.uri.path().to_owned()),
        (FORWARDED_HOST, endpoint.to_string()),
        (FORWARDED_PROTO, "https".to_owned()),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    Ok((request, endpoint))
}

async fn hand_through(call: &Arc<Call>, remote: &Remote, body: RequestBody) -> Result<Response<Body>, Failure> {
    let (request, _) = request(call, remote, body, copy_headers)?;
    let sent = remote.send(request);
    let answered = match is_discovery(call) {
        true => tokio::time::timeout(DISCOVERY_TIMEOUT, sent)
            .await
            .unwrap_or_else(|_| Err("context deadline exceeded".into())),
        false => sent.await,
    };
    let unreachable = |why: String| error(503, format!("error trying to reach service: {why}"));
    let (head, body) = answered.map_err(unreachable)?.into_parts();
    let rejects = call.server.aggregation.config.rejects_redirects;
    if rejects && head.status.is_redirection() && head.headers.contains_key(LOCATION) {
        let why = "the backend attempted to redirect this request, which is not permitted";
        let mut refused = Response::new(client::body_of(why));
        *refused.status_mut() = StatusCode::BAD_GATEWAY;
        return Ok(refused);
    }
    let mut answer = Response::new(body);
    *answer.status_mut() = head.status;
    copy_headers(&head.headers, answer.headers_mut());
    CORS.iter().for_each(|name| drop(answer.headers_mut().remove(*name)));
    answer.extensions_mut().insert(HandedThrough);
    Ok(answer)
}

/// `/apis/GROUP/VERSION` and nothing behind it.
fn is_discovery(call: &Call) -> bool {
    let path = call.attributes.path.trim_matches('/');
    !call.attributes.is_resource && path.split('/').count() == 3
}

/// Asks the server for the same upgrade and joins both connections when it agrees.
async fn hand_upgrade_through(call: &Arc<Call>, remote: &Remote, body: RequestBody) -> Result<Response<Body>, Failure> {
    upgrade::must_be_possible(call).map_err(|status| error(status.code, status.message))?;
    let all = |from: &HeaderMap, to: &mut HeaderMap| to.clone_from(from);
    let (mut request, endpoint) = request(call, remote, body, all)?;
    let host = HeaderValue::try_from(endpoint.to_string()).map_err(|_| error(500, UNAVAILABLE))?;
    request.headers_mut().insert(HOST, host);
    // A connection of its own knows where it leads.
    let path = call.uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| error(400, "the path cannot be proxied"))?;
    let stream = remote.open(&endpoint).await;
    let stream = stream.map_err(|why| error(503, format!("error dialing backend: {why}")))?;
    let answered = upgrade::hand_through(call, stream, request).await;
    answered.map_err(|why| error(503, why))
}
