//! Defaults and what happens around a write of a persistent volume.
//!
//! Source: `SetDefaults_PersistentVolume`, `pkg/registry/core/persistentvolume/strategy.go` and
//! `pkg/api/persistentvolume/util.go`.

use api::Value;
use api::field::{Error, ErrorList, Path};
use serde_json::json;

use super::{CLASS_ANNOTATION, MOUNT_OPTIONS_ANNOTATION, validation};
use crate::check::Report;
use crate::core::pod::warnings::deprecated_node_label;
use crate::core::pod::{defaults, round_up};
use crate::gates;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const TRANSITION: &str = "status.lastPhaseTransitionTime";

/// Persistent volumes.
pub struct PersistentVolumes;

impl Strategy for PersistentVolumes {
    fn default(&self, object: &mut Value) {
        object.object("spec");
        let spec = &mut object["spec"];
        spec.put_default("persistentVolumeReclaimPolicy", "Retain");
        spec.put_default("volumeMode", "Filesystem");
        defaults::volume_source(spec);
        round_up(spec.existing("capacity"));
        object.object("status");
        object["status"].put_default("phase", "Pending");
    }

    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        object.put(
            "status",
            json!({"phase": "Pending", "lastPhaseTransitionTime": context.now}),
        );
        gates::drop_disabled(object, None, "core.v1.PersistentVolume");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        if context.subresource == "status" {
            phase_transition(object, old, context.now);
        }
        gates::drop_disabled(object, Some(old), "core.v1.PersistentVolume");
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validation::volume(&object, &Value::Null))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => resource_version(&object),
            _ => {
                validation::volume(&object, old);
                validation::update(&object, old);
            }
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        match context.subresource {
            "" => warnings(object),
            _ => Vec::new(),
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// A status is written over a version that the writer has seen.
pub fn resource_version(object: &crate::check::At) {
    if object.value.text("metadata.resourceVersion").is_empty() {
        object.report.push(Error::required(&Path::new("resourceVersion"), ""));
    }
}

/// When the phase changes, so does its time, unless the writer gives one.
fn phase_transition(object: &mut Value, old: &Value, now: &str) {
    let same_time = object.at(TRANSITION) == old.at(TRANSITION);
    match object.text("status.phase") == old.text("status.phase") {
        true if !object.has(TRANSITION) => object.copy_from(old, TRANSITION),
        false if same_time || !object.has(TRANSITION) => {
            object
                .object("status")
                .insert("lastPhaseTransitionTime".into(), now.into());
        }
        _ => {}
    }
}

fn warnings(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (annotation, field, since) in [
        (CLASS_ANNOTATION, "storageClassName", "v1.8"),
        (MOUNT_OPTIONS_ANNOTATION, "mountOptions", "v1.31"),
    ] {
        if api::meta::annotation(object, annotation).is_some() {
            warnings.push(format!(
                "metadata.annotations[{annotation}]: deprecated since {since}; use \"{field}\" attribute instead"
            ));
        }
    }
    if object.text("spec.persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning."
                .into(),
        );
    }
    let terms = object.list("spec.nodeAffinity.required.nodeSelectorTerms");
    for (i, term) in terms.iter().enumerate() {
        for (j, expression) in term.list("matchExpressions").iter().enumerate() {
            let key = expression.text("key");
            if let Some(message) = deprecated_node_label(key) {
                let at = format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}].matchExpressions[{j}].key");
                warnings.push(format!("{at}: {key} is {message}"));
            }
        }
    }
    for (field, shown, message) in [
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        (
            "photonPersistentDisk",
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        (
            "storageos",
            "storageOS",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "glusterfs",
            "glusterfs",
            "deprecated in v1.25, non-functional in v1.26+",
        ),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        if object.at("spec").has(field) {
            warnings.push(format!("spec.{shown}: {message}"));
        }
    }
    warnings
}
