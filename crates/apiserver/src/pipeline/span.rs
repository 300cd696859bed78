//! The span of a request, for a collector of OpenTelemetry: what it is called and what it says, as upstream's
//! `WithTracing` has it. Source: `k8s.io/apiserver/pkg/endpoints/filters/traces.go`.
//!
//! Spans of the target `otel` are told when somebody listens (`--tracing-config-file`); nobody does by default.

use std::fmt;

use http::{HeaderMap, HeaderValue, Method, Uri};
use tokio::time::Instant;
use tracing::Span;

use crate::request::{Attributes, SYSTEM_MASTERS, UserInfo};
use crate::trace::TRACEPARENT;

/// Who may make the server go on with a trace of theirs; traces of others are only named.
const TRUSTED: [&str; 2] = [SYSTEM_MASTERS, "system:monitoring"];

/// The span of a request that came in at `began`, by whoever sent it (not: as whom they act).
pub(super) fn of_request(
    began: Instant,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    user: &UserInfo,
    attributes: &Attributes,
    audit_id: &str,
) -> Span {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let traceparent = |trusted: bool| text("traceparent").filter(|_| is_trusted(user) == trusted);
    let agent = || text("user-agent");
    tracing::trace_span!(
        target: "otel",
        "KubernetesAPI",
        otel.name = %Name(method, attributes),
        otel.kind = "server",
        otel.elapsed_nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(0),
        traceparent = traceparent(true),
        otel.link = traceparent(false),
        http.request.method = method.as_str(),
        http.target = uri.path_and_query().map(|path| path.as_str()),
        user_agent.original = agent(),
        "audit-id" = audit_id,
        http.response.status_code = tracing::field::Empty,
    )
}

/// The client's own trace, when it is handed on: whoever listens here has a trace of its own of those that do not count.
pub(super) fn of_client(span: &Span, headers: &HeaderMap, user: &UserInfo) -> Option<HeaderValue> {
    let header = headers.get(TRACEPARENT)?;
    (span.is_disabled() || is_trusted(user)).then(|| header.clone())
}

fn is_trusted(user: &UserInfo) -> bool {
    user.groups.iter().any(|group| TRUSTED.contains(&&**group))
}

/// The method, and for a resource its path without the names in it (`getSpanNameFromRequestInfo`).
struct Name<'a>(&'a Method, &'a Attributes);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name(method, attributes) = self;
        write!(f, "{method}")?;
        if !attributes.is_resource {
            return Ok(());
        }
        write!(f, " /{}", attributes.prefix)?;
        if !attributes.group.is_empty() {
            write!(f, "/{}", attributes.group)?;
        }
        write!(f, "/{}", attributes.version)?;
        if !attributes.namespace.is_empty() {
            f.write_str("/namespaces/{:namespace}")?;
        }
        write!(f, "/{}", attributes.resource)?;
        if !attributes.name.is_empty() {
            f.write_str("/{:name}")?;
        }
        if !attributes.subresource.is_empty() {
            write!(f, "/{}", attributes.subresource)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Query, parse};

    #[test]
    fn spans_are_named_by_what_is_asked() {
        for (method, path, expect) in [
            (Method::GET, "/healthz", "GET"),
            (Method::GET, "/api/v1/nodes", "GET /api/v1/nodes"),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                "PATCH /apis/apps/v1/namespaces/{:namespace}/deployments/{:name}/scale",
            ),
        ] {
            let attributes = parse(&method, path, &Query::default()).unwrap();
            assert_eq!(Name(&method, &attributes).to_string(), expect);
        }
    }
}
