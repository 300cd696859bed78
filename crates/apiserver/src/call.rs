//! One request on its way through the stages: what was asked, by whom, and what the answer has to look like.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;
use tokio::time::Instant;

use api::{GroupResource, GroupVersionResource, Reason, Status};

use crate::audit::Trail;
use crate::connect::upgrade::Offer;
use crate::metrics::LongRunning;
use crate::registry::Registry;
use crate::request::{Attributes, Query, UserInfo};
use crate::respond::negotiate::Output;
use crate::server::Server;

/// The body of a request while it is not read.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// The rest of a request's body did not come.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(pub String);

/// The largest body of a write (upstream: `MaxRequestBodyBytes`): what an etcd of default settings takes twice over.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The longest warnings together, and the longest alone (RFC 2616 says nothing; upstream: 4096 and 256 over 10 KiB).
const WARNING_TOTAL_BYTES_MAX: usize = 4096;
const WARNING_BYTES_TRUNCATED: usize = 256;

/// One request.
pub struct Call {
    /// The server.
    pub server: Arc<Server>,
    /// What is served, for this request to its end.
    pub registry: Arc<Registry>,
    /// The method.
    pub method: Method,
    /// The path and query as they were sent.
    pub uri: http::Uri,
    /// The headers, without credentials and impersonation.
    pub headers: HeaderMap,
    /// The decoded query.
    pub query: Query,
    /// What is asked.
    pub attributes: Attributes,
    /// Who asks.
    pub user: Arc<UserInfo>,
    /// How to answer.
    pub output: Output,
    /// Set when no acceptable answer exists; said after authorization, as upstream does.
    pub not_acceptable: Option<Status>,
    /// Texts for the `Warning` header.
    pub warnings: Mutex<Vec<String>>,
    /// Where the connection comes from; `None`: from a component in this process.
    pub remote: Option<std::net::IpAddr>,
    /// The client's connection, when it can become something else.
    pub upgrade: Option<Offer>,
    /// What the audit log is told of the request.
    pub audit: Option<Arc<Trail>>,
    /// The client's trace, for those who are asked on its behalf.
    pub trace: Option<HeaderValue>,
    /// When the request has to be answered; watches and streams have no such time.
    pub deadline: Option<Instant>,
    /// Counts a watch or a stream as open; whatever goes on behind an upgraded connection holds the call.
    pub _open: Option<LongRunning>,
}

impl Call {
    /// Waits until readers see a version of a resource.
    ///
    /// # Errors
    /// 504 when that takes too long.
    pub async fn wait_for(&self, resource: &GroupResource, version: u64) -> Result<(), Status> {
        let began = Instant::now();
        let outcome = self.server.storage.wait_for(version).await;
        if version > 0 {
            self.server.metrics.reads.waited(resource, began.elapsed());
        }
        outcome
    }

    /// Adds a text for the `Warning` header, once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !text.is_empty() && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The resource as the request named it.
    pub fn requested(&self) -> GroupVersionResource {
        let asked = &self.attributes;
        GroupVersionResource::new(&asked.group, &asked.version, &asked.resource)
    }

    /// Now, in whole seconds since 1970.
    pub fn now_seconds(&self) -> i64 {
        self.server.clock.now().as_second()
    }

    /// Now, as `metav1.Time`.
    pub fn now(&self) -> String {
        rfc3339(self.server.clock.now())
    }

    /// The `User-Agent`, or empty.
    pub fn user_agent(&self) -> &str {
        self.header("user-agent")
    }

    /// A header's text, or empty.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// Whether the request names another subresource's or the main resource's path; for messages and metrics.
    pub fn is_long_running(&self) -> bool {
        is_long_running(&self.attributes, &self.query)
    }
}

/// Watches, backups, and connections that are handed through: no deadline, no seat (upstream: `BasicLongRunningRequestCheck`).
pub fn is_long_running(attributes: &Attributes, query: &Query) -> bool {
    if !attributes.is_resource {
        return attributes.path.starts_with("/debug/pprof/") || attributes.path == crate::backup::PATH;
    }
    attributes.verb == "watch"
        || attributes.verb == "proxy"
        || matches!(&*attributes.subresource, "exec" | "attach" | "portforward" | "proxy")
        || (attributes.subresource == "log" && query.flag("follow") == Some(true))
}

