//! One request through all stages. Invariant: whatever happens, panics included, exactly one answer comes out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tracing::Instrument as _;

use api::Status;
use client::Body;

use crate::aggregation::proxy;
use crate::audit::{AnnounceError, Facts};
use crate::call::{Call, RequestBody, is_long_running, own_head, read_body, warning_headers};
use crate::connect::upgrade::Offer;
use crate::flowcontrol::{Flow, Work, width};
use crate::metrics::{HandedThrough, LongRunning, RequestLabels};
use crate::registry::Registry;
use crate::request::{Attributes, Query, UserInfo, parse};
use crate::respond::negotiate::{Form, Media, Offers, Output, is_pretty, negotiate};
use crate::respond::observed::held;
use crate::respond::{self, body};
use crate::server::Server;
use crate::virtuals;

use super::impersonate::{Impersonated, impersonate};
use super::{Credentials, Decision, Told, must_allow, span};

/// How long a request that is neither a watch nor a stream may take (upstream's `--request-timeout`).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The name of a request, in the request and in its answer.
static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// A client may name its requests; longer names are replaced (upstream: `maxAuditIDLength` of logs).
const AUDIT_ID_BYTES_MAX: usize = 64;

/// Where a request comes from.
#[derive(Clone)]
pub enum Peer {
    /// A connection, with the certificates that its client proved to own.
    Connection {
        /// The other side.
        remote: SocketAddr,
        /// Leaf first; empty without a client certificate.
        certificates: Arc<Vec<CertificateDer<'static>>>,
    },
    /// A component in this process.
    InProcess(Arc<UserInfo>),
}

/// Answers one request.
pub fn handle(server: Arc<Server>, peer: Peer, request: Request<RequestBody>) -> BoxFuture<'static, Response<Body>> {
    let agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    let span = tracing::trace_span!(target: "walk", "request", method = %request.method(), uri = %request.uri(), agent);
    Box::pin(answer(server, peer, request).instrument(span))
}

async fn answer(server: Arc<Server>, peer: Peer, request: Request<RequestBody>) -> Response<Body> {
    tracing::trace!(target: "walk", "a request");
    let given = request.headers().get(&AUDIT_ID).and_then(|value| value.to_str().ok());
    let given = given.filter(|id| !id.is_empty() && id.len() <= AUDIT_ID_BYTES_MAX);
    let audit_id = given.map_or_else(|| server.random.uuid(), str::to_owned);
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let parsed = parse(request.method(), request.uri().path(), &query);
    let head = request.method() == http::Method::HEAD;
    let mut response = match parsed {
        Err(error) => body::status(&Status::internal(format_args!("failed to create RequestInfo: {error}"))),
        Ok(attributes) => {
            let known = is_known(&server.registry.load(), &attributes);
            let requests = &server.metrics.requests;
            let mut asked = requests.asked(request.method(), request.headers(), &attributes, &query, known);
            asked.own = matches!(&peer, Peer::InProcess(user) if user.is_api_server());
            let open = asked.long_running.take();
            let work = guarded(
                server.clone(),
                peer,
                request,
                query,
                attributes,
                &audit_id,
                started,
                open.clone(),
            );
            let response = work.await;
            let is_streamed = response.body().size_hint().exact().is_none();
            let may_break_off = is_streamed || response.extensions().get::<HandedThrough>().is_some();
            let labels = (open.is_none() && may_break_off).then(|| asked.labels().clone());
            server.metrics.requests.answered(asked, &response, started.elapsed());
            match (open, labels) {
                (Some(open), _) => response.map(|body| held(body, open)),
                (None, Some(labels)) => response.map(|body| counted(body, server.clone(), labels)),
                (None, None) => response,
            }
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&audit_id) {
        headers.insert(&AUDIT_ID, id);
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    if head {
        *response.body_mut() = client::body_of("");
    }
    response
}

/// A body that is counted when it breaks off.
fn counted(body: Body, server: Arc<Server>, labels: RequestLabels) -> Body {
    let mut labels = Some(labels);
    let broken = move |error| {
        if let Some(labels) = labels.take() {
            server.metrics.requests.aborted(labels);
        }
        error
    };
    body.map_err(broken).boxed_unsync()
}

/// Whether the resource that a request names is one of ours.
fn is_known(registry: &Registry, attributes: &Attributes) -> bool {
    let Attributes {
        group,
        version,
        resource,
        subresource,
        ..
    } = attributes;
    match registry.find(group, version, resource) {
        Some(served) => subresource.is_empty() || served.subresource(subresource).is_some(),
        None => virtuals::find(group, version, resource).is_some(),
    }
}

/// An answer and its span, which lasts as long as the answer's body.
fn traced(response: Response<Body>, span: tracing::Span) -> Response<Body> {
    if span.is_disabled() {
        return response;
    }
    span.record("http.response.status_code", response.status().as_u16());
    response.map(|body| match http_body::Body::is_end_stream(&body) {
        true => body,
        false => held(body, span),
    })
}

/// How long a request may take: what its `timeout` says, and never longer than [`REQUEST_TIMEOUT`].
fn deadline(query: &Query) -> Result<Duration, Status> {
    let text = query.text("timeout");
    if text.is_empty() {
        return Ok(REQUEST_TIMEOUT);
    }
    let Some(asked) = api::duration::parse(text) else {
        let why = format!(
            "invalid timeout specified in the request URL - time: invalid duration {}",
            api::field::quote(text)
        );
        return Err(Status::bad_request(why));
    };
    Ok(if asked.is_zero() {
        REQUEST_TIMEOUT
    } else {
        asked.min(REQUEST_TIMEOUT)
    })
}

/// The stages, under a deadline and with panics caught.
async fn guarded(
    server: Arc<Server>,
    peer: Peer,
    request: Request<RequestBody>,
    query: Query,
    attributes: Attributes,
    audit_id: &str,
    began: Instant,
    open: Option<LongRunning>,
) -> Response<Body> {
    let long = is_long_running(&attributes, &query);
    let deadline = match deadline(&query) {
        Ok(deadline) => deadline,
        Err(status) => return body::status(&status),
    };
    let due = (!long).then(|| began + deadline);
    let what = (request.method().clone(), request.uri().clone());
    // Boxed: each of those around it has a place for it, into which it would be moved.
    let stages = AssertUnwindSafe(Box::pin(stages(
        server,
        peer,
        request,
        query,
        attributes,
        audit_id,
        (began, due),
        open,
    )))
    .catch_unwind();
    let outcome = if long {
        Ok(stages.await)
    } else {
        tokio::time::timeout(deadline, stages).await
    };
    match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            let (method, uri) = what;
            tracing::error!(request = %format_args!("{method} {}", uri.path()), audit_id, "a request panicked");
            let why = "This request caused apiserver to panic. Look in the logs for details.";
            body::status(&Status::internal(why))
        }
        Err(_) => {
            let seconds = deadline.as_secs();
            body::status(&Status::timeout(
                format!("request did not complete within the allotted timeout of {seconds}s"),
                0,
            ))
        }
    }
}

