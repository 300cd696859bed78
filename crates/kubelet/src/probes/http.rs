//! The HTTP question: a GET whose code decides, following redirects as long as they stay with the container.
//!
//! Source: `pkg/probe/http/http.go` and `request.go`; the words of errors are those of Go's `net/http`.

use std::net::SocketAddr;

use client::k8s_openapi::api::core::v1::HTTPGetAction;
use http::Uri;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::ask::{ANSWER_BYTES_MAX, address, words};
use super::{Answer, Target};
use crate::http_client::{PlainOrTls, tls_unverified};

/// What stands in the request of a probe, and in that of a hook.
const PROBE_AGENT: &str = "kube-probe/1.36";
const LIFECYCLE_AGENT: &str = "kube-lifecycle/1.36";
/// How many redirects are followed, as Go's client does.
const REDIRECTS_MAX: usize = 10;

/// What a server said.
#[derive(Debug)]
struct Reply {
    code: u16,
    location: Option<String>,
    body: String,
}

/// Asks, and judges the code.
pub async fn probe(get: &HTTPGetAction, target: &Target) -> Answer {
    let (reply, url) = match follow(get, target, PROBE_AGENT).await {
        Ok(outcome) => outcome,
        Err(answer) => return answer,
    };
    match reply {
        Ok(reply) if (200..300).contains(&reply.code) => Answer::Success,
        Ok(reply) if (300..400).contains(&reply.code) => {
            Answer::Warning(format!("Probe terminated redirects, Response body: {}", reply.body))
        }
        Ok(reply) => Answer::Failure(format!("HTTP probe failed with statuscode: {}", reply.code)),
        Err(text) => Answer::Failure(format!("Get \"{url}\": {text}")),
    }
}

/// Sends a hook's request: whatever is answered is fine.
///
/// # Errors
/// That nothing was answered.
pub async fn hook(get: &HTTPGetAction, target: &Target) -> Result<(), String> {
    match follow(get, target, LIFECYCLE_AGENT).await {
        Ok((reply, url)) => reply.map(drop).map_err(|text| format!("Get \"{url}\": {text}")),
        Err(Answer::Failure(text) | Answer::Unknown(text)) => Err(text),
        Err(_) => Ok(()),
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    tls: bool,
    address: SocketAddr,
    path: String,
}

impl Place {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.path)
    }

    /// Where a redirect leads; `None` when that is another host.
    fn redirected(&self, location: &str) -> Option<Place> {
        let mut next = self.clone();
        if let Some(rest) = location.strip_prefix("//") {
            return next.elsewhere(&format!("{}://{rest}", if self.tls { "https" } else { "http" }));
        }
        if location.contains("://") {
            return next.elsewhere(location);
        }
        let without_fragment = location.split('#').next().unwrap_or_default();
        next.path = match without_fragment {
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => {
                let own = self.path.split('?').next().unwrap_or("/");
                let directory = own.rfind('/').map_or("/", |at| &own[..=at]);
                format!("{directory}{relative}")
            }
        };
        Some(next)
    }

    fn elsewhere(&mut self, location: &str) -> Option<Place> {
        let uri: Uri = location.parse().ok()?;
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        if host.parse() != Ok(self.address.ip()) {
            return None;
        }
        self.tls = uri.scheme_str() == Some("https");
        self.address
            .set_port(uri.port_u16().unwrap_or(if self.tls { 443 } else { 80 }));
        self.path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(self.clone())
    }
}

/// Asks until the answer is no redirect to the same host. Answers with the last answer, or why there is none, and with
/// the URL that was asked last.
async fn follow(get: &HTTPGetAction, target: &Target, agent: &str) -> Result<(Result<Reply, String>, String), Answer> {
    let address = address(get.host.as_deref(), &get.port, target).map_err(Answer::Unknown)?;
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let mut place = Place {
        tls: get.scheme.as_deref() == Some("HTTPS"),
        address,
        path: if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        },
    };
    let mut headers: Vec<(&str, &str)> = get
        .http_headers
        .iter()
        .flatten()
        .map(|header| (header.name.as_str(), header.value.as_str()))
        .collect();
    for (name, value) in [("user-agent", agent), ("accept", "*/*")] {
        if !headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
            headers.push((name, value));
        }
    }
    for _ in 0..=REDIRECTS_MAX {
        let reply = request(&place, &headers).await;
        let leads = |reply: &Reply| matches!(reply.code, 301 | 302 | 303 | 307 | 308);
        let location = reply.as_ref().ok().filter(|reply| leads(reply));
        let next = location
            .and_then(|reply| reply.location.as_deref())
            .and_then(|location| place.redirected(location));
        match next {
            Some(next) => place = next,
            None => return Ok((reply, place.url())),
        }
    }
    Ok((Err(format!("stopped after {REDIRECTS_MAX} redirects")), place.url()))
}

async fn request(place: &Place, headers: &[(&str, &str)]) -> Result<Reply, String> {
    let address = place.address;
    let dial = |error: std::io::Error| format!("dial tcp {address}: connect: {}", words(&error));
    let stream = TcpStream::connect(address).await.map_err(dial)?;
    let stream = if place.tls {
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
    let mut request = http::Request::get(&place.path).header(http::header::CONNECTION, "close");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header(http::header::HOST, address.to_string());
    }
    for (name, value) in headers {
        // Go's client leaves out an `Accept` that is there and empty.
        if !(name.eq_ignore_ascii_case("accept") && value.is_empty()) {
            request = request.header(*name, *value);
        }
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    // The connection lives as long as the question.
    let ask = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = response.status().as_u16();
        let location = response.headers().get(http::header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let mut read = Vec::new();
        // More than the limit is cut, and what breaks off after its head is an answer all the same.
        while let Some(Ok(frame)) = body.frame().await {
            read.extend(frame.into_data().unwrap_or_default());
        }
        Ok(Reply {
            code,
            location,
            body: String::from_utf8_lossy(&read).into_owned(),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_with_their_host() {
        let place = Place {
            tls: false,
            address: "10.0.0.1:8080".parse().unwrap(),
            path: "/a/b?c".into(),
        };
        for (location, expect) in [
            ("/x", Some("http://10.0.0.1:8080/x")),
            ("x?y#z", Some("http://10.0.0.1:8080/a/x?y")),
            ("http://10.0.0.1/x", Some("http://10.0.0.1:80/x")),
            ("https://10.0.0.1:1/x?y", Some("https://10.0.0.1:1/x?y")),
            ("//10.0.0.1:8080/x", Some("http://10.0.0.1:8080/x")),
            ("http://10.0.0.2:8080/x", None),
            ("http://example.com/", None),
        ] {
            let next = place.redirected(location).map(|place| place.url());
            assert_eq!(next.as_deref(), expect, "{location}");
        }
    }
}