/// A time as `metav1.Time` writes it: whole seconds, UTC.
pub fn rfc3339(time: jiff::Timestamp) -> String {
    let whole = jiff::Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string()
}

/// The URI and the headers of a request in memory of their own: as they came they are parts of what was read from the
/// connection, and hold all of it.
pub fn own_head(uri: &http::Uri, headers: &HeaderMap) -> (http::Uri, HeaderMap) {
    let copied = headers.iter().map(|(name, value)| {
        let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        copy.set_sensitive(value.is_sensitive());
        (name.clone(), copy)
    });
    let uri = uri.to_string().parse().unwrap_or_else(|_| uri.clone());
    (uri, copied.collect())
}

/// Reads a body to its end.
pub async fn read_body(body: RequestBody) -> Result<Bytes, Status> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Status::too_large(format_args!("limit is {BODY_BYTES_MAX}")))
        }
        Err(error) => Err(Status::failure(
            Reason::BadRequest,
            format!("the body could not be read: {error}"),
        )),
    }
}

/// The `Warning` headers of some texts: code 299, agent `-`, quoted, within the limits.
pub fn warning_headers(warnings: &[String]) -> Vec<http::HeaderValue> {
    let total: usize = warnings.iter().map(String::len).sum();
    let mut left = WARNING_TOTAL_BYTES_MAX;
    let mut headers = Vec::new();
    for text in warnings {
        let limit = if total > WARNING_TOTAL_BYTES_MAX {
            WARNING_BYTES_TRUNCATED
        } else {
            left
        };
        let mut quoted = String::with_capacity(text.len() + 8);
        for character in text.chars() {
            match character {
                '"' | '\\' => {
                    quoted.push('\\');
                    quoted.push(character);
                }
                character if character.is_control() => quoted.push(' '),
                character => quoted.push(character),
            }
            if quoted.len() >= limit {
                break;
            }
        }
        if quoted.len() > left {
            break;
        }
        left -= quoted.len();
        if let Ok(value) = http::HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.push(value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted_and_limited() {
        let headers = warning_headers(&["unknown field \"spec.x\"".into(), "line\nbreak".into()]);
        assert_eq!(headers[0].as_bytes(), br#"299 - "unknown field \"spec.x\"""#);
        assert_eq!(headers[1].as_bytes(), b"299 - \"line break\"");
        let many: Vec<String> = (0..100).map(|n| format!("{n:0>300}")).collect();
        let headers = warning_headers(&many);
        assert!(headers.len() > 10 && headers.iter().map(|h| h.len()).sum::<usize>() < 2 * WARNING_TOTAL_BYTES_MAX);
    }

    #[test]
    fn a_head_of_its_own_says_the_same() {
        let uri: http::Uri = "/api/v1/pods?watch=true&labelSelector=a%3Db".parse().unwrap();
        let pairs = [("accept", "a"), ("accept", "b"), ("x-own", "ü")];
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| {
                (
                    name.parse().unwrap(),
                    HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                )
            })
            .collect();
        assert_eq!(own_head(&uri, &headers), (uri, headers));
    }

    #[test]
    fn times_have_whole_seconds() {
        let time: jiff::Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(rfc3339(time), "2026-01-02T03:04:05Z");
    }

    #[tokio::test]
    async fn bodies_over_the_limit_are_refused() {
        let full = |size: usize| {
            http_body_util::Full::new(Bytes::from(vec![b'x'; size]))
                .map_err(|never| match never {})
                .boxed_unsync()
        };
        assert_eq!(read_body(full(BODY_BYTES_MAX)).await.unwrap().len(), BODY_BYTES_MAX);
        let status = read_body(full(BODY_BYTES_MAX + 1)).await.unwrap_err();
        assert_eq!(
            (status.code, &*status.message),
            (413, "Request entity is too large: limit is 3145728")
        );
    }
}
