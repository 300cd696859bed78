//! A pod as decisions see it: compact, with everything computed once that does not depend on a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::filters::affinity::{NodeConstraints, Preference};
use crate::filters::ports::HostPort;
use crate::resources::{DEFAULT_MEMORY_BYTES, DEFAULT_MILLI_CPU, Resources};
use crate::view::{ContainerView, PodView};

pub use crate::view::{ConditionView, Toleration};

/// The reason of the condition `DisruptionTarget` of a pod that goes for a more important one.
pub const PREEMPTED: &str = "PreemptionByScheduler";

/// Which pod: its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

/// A pod as decisions see it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Which pod.
    pub key: PodKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its revision, for events.
    pub resource_version: String,
    /// Its generation, for the condition.
    pub generation: i64,
    /// The node it is bound to; empty while it waits.
    pub node: Arc<str>,
    /// Who schedules it.
    pub scheduler: Box<str>,
    /// More is earlier.
    pub priority: i32,
    /// Whether it may make less important pods go (`preemptionPolicy` is not `Never`).
    pub preempts: bool,
    /// The node on which room is being made for it; empty: none.
    pub nominated: Arc<str>,
    /// When it was started, for whom to spare; later than everything while that is unknown.
    pub started: Timestamp,
    /// Whether it is being deleted to make room for a more important one.
    pub leaves_for_another: bool,
    /// What it asks for.
    pub requests: Resources,
    /// What the scores count for it: a container that asks for nothing still uses something.
    pub scored: Resources,
    /// What it tolerates.
    pub tolerations: Vec<Toleration>,
    /// Which nodes it accepts.
    pub constraints: NodeConstraints,
    /// Which nodes it likes.
    pub preferences: Vec<Preference>,
    /// The ports of the node that it wants.
    pub ports: Vec<HostPort>,
    /// The gates that are still closed.
    pub gates: Vec<String>,
    /// Something this scheduler cannot honour yet: the pod waits and says so, rather than being placed wrongly.
    pub unsupported: Option<&'static str>,
    /// Whether its containers have ended for good: it takes no room.
    pub terminal: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The condition `PodScheduled` as it stands.
    pub scheduled_condition: Option<ConditionView>,
}

// === impl Pod ===

impl Pod {
    /// Computes what decisions need.
    pub fn of_view(view: &PodView) -> Pod {
        let (metadata, spec) = (&view.metadata, &view.spec);
        let ports = spec
            .containers
            .iter()
            .flat_map(|container| &container.ports)
            .filter(|port| port.host_port != 0);
        Pod {
            key: PodKey {
                namespace: (&*metadata.namespace).into(),
                name: (&*metadata.name).into(),
            },
            uid: (&*metadata.uid).into(),
            resource_version: metadata.resource_version.clone(),
            generation: metadata.generation,
            node: (&*spec.node_name).into(),
            scheduler: (&*spec.scheduler_name).into(),
            priority: spec.priority,
            preempts: spec.preemption_policy != "Never",
            nominated: (&*view.status.nominated_node_name).into(),
            started: view
                .status
                .start_time
                .as_ref()
                .and_then(|text| text.parse().ok())
                .unwrap_or(Timestamp::MAX),
            leaves_for_another: metadata.deletion_timestamp.is_some()
                && view
                    .status
                    .conditions
                    .iter()
                    .any(|c| c.kind == "DisruptionTarget" && c.status == "True" && c.reason == PREEMPTED),
            requests: requests(view, &Resources::default()),
            scored: requests(
                view,
                &Resources {
                    milli_cpu: DEFAULT_MILLI_CPU,
                    memory: DEFAULT_MEMORY_BYTES,
                    ..Resources::default()
                },
            ),
            tolerations: spec.tolerations.clone(),
            constraints: NodeConstraints::of_spec(spec),
            preferences: Preference::of_spec(spec),
            ports: ports.map(HostPort::of_view).collect(),
            gates: spec.scheduling_gates.iter().map(|gate| gate.name.clone()).collect(),
            unsupported: unsupported(view),
            terminal: matches!(&*view.status.phase, "Succeeded" | "Failed"),
            deleting: metadata.deletion_timestamp.is_some(),
            scheduled_condition: view
                .status
                .conditions
                .iter()
                .find(|c| c.kind == "PodScheduled")
                .cloned(),
        }
    }

    /// Whether the pod waits for a node from the scheduler of that name.
    pub fn waits_for(&self, scheduler: &str) -> bool {
        self.node.is_empty() && !self.terminal && !self.deleting && &*self.scheduler == scheduler
    }

    /// Whether the pod takes room on its node.
    pub fn takes_room(&self) -> bool {
        !self.node.is_empty() && !self.terminal
    }

