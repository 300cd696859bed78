//! What admission policies decided, and how long it took, under upstream's names.
//!
//! Sources: `policy/validating/metrics` and `policy/mutating/metrics` of `k8s.io/apiserver/pkg/admission/plugin`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::names::{Names, name};

/// Upstream's buckets of expressions, in seconds.
const SECONDS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];

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

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of admission policies.
pub struct PolicyMetrics {
    checks: Family<CheckLabels, Counter>,
    check_seconds: Durations<CheckLabels>,
    mutations: Family<MutationLabels, Counter>,
    mutation_seconds: Durations<MutationLabels>,
}

impl Default for PolicyMetrics {
    fn default() -> PolicyMetrics {
        PolicyMetrics {
            checks: Family::default(),
            check_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            mutations: Family::default(),
            mutation_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
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
}

fn of(policy: &str, binding: &str, error: &'static str) -> MutationLabels {
    MutationLabels {
        policy: policy.to_owned(),
        policy_binding: binding.to_owned(),
        error_type: error,
    }
}
