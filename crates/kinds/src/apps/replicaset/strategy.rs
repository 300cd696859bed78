//! Defaults, rules and what happens around a write of a replica set.
//!
//! Source: `SetDefaults_ReplicaSet`, `ValidateReplicaSetSpec` and `pkg/registry/apps/replicaset/strategy.go`.

use api::Value;
use api::field::ErrorList;

use crate::apps::workload;
use crate::check::{At, Report};
use crate::core::pod;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::Edit;

/// Replica sets.
pub struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn default(&self, object: &mut Value) {
        workload::default_replicas(object);
        pod::default_template(object.existing("spec.template"));
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
        workload::validate_update(object, old, context, spec, status)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        pod::template_warnings("spec.template", object, old)
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn spec(spec: &At, old: Option<&Value>) {
    spec.get("replicas").non_negative();
    spec.get("minReadySeconds").non_negative();
    workload::validate(spec, old);
}

fn status(status: &At, _old: &Value) {
    workload::validate_status(
        status,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "terminatingReplicas",
            "observedGeneration",
        ],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
    );
}
