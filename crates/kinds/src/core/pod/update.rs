//! What may change of a pod.
//!
//! Source: `ValidatePodUpdate`, `ValidatePodEphemeralContainersUpdate` and `ValidatePodResize` in
//! `pkg/apis/core/validation/validation.go`.

use api::Value;
use api::field::{Error, Path};

use super::resources::{self, quality_of_service};
use super::scheduling;
use super::security::APPARMOR_ANNOTATION;
use super::spec::{self, is_mirror};
use super::whole;
use crate::check::At;
use crate::difference::difference;
use crate::view::{Edit, View};

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// The pod itself.
pub fn pod(pod: &At, old: &Value) {
    spec::pod(pod, Some(old));
    annotations(pod, old);
    let spec = pod.get("spec");
    let old_spec = old.at("spec");
    for list in ["containers", "initContainers"] {
        if spec.value.list(list).len() != old_spec.list(list).len() {
            return spec.get(list).forbidden("pod updates may not add or remove containers");
        }
        for container in spec.items(list) {
            container.get("image").required();
        }
    }
    if !deadline(&spec, old_spec) {
        return;
    }
    tolerations(&spec, old_spec);
    gates(&spec, old_spec);
    if spec.value == old_spec {
        return;
    }
    rest(&spec, old_spec);
}

/// Returns whether other rules are still worth a look, as upstream stops at some of these.
fn deadline(spec: &At, old: &Value) -> bool {
    let deadline = spec.get("activeDeadlineSeconds");
    match (deadline.number(), old.number("activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            deadline.invalid(spec::deadline_range());
            return false;
        }
        (Some(new), Some(old)) if old < new => {
            deadline.invalid("must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => deadline.invalid("must not update from a positive integer to nil value"),
        _ => {}
    }
    true
}

fn tolerations(spec: &At, old: &Value) {
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.cut("tolerationSeconds");
        toleration
    };
    let kept = |old: &Value| {
        spec.value
            .list("tolerations")
            .iter()
            .any(|new| timeless(new) == timeless(old))
    };
    if !old.list("tolerations").iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        spec.get("tolerations").forbidden(detail);
    }
    // Upstream checks the tolerations a second time here; equal errors are told once.
}

fn gates(spec: &At, old: &Value) {
    for gate in spec.items("schedulingGates") {
        let name = gate.value.text("name");
        if !old.list("schedulingGates").iter().any(|old| old.text("name") == name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            gate.get("name").forbidden(detail);
        }
    }
}

