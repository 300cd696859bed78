//! How long admission takes, by plug-in and as a whole, under upstream's names.
//! Source: `k8s.io/apiserver/pkg/admission/metrics/metrics.go`.
//!
//! A write passes some fifty slots: what each of them is counted under is found once and kept.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::pipeline::Operation;

use super::names::{Names, name};

/// Upstream's `latencyBuckets`, in seconds.
const SECONDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
/// Operations, types and verdicts.
const OUTCOMES: usize = 4 * 2 * 2;

/// The mutating slot or the validating one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Mutating.
    Admit,
    /// Validating.
    Validate,
}

impl Step {
    /// Upstream's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Admit => "admit",
            Step::Validate => "validate",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PluginLabels {
    name: &'static str,
    #[prometheus(flatten)]
    step: StepLabels,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

/// The histograms of one plug-in, or of all together, by outcome.
type Kept = [OnceLock<Histogram>; OUTCOMES];

/// The metrics of admission.
pub struct AdmissionMetrics {
    plugins: Family<PluginLabels, Histogram, fn() -> Histogram>,
    steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    kept: Vec<(&'static str, Kept)>,
    kept_steps: Kept,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl AdmissionMetrics {
    /// Those of some plug-ins, named in their order.
    pub fn of(plugins: impl Iterator<Item = &'static str>) -> AdmissionMetrics {
        AdmissionMetrics {
            plugins: Family::new_with_constructor(seconds),
            steps: Family::new_with_constructor(seconds),
            kept: plugins.map(|name| (name, Kept::default())).collect(),
            kept_steps: Kept::default(),
        }
    }

    pub(super) fn register(&self, r: &mut Names) {
        let help = "How long a plug-in took, in seconds";
        name(
            r,
            "apiserver_admission_controller_admission_duration_seconds",
            help,
            &self.plugins,
        );
        let help = "How long all plug-ins of a step took together, in seconds";
        name(
            r,
            "apiserver_admission_step_admission_duration_seconds",
            help,
            &self.steps,
        );
    }

    /// A plug-in, by its place in their order, has decided.
    pub fn decided(&self, plugin: usize, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let Some((name, kept)) = self.kept.get(plugin) else {
            return;
        };
        let (at, labels) = outcome(step, operation, rejected);
        let histogram = kept[at].get_or_init(|| {
            let labels = PluginLabels { name, step: labels };
            self.plugins.get_or_create(&labels).clone()
        });
        histogram.observe(took.as_secs_f64());
    }

    /// All plug-ins of a step have, or one of them said no.
    pub fn passed(&self, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let (at, labels) = outcome(step, operation, rejected);
        let histogram = self.kept_steps[at].get_or_init(|| self.steps.get_or_create(&labels).clone());
        histogram.observe(took.as_secs_f64());
    }
}

fn outcome(step: Step, operation: Operation, rejected: bool) -> (usize, StepLabels) {
    let at = (operation as usize) * 4 + (step as usize) * 2 + usize::from(rejected);
    let labels = StepLabels {
        r#type: step.as_str(),
        operation: operation.as_str(),
        rejected: if rejected { "true" } else { "false" },
    };
    (at, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_own_place() {
        let metrics = AdmissionMetrics::of(["LimitRanger", "ResourceQuota"].into_iter());
        let operations = [
            Operation::Create,
            Operation::Update,
            Operation::Delete,
            Operation::Connect,
        ];
        let mut places = std::collections::BTreeSet::new();
        for operation in operations {
            for step in [Step::Admit, Step::Validate] {
                for rejected in [false, true] {
                    places.insert(outcome(step, operation, rejected).0);
                    metrics.decided(1, step, operation, rejected, Duration::from_millis(6));
                    metrics.passed(step, operation, rejected, Duration::from_millis(6));
                }
            }
        }
        assert_eq!(places, (0..OUTCOMES).collect());
        // Somebody else's plug-in is counted nowhere.
        metrics.decided(2, Step::Admit, Operation::Create, false, Duration::ZERO);
        let mut names = Names::default();
        metrics.register(&mut names);
        let text = names.text();
        let of = |labels: &str| format!(r#"_admission_duration_seconds_bucket{{le="0.025",{labels}}} 1"#);
        for labels in [
            r#"name="ResourceQuota",type="admit",operation="CREATE",rejected="false""#,
            r#"name="ResourceQuota",type="validate",operation="CONNECT",rejected="true""#,
            r#"type="validate",operation="DELETE",rejected="false""#,
        ] {
            assert!(text.contains(&of(labels)), "{labels}\n{text}");
        }
        assert!(!text.contains("LimitRanger"));
    }
}
