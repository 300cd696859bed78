//! `pods|services|nodes/proxy`: HTTP handed through to a pod, a ready endpoint of a Service, or a kubelet; and upgrades of it to
//! anything else.
//!
//! The address that was checked is the address that is dialled (D14). Source:
//! `k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go` and the `ResourceLocation` functions of core's registries.

use std::io;
use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use api::{GroupResource, Reason, Status, Value};
use client::https::tls_unverified;
use client::{Body, TransportError};

use crate::call::{Call, RequestBody};
use crate::cluster::Cluster;
use crate::dial::Stream;
use crate::endpoints::{checked, ready_endpoints, service_port};
use crate::hook::unreached;
use crate::registry::Served;

use super::kubelet::address_of;
use super::links::{self, Place};
use super::upgrade;

/// Headers that belong to one connection and not to what it carries.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Tells the target under which path it was asked.
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// Tells it for whom.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a pod must not say for the API server's origin. Source: `corsRemovingTransport`.
pub const CORS: [&str; 6] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
];

/// Sends one request on a fresh connection and returns the answer while its body streams.
pub async fn exchange(stream: Stream, request: Request<RequestBody>) -> Result<Response<Body>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with its last request; its error is the request's.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| {
        body.map_err(|error| TransportError::Lost(error.to_string()))
            .boxed_unsync()
    }))
}

/// The same, with its failure as the API tells it.
async fn send(stream: Stream, request: Request<RequestBody>) -> Result<Response<Body>, Status> {
    let answered = exchange(stream, request).await;
    answered.map_err(|error| unavailable(format!("error trying to reach service: {error}")))
}

/// Percent-encodes a query's value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Any method on `.../proxy[/path]`, and any upgrade.
pub async fn serve(call: &Arc<Call>, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let base = proxy_base(call);
    let is_upgrade = upgrade::is_asked(&call.headers);
    if let Some(redirect) = redirect_to_slash(call, &base).filter(|_| !is_upgrade) {
        return Ok(redirect);
    }
    let options = serde_json::json!({"kind": "ProxyOptions", "apiVersion": "v1", "path": call.attributes.rest});
    super::admit(call, served, "ProxyOptions", options).await?;
    if is_upgrade {
        upgrade::must_be_possible(call)?;
    }
    let (stream, host) = match &*call.attributes.resource {
        "nodes" => node(call).await?,
        "services" => service(call).await?,
        _ => pod(call).await?,
    };
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = target(call, &base)
        .parse()
        .map_err(|error| Status::bad_request(format!("the path cannot be proxied: {error}")))?;
    if is_upgrade {
        // All headers are the other side's to judge, the client's Host too: servers compare it with the page's origin.
        *request.headers_mut() = call.headers.clone();
        append_forwarded_for(call, request.headers_mut());
        return upgrade::hand_through(call, stream, request).await.map_err(unknown);
    }
    copy_headers(&call.headers, request.headers_mut());
    append_forwarded_for(call, request.headers_mut());
    // The client's, as upstream: whoever answers for several names knows by it which one is meant.
    let asked = asked_host(call).unwrap_or(&host);
    for (name, value) in [(HOST, asked), (FORWARDED_URI, call.uri.path())] {
        let value = HeaderValue::from_str(value).map_err(Status::internal)?;
        request.headers_mut().insert(name, value);
    }
    let response = send(stream, request).await?;
    let (parts, body) = response.into_parts();
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    copy_headers(&parts.headers, answer.headers_mut());
    // Who may read the API server's answers is not for a pod to say.
    CORS.iter().for_each(|name| drop(answer.headers_mut().remove(*name)));
    let place = Place {
        base: &base,
        host: &host,
        asked,
    };
    links::rewrite(answer, &place).await
}

/// The host that the client asked, which in HTTP/2 is in the URI; a call of this process asks none.
fn asked_host(call: &Call) -> Option<&str> {
    let header = call.headers.get(HOST).and_then(|value| value.to_str().ok());
    let header = header.filter(|host| !host.is_empty());
    header.or_else(|| Some(call.uri.authority()?.as_str()))
}

/// What is asked for behind the proxy's path.
fn target(call: &Call, base: &str) -> String {
    let rest = call.uri.path().get(base.len()..).unwrap_or("");
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let query = call.uri.query().map(|query| format!("?{query}"));
    format!("{slash}{rest}{}", query.unwrap_or_default())
}