async fn stages(
    server: Arc<Server>,
    peer: Peer,
    request: Request<RequestBody>,
    query: Query,
    attributes: Attributes,
    audit_id: &str,
    (began, deadline): (Instant, Option<Instant>),
    open: Option<LongRunning>,
) -> Response<Body> {
    let (mut parts, request_body) = request.into_parts();
    let registry = server.registry.load_full();
    let (output, not_acceptable) = negotiated(&registry, &parts.headers, &query, &attributes);
    let begin = |user: &UserInfo, impersonated: Option<&Impersonated>, headers: &http::HeaderMap| {
        let auditor = server.audit.as_ref()?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let facts = Facts {
            id: audit_id,
            uri: parts.uri.path_and_query().map_or("", |uri| uri.as_str()),
            user,
            impersonated: impersonated.map(|other| &other.user),
            constraint: impersonated.map_or("", |other| other.constraint),
            request: &attributes,
            source_ips: source_ips(headers, &peer),
            user_agent: text("user-agent"),
        };
        auditor.begin(&facts).map(Arc::new)
    };
    let mut told = Told::default();
    let found = authenticate(&server, &peer, &attributes, &mut parts.headers, &mut told).await;
    let (user, impersonated) = match found {
        Ok(found) => found,
        Err(status) => {
            let mut response = respond::failure(&output, &status);
            warn(&mut response, &told.warnings);
            let Some(trail) = begin(&UserInfo::default(), None, &parts.headers) else {
                return response;
            };
            told.notes.iter().for_each(|(key, value)| trail.annotate(key, value));
            return match Box::pin(trail.announce()).await {
                Ok(()) => Box::pin(trail.follow(response, false)).await,
                Err(error) => not_told(&parts.uri, error),
            };
        }
    };
    let audit = begin(&user, impersonated.as_ref(), &parts.headers);
    let span = span::of_request(
        began,
        &parts.method,
        &parts.uri,
        &parts.headers,
        &user,
        &attributes,
        audit_id,
    );
    let trace = span::of_client(&span, &parts.headers, &user);
    if let Some(trail) = &audit {
        told.notes.iter().for_each(|(key, value)| trail.annotate(key, value));
    }
    if let Some(trail) = &audit
        && let Err(error) = Box::pin(trail.announce()).await
    {
        return not_told(&parts.uri, error);
    }
    let user = impersonated.map_or(user, |other| other.user.into());
    // Whoever else answers for us tells of the request under the same name.
    if let Ok(id) = HeaderValue::from_str(audit_id) {
        parts.headers.insert(&AUDIT_ID, id);
    }
    let upgrade = parts.extensions.remove::<Offer>();
    if is_long_running(&attributes, &query) {
        (parts.uri, parts.headers) = own_head(&parts.uri, &parts.headers);
    }
    let call = Arc::new(Call {
        registry,
        server: server.clone(),
        method: parts.method,
        uri: parts.uri,
        output,
        not_acceptable,
        headers: parts.headers,
        query,
        attributes,
        user,
        warnings: Mutex::new(told.warnings),
        remote: match &peer {
            Peer::Connection { remote, .. } => Some(remote.ip()),
            Peer::InProcess(_) => None,
        },
        upgrade,
        audit,
        trace,
        deadline,
        _open: open,
    });
    let flow = server.flow.classify(&call.user, &call.attributes);
    let mut response = match seated(&call, &flow, request_body).instrument(span.clone()).await {
        Ok(response) => response,
        Err(status) => respond::failure(&call.output, &status),
    };
    flow.tell(response.headers_mut());
    warn(&mut response, &call.warnings.lock());
    let response = traced(response, span);
    match call.audit.clone() {
        Some(trail) => Box::pin(trail.follow(response, call.is_long_running())).await,
        None => response,
    }
}

fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warning_headers(warnings) {
        response.headers_mut().append("warning", warning);
    }
}

/// The answer to a request that must not go on because nothing can be told of it, as upstream's `InternalError`.
fn not_told(uri: &http::Uri, error: AnnounceError) -> Response<Body> {
    let uri = uri.path_and_query().map_or("", |uri| uri.as_str());
    let text = format!("Internal Server Error: {}: {error}\n", api::field::quote(uri));
    let mut response = Response::new(client::body_of(text));
    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    // What a client wrote is in it: no browser takes it for anything but text.
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The addresses that a request came from, as the proxies before us tell, and the nearest one last.
/// Source: `SourceIPs` of `k8s.io/apimachinery/pkg/util/net`.
fn source_ips(headers: &http::HeaderMap, peer: &Peer) -> Vec<String> {
    let texts = |name: &str| {
        let all = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let all = all.flat_map(|list| list.split(','));
        all.filter_map(|text| text.trim().parse::<IpAddr>().ok())
            .collect::<Vec<_>>()
    };
    let mut all = texts("x-forwarded-for");
    let nearest = match peer {
        Peer::Connection { remote, .. } => remote.ip(),
        Peer::InProcess(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    for address in texts("x-real-ip").into_iter().take(1).chain([nearest]) {
        if all.last() != Some(&address) {
            all.push(address);
        }
    }
    all.iter().map(IpAddr::to_string).collect()
}

/// How to answer. When nothing that the client takes is there, errors are JSON, and the second value says so.
fn negotiated(
    registry: &Registry,
    headers: &http::HeaderMap,
    query: &Query,
    attributes: &Attributes,
) -> (Output, Option<Status>) {
    let served = registry.find(&attributes.group, &attributes.version, &attributes.resource);
    let offers = Offers {
        transforms: attributes.is_resource,
        // Custom resources have no protobuf; what is not a row is built in.
        messages: served.is_none_or(|served| served.schema.is_builtin()),
        watch: attributes.verb == "watch",
    };
    match negotiate(headers, query, offers) {
        Ok(output) => (output, None),
        Err(status) => {
            let output = Output {
                form: Form::Plain,
                media: Media::Json,
                pretty: is_pretty(headers, query),
            };
            (output, Some(status))
        }
    }
}

/// Authentication and impersonation: who it is, and as whom they act. The credentials are removed from the headers.
async fn authenticate(
    server: &Server,
    peer: &Peer,
    attributes: &Attributes,
    headers: &mut http::HeaderMap,
    told: &mut Told,
) -> Result<(Arc<UserInfo>, Option<Impersonated>), Status> {
    let user = match peer {
        Peer::InProcess(user) => user.clone(),
        Peer::Connection { remote, certificates } => {
            let credentials = Credentials {
                peer_certificates: certificates,
                headers,
                remote: Some(*remote),
            };
            let began = Instant::now();
            let found = server.authenticator.authenticate(credentials).await;
            let anonymous = server.anonymous.allows(&attributes.path).then_some("system:anonymous");
            let name = found.as_ref().map(|found| match found {
                Some(identity) => Some(&*identity.user.name),
                None => anonymous,
            });
            server.metrics.access.authenticated(&name, began.elapsed());
            match found {
                Ok(Some(identity)) => {
                    told.add(identity.told);
                    identity.user
                }
                Ok(None) if server.anonymous.allows(&attributes.path) => UserInfo::anonymous().into(),
                Ok(None) => return Err(Status::unauthorized()),
                Err(refusal) => {
                    tracing::info!(%remote, why = refusal.why, "unable to authenticate the request");
                    told.add(refusal.told);
                    return Err(Status::unauthorized());
                }
            }
        }
    };
    server.authenticator.clear(headers);
    let impersonated = impersonate(&*server.authorizer, &user, attributes, headers).await?;
    Ok((user, impersonated))
}

/// Flow control: the request has its seats until it is answered; a list until its answer is sent, a watch until it begins.
async fn seated(call: &Arc<Call>, flow: &Flow, body: RequestBody) -> Result<Response<Body>, Status> {
    let attributes = &call.attributes;
    if call.is_long_running() && attributes.verb != "watch" {
        return authorized(call, body).await;
    }
    let began = Instant::now();
    let seat = call.server.flow.enter(flow, work(call, flow), &call.user, attributes);
    let seat = seat.instrument(tracing::trace_span!(target: "otel", "Priority and Fairness"));
    let seat = seat.await;
    call.server.metrics.access.seated(began.elapsed());
    let seat = seat?;
    let response = authorized(call, body).await?;
    Ok(match &*attributes.verb {
        "list" => response.map(|body| held(body, seat)),
        _ => response,
    })
}

/// How much of the server a request takes.
fn work(call: &Call, flow: &Flow) -> Work {
    let attributes = &call.attributes;
    if attributes.is_read_only() && !matches!(&*attributes.verb, "list" | "watch") {
        return Work::ONE;
    }
    let served = call
        .registry
        .find(&attributes.group, &attributes.version, &attributes.resource);
    let objects = || {
        let table = served.and_then(|served| call.server.storage.table(&served.kind).ok());
        table.map_or(0, |table| table.snapshot().len())
    };
    let watchers = served.map_or(0, |served| served.frames.watchers());
    if !attributes.is_read_only() {
        flow.watched_by(watchers);
    }
    width(attributes, &call.query, flow.seats_max(), objects, watchers)
}

/// Authorization, and then the verb, or whoever else answers.
async fn authorized(call: &Arc<Call>, body: RequestBody) -> Result<Response<Body>, Status> {
    let authorizer = &call.server.authorizer;
    let began = Instant::now();
    let decision = authorizer.authorize(&call.user, &call.attributes);
    let decision = decision.instrument(tracing::trace_span!(target: "otel", "Authorization"));
    let decision = decision.await;
    call.server.metrics.access.authorized(&decision, began.elapsed());
    if let Some(trail) = &call.audit {
        let (word, reason) = match &decision {
            Decision::Allow(reason) => (Some("allow"), reason.as_str()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => (Some("forbid"), reason.as_str()),
            Decision::Failed { .. } => (None, "internal error"),
        };
        if let Some(word) = word {
            trail.annotate("authorization.k8s.io/decision", word);
        }
        trail.annotate("authorization.k8s.io/reason", reason);
    }
    must_allow(decision, &call.user, &call.attributes)?;
    if let Some(entry) = call.server.aggregation.answers_for(&call.attributes.path) {
        return Ok(Box::pin(proxy::serve(call, &entry, body)).await);
    }
    let writes = !call.attributes.is_read_only() && !call.is_long_running();
    let body = match &call.audit {
        Some(trail) if writes => {
            let bytes = read_body(body).await?;
            trail.received(&call.headers, &bytes);
            Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
        }
        _ => body,
    };
    crate::route::route(call, body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_go_writes_them() {
        for (text, expect) in [
            ("", Some(60_000)),
            ("0", Some(60_000)),
            ("2s", Some(2000)),
            ("1m0s", Some(60_000)),
            ("1.5s", Some(1500)),
            ("300ms", Some(300)),
            ("2h", Some(60_000)),
            ("2", None),
            ("s", None),
            ("-2s", None),
            ("2x", None),
            ("1..5s", None),
        ] {
            let query = Query::parse(&format!("timeout={text}"));
            let got = deadline(&query).map(|deadline| deadline.as_millis());
            assert_eq!(got.ok(), expect, "{text}");
        }
    }
}
