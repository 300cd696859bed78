//! `/exec`, `/attach` and `/portForward`: an upgraded connection that goes on to the runtime's streaming server, byte for byte.
//!
//! Nothing is interpreted on the way: protocol and frames are between the client and the runtime.
//! Source: `pkg/kubelet/server/server.go` (`getExec`, `getAttach`, `getPortForward`, `proxyStream`).

use std::time::Duration;

use client::Body;
use http::header::{CONNECTION, HOST, HeaderName, UPGRADE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rpc::cri;
use tokio::net::TcpStream;

use super::route::{refusal, text};
use super::{PodsError, Server};

/// The runtime's streaming server answers within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest refusal of the runtime that is passed on.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What a client wants of a pod.
pub(super) enum Wanted {
    /// A command in a container.
    Exec(String),
    /// A container's own streams.
    Attach(String),
    /// Connections to the pod's ports.
    PortForward,
}

pub(super) async fn answer(
    server: &Server,
    namespace: &str,
    pod: &str,
    wanted: &Wanted,
    query: &[(String, String)],
    mut request: Request<Incoming>,
) -> Response<Body> {
    if !request.headers().contains_key(UPGRADE) {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    let ports = match (wanted, is_websocket(&request)) {
        (Wanted::PortForward, true) => match ports(query) {
            Ok(ports) => ports,
            Err(why) => return text(StatusCode::BAD_REQUEST, why),
        },
        // With SPDY each stream names its own.
        _ => Vec::new(),
    };
    if server.inner.places.available_permits() == 0 {
        return text(StatusCode::TOO_MANY_REQUESTS, "too many streams run on this node");
    }
    let url = match url(server, namespace, pod, wanted, query, ports).await {
        Ok(url) => url,
        Err(error) => return refusal(&error),
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, hand_over(server, &url, &mut request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(why)) => text(
            StatusCode::BAD_GATEWAY,
            format!("the container runtime's streaming server: {why}"),
        ),
        Err(_) => text(
            StatusCode::GATEWAY_TIMEOUT,
            "the container runtime's streaming server does not answer",
        ),
    }
}

/// Where the runtime serves it.
async fn url(
    server: &Server,
    namespace: &str,
    pod: &str,
    wanted: &Wanted,
    query: &[(String, String)],
    ports: Vec<i32>,
) -> Result<String, PodsError> {
    let (pods, runtime) = (&server.inner.pods, &server.inner.runtime);
    let url = match wanted {
        Wanted::Exec(container) => {
            let options = options(query, true).map_err(PodsError::BadRequest)?;
            let container_id = pods.running(namespace, pod, container).await?.id;
            let request = cri::ExecRequest {
                container_id,
                ..options
            };
            runtime.exec(request).await
        }
        Wanted::Attach(container) => {
            let options = options(query, false).map_err(PodsError::BadRequest)?;
            let request = cri::AttachRequest {
                container_id: pods.running(namespace, pod, container).await?.id,
                stdin: options.stdin,
                tty: options.tty,
                stdout: options.stdout,
                stderr: options.stderr,
            };
            runtime.attach(request).await
        }
        Wanted::PortForward => {
            let request = cri::PortForwardRequest {
                pod_sandbox_id: pods.sandbox(namespace, pod).await?,
                port: ports,
            };
            runtime.port_forward(request).await
        }
    };
    url.map_err(|error| PodsError::Internal(error.to_string()))
}

fn is_websocket(request: &Request<Incoming>) -> bool {
    let upgrade = request.headers().get(UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The ports that the channels of a WebSocket are for. Source: `NewV4Options` of `k8s.io/cri-streaming`.
fn ports(query: &[(String, String)]) -> Result<Vec<i32>, String> {
    let mut ports = Vec::new();
    for (_, text) in query.iter().filter(|(name, _)| name == "port") {
        if text.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        for port in text.split(',') {
            let number: u16 = port.parse().map_err(|_| {
                let (text, port) = (api::field::quote(text), api::field::quote(port));
                format!("unable to parse {text} as a port: strconv.ParseUint: parsing {port}: invalid syntax")
            })?;
            if number == 0 {
                return Err(format!("port {} must be > 0", api::field::quote(text)));
            }
            ports.push(i32::from(number));
        }
    }
    match ports.is_empty() {
        true => Err("query parameter \"port\" is required".into()),
        false => Ok(ports),
    }
}

/// The options as both spellings have them: upstream's kubelet says `input`, `output` and `error`.
fn options(query: &[(String, String)], has_command: bool) -> Result<cri::ExecRequest, String> {
    let flag = |names: [&str; 2]| {
        query
            .iter()
            .any(|(name, value)| names.contains(&name.as_str()) && matches!(value.as_str(), "1" | "true"))
    };
    let (stdin, stdout, stderr) = (
        flag(["input", "stdin"]),
        flag(["output", "stdout"]),
        flag(["error", "stderr"]),
    );
    let tty = flag(["tty", "tty"]);
    let cmd: Vec<String> = query
        .iter()
        .filter(|(name, _)| name == "command")
        .map(|(_, value)| value.clone())
        .collect();
    if has_command && cmd.is_empty() {
        return Err("you must specify at least 1 command".into());
    }
    if !stdin && !stdout && !stderr {
        return Err("you must specify at least 1 of stdin, stdout, stderr".into());
    }
    // With a terminal there is one output stream.
    Ok(cri::ExecRequest {
        cmd,
        tty,
        stdin,
        stdout,
        stderr: stderr && !tty,
        ..Default::default()
    })
}

/// Asks the runtime for the same upgrade, and joins both connections when it agrees.
async fn hand_over(server: &Server, url: &str, request: &mut Request<Incoming>) -> Result<Response<Body>, String> {
    let url: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let authority = url.authority().ok_or_else(|| format!("{url} has no address"))?;
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        // How it ends is seen at the streams.
        let _ = connection.with_upgrades().await;
    });
    let mut onward = Request::new(Empty::<bytes::Bytes>::new());
    *onward.method_mut() = request.method().clone();
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    *onward.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    for (name, value) in request.headers().iter().filter(|(name, _)| is_of_upgrade(name)) {
        onward.headers_mut().append(name.clone(), value.clone());
    }
    let host = http::HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
    onward.headers_mut().insert(HOST, host);
    let mut answer = sender.send_request(onward).await.map_err(|error| error.to_string())?;
    let mut response = Response::new(client::body_of(""));
    *response.status_mut() = answer.status();
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let body = http_body_util::Limited::new(answer.into_body(), REFUSAL_BYTES_MAX)
            .collect()
            .await;
        *response.body_mut() = client::body_of(body.map(|body| body.to_bytes()).unwrap_or_default());
        return Ok(response);
    }
    for (name, value) in answer.headers().iter().filter(|(name, _)| is_of_upgrade(name)) {
        response.headers_mut().append(name.clone(), value.clone());
    }
    let (client_side, runtime_side) = (hyper::upgrade::on(request), hyper::upgrade::on(&mut answer));
    // Between the look above and now others may have come: the session then is not begun.
    let place = server
        .inner
        .places
        .clone()
        .try_acquire_owned()
        .map_err(|error| error.to_string())?;
    let sessions = server.inner.sessions.clone();
    tokio::spawn(async move {
        let _place = place;
        let join = async {
            let (Ok(client_side), Ok(runtime_side)) = tokio::join!(client_side, runtime_side) else {
                return;
            };
            let (mut client_side, mut runtime_side) = (TokioIo::new(client_side), TokioIo::new(runtime_side));
            // However it ends, both sides are closed; there is nobody to tell.
            let _ = tokio::io::copy_bidirectional(&mut client_side, &mut runtime_side).await;
        };
        sessions.until(join).await;
    });
    Ok(response)
}

fn is_of_upgrade(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == UPGRADE.as_str()
        || name == CONNECTION.as_str()
        || name.starts_with("sec-websocket-")
        || name == "x-stream-protocol-version"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_channels() {
        let syntax = |text: &str, port: &str| {
            format!("unable to parse {text:?} as a port: strconv.ParseUint: parsing {port:?}: invalid syntax")
        };
        for (query, expect) in [
            ("port=80", Ok(vec![80])),
            ("port=80,81&x=1&port=82", Ok(vec![80, 81, 82])),
            ("", Err("query parameter \"port\" is required".to_owned())),
            ("port=", Err("query parameter \"port\" cannot be empty".to_owned())),
            ("port=80,x", Err(syntax("80,x", "x"))),
            ("port=0", Err("port \"0\" must be > 0".to_owned())),
        ] {
            assert_eq!(ports(&super::super::route::query_pairs(query)), expect, "{query}");
        }
    }

    #[test]
    fn both_spellings() {
        for (query, expect) in [
            ("command=ls&command=-l&output=1&error=1", Ok("ls -l out err")),
            (
                "command=sh&stdin=true&stdout=true&tty=true&stderr=true",
                Ok("sh tty in out"),
            ),
            ("command=sh&input=1", Ok("sh in")),
            (
                "command=sh",
                Err("you must specify at least 1 of stdin, stdout, stderr"),
            ),
            ("output=1", Err("you must specify at least 1 command")),
        ] {
            let got = options(&super::super::route::query_pairs(query), true).map(|options| {
                let mut words = options.cmd.clone();
                for (set, word) in [
                    (options.tty, "tty"),
                    (options.stdin, "in"),
                    (options.stdout, "out"),
                    (options.stderr, "err"),
                ] {
                    words.extend(set.then(|| word.to_owned()));
                }
                words.join(" ")
            });
            assert_eq!(got.as_deref().map_err(String::as_str), expect, "{query}");
        }
    }
}
