//! How long expressions (CEL) take, under upstream's names.
//!
//! Source: `k8s.io/apiserver/pkg/cel/metrics`. Upstream counts the rules of custom resources; here expressions of policies,
//! conditions and mappings of claims count, too.

use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use super::DEFAULT_SECONDS;
use super::names::{Names, name};

/// The metrics of expressions.
pub struct ExpressionMetrics {
    compilation: Histogram,
    evaluation: Histogram,
}

impl Default for ExpressionMetrics {
    fn default() -> ExpressionMetrics {
        ExpressionMetrics {
            compilation: Histogram::new(DEFAULT_SECONDS),
            evaluation: Histogram::new(DEFAULT_SECONDS),
        }
    }
}

impl ExpressionMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "How long it took to compile an expression (CEL), in seconds";
        name(r, "apiserver_cel_compilation_duration_seconds", help, &self.compilation);
        let help = "How long it took to evaluate an expression, in seconds";
        name(r, "apiserver_cel_evaluation_duration_seconds", help, &self.evaluation);
    }

    /// An expression was compiled, or could not be.
    pub fn compiled(&self, took: Duration) {
        self.compilation.observe(took.as_secs_f64());
    }

    /// An expression was evaluated, or could not be.
    pub fn evaluated(&self, took: Duration) {
        self.evaluation.observe(took.as_secs_f64());
    }
}
