//! One question to a container: run a command, open a connection, send a request, or call a health service.
//!
//! Source of the words: `pkg/probe/{exec,http,tcp}`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use client::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::{Target, grpc, http};
use crate::cri::Cri;

/// How much of an answer is read: upstream's limit.
pub(super) const ANSWER_BYTES_MAX: usize = 10 * 1024;

/// What a probe got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Success,
    /// Yes, but people should know of something.
    Warning(String),
    /// No, and what was seen.
    Failure(String),
    /// The question could not be asked: no verdict.
    Unknown(String),
}

/// Asks once, within the limit.
pub async fn ask(cri: &Cri, probe: &Probe, target: &Target, limit: Duration) -> Answer {
    if let Some(exec) = &probe.exec {
        return exec_probe(cri, &target.run, exec.command.as_deref().unwrap_or_default(), limit).await;
    }
    if let Some(get) = &probe.http_get {
        // The words of Go's client when its time is over, which does not tell how far it came.
        let late = || {
            let url = address(get.host.as_deref(), &get.port, target).map(|address| url(get, address));
            let url = url.unwrap_or_default();
            format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        };
        return within(limit, http::probe(get, target), late).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let address = address(socket.host.as_deref(), &socket.port, target);
        return match address {
            Ok(address) => within(limit, tcp(address), || format!("dial tcp {address}: i/o timeout")).await,
            Err(text) => Answer::Unknown(text),
        };
    }
    if let Some(grpc) = &probe.grpc {
        return match address(None, &IntOrString::Int(grpc.port), target) {
            Ok(address) => grpc::check(address, grpc.service.as_deref().unwrap_or_default(), limit).await,
            Err(text) => Answer::Unknown(text),
        };
    }
    Answer::Unknown(format!("missing probe handler for {}", target.container.name))
}

async fn within(limit: Duration, work: impl Future<Output = Answer>, late: impl Fn() -> String) -> Answer {
    match tokio::time::timeout(limit, work).await {
        Ok(answer) => answer,
        Err(_) => Answer::Failure(late()),
    }
}

fn url(get: &HTTPGetAction, address: SocketAddr) -> String {
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let path = get.path.as_deref().unwrap_or("/");
    format!("{scheme}://{address}/{}", path.trim_start_matches('/'))
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
        Err(error) if error.timed_out => {
            let command = api::field::quote(&command.join(" "));
            Answer::Failure(format!("command timed out: {command} timed out after {seconds}s"))
        }
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

async fn tcp(address: SocketAddr) -> Answer {
    match TcpStream::connect(address).await {
        Ok(_) => Answer::Success,
        Err(error) => Answer::Failure(format!("dial tcp {address}: connect: {}", words(&error))),
    }
}

/// Where a probe goes: the pod, unless it names another address.
pub(super) fn address(host: Option<&str>, port: &IntOrString, target: &Target) -> Result<SocketAddr, String> {
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
            let number = match named {
                Some(port) => port.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", api::field::quote(name)))?,
            };
            u16::try_from(number)
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| wrong(&number))
        }
    }
}

/// An error as Go words it: what people search for.
pub(super) fn words(error: &std::io::Error) -> String {
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
        match answer {
            Answer::Failure(text) => Answer::Failure(text.replace(&format!("http://127.0.0.1:{port}"), "URL")),
            other => other,
        }
    }

    #[tokio::test]
    async fn containers_answer() {
        let get = || json!({"httpGet": {"port": "web", "path": "/healthz"}});
        let failed = |text: &str| Answer::Failure(text.into());
        for (respond, probe, expect) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", get(), Answer::Success),
            (
                "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/x\r\ncontent-length: 4\r\n\r\nover",
                get(),
                Answer::Warning("Probe terminated redirects, Response body: over".into()),
            ),
            (
                "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
                get(),
                failed("Get \"URL/x\": stopped after 10 redirects"),
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
                Answer::Unknown("strconv.Atoi: parsing \"none\": invalid syntax".into()),
            ),
            ("", json!({}), Answer::Unknown("missing probe handler for c".into())),
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
            other => panic!("nobody listens there: {other:?}"),
        }
    }
}