/// Adds where the request comes from to what the proxies before us told, be it in several lines.
pub fn append_forwarded_for(call: &Call, headers: &mut HeaderMap) {
    let Some(from) = call.remote else { return };
    let before = headers.get_all(FORWARDED_FOR).iter();
    let before = before.filter_map(|value| value.to_str().ok()).map(str::to_owned);
    let through: Vec<String> = before.chain([from.to_string()]).collect();
    if let Ok(through) = HeaderValue::try_from(through.join(", ")) {
        headers.insert(FORWARDED_FOR, through);
    }
}

/// The path up to and with `proxy`, as it was sent.
fn proxy_base(call: &Call) -> String {
    let path = call.uri.path();
    match &*call.attributes.subresource {
        "proxy" => base_of(path, !call.attributes.namespace.is_empty()).to_owned(),
        _ => path.to_owned(),
    }
}

/// The same of `/api/v1/namespaces/NAMESPACE/PLURAL/NAME/proxy` or `/api/v1/PLURAL/NAME/proxy`, whose namespace and name may be
/// called so, too.
fn base_of(path: &str, namespaced: bool) -> &str {
    let before = if namespaced { 7 } else { 5 };
    let mut end = 0;
    for (index, segment) in path.split('/').enumerate() {
        end += segment.len() + usize::from(index > 0);
        if index >= before && segment == "proxy" {
            return &path[..end];
        }
    }
    path
}

/// A browser resolves relative links against the path, so `.../proxy` without a slash is answered with one.
fn redirect_to_slash(call: &Call, base: &str) -> Option<Response<Body>> {
    if call.uri.path() != base || !matches!(call.method, Method::GET | Method::HEAD) {
        return None;
    }
    let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(client::body_of(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(&format!("{base}/{query}")).ok()?;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

/// Copies the headers that do not belong to one connection.
pub fn copy_headers(from: &HeaderMap, to: &mut HeaderMap) {
    let named: Vec<String> = from
        .get_all("connection")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let drop = |name: &HeaderName| {
        HOP_BY_HOP.contains(&name.as_str()) || named.iter().any(|own| own == name.as_str()) || *name == HOST
    };
    for (name, value) in from.iter().filter(|(name, _)| !drop(name)) {
        to.append(name.clone(), value.clone());
    }
}

/// `[scheme:]name[:port]`.
fn split_name(name: &str) -> Result<(&str, &str, &str), Status> {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [name] => Ok(("", name, "")),
        [name, port] => Ok(("", name, port)),
        [scheme @ ("" | "http" | "https"), name, port] => Ok((scheme, name, port)),
        _ => Err(Status::bad_request(format!("invalid name {}", api::field::quote(name)))),
    }
}

fn core(resource: &str) -> GroupResource {
    GroupResource {
        group: String::new(),
        resource: resource.into(),
    }
}

fn unavailable(why: impl Into<String>) -> Status {
    Status::failure(Reason::ServiceUnavailable, why)
}

/// A failure that is none of the API's: upstream tells an upgrade's so.
pub fn unknown(why: impl Into<String>) -> Status {
    Status::failure(Reason::Unknown, why)
}

/// Why nobody is reached at an address.
fn unreachable(call: &Call, address: &str, error: &io::Error) -> Status {
    let why = unreached(address, error);
    match upgrade::is_asked(&call.headers) {
        true => unknown(format!("error dialing backend: {why}")),
        false => unavailable(format!("error trying to reach service: {why}")),
    }
}

async fn dial_pod(call: &Call, scheme: &str, address: &str, port: u16) -> Result<(Stream, String), Status> {
    let address = checked(address, port).ok_or_else(|| Status::bad_request("address not allowed"))?;
    let services = call
        .server
        .services
        .as_ref()
        .ok_or_else(|| unavailable("this server has no way to its pods"))?;
    let host = address.to_string();
    let failed = |error: io::Error| unreachable(call, &host, &error);
    let mut stream = services.dial(address).await.map_err(failed)?;
    if scheme == "https" {
        stream = Box::new(tls_unverified(stream, address.ip()).await.map_err(failed)?);
    }
    Ok((stream, host))
}

async fn pod(call: &Call) -> Result<(Stream, String), Status> {
    let (scheme, name, port) = split_name(&call.attributes.name)?;
    let pods = core("pods");
    let pod = call.server.storage.as_ref();
    let pod =
        Cluster::get(pod, &pods, &call.attributes.namespace, name).ok_or_else(|| Status::not_found(&pods, name))?;
    let pod = pod.value();
    let port = match port {
        "" => first_port(&pod).unwrap_or(80),
        text => text
            .parse()
            .map_err(|_| Status::bad_request(format!("invalid port {}", api::field::quote(text))))?,
    };
    let address = pod["status"]["podIP"].as_str().unwrap_or("");
    if address.is_empty() {
        return Err(unavailable(format!("pod {name} has no address yet")));
    }
    dial_pod(call, scheme, address, port).await
}

/// The first TCP port that a pod declares.
fn first_port(pod: &Value) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array()?;
    let mut ports = containers
        .iter()
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    let port = ports.find(|port| port["protocol"] != "UDP")?;
    port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok())
}

