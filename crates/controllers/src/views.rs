//! The objects as the controllers see them: small structs that name just the fields they use.
//!
//! Templates and selectors stay trees, so that a copy of them loses nothing this program does not know.

use api::Value;
use api::selector::LabelSelector;
use client::k8s_openapi::api::core::v1::Toleration;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::{Meta, Metadata};
use client::{resources, view_kind};
use serde::{Deserialize, Deserializer};

/// A pod, for all controllers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub metadata: Metadata,
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub node_name: String,
    pub hostname: String,
    pub subdomain: String,
    pub host_network: bool,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub tolerations: Vec<Toleration>,
    /// The volumes that are claims.
    #[serde(rename = "volumes", deserialize_with = "claims")]
    pub claims: Box<[ClaimUse]>,
}

/// How a pod uses a claim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ClaimUse {
    /// By its name.
    Named(String),
    /// It is made for the pod's volume of this name.
    Ephemeral(String),
}

/// Most pods have no claim, and their volumes need no room here.
fn claims<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[ClaimUse]>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Volume {
        name: String,
        persistent_volume_claim: Option<Source>,
        ephemeral: Option<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Source {
        claim_name: String,
    }
    let volumes = Option::<Vec<Volume>>::deserialize(deserializer)?.unwrap_or_default();
    let claims = volumes.into_iter().filter_map(|volume| {
        let named = volume
            .persistent_volume_claim
            .map(|source| ClaimUse::Named(source.claim_name));
        named.or_else(|| volume.ephemeral.map(|_| ClaimUse::Ephemeral(volume.name)))
    });
    Ok(claims.collect())
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub ports: Vec<ContainerPort>,
    pub restart_policy: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerPort {
    pub name: String,
    pub container_port: i32,
    pub protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    pub phase: String,
    pub conditions: Vec<Condition>,
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    pub container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp {
    pub ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub restart_count: i64,
}

/// A condition of a pod or node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_heartbeat_time: Option<Time>,
    pub last_transition_time: Option<Time>,
}

/// The condition of a type.
pub(crate) fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// A number that counts in percent of something else, or absolutely.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum IntOrPercent {
    Int(i32),
    Percent(String),
}

impl IntOrPercent {
    /// The number, of `total`; a text that is no percentage counts as zero (validation does not let it in).
    pub(crate) fn of(&self, total: i32, round_up: bool) -> i32 {
        match self {
            IntOrPercent::Int(number) => *number,
            IntOrPercent::Percent(text) => {
                let percent: i64 = text.strip_suffix('%').and_then(|text| text.parse().ok()).unwrap_or(0);
                let hundredfold = percent * i64::from(total);
                let whole = if round_up {
                    (hundredfold + 99).div_euclid(100)
                } else {
                    hundredfold.div_euclid(100)
                };
                i32::try_from(whole).unwrap_or(i32::MAX)
            }
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Deployment {
    pub metadata: Metadata,
    pub spec: DeploymentSpec,
    pub status: DeploymentStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeploymentSpec {
    pub replicas: Option<i32>,
    #[serde(deserialize_with = "selector")]
    pub selector: Selector,
    pub template: Value,
    pub strategy: Strategy,
    pub min_ready_seconds: i32,
    pub revision_history_limit: Option<i32>,
    pub paused: bool,
    pub progress_deadline_seconds: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Strategy {
    #[serde(rename = "type")]
    pub kind: String,
    pub rolling_update: Option<RollingUpdate>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RollingUpdate {
    pub max_surge: Option<IntOrPercent>,
    pub max_unavailable: Option<IntOrPercent>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub unavailable_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub collision_count: Option<i32>,
    pub conditions: Vec<WorkloadCondition>,
}

/// A condition of a deployment or replica set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WorkloadCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_update_time: Option<Time>,
    pub last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ReplicaSet {
    pub metadata: Metadata,
    pub spec: ReplicaSetSpec,
    pub status: ReplicaSetStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReplicaSetSpec {
    pub replicas: Option<i32>,
    #[serde(deserialize_with = "selector")]
    pub selector: Selector,
    pub template: Value,
    pub min_ready_seconds: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReplicaSetStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub fully_labeled_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub conditions: Vec<WorkloadCondition>,
}

/// The forerunner of a ReplicaSet: the same but for its selector, which is a map of labels, and the group.
#[derive(Clone, Debug)]
pub(crate) struct ReplicationController(pub ReplicaSet);

impl client::Object for ReplicationController {
    fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut written: Value = serde_json::from_slice(json)?;
        if let Some(labels) = written.pointer_mut("/spec/selector") {
            *labels = serde_json::json!({"matchLabels": labels.take()});
        }
        serde_json::from_value(written).map(ReplicationController)
    }

    fn meta(&self) -> &dyn Meta {
        &self.0.metadata
    }
}

impl client::Kind for ReplicationController {
    const RESOURCE: client::Resource = resources::REPLICATION_CONTROLLERS;
}

/// A label selector as it was written, and ready to match.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub written: Value,
    pub parsed: LabelSelector,
}

impl Default for Selector {
    fn default() -> Self {
        Selector {
            written: Value::Null,
            parsed: LabelSelector::nothing(),
        }
    }
}

impl Selector {
    /// Whether the object's labels match.
    pub(crate) fn matches(&self, metadata: &Metadata) -> bool {
        let labels = metadata.labels.as_ref();
        self.parsed
            .matches(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
    }
}

/// A selector that cannot be read selects nothing: one bad object must not end its neighbours' watch.
pub(crate) fn selector<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Selector, D::Error> {
    let written = Value::deserialize(deserializer)?;
    let parsed = LabelSelector::from_object(&written).unwrap_or_else(|_| LabelSelector::nothing());
    Ok(Selector { written, parsed })
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub metadata: Metadata,
    pub spec: NodeSpec,
    pub status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
    pub time_added: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub conditions: Vec<Condition>,
}

view_kind!(Pod, resources::PODS);
view_kind!(Deployment, resources::DEPLOYMENTS);
view_kind!(ReplicaSet, resources::REPLICA_SETS);
view_kind!(Node, resources::NODES);