    /// Whether an update can change a verdict on the pod.
    pub fn asks_the_same(&self, other: &Pod) -> bool {
        self.requests == other.requests
            && self.tolerations == other.tolerations
            && self.constraints == other.constraints
            && self.gates == other.gates
            && self.priority == other.priority
    }
}

fn unsupported(view: &PodView) -> Option<&'static str> {
    let spec = &view.spec;
    if !spec.affinity.pod_affinity.required.is_empty() || !spec.affinity.pod_anti_affinity.required.is_empty() {
        return Some("required inter-pod affinity and anti-affinity are not supported by this version");
    }
    if spec
        .topology_spread_constraints
        .iter()
        .any(|constraint| constraint.when_unsatisfiable != "ScheduleAnyway")
    {
        return Some("topology spread constraints with DoNotSchedule are not supported by this version");
    }
    if spec
        .volumes
        .iter()
        .any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some())
    {
        return Some("volumes of PersistentVolumeClaims are not supported by this version");
    }
    if !spec.resource_claims.is_empty() {
        return Some("resource claims are not supported by this version");
    }
    None
}

/// The largest sum that the pod needs at any time. Sidecars (init containers that restart always) run beside everything
/// that starts after them. Containers without a request count with `default`.
/// Source: `k8s.io/component-helpers/resource/helpers.go` (`PodRequests`).
fn requests(view: &PodView, default: &Resources) -> Resources {
    let spec = &view.spec;
    let of = |container: &ContainerView| {
        let mut own = Resources::of_quantities(&container.resources.requests);
        if !container.resources.requests.contains_key("cpu") {
            own.milli_cpu = default.milli_cpu;
        }
        if !container.resources.requests.contains_key("memory") {
            own.memory = default.memory;
        }
        own
    };
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of(container));
    }
    let (mut sidecars, mut start) = (Resources::default(), Resources::default());
    for container in &spec.init_containers {
        let own = of(container);
        if container.restart_policy == "Always" {
            sum.add(&own);
            sidecars.add(&own);
            start.raise_to(&sidecars);
        } else {
            let mut beside = sidecars.clone();
            beside.add(&own);
            start.raise_to(&beside);
        }
    }
    sum.raise_to(&start);
    whole_pod(&spec.resources.requests, &mut sum);
    sum.add(&Resources::of_quantities(&spec.overhead));
    sum
}

/// Requests of the pod as a whole stand in for those of its containers.
fn whole_pod(requests: &BTreeMap<String, String>, sum: &mut Resources) {
    let own = Resources::of_quantities(requests);
    if requests.contains_key("cpu") {
        sum.milli_cpu = own.milli_cpu;
    }
    if requests.contains_key("memory") {
        sum.memory = own.memory;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        let view: PodView =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap();
        Pod::of_view(&view)
    }

    fn asks(cpu: &str) -> serde_json::Value {
        json!({"resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_asks_for_the_most_it_needs_at_once() {
        let sidecar = json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        for (spec, milli_cpu) in [
            (json!({"containers": [asks("1"), asks("500m")]}), 1500),
            (
                json!({"containers": [asks("1")], "initContainers": [asks("3"), asks("2")]}),
                3000,
            ),
            (
                json!({"containers": [asks("1")], "initContainers": [sidecar.clone(), asks("2")]}),
                3000,
            ),
            (
                json!({"containers": [asks("4")], "initContainers": [sidecar.clone(), asks("2")]}),
                5000,
            ),
            (
                json!({"containers": [asks("1")], "initContainers": [asks("2"), sidecar]}),
                2000,
            ),
            (json!({"containers": [asks("1")], "overhead": {"cpu": "250m"}}), 1250),
            (
                json!({"containers": [asks("1")], "resources": {"requests": {"cpu": "2"}}}),
                2000,
            ),
        ] {
            assert_eq!(pod(spec.clone()).requests.milli_cpu, milli_cpu, "{spec}");
        }
    }

    #[test]
    fn scores_count_something_for_who_asks_for_nothing() {
        let pod = pod(json!({"containers": [{}, asks("1")]}));
        assert_eq!(pod.requests.milli_cpu, 1000);
        assert_eq!(
            (pod.scored.milli_cpu, pod.scored.memory),
            (1100, 2 * DEFAULT_MEMORY_BYTES)
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_said() {
        for (spec, unsupported) in [
            (
                json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}}),
                true,
            ),
            (
                json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{}]}}}),
                false,
            ),
            (
                json!({"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule"}]}),
                true,
            ),
            (
                json!({"topologySpreadConstraints": [{"whenUnsatisfiable": "ScheduleAnyway"}]}),
                false,
            ),
            (
                json!({"volumes": [{"persistentVolumeClaim": {"claimName": "x"}}]}),
                true,
            ),
            (json!({"volumes": [{"emptyDir": {}}]}), false),
        ] {
            assert_eq!(pod(spec.clone()).unsupported.is_some(), unsupported, "{spec}");
        }
    }
}