async fn service(call: &Call) -> Result<(Stream, String), Status> {
    let (scheme, name, port) = split_name(&call.attributes.name)?;
    let services = core("services");
    let namespace = &call.attributes.namespace;
    let storage = &*call.server.storage;
    let service =
        Cluster::get(storage, &services, namespace, name).ok_or_else(|| Status::not_found(&services, name))?;
    let port_name = service_port(&service.value(), port).ok_or_else(|| {
        unavailable(format!(
            "no service port {} found for service {}",
            api::field::quote(port),
            api::field::quote(name)
        ))
    })?;
    let targets = ready_endpoints(storage, namespace, name, &port_name);
    if targets.is_empty() {
        return Err(unavailable(format!(
            "no endpoints available for service {}",
            api::field::quote(name)
        )));
    }
    let (address, port) = &targets[call.server.random.index(targets.len())];
    dial_pod(call, scheme, address, *port).await
}

async fn node(call: &Call) -> Result<(Stream, String), Status> {
    let (_, name, port) = split_name(&call.attributes.name)?;
    let nodes = core("nodes");
    let node = Cluster::get(&*call.server.storage, &nodes, "", name).ok_or_else(|| Status::not_found(&nodes, name))?;
    let (address, kubelet_port) = address_of(&node.value());
    if !port.is_empty() && port != kubelet_port.to_string() {
        return Err(Status::bad_request(format!(
            "only the kubelet's port {kubelet_port} of a node can be proxied"
        )));
    }
    let dialer = call
        .server
        .nodes
        .as_ref()
        .ok_or_else(|| unavailable("this server has no way to its nodes"))?;
    let host = format!("{address}:{kubelet_port}");
    let stream = dialer.dial(name, &address, kubelet_port).await;
    let stream = stream.map_err(|error| unreachable(call, &host, &error))?;
    Ok((stream, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_schemes_and_ports() {
        for (name, expect) in [
            ("a", Ok(("", "a", ""))),
            ("a:80", Ok(("", "a", "80"))),
            ("https:a:web", Ok(("https", "a", "web"))),
            ("ftp:a:1", Err(400)),
        ] {
            assert_eq!(split_name(name).map_err(|status| status.code), expect, "{name}");
        }
    }

    #[test]
    fn whatever_is_called_proxy_is_no_proxy() {
        for (path, namespaced, expect) in [
            (
                "/api/v1/namespaces/n/pods/p/proxy",
                true,
                "/api/v1/namespaces/n/pods/p/proxy",
            ),
            (
                "/api/v1/namespaces/proxy/services/proxy/proxy/proxy/",
                true,
                "/api/v1/namespaces/proxy/services/proxy/proxy",
            ),
            (
                "/api/v1/nodes/proxy/proxy/a%2Fproxy",
                false,
                "/api/v1/nodes/proxy/proxy",
            ),
        ] {
            assert_eq!(base_of(path, namespaced), expect);
        }
    }

    #[test]
    fn connection_headers_stay_behind() {
        let mut from = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-mine"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("upgrade", "h2c"),
            ("host", "h"),
        ] {
            from.insert(name, value.parse().unwrap());
        }
        let mut to = HeaderMap::new();
        copy_headers(&from, &mut to);
        assert_eq!(to.len(), 1);
        assert_eq!(encode("a b&c/é"), "a%20b%26c%2F%C3%A9");
    }
}
