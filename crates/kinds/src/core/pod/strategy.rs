//! What happens around a write of a pod.
//!
//! Source: `pkg/registry/core/pod/strategy.go`.

use api::Value;
use api::field::ErrorList;
use serde_json::json;

use super::security::{APPARMOR_ANNOTATION, apparmor_profile};
use super::{defaults, resources, spec, status, update};
use crate::check::Report;
use crate::gates;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

/// Pods.
pub struct Pods;

impl Strategy for Pods {
    fn default(&self, object: &mut Value) {
        defaults::pod(object);
    }

    fn prepare_for_create(&self, pod: &mut Value, context: &WriteContext) {
        let quality = resources::quality_of_service(pod.at("spec"));
        pod.put("status", json!({"phase": "Pending", "qosClass": quality}));
        gates::drop_disabled(pod, None, "core.v1.Pod");
        merge_label_keys(pod);
        profiles_from_annotations(pod);
        if !pod.list("spec.schedulingGates").is_empty() {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": context.now});
            pod["status"].put("conditions", json!([condition]));
        }
    }

    fn prepare_for_update(&self, pod: &mut Value, old: &Value, context: &WriteContext) {
        match context.subresource {
            "status" => {
                generic::keep_all_but_status(pod, old);
                // Kubelets of long ago broke owner references; and deletion is not theirs to take back.
                pod.copy_from(old, "metadata.ownerReferences");
                pod.copy_from(old, "metadata.deletionTimestamp");
                pod.object("status");
                if pod.text("status.qosClass").is_empty() {
                    pod.copy_from(old, "status.qosClass");
                }
                keep_observed_generations(pod, old);
            }
            "ephemeralcontainers" => keep_but(pod, old, |pod, new| pod.copy_from(new, "spec.ephemeralContainers")),
            // Containers that come, go or change places are left for validation to refuse.
            "resize" if !same_containers(pod, old) => {}
            "resize" => keep_but(pod, old, |pod, new| {
                pod.copy_from(new, "spec.resources");
                for list in ["spec.containers", "spec.initContainers"] {
                    resize_containers(pod, new, list);
                }
            }),
            _ => pod.copy_from(old, "status"),
        }
        gates::drop_disabled(pod, Some(old), "core.v1.Pod");
    }

    fn validate_create(&self, pod: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(pod, |pod| {
            spec::pod(&pod, None);
            let spec = pod.get("spec");
            let ephemeral = spec.get("ephemeralContainers");
            if !ephemeral.is_empty() {
                ephemeral.forbidden("cannot be set on create");
            }
            let node = spec.get("nodeName");
            if !node.is_empty() && !spec.get("schedulingGates").is_empty() {
                node.forbidden("cannot be set until all schedulingGates have been cleared");
            }
            super::security::annotations_match_fields(&pod);
        })
    }

    fn validate_update(&self, pod: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(pod, |pod| match context.subresource {
            "status" => status::update(&pod, old),
            "ephemeralcontainers" => update::ephemeral_containers(&pod, old),
            "resize" => update::resize(&pod, old),
            _ => update::pod(&pod, old),
        })
    }

    /// Updates of the spec are left alone: people hardly make them, and they are many.
    fn warnings(&self, pod: &Value, old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        match old {
            None => super::warnings::pod(pod),
            Some(_) if context.subresource == "status" => super::warnings::status(pod),
            Some(_) => Vec::new(),
        }
    }

