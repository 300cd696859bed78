//! A node as it is read.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Metadata;

/// A node as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeView {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its spec.
    pub spec: NodeSpec,
    /// Its status.
    pub status: NodeStatus,
}

client::view_kind!(NodeView, client::resources::NODES);

/// The spec that scheduling looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// Set by `kubectl cordon`.
    pub unschedulable: bool,
    /// What keeps pods away.
    pub taints: Vec<Taint>,
}

/// A taint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, or empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// The status that scheduling looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// What there is for pods.
    pub allocatable: BTreeMap<String, String>,
    /// What its kubelet says it can do.
    pub declared_features: Vec<String>,
}
