//! What match conditions of policies and webhooks did, under upstream's names.
//!
//! Source: `k8s.io/apiserver/pkg/admission/metrics/metrics.go`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::names::{Names, name};
use crate::pipeline::Operation;

/// Upstream's buckets of match conditions, in seconds.
const SECONDS: [f64; 7] = [0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    name: String,
    kind: &'static str,
    r#type: &'static str,
    operation: &'static str,
}

/// The metrics of match conditions.
pub struct ConditionMetrics {
    errors: Family<Labels, Counter>,
    exclusions: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Default for ConditionMetrics {
    fn default() -> ConditionMetrics {
        ConditionMetrics {
            errors: Family::default(),
            exclusions: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
        }
    }
}

impl ConditionMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "Match conditions of policies and webhooks that could not be evaluated";
        let errors = "apiserver_admission_match_condition_evaluation_errors";
        name(r, errors, help, &self.errors);
        let help = "Webhooks that were not called because of their match conditions";
        let exclusions = "apiserver_admission_match_condition_exclusions";
        name(r, exclusions, help, &self.exclusions);
        let help = "How long match conditions took that kept a policy or a webhook from a request, in seconds";
        let seconds = "apiserver_admission_match_condition_evaluation_seconds";
        name(r, seconds, help, &self.seconds);
    }

    /// Match conditions kept what they belong to from a request; `errors` of them could not be evaluated.
    pub fn kept_away(
        &self,
        name: &str,
        kind: &'static str,
        step: &'static str,
        operation: Operation,
        errors: u64,
        took: Duration,
    ) {
        let labels = of(name, kind, step, operation);
        if errors > 0 {
            self.errors.get_or_create(&labels).inc_by(errors);
        }
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A webhook was not called, because a condition was false or because failures are ignored.
    pub fn excluded(&self, webhook: &str, step: &'static str, operation: Operation) {
        let labels = of(webhook, "webhook", step, operation);
        self.exclusions.get_or_create(&labels).inc();
    }
}

fn of(name: &str, kind: &'static str, step: &'static str, operation: Operation) -> Labels {
    Labels {
        name: name.to_owned(),
        kind,
        r#type: step,
        operation: operation.as_str(),
    }
}
