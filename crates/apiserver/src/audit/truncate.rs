//! Events that are too long lose their objects, or are lost.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/audit/truncate/truncate.go`.

use std::borrow::Cow;

use api::Value;

/// An event that was shortened says so.
pub(super) const TRUNCATED: &str = "audit.k8s.io/truncated";

/// What is too long: upstream's `--audit-log-truncate-*` and `--audit-webhook-truncate-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// Bytes of an event; a longer one goes without its objects, or not at all.
    pub event_bytes_max: usize,
    /// Bytes of events that go together.
    pub batch_bytes_max: usize,
}

// === impl Truncate ===

impl Truncate {
    /// The event as it may go, and its bytes; `None`: it is too long even without its objects.
    pub(super) fn shortened<'a>(&self, event: &'a Value) -> Option<(Cow<'a, Value>, usize)> {
        let size = event.to_string().len();
        if size <= self.event_bytes_max {
            return Some((Cow::Borrowed(event), size));
        }
        let mut event = event.clone();
        if let Some(fields) = event.as_object_mut() {
            fields.remove("requestObject");
            fields.remove("responseObject");
        }
        event["annotations"][TRUNCATED] = "true".into();
        let size = event.to_string().len();
        if size > self.event_bytes_max {
            tracing::warn!(size, "event is too large even after truncating: it is lost");
            return None;
        }
        Some((Cow::Owned(event), size))
    }
}
