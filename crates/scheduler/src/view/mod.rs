//! Pods, nodes and budgets as they are read from the API: only the fields that scheduling looks at.

mod budget;
mod node;
mod pod;

pub use budget::{BudgetSpec, BudgetStatus, BudgetView};
pub use node::NodeView;
pub use node::Taint;
pub use pod::{ConditionView, ContainerView, Expression, PodSpec, PodView, PortView, Term, Toleration};

use std::collections::BTreeMap;

use serde::Deserialize;

/// The metadata that scheduling looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// The namespace; empty for nodes.
    pub namespace: String,
    /// The uid.
    pub uid: String,
    /// The revision.
    pub resource_version: String,
    /// How often the spec changed.
    pub generation: i64,
    /// Set while the object is being deleted.
    pub deletion_timestamp: Option<String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

impl client::Meta for Metadata {
    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }

    fn owner_uids(&self) -> Vec<&str> {
        Vec::new()
    }

    fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}
