//! A pod as it is read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Metadata;

/// A pod as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodView {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its spec.
    pub spec: PodSpec,
    /// Its status.
    pub status: PodStatus,
}

client::view_kind!(PodView, client::resources::PODS);

/// The spec that scheduling looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct PodSpec {
    pub node_name: String,
    pub scheduler_name: String,
    pub priority: i32,
    pub preemption_policy: String,
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Affinity,
    pub tolerations: Vec<Toleration>,
    pub containers: Vec<ContainerView>,
    pub init_containers: Vec<ContainerView>,
    pub overhead: BTreeMap<String, String>,
    pub resources: ContainerResources,
    pub scheduling_gates: Vec<Gate>,
    pub topology_spread_constraints: Vec<SpreadConstraint>,
    pub volumes: Vec<VolumeView>,
    pub resource_claims: Vec<IgnoredAny>,
}

/// A container that asks for something.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ContainerView {
    pub name: String,
    pub resources: ContainerResources,
    pub ports: Vec<PortView>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: String,
    pub restart_policy_rules: Vec<RestartRule>,
}

/// What follows when a container ends in some way.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct RestartRule {
    pub action: String,
}

/// What a container asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ContainerResources {
    pub requests: BTreeMap<String, String>,
}

/// A port that a container may want on its node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct PortView {
    pub host_port: u16,
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    pub protocol: String,
}

/// A toleration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Toleration {
    pub key: String,
    pub operator: String,
    pub value: String,
    pub effect: String,
}

/// A gate that keeps the pod from being scheduled.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Gate {
    pub name: String,
}

/// A topology spread constraint, as far as to know that there is one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct SpreadConstraint {
    pub when_unsatisfiable: String,
}

/// A volume, as far as scheduling depends on it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct VolumeView {
    pub persistent_volume_claim: Option<IgnoredAny>,
    pub ephemeral: Option<IgnoredAny>,
}

/// All affinities.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Affinity {
    pub node_affinity: NodeAffinity,
    pub pod_affinity: PodAffinity,
    pub pod_anti_affinity: PodAffinity,
}

/// Affinity to other pods, as far as to know that there is one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Vec<IgnoredAny>,
}

/// Affinity to nodes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<PreferredTerm>,
}

/// Terms, of which one must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct NodeSelector {
    pub node_selector_terms: Vec<Term>,
}

/// A term with a weight.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PreferredTerm {
    pub weight: i64,
    pub preference: Term,
}

/// Requirements, all of which must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Term {
    pub match_expressions: Vec<Expression>,
    pub match_fields: Vec<Expression>,
}

/// One requirement.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Expression {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
}

/// The status that scheduling looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct PodStatus {
    pub phase: String,
    pub nominated_node_name: String,
    pub start_time: Option<String>,
    pub conditions: Vec<ConditionView>,
    pub container_statuses: Vec<ContainerStatusView>,
    pub init_container_statuses: Vec<ContainerStatusView>,
    /// What the pod as a whole has.
    pub resources: Option<ContainerResources>,
    /// What the pod as a whole was promised.
    pub allocated_resources: BTreeMap<String, String>,
}

/// What a container was given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ContainerStatusView {
    pub name: String,
    /// What it has; absent from nodes that do not tell.
    pub resources: Option<ContainerResources>,
    /// What it was promised.
    pub allocated_resources: BTreeMap<String, String>,
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ConditionView {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition_time: Option<String>,
}
