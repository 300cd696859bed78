//! What admission webhooks said, and how long they took, under upstream's names.
//!
//! Source: `k8s.io/apiserver/pkg/admission/metrics/metrics.go`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::names::{Names, Tally, name};
use crate::pipeline::Operation;

/// Upstream's buckets of webhooks, in seconds.
const SECONDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Larger codes count as this one: a webhook does not make series without end.
const CODE_MAX: u16 = 600;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DurationLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    code: u16,
    rejected: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RejectionLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OpenLabels {
    name: String,
    r#type: &'static str,
}

/// The metrics of admission webhooks.
pub struct WebhookMetrics {
    seconds: Family<DurationLabels, Histogram, fn() -> Histogram>,
    requests: Family<RequestLabels, Counter>,
    rejections: Family<RejectionLabels, Tally>,
    open: Family<OpenLabels, Tally>,
}

impl Default for WebhookMetrics {
    fn default() -> WebhookMetrics {
        WebhookMetrics {
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            requests: Family::default(),
            rejections: Family::default(),
            open: Family::default(),
        }
    }
}

/// One call of a webhook, for metrics.
#[derive(Clone, Copy)]
pub struct Called<'a> {
    /// The webhook.
    pub name: &'a str,
    /// `admit` or `validating`.
    pub step: &'static str,
    /// Of the request.
    pub operation: Operation,
}

impl WebhookMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "How long an admission webhook took, in seconds";
        let seconds = "apiserver_admission_webhook_admission_duration_seconds";
        name(r, seconds, help, &self.seconds);
        let help = "Calls of admission webhooks, by the code that they ended with";
        name(r, "apiserver_admission_webhook_request", help, &self.requests);
        let help = "Requests that an admission webhook refused, or that were refused for want of its answer";
        let rejections = "apiserver_admission_webhook_rejection_count";
        name(r, rejections, help, &self.rejections);
        let help = "Calls of admission webhooks that failed and were ignored";
        name(r, "apiserver_admission_webhook_fail_open_count", help, &self.open);
    }

    /// A call ended with this code (0: the server's own failure).
    pub fn called(&self, call: Called<'_>, rejected: bool, code: u16, took: Duration) {
        let rejected = if rejected { "true" } else { "false" };
        let labels = DurationLabels {
            name: call.name.to_owned(),
            r#type: call.step,
            operation: call.operation.as_str(),
            rejected,
        };
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        let labels = RequestLabels {
            name: labels.name,
            r#type: call.step,
            operation: labels.operation,
            code: code.min(CODE_MAX),
            rejected,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// The request was refused; `error` is `calling_webhook_error`, `apiserver_internal_error` or `no_error`.
    pub fn rejected(&self, call: Called<'_>, error: &'static str, code: u16) {
        let labels = RejectionLabels {
            name: call.name.to_owned(),
            r#type: call.step,
            operation: call.operation.as_str(),
            error_type: error,
            rejection_code: code.min(CODE_MAX),
        };
        self.rejections.get_or_create(&labels).inc();
    }

    /// The call failed, and that was ignored.
    pub fn failed_open(&self, call: Called<'_>) {
        let labels = OpenLabels {
            name: call.name.to_owned(),
            r#type: call.step,
        };
        self.open.get_or_create(&labels).inc();
    }
}
