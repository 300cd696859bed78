//! A PodDisruptionBudget as it is read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Metadata;

/// A budget as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BudgetView {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its spec.
    pub spec: BudgetSpec,
    /// Its status.
    pub status: BudgetStatus,
}

client::view_kind!(BudgetView, client::resources::POD_DISRUPTION_BUDGETS);

/// Whom it protects.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BudgetSpec {
    /// The selector; null: nobody.
    pub selector: api::Value,
}

/// How many of them may go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BudgetStatus {
    /// How many.
    pub disruptions_allowed: i32,
    /// Those that were let go and are not seen gone yet.
    pub disrupted_pods: BTreeMap<String, IgnoredAny>,
}