    /// A pod that is not on a node, or that has ended, goes at once; one that was given a negative time gets a second.
    fn grace_period_seconds(&self, pod: &Value, requested: Option<i64>) -> Option<i64> {
        let ended = matches!(pod.text("status.phase"), "Failed" | "Succeeded");
        if pod.text("spec.nodeName").is_empty() || ended {
            return None;
        }
        let seconds = requested.unwrap_or_else(|| pod.count("spec.terminationGracePeriodSeconds"));
        match seconds {
            0 => None,
            seconds if seconds < 0 => Some(1),
            seconds => Some(seconds),
        }
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        match subresource {
            "status" => Some(&["metadata.deletionTimestamp", "metadata.ownerReferences", "spec"]),
            _ => None,
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// Whether the containers have the same names in the same places.
fn same_containers(pod: &Value, old: &Value) -> bool {
    ["spec.containers", "spec.initContainers"].into_iter().all(|list| {
        let names = |pod: &Value| -> Vec<String> { pod.list(list).iter().map(|c| c.text("name").into()).collect() };
        names(pod) == names(old)
    })
}

/// A client that does not know `observedGeneration` does not clear it.
fn keep_observed_generations(pod: &mut Value, old: &Value) {
    if pod.count("status.observedGeneration") == 0 {
        pod.copy_from(old, "status.observedGeneration");
    }
    let mut before: Vec<&Value> = old.list("status.conditions").iter().collect();
    for condition in pod.elements("status.conditions") {
        let same = before.iter().position(|old| old.text("type") == condition.text("type"));
        let Some(old) = same.map(|index| before.remove(index)) else {
            continue;
        };
        if condition.count("observedGeneration") == 0 {
            condition.copy_from(old, "observedGeneration");
        }
    }
}

/// An AppArmor profile that is named by the annotation of old becomes a field, unless the pod's own is the same.
fn profiles_from_annotations(pod: &mut Value) {
    if pod.text("spec.os.name") == "windows" {
        return;
    }
    let annotations = pod.at("metadata.annotations").clone();
    let of_pod = pod.at("spec.securityContext.appArmorProfile").clone();
    for list in ["spec.initContainers", "spec.containers", "spec.ephemeralContainers"] {
        for container in pod.elements(list) {
            let key = format!("{APPARMOR_ANNOTATION}{}", container.text("name"));
            let given = annotations.get(&key).and_then(Value::as_str);
            let Some(profile) = given.and_then(apparmor_profile) else {
                continue;
            };
            if !container.has("securityContext.appArmorProfile") && profile != of_pod {
                container
                    .object("securityContext")
                    .insert("appArmorProfile".into(), profile);
            }
        }
    }
}

/// The old pod with the part of the new one that a subresource may write; of the metadata, only what guards the write.
fn keep_but(pod: &mut Value, old: &Value, edit: impl FnOnce(&mut Value, &Value)) {
    let new = std::mem::replace(pod, old.clone());
    for field in ["apiVersion", "kind", "metadata"] {
        pod.copy_from(&new, field);
    }
    generic::keep_metadata(pod, old);
    edit(pod, &new);
}

fn resize_containers(pod: &mut Value, new: &Value, list: &str) {
    for container in pod.elements(list) {
        let name = container.text("name").to_string();
        if let Some(new) = new.list(list).iter().find(|new| new.text("name") == name) {
            container.copy_from(new, "resources");
            container.copy_from(new, "resizePolicy");
        }
    }
}

/// The values of `matchLabelKeys` are read from the pod's own labels once, when it is made.
fn merge_label_keys(pod: &mut Value) {
    let labels = pod.at("metadata.labels").clone();
    let merge = |term: &mut Value| {
        for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
            let keys: Vec<String> = term.texts(field).map(String::from).collect();
            let Some(selector) = term.existing("labelSelector") else {
                return;
            };
            let found = keys.iter().filter_map(|key| Some((key, labels.get(key)?)));
            let expressions: Vec<Value> = found
                .map(|(key, value)| json!({"key": key, "operator": operator, "values": [value]}))
                .collect();
            if !expressions.is_empty() {
                let mut all = selector.list("matchExpressions").to_vec();
                all.extend(expressions);
                selector.put("matchExpressions", all);
            }
        }
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = format!("spec.affinity.{kind}");
        let Some(affinity) = pod.existing(&path) else { continue };
        affinity
            .elements("requiredDuringSchedulingIgnoredDuringExecution")
            .for_each(merge);
        for weighted in affinity.elements("preferredDuringSchedulingIgnoredDuringExecution") {
            weighted.existing("podAffinityTerm").map(merge);
        }
    }
    pod.elements("spec.topologySpreadConstraints").for_each(merge);
}
