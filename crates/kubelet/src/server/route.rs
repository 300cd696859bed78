//! Requests and who answers them.

use std::path::Path;

use bytes::Bytes;
use client::{Body, TransportError, body_of};
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};

use super::authorize::User;
use super::stream::{self, Wanted};
use super::{PodsError, Server, log_query, stats, system_logs};
use crate::logs;

/// Where the machine keeps its logs (upstream: `nodeLogDir`).
const SYSTEM_LOGS: &str = "/var/log/";

/// What a request names.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Health,
    Pods,
    Metrics,
    ResourceMetrics,
    CadvisorMetrics,
    ProbeMetrics,
    Summary,
    /// A path below the machine's directory of logs.
    SystemLogs(String),
    Logs([String; 3]),
    Exec([String; 3]),
    Attach([String; 3]),
    PortForward([String; 2]),
}

impl Route {
    fn of(path: &str) -> Option<Route> {
        let parts: Vec<String> = path
            .trim_start_matches('/')
            .split('/')
            .map(decode)
            .collect::<Option<Vec<String>>>()?;
        let words: Vec<&str> = parts.iter().map(String::as_str).collect();
        let three = || [parts[1].clone(), parts[2].clone(), parts[3].clone()];
        match words.as_slice() {
            ["healthz"] | ["healthz", "ping" | "syncloop"] => Some(Route::Health),
            ["pods"] | ["pods", ""] => Some(Route::Pods),
            ["metrics"] => Some(Route::Metrics),
            ["metrics", "resource"] => Some(Route::ResourceMetrics),
            ["metrics", "cadvisor"] => Some(Route::CadvisorMetrics),
            ["metrics", "probes"] => Some(Route::ProbeMetrics),
            ["stats", "summary"] => Some(Route::Summary),
            ["logs", rest @ ..] => Some(Route::SystemLogs(rest.join("/"))),
            ["containerLogs", _, _, _] => Some(Route::Logs(three())),
            ["exec", _, _, _] => Some(Route::Exec(three())),
            ["attach", _, _, _] => Some(Route::Attach(three())),
            ["portForward", namespace, pod] => Some(Route::PortForward([(*namespace).into(), (*pod).into()])),
            _ => None,
        }
    }

    /// The verb and the subresources of the node, one of which has to be allowed.
    fn access(&self) -> (&'static str, &'static [&'static str]) {
        match self {
            Route::Health => ("get", &["healthz", "proxy"]),
            Route::Pods => ("get", &["pods", "proxy"]),
            Route::Metrics | Route::ResourceMetrics | Route::CadvisorMetrics | Route::ProbeMetrics => {
                ("get", &["metrics"])
            }
            Route::Summary => ("get", &["stats"]),
            Route::SystemLogs(_) => ("get", &["log"]),
            Route::Logs(_) => ("get", &["proxy"]),
            // What is said in a stream changes something, by whatever method it was opened.
            Route::Exec(_) | Route::Attach(_) | Route::PortForward(_) => ("create", &["proxy"]),
        }
    }
}

pub(super) async fn answer(server: &Server, user: Option<&User>, request: Request<Incoming>) -> Response<Body> {
    let Some(user) = user else {
        return text(StatusCode::UNAUTHORIZED, "Unauthorized");
    };
    let Some(route) = Route::of(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let (verb, subresources) = route.access();
    let mut allowed = false;
    for subresource in subresources {
        allowed = allowed || server.inner.authorizer.allows(user, verb, subresource).await;
    }
    if !allowed {
        let first = subresources.first().copied().unwrap_or("proxy");
        let why = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{first}])",
            user.name
        );
        return text(StatusCode::FORBIDDEN, why);
    }
    let is_stream = matches!(route, Route::Exec(_) | Route::Attach(_) | Route::PortForward(_));
    if !(request.method() == Method::GET || is_stream && request.method() == Method::POST) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    }
    let query = query_pairs(request.uri().query().unwrap_or(""));
    match route {
        Route::Health => text(StatusCode::OK, "ok"),
        Route::Pods => pods(server),
        Route::Metrics => stats::metrics(server).await,
        Route::ResourceMetrics => stats::resource_metrics(server).await,
        Route::CadvisorMetrics => stats::cadvisor_metrics(server).await,
        Route::ProbeMetrics => stats::probe_metrics(server),
        Route::Summary => stats::summary(server).await,
        Route::SystemLogs(path) => system_logs::answer(Path::new(SYSTEM_LOGS), &path).await,
        Route::Logs([namespace, pod, container]) => log(server, &namespace, &pod, &container, &query).await,
        Route::Exec([namespace, pod, container]) => {
            let wanted = Wanted::Exec(container);
            stream::answer(server, &namespace, &pod, &wanted, &query, request).await
        }
        Route::Attach([namespace, pod, container]) => {
            let wanted = Wanted::Attach(container);
            stream::answer(server, &namespace, &pod, &wanted, &query, request).await
        }
        Route::PortForward([namespace, pod]) => {
            stream::answer(server, &namespace, &pod, &Wanted::PortForward, &query, request).await
        }
    }
}

