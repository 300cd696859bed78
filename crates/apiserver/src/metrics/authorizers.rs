//! Which authorizer decided, and what webhooks among them did, under upstream's names.
//!
//! Sources: `k8s.io/apiserver/pkg/authorization/metrics`, `.../authorization/cel/metrics.go`,
//! `k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics`, and `plugin/pkg/auth/authorizer/node/metrics.go`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::DEFAULT_SECONDS;
use super::names::{Names, name};

/// Upstream's buckets of match conditions, in seconds.
const CONDITION_SECONDS: [f64; 7] = [0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DecisionLabels {
    r#type: &'static str,
    name: String,
    decision: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NameLabels {
    r#type: &'static str,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    name: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// The metrics of authorizers.
pub struct AuthorizerMetrics {
    decisions: Family<DecisionLabels, Counter>,
    condition_errors: Family<NameLabels, Counter>,
    condition_exclusions: Family<NameLabels, Counter>,
    condition_seconds: Family<NameLabels, Histogram, fn() -> Histogram>,
    calls: Family<ResultLabels, Counter>,
    call_seconds: Family<ResultLabels, Histogram, fn() -> Histogram>,
    open: Family<ResultLabels, Counter>,
    graph: Family<OperationLabels, Histogram, fn() -> Histogram>,
}

impl Default for AuthorizerMetrics {
    fn default() -> AuthorizerMetrics {
        AuthorizerMetrics {
            decisions: Family::default(),
            condition_errors: Family::default(),
            condition_exclusions: Family::default(),
            condition_seconds: Family::new_with_constructor(|| Histogram::new(CONDITION_SECONDS)),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(|| Histogram::new(DEFAULT_SECONDS)),
            open: Family::default(),
            graph: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0001, 2.0, 12))),
        }
    }
}

/// What one authorizer decided, found once; what it leaves to others is not counted.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    allowed: Counter,
    denied: Counter,
}

impl Decisions {
    /// It allowed a request, or denied it.
    pub fn count(&self, allowed: bool) {
        let counter = if allowed { &self.allowed } else { &self.denied };
        counter.inc();
    }
}

fn webhook(name: &str) -> NameLabels {
    NameLabels {
        r#type: "Webhook",
        name: name.to_owned(),
    }
}

impl AuthorizerMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let metric = |rest: &str| format!("apiserver_authorization_{rest}");
        let help = "Requests that an authorizer allowed or denied, so that no other was asked";
        name(r, &metric("decisions"), help, &self.decisions);
        let help = "Match conditions of authorization webhooks that could not be evaluated";
        name(
            r,
            &metric("match_condition_evaluation_errors"),
            help,
            &self.condition_errors,
        );
        let help = "Requests that match conditions kept from an authorization webhook";
        name(
            r,
            &metric("match_condition_exclusions"),
            help,
            &self.condition_exclusions,
        );
        let help = "How long match conditions of authorization webhooks took, in seconds";
        name(
            r,
            &metric("match_condition_evaluation_seconds"),
            help,
            &self.condition_seconds,
        );
        let help = "Calls of authorization webhooks, by how they ended";
        name(r, &metric("webhook_evaluations"), help, &self.calls);
        let help = "How long calls of authorization webhooks took, in seconds";
        name(r, &metric("webhook_duration_seconds"), help, &self.call_seconds);
        let help = "Calls that failed and left the decision to others";
        name(r, &metric("webhook_evaluations_fail_open"), help, &self.open);
        let help = "How long it took to bring the Node authorizer's graph up to date, in seconds";
        name(r, "node_authorizer_graph_actions_duration_seconds", help, &self.graph);
    }

    /// What an authorizer of a type counts its decisions with.
    pub fn decisions(&self, kind: &'static str, name: &str) -> Decisions {
        let counter = |decision| {
            let labels = DecisionLabels {
                r#type: kind,
                name: name.to_owned(),
                decision,
            };
            self.decisions.get_or_create(&labels).clone()
        };
        Decisions {
            allowed: counter("allowed"),
            denied: counter("denied"),
        }
    }

    /// The conditions of a webhook were evaluated: `Ok(false)` keeps the request from it.
    pub fn conditions(&self, name: &str, verdict: &Result<bool, String>, took: Duration) {
        let labels = webhook(name);
        self.condition_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        match verdict {
            Ok(true) => {}
            Ok(false) => drop(self.condition_exclusions.get_or_create(&labels).inc()),
            Err(_) => drop(self.condition_errors.get_or_create(&labels).inc()),
        }
    }

    /// A webhook was asked; `result` is `success`, `timeout` or `error`.
    pub fn called(&self, name: &str, result: &'static str, took: Duration) {
        let labels = result_of(name, result);
        self.calls.get_or_create(&labels).inc();
        self.call_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// It failed so, and others decide.
    pub fn failed_open(&self, name: &str, result: &'static str) {
        self.open.get_or_create(&result_of(name, result)).inc();
    }

    /// The Node authorizer heard of a change.
    pub fn graph_changed(&self, operation: &'static str, took: Duration) {
        let labels = OperationLabels { operation };
        self.graph.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

fn result_of(name: &str, result: &'static str) -> ResultLabels {
    ResultLabels {
        name: name.to_owned(),
        result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_and_calls_are_counted_under_upstreams_words() {
        let metrics = AuthorizerMetrics::default();
        let took = Duration::from_millis(3);
        metrics.decisions("RBAC", "rbac").count(true);
        metrics.conditions("hook", &Ok(false), took);
        metrics.conditions("hook", &Err("?".into()), took);
        metrics.called("hook", "timeout", took);
        metrics.failed_open("hook", "timeout");
        metrics.graph_changed("AddPod", Duration::from_micros(150));
        let mut names = Names::default();
        metrics.register(&mut names);
        let text = names.text();
        let prefix = "apiserver_authorization_";
        for line in [
            format!(r#"{prefix}decisions_total{{type="RBAC",name="rbac",decision="allowed"}} 1"#),
            format!(r#"{prefix}match_condition_exclusions_total{{type="Webhook",name="hook"}} 1"#),
            format!(r#"{prefix}match_condition_evaluation_errors_total{{type="Webhook",name="hook"}} 1"#),
            format!(r#"{prefix}match_condition_evaluation_seconds_count{{type="Webhook",name="hook"}} 2"#),
            format!(r#"{prefix}webhook_evaluations_total{{name="hook",result="timeout"}} 1"#),
            format!(r#"{prefix}webhook_duration_seconds_bucket{{le="0.005",name="hook",result="timeout"}} 1"#),
            format!(r#"{prefix}webhook_evaluations_fail_open_total{{name="hook",result="timeout"}} 1"#),
            r#"node_authorizer_graph_actions_duration_seconds_bucket{le="0.0002",operation="AddPod"} 1"#.to_owned(),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}
