//! What admission policies decided, and how long it took, under upstream's names.
//!
//! Sources: `policy/validating/metrics`, `policy/mutating/metrics` and, for match conditions, `metrics/metrics.go` of
//! `k8s.io/apiserver/pkg/admission`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::names::{Names, name};
use super::pod_security::PodSecurityMetrics;
use crate::pipeline::Operation;

/// Upstream's buckets of expressions, in seconds.
const SECONDS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];
/// Upstream's buckets of match conditions, in seconds.
const CONDITION_SECONDS: [f64; 7] = [0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MutationLabels {
    policy: String,
    policy_binding: String,
    error_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CheckLabels {
    #[prometheus(flatten)]
    of: MutationLabels,
    enforcement_action: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConditionLabels {
    name: String,
    kind: &'static str,
    r#type: &'static str,
    operation: &'static str,
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of admission policies.
pub struct PolicyMetrics {
    checks: Family<CheckLabels, Counter>,
    check_seconds: Durations<CheckLabels>,
    mutations: Family<MutationLabels, Counter>,
    mutation_seconds: Durations<MutationLabels>,
    condition_errors: Family<ConditionLabels, Counter>,
    condition_seconds: Durations<ConditionLabels>,
    /// What Pod Security decided.
    pub pod_security: PodSecurityMetrics,
}

impl Default for PolicyMetrics {
    fn default() -> PolicyMetrics {
        PolicyMetrics {
            checks: Family::default(),
            check_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            mutations: Family::default(),
            mutation_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            condition_errors: Family::default(),
            condition_seconds: Family::new_with_constructor(|| Histogram::new(CONDITION_SECONDS)),
            pod_security: PodSecurityMetrics::default(),
        }
    }
}

impl PolicyMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "Validations of admission policies, by what was done about them; those that held are not counted";
        name(r, "apiserver_validating_admission_policy_check", help, &self.checks);
        let help = "How long such a validation took, in seconds";
        let check_seconds = "apiserver_validating_admission_policy_check_duration_seconds";
        name(r, check_seconds, help, &self.check_seconds);
        let help = "Mutations of admission policies";
        name(r, "apiserver_mutating_admission_policy_check", help, &self.mutations);
        let help = "How long a mutation of a policy took, in seconds";
        let mutation_seconds = "apiserver_mutating_admission_policy_check_duration_seconds";
        name(r, mutation_seconds, help, &self.mutation_seconds);
        let help = "Match conditions of admission policies that could not be evaluated";
        let condition_errors = "apiserver_admission_match_condition_evaluation_errors";
        name(r, condition_errors, help, &self.condition_errors);
        let help = "How long match conditions took that kept a policy from a request, in seconds";
        let condition_seconds = "apiserver_admission_match_condition_evaluation_seconds";
        name(r, condition_seconds, help, &self.condition_seconds);
        self.pod_security.register(r);
    }

    /// A validation did not hold, or could not be evaluated; `action` is `deny`, `warn`, `audit` or `allow`.
    pub fn checked(&self, policy: &str, binding: &str, error: &'static str, action: &'static str, took: Duration) {
        let labels = CheckLabels {
            of: of(policy, binding, error),
            enforcement_action: action,
        };
        self.checks.get_or_create(&labels).inc();
        self.check_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A mutation was made, or failed.
    pub fn mutated(&self, policy: &str, binding: &str, error: &'static str, took: Duration) {
        let labels = of(policy, binding, error);
        self.mutations.get_or_create(&labels).inc();
        self.mutation_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A policy's match conditions kept it from a request; `errors` of them could not be evaluated.
    pub fn kept_away(&self, policy: &str, operation: Operation, errors: u64, took: Duration) {
        let labels = ConditionLabels {
            name: policy.to_owned(),
            kind: "policy",
            // Of mutating policies too, as upstream has it.
            r#type: "validate",
            operation: operation.as_str(),
        };
        if errors > 0 {
            self.condition_errors.get_or_create(&labels).inc_by(errors);
        }
        self.condition_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }
}

fn of(policy: &str, binding: &str, error: &'static str) -> MutationLabels {
    MutationLabels {
        policy: policy.to_owned(),
        policy_binding: binding.to_owned(),
        error_type: error,
    }
}