/// Everything but what may change must be as it was.
fn rest(spec: &At, old: &Value) {
    let mut masked = spec.value.clone();
    for list in ["containers", "initContainers"] {
        for (container, old) in masked.elements(list).zip(old.list(list)) {
            container.copy_from(old, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        masked.copy_from(old, field);
    }
    let grace = "terminationGracePeriodSeconds";
    if old.number(grace).is_some_and(|seconds| seconds < 0) && masked.number(grace) == Some(1) {
        masked.copy_from(old, grace);
    }
    if !old.list("schedulingGates").is_empty() {
        if masked.at("nodeSelector") != old.at("nodeSelector") {
            scheduling::node_selector_narrows(spec, old);
            masked.copy_from(old, "nodeSelector");
        }
        if masked.at("affinity.nodeAffinity") != old.at("affinity.nodeAffinity") {
            scheduling::node_affinity_narrows(spec, old);
            masked.copy_from(old, "affinity.nodeAffinity");
            let empty = masked.entries("affinity").next().is_none();
            if empty && !old.has("affinity") {
                masked.cut("affinity");
            }
        }
    }
    if masked != *old {
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            difference(old, &masked)
        );
        spec.forbidden(detail);
    }
}

/// Annotations that are part of what a pod is.
pub fn annotations(pod: &At, old: &Value) {
    let path = Path::new("metadata").child("annotations");
    let forbid = |key: &str, what: &str| pod.report.push(Error::forbidden(&path.key(key), what.to_string()));
    let (new_map, old_map) = (pod.value.at("metadata.annotations"), old.at("metadata.annotations"));
    for (key, value) in old_map.entries("") {
        if new_map.get(key) == Some(value) {
            continue;
        }
        if key.starts_with(APPARMOR_ANNOTATION) {
            forbid(key, "may not remove or update AppArmor annotations");
        }
        if key == MIRROR_ANNOTATION {
            forbid(key, "may not remove or update mirror pod annotation");
        }
    }
    for (key, _) in new_map.entries("").filter(|(key, _)| old_map.get(key).is_none()) {
        if key.starts_with(APPARMOR_ANNOTATION) {
            forbid(key, "may not add AppArmor annotations");
        }
        if key == MIRROR_ANNOTATION {
            forbid(key, "may not add mirror pod annotation");
        }
    }
}

/// The `ephemeralcontainers` subresource: containers are only added.
pub fn ephemeral_containers(pod: &At, old: &Value) {
    if is_mirror(old) {
        let at = pod.unnamed();
        return at.forbidden("static pods do not support ephemeral containers");
    }
    spec::pod(pod, Some(old));
    annotations(pod, old);
    let list = pod.get("spec.ephemeralContainers");
    for container in old.list("spec.ephemeralContainers") {
        let name = container.text("name");
        let new = pod
            .value
            .list("spec.ephemeralContainers")
            .iter()
            .find(|new| new.text("name") == name);
        match new {
            None => list.forbidden(format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(new) if new != container => {
                let shown = difference(container, new);
                list.forbidden(format!(
                    "existing ephemeral containers {name:?} may not be changed\n{shown}"
                ));
            }
            Some(_) => {}
        }
    }
}

/// The `resize` subresource: cpu and memory of the pod and of its containers, nothing else.
pub fn resize(pod: &At, old: &Value) {
    let unnamed = pod.unnamed();
    if is_mirror(old) {
        return unnamed.forbidden("static pods cannot be resized");
    }
    if old.text("spec.os.name") == "windows" {
        return unnamed.forbidden("windows pods cannot be resized");
    }
    let before = pod.report.len();
    spec::pod(pod, Some(old));
    let (spec, old_spec) = (pod.get("spec"), old.at("spec"));
    let quality = match old.text("status.qosClass") {
        "" => quality_of_service(old_spec),
        quality => quality,
    };
    if quality != quality_of_service(spec.value) {
        let shown = pod.value.text("status.qosClass");
        spec.invalid_as(shown, "Pod QOS Class may not change as a result of resizing");
    }
    let running = old
        .list("status.containerStatuses")
        .iter()
        .find(|status| status.has("state.running"));
    if running.is_some_and(|status| !status.has("resources")) {
        spec.forbidden("Pod running on node without support for resize");
    }
    let mut masked = spec.value.clone();
    whole::resize(&spec, old_spec, &mut masked);
    if !same_containers(&spec, old_spec) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (container, old) in spec.items(list).iter().zip(old_spec.list(list)) {
            nothing_removed(&container.get("resources"), old.at("resources"));
        }
    }
    for list in ["containers", "initContainers"] {
        let pairs = spec.items(list).into_iter().zip(old_spec.list(list));
        for ((container, old), masked) in pairs.zip(masked.elements(list)) {
            resources::mask(masked, old);
            let rest_differs = masked != old;
            if list == "containers" {
                if rest_differs {
                    spec.forbidden("only cpu and memory resources are mutable");
                }
                continue;
            }
            if rest_differs {
                container.forbidden("only cpu and memory resources for init or sidecar containers are mutable");
            }
            // Such policies cannot be set any more, but may be stored.
            let plain = container.value.text("restartPolicy") != "Always";
            if plain && container.value != old {
                let restarting = container.value.list("resizePolicy").iter();
                for _ in restarting.filter(|policy| policy.text("restartPolicy") == "RestartContainer") {
                    container.forbidden(
                        "non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
                    );
                }
            }
        }
    }
    if pod.report.len() == before && masked != *old_spec {
        spec.forbidden("only cpu and memory resources are mutable");
    }
}

fn same_containers(spec: &At, old: &Value) -> bool {
    let before = spec.report.len();
    for list in ["containers", "initContainers"] {
        if spec.value.list(list).len() != old.list(list).len() {
            spec.get(list)
                .forbidden(format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (container, old) in spec.items(list).iter().zip(old.list(list)) {
            if container.value.text("name") != old.text("name") {
                let detail = format!("{list} may not be renamed or reordered on resize");
                container.get("name").forbidden(detail);
            }
        }
    }
    spec.report.len() == before
}

fn nothing_removed(resources: &At, old: &Value) {
    for (list, word) in [("requests", "requests"), ("limits", "limits")] {
        let kept = old
            .entries(list)
            .all(|(resource, _)| resources.value.at(list).get(resource).is_some());
        if !kept {
            resources
                .get(list)
                .forbidden(format!("resource {word} cannot be removed"));
        }
    }
}
