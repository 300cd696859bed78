//! Feature gates: fields of features that are off are dropped on write, unless the object already used them.
//!
//! Upstream writes one function a field; here the table of API facts names the gate of each field, and one walk drops
//! them. Only gates whose effect is implemented may be on (D4).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::Value;
use api::schema::{Node, SchemaRef, Shape};

/// Gates that are on. Every other gate that owns a field is off.
const ON: &[&str] = &[
    // Data only: which generation of a definition a condition is about.
    "CRDObservedGenerationTracking",
    // Updates of custom resources are not refused for what they leave alone.
    "CRDValidationRatcheting",
    "CustomResourceFieldSelectors",
    // The kubelet goes by a container's own policy and rules.
    "ContainerRestartRules",
    "RestartAllContainersOnContainerExits",
    // Claims are stored and counted; the scheduler and the kubelet refuse pods that have some, as no driver is there.
    "DynamicResourceAllocation",
    // Data only: what may be asked of devices and said of them. Nothing allocates any yet.
    "DRAAdminAccess",
    "DRAConsumableCapacity",
    "DRADeviceBindingConditions",
    "DRADeviceTaints",
    "DRAExtendedResource",
    "DRAPartitionableDevices",
    "DRAPrioritizedList",
    "DRAResourceClaimDeviceStatus",
    // Data only: what a CSI driver says of itself and of its nodes.
    "CSIServiceAccountTokenSecrets",
    "CSIStorageCapacity",
    "MutableCSINodeAllocatableCount",
    "SELinuxMountReadWriteOncePod",
    // Data only: nodes have no SELinux, so that there is nothing to change.
    "SELinuxChangePolicy",
    // The kubelet reads the file when the container starts.
    "EnvFiles",
    // The node gives the pod that name.
    "HostnameOverride",
    // Data only: nothing scales yet.
    "HPAConfigurableTolerance",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScaling",
    // The node says of itself which newer features it has, the scheduler and admission go by it.
    "NodeDeclaredFeatures",
    // The scheduler, quotas and the pod's control group go by the resources of the pod as a whole.
    "PodLevelResources",
    // Data only: what plug-ins say of the devices that they gave. No node has such plug-ins yet.
    "ResourceHealthStatus",
    "ResourceHealthStatusMessage",
    "SupplementalGroupsPolicy",
    // What a node says that it can do; admission asks it about changes of pods.
    "NodeDeclaredFeatures",
    // Data only: the name of a class.
    "VolumeAttributesClass",
];

/// Fields of gates that the table of facts does not mark: (type, field, gate).
const UNMARKED: [(&str, &str, &str); 1] = [("api.core.v1.Lifecycle", "stopSignal", "ContainerStopSignals")];

/// The types that are checked as a whole.
const TYPES: &[&str] = &[
    "core.v1.Pod",
    "core.v1.PodTemplateSpec",
    "apps.v1.StatefulSetUpdateStrategy",
    "autoscaling.v2.HorizontalPodAutoscalerSpec",
    "core.v1.Node",
    "core.v1.PersistentVolume",
    "core.v1.PersistentVolumeClaim",
    "coordination.v1.Lease",
    "resource.v1.DeviceClass",
    "resource.v1.ResourceClaim",
    "resource.v1.ResourceClaimTemplate",
    "resource.v1.ResourceSlice",
    "storage.v1.CSIDriver",
    "storage.v1.VolumeAttachment",
];

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Each,
}

static DISABLED: LazyLock<BTreeMap<&str, Vec<Vec<Step>>>> =
    LazyLock::new(|| TYPES.iter().map(|name| (*name, disabled_paths(name))).collect());

/// Drops the fields of disabled features from an object of one of [`TYPES`].
pub fn drop_disabled(object: &mut Value, old: Option<&Value>, type_name: &str) {
    for path in DISABLED.get(type_name).into_iter().flatten() {
        if !old.is_some_and(|old| uses(old, path)) {
            remove(object, path);
        }
    }
}

/// Whether a field, reached by names, belongs to a gate that is off.
pub fn is_disabled(type_name: &str, field: &str, gates: &[String]) -> bool {
    let unmarked = UNMARKED.iter().any(|(t, f, _)| *t == type_name && *f == field);
    let off = |gate: &String| gate.split(',').any(|gate| !ON.contains(&gate));
    unmarked || gates.iter().any(off)
}

fn disabled_paths(type_name: &str) -> Vec<Vec<Step>> {
    let mut paths = Vec::new();
    if let Some(schema) = SchemaRef::builtin_type(&format!("api.{type_name}")) {
        walk(schema.node(), &mut Vec::new(), &mut Vec::new(), &mut paths);
    }
    paths
}

fn walk<'g>(node: Node<'g>, above: &mut Vec<&'g str>, here: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
    match node.shape() {
        Shape::Scalar(_) => {}
        Shape::Map { value: item } | Shape::List { item, .. } => {
            here.push(Step::Each);
            walk(item, above, here, paths);
            here.pop();
        }
        Shape::Object(fields) => {
            // A type that contains itself has no gates of ours below.
            if above.contains(&node.name()) {
                return;
            }
            above.push(node.name());
            for field in fields.iter() {
                here.push(Step::Field(field.name().into()));
                if is_disabled(node.name(), field.name(), &field.gates()) {
                    paths.push(here.clone());
                } else {
                    walk(field.schema(), above, here, paths);
                }
                here.pop();
            }
            above.pop();
        }
    }
}

fn uses(value: &Value, path: &[Step]) -> bool {
    match (path, value) {
        ([], value) => !value.is_null(),
        ([Step::Field(name), rest @ ..], Value::Object(map)) => map.get(name).is_some_and(|value| uses(value, rest)),
        ([Step::Each, rest @ ..], Value::Array(list)) => list.iter().any(|value| uses(value, rest)),
        ([Step::Each, rest @ ..], Value::Object(map)) => map.values().any(|value| uses(value, rest)),
        _ => false,
    }
}

fn remove(value: &mut Value, path: &[Step]) {
    match (path, value) {
        ([Step::Field(name)], Value::Object(map)) => drop(map.remove(name)),
        ([Step::Field(name), rest @ ..], Value::Object(map)) => {
            if let Some(value) = map.get_mut(name) {
                remove(value, rest);
            }
        }
        ([Step::Each, rest @ ..], Value::Array(list)) => list.iter_mut().for_each(|value| remove(value, rest)),
        ([Step::Each, rest @ ..], Value::Object(map)) => map.values_mut().for_each(|value| remove(value, rest)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_is_known() {
        for name in TYPES {
            assert!(SchemaRef::builtin_type(&format!("api.{name}")).is_some(), "{name}");
        }
    }

    #[test]
    fn fields_of_disabled_features_are_dropped_unless_in_use() {
        let pod = json!({"spec": {"schedulingGroup": {"podGroupName": "x"}, "containers": [{"name": "a", "resizePolicy": [{"resourceName": "cpu"}],
            "lifecycle": {"stopSignal": "SIGUSR1"}}]}});
        let mut new = pod.clone();
        drop_disabled(&mut new, None, "core.v1.Pod");
        assert_eq!(
            new,
            json!({"spec": {"containers": [{"name": "a", "resizePolicy": [{"resourceName": "cpu"}], "lifecycle": {}}]}})
        );
        let mut kept = pod.clone();
        drop_disabled(&mut kept, Some(&pod), "core.v1.Pod");
        assert_eq!(kept, pod);
    }
}
