//! Defaults, rules and what happens around a write of a replication controller.
//!
//! Source: `SetDefaults_ReplicationController`, `ValidateReplicationControllerSpec` in
//! `pkg/apis/core/validation/validation.go` and `pkg/registry/core/replicationcontroller/strategy.go`.

use api::Value;
use api::field::{Error, ErrorList, ErrorType};

use crate::apps::workload;
use crate::check::{At, Report};
use crate::core::pod;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

/// Begins the annotations that the group `extensions` of old left where a replica set could not be told as a
/// controller.
const NON_CONVERTIBLE: &str = "non-convertible.kubernetes.io";

/// Replication controllers.
pub struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    fn default(&self, object: &mut Value) {
        workload::default_replicas(object);
        pod::default_template(object.existing("spec.template"));
        let labels = object.at("spec.template.metadata.labels").clone();
        if labels.is_null() {
            return;
        }
        for (parent, field) in [("spec", "selector"), ("metadata", "labels")] {
            if object.at(parent).entries(field).next().is_none() {
                object.object(parent).insert(field.into(), labels.clone());
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        workload::drop_disabled(object, None);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        workload::drop_disabled(object, Some(old));
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| spec(&object.get("spec"), None))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => status(&object.get("status")),
            _ => {
                spec(&object.get("spec"), Some(old.at("spec")));
                non_convertible(&object, old);
            }
        })
    }

    /// In an update upstream tells of the template before it; that is kept.
    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        match old {
            None => pod::template_warnings("spec.template", object, None),
            Some(old) => pod::spec_warnings("spec.template", old, Some(object)),
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn spec(spec: &At, old: Option<&Value>) {
    spec.get("minReadySeconds").non_negative();
    spec.get("selector").required();
    spec.get("replicas").non_negative();
    let template = spec.get("template");
    if !template.is_set() {
        return template.missing("");
    }
    let labels = template.value.at("metadata.labels");
    if !spec
        .value
        .entries("selector")
        .all(|(key, value)| labels.get(key) == Some(value))
    {
        let at = template.get("metadata.labels");
        at.invalid_as(labels.clone(), "`selector` does not match template `labels`");
    }
    pod::validate_template(&template, old.map(|old| old.at("template")));
    workload::runs_forever(&template, "ReplicationController");
}

fn status(status: &At) {
    workload::validate_status(
        status,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
        ],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
    );
}

/// What could not be told in another group's words stays as it is.
fn non_convertible(object: &At, old: &Value) {
    for (key, value) in old.entries("metadata.annotations") {
        let Some((_, broken)) = key.split_once('/').filter(|_| key.starts_with(NON_CONVERTIBLE)) else {
            continue;
        };
        if broken.contains('/') {
            continue;
        }
        let selector = object.get("spec.selector");
        match broken.contains("selector") {
            true => selector.ensure(
                selector.value == old.at("spec.selector"),
                "cannot update non-convertible selector",
            ),
            false => object.report.push(Error {
                kind: ErrorType::NotFound,
                field: broken.into(),
                value: value.clone(),
                detail: "unknown non-convertible field".into(),
            }),
        }
    }
}
