//! One question to a container: run a command, open a connection, send a request, or call a health service.
//!
//! Source of the words: `pkg/probe/{exec,http,tcp}`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use client::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Target, grpc};
use crate::cri::Cri;
use crate::http_client::{PlainOrTls, tls_unverified};

/// How much of an answer is read: upstream's limit.
const ANSWER_BYTES_MAX: usize = 10 * 1024;
/// What stands in the request.
const USER_AGENT: &str = "kube-probe/1.36";

/// What a probe got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Success,
    /// No, and what was seen.
    Failure(String),
}

/// Asks once, within the limit.
pub async fn ask(cri: &Cri, probe: &Probe, target: &Target, limit: Duration) -> Answer {
    if let Some(exec) = &probe.exec {
        return exec_probe(cri, &target.run, exec.command.as_deref().unwrap_or_default(), limit).await;
    }
    if let Some(get) = &probe.http_get {
        return within(limit, http(get, target), "context deadline exceeded").await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let address = address(socket.host.as_deref(), &socket.port, target);
        return match address {
            Ok(address) => within(limit, tcp(address), "i/o timeout").await,
            Err(text) => Answer::Failure(text),
        };
    }
    if let Some(grpc) = &probe.grpc {
        return match address(None, &IntOrString::Int(grpc.port), target) {
            Ok(address) => grpc::check(address, grpc.service.as_deref().unwrap_or_default(), limit).await,
            Err(text) => Answer::Failure(text),
        };
    }
    Answer::Failure("missing probe handler".into())
}

async fn within(limit: Duration, work: impl Future<Output = Answer>, timeout_words: &str) -> Answer {
    match tokio::time::timeout(limit, work).await {
        Ok(answer) => answer,
        Err(_) => Answer::Failure(timeout_words.into()),
    }
}

async fn exec_probe(cri: &Cri, run: &str, command: &[String], limit: Duration) -> Answer {
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(1).max(1);
    match cri.exec_sync(run, command, seconds).await {
        Ok(answer) if answer.exit_code == 0 => Answer::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            output.truncate(ANSWER_BYTES_MAX);
            Answer::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) => Answer::Failure(error.to_string()),
    }
}

async fn tcp(address: SocketAddr) -> Answer {
    match TcpStream::connect(address).await {
        Ok(_) => Answer::Success,
        Err(error) => Answer::Failure(format!("dial tcp {address}: connect: {}", words(&error))),
    }
}

async fn http(get: &HTTPGetAction, target: &Target) -> Answer {
    let address = match address(get.host.as_deref(), &get.port, target) {
        Ok(address) => address,
        Err(text) => return Answer::Failure(text),
    };
    let tls = get.scheme.as_deref() == Some("HTTPS");
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let url = format!("{}://{address}{path}", if tls { "https" } else { "http" });
    let headers = get.http_headers.iter().flatten();
    let headers: Vec<(String, String)> = headers
        .map(|header| (header.name.clone(), header.value.clone()))
        .collect();
    match request(address, tls, &path, &headers).await {
        Ok(code) if (200..400).contains(&code) => Answer::Success,
        Ok(code) => Answer::Failure(format!("HTTP probe failed with statuscode: {code}")),
        Err(text) => Answer::Failure(format!("Get \"{url}\": {text}")),
    }
}

async fn request(address: SocketAddr, tls: bool, path: &str, headers: &[(String, String)]) -> Result<u16, String> {
    let dial = |error: std::io::Error| format!("dial tcp {address}: connect: {}", words(&error));
    let stream = TcpStream::connect(address).await.map_err(dial)?;
    let stream = if tls {
        PlainOrTls::Tls(Box::new(
            tls_unverified(stream, address.ip())
                .await
                .map_err(|error| error.to_string())?,
        ))
    } else {
        PlainOrTls::Plain(stream)
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = http::Request::get(path);
    let has = |name: &str| headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    if !has("host") {
        request = request.header(http::header::HOST, address.to_string());
    }
    if !has("user-agent") {
        request = request.header(http::header::USER_AGENT, USER_AGENT);
    }
    if !has("accept") {
        request = request.header(http::header::ACCEPT, "*/*");
    }
    request = request.header(http::header::CONNECTION, "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    // The connection lives as long as the question.
    let ask = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = response.status().as_u16();
        let mut body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        // What a container says besides its code is of no interest; more than the limit is cut.
        while let Some(Ok(_)) = body.frame().await {}
        Ok(code)
    };
    tokio::pin!(connection);
    tokio::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        ended = &mut connection => match ended {
            Ok(()) => ask.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

fn address(host: Option<&str>, port: &IntOrString, target: &Target) -> Result<SocketAddr, String> {
    let port = port_number(port, &target.container)?;
    let ip: IpAddr = match host.filter(|host| !host.is_empty()) {
        Some(host) => host
            .parse()
            .map_err(|_| format!("the probe's host {host:?} is no IP address"))?,
        None => target.address.ok_or("the pod has no address yet")?,
    };
    Ok(SocketAddr::new(ip, port))
}

/// A port by its number or its name among the container's ports.
pub fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let wrong = |port: &dyn std::fmt::Display| format!("invalid port number: {port}");
    match port {
        IntOrString::Int(number) => u16::try_from(*number)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| wrong(number)),
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name));
            let number = named.map(|port| port.container_port).or_else(|| name.parse().ok());
            number
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| *n > 0)
                .ok_or_else(|| wrong(name))
        }
    }
}

/// An error as Go words it: what people search for.
fn words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        std::io::ErrorKind::TimedOut => "connection timed out".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn answer(respond: &'static str, probe: serde_json::Value) -> Answer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0_u8; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(respond.as_bytes()).await;
            }
        });
        let probe: Probe = serde_json::from_value(probe).unwrap();
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]});
        let target = Target {
            address: Some("127.0.0.1".parse().unwrap()),
            run: "r".into(),
            container: serde_json::from_value(container).unwrap(),
        };
        let cri = Cri::connect(std::path::Path::new("/none")).unwrap();
        let answer = ask(&cri, &probe, &target, Duration::from_secs(5)).await;
        server.abort();
        answer
    }

    #[tokio::test]
    async fn containers_answer() {
        let get = || json!({"httpGet": {"port": "web", "path": "/healthz"}});
        let failed = |text: &str| Answer::Failure(text.into());
        for (respond, probe, expect) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", get(), Answer::Success),
            (
                "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
                get(),
                Answer::Success,
            ),
            (
                "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
                get(),
                failed("HTTP probe failed with statuscode: 503"),
            ),
            ("", json!({"tcpSocket": {"port": "web"}}), Answer::Success),
            (
                "",
                json!({"tcpSocket": {"port": "none"}}),
                failed("invalid port number: none"),
            ),
            ("", json!({}), failed("missing probe handler")),
        ] {
            assert_eq!(answer(respond, probe.clone()).await, expect, "{probe} {respond}");
        }
        match answer("", json!({"httpGet": {"port": 1}})).await {
            Answer::Failure(text) => {
                assert_eq!(
                    text,
                    "Get \"http://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused"
                );
            }
            Answer::Success => panic!("nobody listens there"),
        }
    }
}
