//! `pods/log`, `pods/exec`, `pods/attach` and `pods/portforward`: requests handed through to the kubelet of the pod's node.
//!
//! Nothing is interpreted on the way: what is said in a stream is between the client and the kubelet. Only the WebSocket around
//! the SPDY of a port-forward ends here.
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/{strategy.go,rest}`.

use std::io;
use std::sync::Arc;

use http::header::{CONNECTION, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;

use api::{GroupResource, Reason, Status, Value};
use client::Body;
use streams::{spdy, tunnel};

use crate::call::{Call, RequestBody};
use crate::dial::Stream;
use crate::hook::unreached;
use crate::metrics::shared;
use crate::pipeline::must_allow;
use crate::registry::Served;
use crate::request::{Attributes, Query};
use crate::trace::{self, TRACEPARENT};
use crate::verbs::read;

use super::{proxy, upgrade, websocket};

/// Where a kubelet listens, unless its node says otherwise.
const KUBELET_PORT: u16 = 10250;

/// The pod of a request: its node, and which container is meant.
struct Target {
    namespace: String,
    pod: String,
    container: String,
    node: String,
    address: String,
    port: u16,
}

/// `GET pods/<name>/log`.
pub async fn log(call: &Arc<Call>, served: &Arc<Served>) -> Result<Response<Body>, Status> {
    let target = target(call, served, false, true).await?;
    let query = log_query(&call.query)?;
    let path = format!(
        "/containerLogs/{}/{}/{}{query}",
        target.namespace, target.pod, target.container
    );
    let metrics = &shared().pod_logs;
    metrics.asked(call.query.flag("insecureSkipTLSVerifyBackend") == Some(true));
    let refused = |error: &io::Error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(inner, Some(rustls::Error::InvalidCertificate(_))) {
            metrics.refused();
        }
    };
    // As Go's client says what it could not do.
    let failed = |why: &str| {
        proxy::unknown(format!(
            "Get \"https://{}:{}{path}\": {why}",
            target.address, target.port
        ))
    };
    let stream = dial(call, &target, refused, failed).await?;
    let mut request = Request::new(empty());
    *request.uri_mut() = path.parse().map_err(Status::internal)?;
    request.headers_mut().insert(HOST, host(&target)?);
    in_trace(call, request.headers_mut());
    let answered = proxy::exchange(stream, request).await;
    let mut response = answered.map_err(|error| failed(&error.to_string()))?;
    if response.status() != StatusCode::OK {
        return Err(kubelet_error(response).await);
    }
    let headers = response.headers_mut();
    headers.remove(http::header::CONTENT_LENGTH);
    headers
        .entry(http::header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("text/plain"));
    if websocket::is_asked(call) {
        return websocket::bytes(call, response);
    }
    Ok(response)
}

/// The kubelet works on behalf of the client. Upstream does not tell it in which trace.
fn in_trace(call: &Call, headers: &mut HeaderMap) {
    headers.extend(trace::onward(call.trace.as_ref()).map(|trace| (TRACEPARENT, trace)));
}

/// A subresource that becomes a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Streamed {
    /// A command in a container.
    Exec,
    /// A container's own streams.
    Attach,
    /// Connections to the pod's ports.
    PortForward,
}

/// `GET|POST pods/<name>/{exec,attach,portforward}`: an upgrade to WebSocket or SPDY.
pub async fn stream(call: &Arc<Call>, served: &Arc<Served>, what: Streamed) -> Result<Response<Body>, Status> {
    may_create(call).await?;
    let wants = |name: &str| call.query.flag(name) == Some(true);
    if what == Streamed::Exec && !call.query.has("command") {
        return Err(invalid_option("command", "you must specify at least 1 command"));
    }
    if what != Streamed::PortForward && !wants("stdin") && !wants("stdout") && !wants("stderr") {
        return Err(invalid_option(
            "stdin",
            "you must specify at least one of stdin, stdout, stderr",
        ));
    }
    let target = target(call, served, true, what != Streamed::PortForward).await?;
    // Only now: what is wrong with the request itself is told before.
    let upgrade = call.header("upgrade").to_ascii_lowercase();
    if upgrade != "websocket" && !upgrade.eq_ignore_ascii_case(spdy::UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let (kind, options) = options(call, &target, what);
    super::admit(call, served, kind, options).await?;
    let path = path(call, &target, what);
    let protocols = call.headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let inside = tunnel::offered(protocols.iter().filter_map(|value| value.to_str().ok()));
    if what == Streamed::PortForward && upgrade == "websocket" && !inside.is_empty() {
        return through_tunnel(call, &target, &path, &inside).await;
    }
    hand_through(call, &target, &path).await
}

/// WebSockets begin with a GET, and whoever may only read may not run anything: as upstream since v1.35
/// (`AuthorizePodWebsocketUpgradeCreatePermission`).
async fn may_create(call: &Call) -> Result<(), Status> {
    if call.attributes.verb == "create" {
        return Ok(());
    }
    let attributes = Attributes {
        verb: "create".into(),
        ..call.attributes.clone()
    };
    let decision = call.server.authorizer.authorize(&call.user, &attributes).await;
    must_allow(decision, &call.user, &attributes).map(drop)
}

/// What admission sees.
fn options(call: &Call, target: &Target, what: Streamed) -> (&'static str, Value) {
    let wants = |name: &str| call.query.flag(name) == Some(true);
    let mut options = serde_json::json!({
        "apiVersion": "v1", "stdin": wants("stdin"), "stdout": wants("stdout"), "stderr": wants("stderr"),
        "tty": wants("tty"), "container": target.container,
    });
    let kind = match what {
        Streamed::Exec => {
            options["command"] = call.query.all("command").collect::<Vec<_>>().into();
            "PodExecOptions"
        }
        Streamed::Attach => "PodAttachOptions",
        Streamed::PortForward => {
            let ports = call.query.all("ports").filter_map(|port| port.parse::<u16>().ok());
            options = serde_json::json!({"apiVersion": "v1", "ports": ports.collect::<Vec<_>>()});
            "PodPortForwardOptions"
        }
    };
    options["kind"] = kind.into();
    (kind, options)
}

/// The same for the kubelet.
fn path(call: &Call, target: &Target, what: Streamed) -> String {
    let (namespace, pod, container) = (&target.namespace, &target.pod, &target.container);
    let mut path = match what {
        Streamed::Exec => format!("/exec/{namespace}/{pod}/{container}?"),
        Streamed::Attach => format!("/attach/{namespace}/{pod}/{container}?"),
        Streamed::PortForward => {
            let ports: Vec<&str> = call.query.all("ports").collect();
            return match ports.is_empty() {
                true => format!("/portForward/{namespace}/{pod}"),
                false => format!(
                    "/portForward/{namespace}/{pod}?port={}",
                    proxy::encode(&ports.join(","))
                ),
            };
        }
    };
    let wants = |name: &str| call.query.flag(name) == Some(true);
    let mut parts = Vec::new();
    for (ours, kubelets) in [
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
        ("tty", "tty"),
    ] {
        // With a terminal there is one output stream.
        if wants(ours) && !(wants("tty") && ours == "stderr") {
            parts.push(format!("{kubelets}=1"));
        }
    }
    let commands = call.query.all("command").filter(|_| what == Streamed::Exec);
    parts.extend(commands.map(|command| format!("command={}", proxy::encode(command))));
    path.push_str(&parts.join("&"));
    path
}

/// The question for an upgrade, as the kubelet gets it, and the way to it.
async fn question(
    call: &Call,
    target: &Target,
    path: &str,
    method: Method,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Result<(Stream, Request<RequestBody>), Status> {
    upgrade::must_be_possible(call)?;
    let failed = |why: &str| proxy::unknown(format!("error dialing backend: {why}"));
    let stream = dial(call, target, |_| {}, failed).await?;
    let mut request = Request::new(empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(Status::internal)?;
    for (name, value) in headers {
        request.headers_mut().append(name, value);
    }
    request.headers_mut().insert(HOST, host(target)?);
    in_trace(call, request.headers_mut());
    Ok((stream, request))
}

/// Headers that say what a connection becomes.
fn of_upgrade(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let keep = |name: &HeaderName| {
        *name == UPGRADE
            || *name == CONNECTION
            || name.as_str().starts_with("sec-websocket-")
            || name.as_str() == spdy::PROTOCOL_HEADER
    };
    let all = headers.iter().filter(|(name, _)| keep(name));
    all.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Opens the same upgrade to the kubelet and joins both connections when it agrees.
async fn hand_through(call: &Arc<Call>, target: &Target, path: &str) -> Result<Response<Body>, Status> {
    let is_websocket = call.header("upgrade").eq_ignore_ascii_case("websocket");
    let method = if is_websocket { Method::GET } else { Method::POST };
    let (stream, request) = question(call, target, path, method, of_upgrade(&call.headers)).await?;
    let answered = upgrade::hand_through(call, stream, request).await;
    answered.map_err(proxy::unknown)
}

/// The client speaks SPDY inside of a WebSocket, the kubelet SPDY.
/// Source: `k8s.io/apiserver/pkg/util/proxy/streamtunnel.go`.
async fn through_tunnel(
    call: &Arc<Call>,
    target: &Target,
    path: &str,
    inside: &[&str],
) -> Result<Response<Body>, Status> {
    let key = call.header("sec-websocket-key").to_owned();
    if key.is_empty() {
        return Err(Status::bad_request("the request has no Sec-WebSocket-Key header"));
    }
    let mut headers = vec![
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static(spdy::UPGRADE)),
    ];
    let protocol_header = HeaderName::from_static(spdy::PROTOCOL_HEADER);
    for protocol in inside {
        let value = HeaderValue::from_str(protocol).map_err(Status::internal)?;
        headers.push((protocol_header.clone(), value));
    }
    let (stream, request) = question(call, target, path, Method::POST, headers).await?;
    let (headers, node_side) = match upgrade::ask(stream, request).await.map_err(proxy::unknown)? {
        upgrade::Answer::Refused(answer) => return Ok(answer),
        upgrade::Answer::Agreed(headers, node_side) => (headers, node_side),
    };
    let chosen = headers.get(&protocol_header).and_then(|value| value.to_str().ok());
    let mut answer = vec![
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
    ];
    let mut tell = |name: HeaderName, value: String| {
        let value = HeaderValue::from_str(&value).map_err(Status::internal)?;
        answer.push((name, value));
        Ok::<(), Status>(())
    };
    tell(SEC_WEBSOCKET_ACCEPT, tunnel::derive_accept_key(key.as_bytes()))?;
    if let Some(chosen) = chosen {
        tell(SEC_WEBSOCKET_PROTOCOL, tunnel::subprotocol(chosen))?;
    }
    let client_side = upgrade::take(call)?;
    upgrade::join(
        call,
        client_side,
        node_side,
        |client_side, node_side, stop| async move {
            stop.until(tunnel::join(client_side, node_side)).await;
        },
    );
    Ok(upgrade::switching(answer))
}

fn invalid_option(field: &str, why: &str) -> Status {
    Status::bad_request(format!("{field}: {why}"))
}

/// Where the pod is; `of_container`: and which of its containers is meant.
async fn target(call: &Arc<Call>, served: &Arc<Served>, must_run: bool, of_container: bool) -> Result<Target, Status> {
    let pod = read::fetch(call, served).await?.value();
    let name = api::meta::name(&pod).to_owned();
    let container = match of_container {
        true => container_of(&pod, call.query.text("container"))?,
        false => String::new(),
    };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or("").to_owned();
    if node.is_empty() {
        if must_run {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        let why = format!(
            "container {} in pod {} is waiting to start: the pod is not scheduled",
            api::field::quote(&container),
            api::field::quote(&name)
        );
        return Err(Status::bad_request(why));
    }
    let nodes = GroupResource {
        group: String::new(),
        resource: "nodes".into(),
    };
    let found = crate::cluster::Cluster::get(&*call.server.storage, &nodes, "", &node);
    let found = found.ok_or_else(|| Status::not_found(&nodes, &node))?.value();
    let (address, port) = address_of(&found);
    Ok(Target {
        namespace: api::meta::namespace(&pod).to_owned(),
        pod: name,
        container,
        node,
        address,
        port,
    })
}

/// The address and port of a node's kubelet.
pub fn address_of(node: &Value) -> (String, u16) {
    let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let of = |kind: &str| {
        addresses
            .iter()
            .find(|a| a["type"] == kind)
            .and_then(|a| a["address"].as_str())
    };
    // Upstream's `--kubelet-preferred-address-types` starts with the host name; here names are not resolvable.
    let address = of("InternalIP").or_else(|| of("ExternalIP")).or_else(|| of("Hostname"));
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .unwrap_or(KUBELET_PORT);
    (address.unwrap_or("").to_owned(), port)
}

/// The container that is meant: the named one, the annotated default, or the only one.
fn container_of(pod: &Value, wanted: &str) -> Result<String, Status> {
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let containers = names("containers");
    let name = api::meta::name(pod);
    if !wanted.is_empty() {
        let known = ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .any(|f| names(f).iter().any(|n| n == wanted));
        return match known {
            true => Ok(wanted.to_owned()),
            false => Err(Status::bad_request(format!(
                "container {wanted} is not valid for pod {name}"
            ))),
        };
    }
    match containers.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}"
        ))),
        several => {
            let annotated = api::meta::annotation(pod, "kubectl.kubernetes.io/default-container");
            if let Some(annotated) = annotated.filter(|annotated| several.iter().any(|name| name == annotated)) {
                return Ok(annotated.to_owned());
            }
            let mut why = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            let init = names("initContainers");
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(why))
        }
    }
}

/// The kubelet's query for the API's log options, validated against their schema.
fn log_query(query: &Query) -> Result<String, Status> {
    let mut out = String::new();
    for name in ["follow", "previous", "timestamps"] {
        if query.flag(name) == Some(true) {
            out.push_str(&format!("&{name}=true"));
        }
    }
    for name in ["sinceSeconds", "tailLines", "limitBytes"] {
        let Some(text) = query.get(name).filter(|text| !text.is_empty()) else {
            continue;
        };
        let number: i64 = text
            .parse()
            .map_err(|_| Status::bad_request(format!("{name}: {text} is not a number")))?;
        let least = if name == "tailLines" { 0 } else { 1 };
        if number < least {
            let path = api::field::Path::new(name);
            let why = format!("must be greater than or equal to {least}");
            let kind = api::GroupKind {
                group: String::new(),
                kind: "PodLogOptions".into(),
            };
            return Err(Status::invalid(
                &kind,
                "",
                &[api::field::Error::invalid(&path, number, why)],
            ));
        }
        out.push_str(&format!("&{name}={number}"));
    }
    if let Some(since) = query.get("sinceTime").filter(|text| !text.is_empty()) {
        if query.has("sinceSeconds") {
            return Err(Status::bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        out.push_str(&format!("&sinceTime={}", proxy::encode(since)));
    }
    match query.text("stream") {
        "" | "All" => {}
        stream @ ("Stdout" | "Stderr") => out.push_str(&format!("&stream={stream}")),
        other => return Err(Status::bad_request(format!("stream: {other} is not supported"))),
    }
    if out.is_empty() {
        return Ok(out);
    }
    out.replace_range(0..1, "?");
    Ok(out)
}

/// The body of a request that has none.
fn empty() -> RequestBody {
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A connection to the kubelet; `look` sees why there is none, and `failed` says it.
async fn dial(
    call: &Call,
    target: &Target,
    look: impl FnOnce(&io::Error),
    failed: impl FnOnce(&str) -> Status,
) -> Result<Stream, Status> {
    let Some(nodes) = &call.server.nodes else {
        return Err(Status::failure(
            Reason::ServiceUnavailable,
            "this server has no way to its nodes",
        ));
    };
    let dialed = nodes.dial(&target.node, &target.address, target.port).await;
    dialed.map_err(|error| {
        look(&error);
        let address = format!("{}:{}", target.address, target.port);
        failed(&unreached(&address, &error))
    })
}

fn host(target: &Target) -> Result<HeaderValue, Status> {
    HeaderValue::from_str(&format!("{}:{}", target.address, target.port)).map_err(Status::internal)
}

/// A kubelet's refusal as the API tells it: its Status when it sent one, else its text.
async fn kubelet_error(response: Response<Body>) -> Status {
    let code = response.status();
    let bytes = client::collect(response.into_body(), 64 * 1024)
        .await
        .unwrap_or_default();
    if let Ok(status) = serde_json::from_slice::<Status>(&bytes)
        && status.kind == "Status"
    {
        return status;
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let mut status = Status::failure(Reason::InternalError, text);
    match code {
        StatusCode::BAD_REQUEST => status.reason = Reason::BadRequest.as_str().into(),
        StatusCode::NOT_FOUND => status.reason = Reason::NotFound.as_str().into(),
        StatusCode::FORBIDDEN => status.reason = Reason::Forbidden.as_str().into(),
        StatusCode::UNAUTHORIZED => status.reason = Reason::Unauthorized.as_str().into(),
        _ => {}
    }
    status.code = code.as_u16();
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_chosen() {
        let pod = |names: &[&str]| {
            json!({"metadata": {"name": "p"}, "spec": {
            "containers": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
            "initContainers": [{"name": "i"}]}})
        };
        assert_eq!(container_of(&pod(&["a"]), "").unwrap(), "a");
        assert_eq!(container_of(&pod(&["a"]), "i").unwrap(), "i");
        assert_eq!(
            container_of(&pod(&["a"]), "x").unwrap_err().message,
            "container x is not valid for pod p"
        );
        assert_eq!(
            container_of(&pod(&["a", "b"]), "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        let mut annotated = pod(&["a", "b"]);
        annotated["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(container_of(&annotated, "").unwrap(), "b");
    }

    #[test]
    fn log_options_are_checked() {
        for (query, expect) in [
            ("", Ok("")),
            ("follow=true&tailLines=0", Ok("?follow=true&tailLines=0")),
            ("sinceSeconds=0", Err(422)),
            ("tailLines=x", Err(400)),
            ("sinceTime=2026-01-01T00:00:00Z&sinceSeconds=1", Err(400)),
        ] {
            let got = log_query(&Query::parse(query));
            assert_eq!(got.as_deref().map_err(|status| status.code), expect, "{query}");
        }
    }

    #[test]
    fn kubelets_are_found() {
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}}}});
        assert_eq!(address_of(&node), ("10.0.0.1".into(), 10251));
        assert_eq!(address_of(&json!({})), (String::new(), KUBELET_PORT));
    }
}
