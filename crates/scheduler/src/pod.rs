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
    /// What its node has to be able to do.
    pub features: Vec<&'static str>,
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
            features: features(view),
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

/// What not every kubelet of a cluster may be able to do, and the pod needs.
/// Source: `InferForScheduling` in `k8s.io/component-helpers/nodedeclaredfeatures/features`.
fn features(view: &PodView) -> Vec<&'static str> {
    let containers = view.spec.init_containers.iter().chain(&view.spec.containers);
    let mut rules = containers.flat_map(|container| &container.restart_policy_rules);
    let restarts_all = rules.any(|rule| rule.action == "RestartAllContainers");
    restarts_all
        .then_some("RestartAllContainersOnContainerExits")
        .into_iter()
        .collect()
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
    let (spec, status) = (&view.spec, &view.status);
    let infeasible = is_infeasible(view);
    let of = |container: &ContainerView, is_kept: bool| {
        let asked = &container.resources.requests;
        let mut statuses = status.container_statuses.iter().chain(&status.init_container_statuses);
        let told = statuses.find(|told| is_kept && told.name == container.name);
        let given = told.and_then(|told| Some((&told.resources.as_ref()?.requests, &told.allocated_resources)));
        let mut own = match given {
            Some((has, promised)) => effective(asked, has, promised, infeasible),
            None => Resources::of_quantities(asked),
        };
        if !asked.contains_key("cpu") {
            own.milli_cpu = default.milli_cpu;
        }
        if !asked.contains_key("memory") {
            own.memory = default.memory;
        }
        own
    };
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of(container, true));
    }
    let (mut sidecars, mut start) = (Resources::default(), Resources::default());
    for container in &spec.init_containers {
        let is_sidecar = container.restart_policy == "Always";
        let own = of(container, is_sidecar);
        if is_sidecar {
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
    whole_pod(view, infeasible, &mut sum);
    sum.add(&Resources::of_quantities(&spec.overhead));
    sum
}

/// Whether the node said that it is too small for what the pod wants to be resized to.
fn is_infeasible(view: &PodView) -> bool {
    let mut conditions = view.status.conditions.iter();
    conditions.any(|condition| condition.kind == "PodResizePending" && condition.reason == "Infeasible")
}

type Quantities = BTreeMap<String, String>;

/// What counts while somebody is being resized: the most of what was asked for, promised and given; of what cannot be
/// given only the latter two.
fn effective(asked: &Quantities, has: &Quantities, promised: &Quantities, infeasible: bool) -> Resources {
    let mut most = Resources::of_quantities(has);
    most.raise_to(&Resources::of_quantities(promised));
    if !infeasible {
        most.raise_to(&Resources::of_quantities(asked));
    }
    most
}

/// Requests of the pod as a whole stand in for those of its containers.
fn whole_pod(view: &PodView, infeasible: bool, sum: &mut Resources) {
    let asked = &view.spec.resources.requests;
    let own = match &view.status.resources {
        Some(has) => effective(asked, &has.requests, &view.status.allocated_resources, infeasible),
        None => Resources::of_quantities(asked),
    };
    for name in asked.keys() {
        match &**name {
            "cpu" => sum.milli_cpu = own.milli_cpu,
            "memory" => sum.memory = own.memory,
            name => sum.set_other(name, own.other(name)),
        }
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
    fn a_resize_counts_with_what_it_may_come_to() {
        let status = |has: &str, reason: &str| {
            json!({
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                "containerStatuses": [{
                    "name": "a", "resources": {"requests": {"cpu": has}}, "allocatedResources": {"cpu": has},
                }],
            })
        };
        for (has, reason, milli_cpu) in [
            ("1", "Deferred", 2000),
            ("3", "Deferred", 3000),
            ("1", "Infeasible", 1000),
        ] {
            let mut spec = asks("2");
            spec["name"] = "a".into();
            let view: PodView =
                serde_json::from_value(json!({"spec": {"containers": [spec]}, "status": status(has, reason)})).unwrap();
            assert_eq!(Pod::of_view(&view).requests.milli_cpu, milli_cpu, "{has} {reason}");
        }
        let whole = json!({
            "spec": {"containers": [asks("1")], "resources": {"requests": {"cpu": "2", "hugepages-2Mi": "2Mi"}}},
            "status": {"resources": {"requests": {"cpu": "3"}}},
        });
        let requests = Pod::of_view(&serde_json::from_value(whole).unwrap()).requests;
        assert_eq!((requests.milli_cpu, requests.other("hugepages-2Mi")), (3000, 2 << 20));
    }

    #[test]
    fn what_not_all_nodes_can_do_is_needed() {
        let rule = |action: &str| json!({"restartPolicyRules": [{"action": action}]});
        assert_eq!(
            pod(json!({"containers": [rule("RestartAllContainers")]})).features,
            ["RestartAllContainersOnContainerExits"]
        );
        assert!(pod(json!({"containers": [rule("Restart")]})).features.is_empty());
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
