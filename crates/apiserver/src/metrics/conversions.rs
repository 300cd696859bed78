//! Webhooks that convert custom resources, under upstream's names.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/conversion/metrics.go`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::names::{Names, name};

/// Of calls, in seconds.
const CALL_SECONDS: [f64; 15] = [
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    result: &'static str,
    failure_type: &'static str,
}

/// What was converted.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Converted {
    /// The name of the definition.
    pub crd_name: String,
    /// From this version.
    pub from_version: String,
    /// To this version.
    pub to_version: String,
    /// Whether it went well.
    pub succeeded: &'static str,
}

/// The metrics of conversion webhooks.
pub struct ConversionMetrics {
    requests: Family<CallLabels, Counter>,
    call_seconds: Family<CallLabels, Histogram, fn() -> Histogram>,
    seconds: Family<Converted, Histogram, fn() -> Histogram>,
}

impl Default for ConversionMetrics {
    fn default() -> ConversionMetrics {
        ConversionMetrics {
            requests: Family::default(),
            call_seconds: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15))),
        }
    }
}

impl ConversionMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "Calls of conversion webhooks, and what was wrong with those that failed";
        name(r, "apiserver_conversion_webhook_request", help, &self.requests);
        let help = "How long calls of conversion webhooks took, in seconds";
        name(
            r,
            "apiserver_conversion_webhook_duration_seconds",
            help,
            &self.call_seconds,
        );
        let help = "How long conversions of custom resources by webhooks took, in seconds";
        name(
            r,
            "apiserver_crd_conversion_webhook_duration_seconds",
            help,
            &self.seconds,
        );
    }

    /// A webhook was called; `failure` is what was wrong, in upstream's words.
    pub fn called(&self, failure: Option<&'static str>, took: Duration) {
        let labels = CallLabels {
            result: if failure.is_none() { "success" } else { "failure" },
            failure_type: failure.unwrap_or(""),
        };
        self.requests.get_or_create(&labels).inc();
        self.call_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Objects were converted together, or could not be.
    pub fn converted(&self, what: &Converted, took: Duration) {
        self.seconds.get_or_create(what).observe(took.as_secs_f64());
    }
}
