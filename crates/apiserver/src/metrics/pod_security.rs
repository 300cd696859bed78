//! What PodSecurity decided, under upstream's names. Source: `k8s.io/pod-security-admission/metrics/metrics.go`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::names::{Names, name};
use crate::pipeline::{Operation, Review};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    request_operation: &'static str,
    resource: &'static str,
    subresource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EvaluationLabels {
    decision: &'static str,
    policy_level: &'static str,
    policy_version: String,
    mode: &'static str,
    #[prometheus(flatten)]
    request: RequestLabels,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    fatal: &'static str,
    #[prometheus(flatten)]
    request: RequestLabels,
}

/// The metrics of Pod Security.
#[derive(Default)]
pub struct PodSecurityMetrics {
    errors: Family<ErrorLabels, Counter>,
    evaluations: Family<EvaluationLabels, Counter>,
    exemptions: Family<RequestLabels, Counter>,
}

impl PodSecurityMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "Pods and what makes them, by what a namespace's policy said of them; audited and warned of is told only when \
                    refused";
        name(r, "pod_security_evaluations", help, &self.evaluations);
        let help = "Requests for which no policy holds";
        name(r, "pod_security_exemptions", help, &self.exemptions);
        let help =
            "Requests whose namespace says something of its policy that cannot be read; the strictest holds then";
        name(r, "pod_security_errors", help, &self.errors);
    }

    /// A policy, in words, said yes or no in a mode: `enforce`, `audit` or `warn`.
    pub fn evaluated(&self, review: &Review, mode: &'static str, policy: (&'static str, String), allowed: bool) {
        let (policy_level, policy_version) = policy;
        let labels = EvaluationLabels {
            decision: if allowed { "allow" } else { "deny" },
            policy_level,
            policy_version,
            mode,
            request: request(review),
        };
        self.evaluations.get_or_create(&labels).inc();
    }

    /// The namespace's policy cannot be read whole.
    pub fn unreadable(&self, review: &Review) {
        let labels = ErrorLabels {
            fatal: "false",
            request: request(review),
        };
        self.errors.get_or_create(&labels).inc();
    }

    /// How many there were.
    #[cfg(test)]
    pub fn unreadable_count(&self) -> usize {
        let mut names = Names::default();
        self.register(&mut names);
        let text = names.text();
        let told = "pod_security_errors_total{fatal=\"false\",request_operation=\"create\",resource=\"pod\",subresource=\"\"} 1";
        text.matches(told).count()
    }

    /// The request is exempt.
    pub fn exempted(&self, review: &Review) {
        self.exemptions.get_or_create(&request(review)).inc();
    }
}

fn request(review: &Review) -> RequestLabels {
    RequestLabels {
        request_operation: match review.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Connect => "connect",
        },
        resource: match (&*review.resource.group, &*review.resource.resource) {
            ("", "pods") => "pod",
            ("", "namespaces") => "namespace",
            _ => "controller",
        },
        subresource: review.subresource.clone(),
    }
}