fn pods(server: &Server) -> Response<Body> {
    // Pods are read as typed objects here; this is a view for people and monitors, not a source for others (D3).
    let items: Vec<serde_json::Value> = server
        .inner
        .pods
        .pods()
        .iter()
        .filter_map(|pod| serde_json::to_value(&**pod).ok())
        .collect();
    json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

async fn log(
    server: &Server,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &[(String, String)],
) -> Response<Body> {
    let (options, previous) = match log_query::parse(query, server.inner.clock.now()) {
        Ok(parsed) => parsed,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let run = match server.inner.pods.log(namespace, pod, container, previous).await {
        Ok(run) => run,
        Err(error) => return refusal(&error),
    };
    let ended = server.inner.pods.ended(&run.id);
    let stream = match logs::open(Path::new(&run.log_path), options, ended).await {
        Ok(stream) => stream,
        Err(error) => {
            // As upstream, in the body: kubectl shows it.
            let why = format!(
                "failed to open log file {}: {error}",
                api::field::quote(&run.log_path.to_string_lossy())
            );
            return text(StatusCode::BAD_REQUEST, why);
        }
    };
    let frames = stream.map(|chunk: std::io::Result<Bytes>| {
        chunk
            .map(Frame::data)
            .map_err(|error| TransportError::Lost(error.to_string()))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}

pub(super) fn refusal(error: &PodsError) -> Response<Body> {
    let status = match error {
        PodsError::NotFound(_) => StatusCode::NOT_FOUND,
        PodsError::BadRequest(_) => StatusCode::BAD_REQUEST,
        PodsError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, error.to_string())
}

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(body_of(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

pub(super) fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(body_of(value.to_string()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// The names and values of a query, in order; a pair that cannot be read is left out.
pub(super) fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(pair)
        .collect()
}

/// Percent signs resolved; `None` for what is no text.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let three = || ["n".to_owned(), "p".to_owned(), "c".to_owned()];
        for (path, expect) in [
            ("/healthz", Some(Route::Health)),
            ("/pods", Some(Route::Pods)),
            ("/pods/", Some(Route::Pods)),
            ("/metrics", Some(Route::Metrics)),
            ("/metrics/resource", Some(Route::ResourceMetrics)),
            ("/metrics/cadvisor", Some(Route::CadvisorMetrics)),
            ("/metrics/probes", Some(Route::ProbeMetrics)),
            ("/stats/summary", Some(Route::Summary)),
            ("/logs", Some(Route::SystemLogs("".into()))),
            ("/logs/", Some(Route::SystemLogs("".into()))),
            ("/logs/pods/a%20b/", Some(Route::SystemLogs("pods/a b/".into()))),
            ("/containerLogs/n/p/c", Some(Route::Logs(three()))),
            ("/exec/n/p/%63", Some(Route::Exec(three()))),
            ("/attach/n/p/c", Some(Route::Attach(three()))),
            ("/portForward/n/p", Some(Route::PortForward(["n".into(), "p".into()]))),
            ("/exec/n/p", None),
            ("/exec/n/p/%6", None),
            ("/run/n/p/c", None),
            ("/", None),
        ] {
            assert_eq!(Route::of(path), expect, "{path}");
        }
    }

    #[test]
    fn queries() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            query_pairs("command=ls&command=-l&a=x%20y+z&b&bad=%f&=v"),
            [
                pair("command", "ls"),
                pair("command", "-l"),
                pair("a", "x y z"),
                pair("b", ""),
                pair("", "v")
            ]
        );
    }
}
