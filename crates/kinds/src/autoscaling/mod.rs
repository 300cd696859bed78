//! The autoscaling group: HorizontalPodAutoscaler, stored as v2 and served also as v1.

mod columns;
mod conversion;

use api::Value;
use serde_json::json;

use crate::build::Row;
use crate::generic::WithStatus;
use crate::row::StorageKind;
use crate::view::{Edit, View};

/// The CPU utilization that is aimed at when nothing is said.
const CPU_UTILIZATION_DEFAULT: i64 = 80;

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    let row = Row::namespaced(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    )
    .short(&["hpa"])
    .in_all()
    .strategy(WithStatus(default))
    .status()
    .columns(columns::V2)
    .also_served("autoscaling", "v1", conversion::V1, |served| {
        served.columns = Some(columns::V1)
    });
    vec![row.build()]
}

fn default(object: &mut Value) {
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

fn cpu_metric(utilization: i64) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": utilization}}})
}
