//! Which trace a request is in, for those who are asked on its behalf: the header `traceparent` (W3C Trace Context).
//!
//! Of a request that is told of, it names the span that asks. Of one that is not, the client's own header is handed on, if
//! the client may begin traces or nobody here listens: as upstream's propagators do.
//! Sources: `WrapperFor` of `k8s.io/component-base/tracing`, and `pkg/endpoints/filters/traces.go`.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};
use rpc::otlp;
use tracing_subscriber::registry::{LookupSpan as _, Registry, SpanRef};

/// The header.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What to send with a question of a request whose client may have sent a header.
pub(crate) fn onward(client: Option<&HeaderValue>) -> Option<HeaderValue> {
    current().or_else(|| client.cloned())
}

/// The span that this task is in, if it is told of. Whoever collects spans keeps them beside those of `tracing`.
fn current() -> Option<HeaderValue> {
    tracing::Span::current()
        .with_subscriber(|(id, dispatch)| {
            let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
            span.scope().find_map(|span| header(&span))
        })
        .flatten()
}

fn header(span: &SpanRef<'_, Registry>) -> Option<HeaderValue> {
    let extensions = span.extensions();
    let span = extensions.get::<otlp::Span>()?;
    let mut text = "00-".to_owned();
    hex(&span.trace_id, &mut text);
    text.push('-');
    hex(&span.span_id, &mut text);
    // Only sampled spans are kept.
    text.push_str("-01");
    HeaderValue::try_from(text).ok()
}

fn hex(bytes: &[u8], to: &mut String) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(to, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;

    use super::*;

    #[test]
    fn the_span_that_asks_is_named() {
        let clients = HeaderValue::from_static("00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00");
        assert_eq!(onward(None), None);
        assert_eq!(onward(Some(&clients)), Some(clients.clone()));
        let registry = tracing_subscriber::registry();
        with_default(registry, || {
            let request = tracing::trace_span!(target: "otel", "request");
            request.with_subscriber(|(id, dispatch)| {
                let registry = dispatch.downcast_ref::<Registry>().unwrap();
                let told = otlp::Span {
                    trace_id: vec![0xab; 16],
                    span_id: vec![0x01; 8],
                    ..otlp::Span::default()
                };
                registry.span(id).unwrap().extensions_mut().insert(told);
            });
            let expect = "00-abababababababababababababababab-0101010101010101-01";
            // A span that is not told of is within one that is.
            let inner = request.in_scope(|| tracing::info_span!("inner"));
            inner.in_scope(|| assert_eq!(onward(Some(&clients)).unwrap(), expect));
            tracing::info_span!("alone").in_scope(|| assert_eq!(onward(Some(&clients)), Some(clients.clone())));
        });
    }
}
