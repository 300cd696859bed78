//! The autoscaling group: HorizontalPodAutoscaler, stored as v2 and served also as v1.

mod columns;
mod conversion;
mod strategy;
#[cfg(test)]
mod tests;
mod validation;

use api::Value;
use serde_json::json;

use crate::build::Row;
use crate::row::StorageKind;

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
    .strategy(strategy::Autoscalers)
    .status()
    .columns(columns::V2)
    .also_served("autoscaling", "v1", conversion::V1, |served| {
        served.columns = Some(columns::V1)
    });
    vec![row.build()]
}

fn cpu_metric(utilization: i64) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": utilization}}})
}
