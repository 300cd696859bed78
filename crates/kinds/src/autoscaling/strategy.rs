//! Defaults of a HorizontalPodAutoscaler and what happens around its writes.
//!
//! Source: `pkg/apis/autoscaling/v2/defaults.go` and `pkg/registry/autoscaling/horizontalpodautoscaler/strategy.go`.

use api::Value;
use api::field::ErrorList;
use serde_json::json;

use super::{CPU_UTILIZATION_DEFAULT, conversion, cpu_metric, validation};
use crate::check::Report;
use crate::gates;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

/// Autoscalers.
pub struct Autoscalers;

impl Strategy for Autoscalers {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        drop_disabled(object, None);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        drop_disabled(object, Some(old));
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validation::spec(&object.get("spec"), None))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => validation::status(&object.get("status")),
            _ => validation::spec(&object.get("spec"), Some(old.at("spec"))),
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn default(object: &mut Value) {
    // What carries v2 through v1 means nothing in v2.
    conversion::drop_annotations(object);
    object.object("spec");
    let spec = &mut object["spec"];
    spec.put_default("minReplicas", 1);
    if spec.list("metrics").is_empty() {
        spec.put("metrics", json!([cpu_metric(CPU_UTILIZATION_DEFAULT)]));
    }
    if spec.has("behavior") {
        let up = json!({"selectPolicy": "Max", "stabilizationWindowSeconds": 0, "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]});
        let down = json!({"selectPolicy": "Max", "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15}]});
        for (direction, rules) in [("behavior.scaleUp", up), ("behavior.scaleDown", down)] {
            let given = spec.object(direction);
            for (field, value) in rules.entries("") {
                given.entry(field).or_insert_with(|| value.clone());
            }
        }
    }
}

fn drop_disabled(object: &mut Value, old: Option<&Value>) {
    if let Some(spec) = object.existing("spec") {
        let old = old.map(|old| old.at("spec"));
        gates::drop_disabled(spec, old, "autoscaling.v2.HorizontalPodAutoscalerSpec");
    }
}
