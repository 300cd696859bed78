//! What `kubectl get horizontalpodautoscalers` shows; one table for both served versions.

use api::Value;

use super::conversion;
use crate::print::{AGE, NAME, NONE, UNKNOWN, UNSET, age, name, or, text};
use crate::row::{Column, Columns, PrintContext};
use crate::view::View;

/// The columns of v2.
pub const V2: Columns = Columns {
    definitions: DEFINITIONS,
    cells,
};

/// The columns of v1.
pub const V1: Columns = Columns {
    definitions: DEFINITIONS,
    cells: |object, context| match (conversion::V1.to_hub)(object.clone()) {
        Ok(object) => cells(&object, context),
        Err(_) => Vec::new(),
    },
};

const DEFINITIONS: &[Column] = &[
    NAME,
    text("Reference", "What is scaled."),
    text("Targets", "What is measured, and what is aimed at."),
    text("MinPods", "The least number of pods."),
    text("MaxPods", "The largest number of pods."),
    text("Replicas", "The number of pods."),
    AGE,
];

/// How many metrics a cell shows.
const METRICS_MAX: usize = 2;

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let target = object.at("spec.scaleTargetRef");
    let min = object.number("spec.minReplicas").map(|min| min.to_string());
    vec![
        name(object),
        format!("{}/{}", target.text("kind"), target.text("name")).into(),
        metrics(object.list("spec.metrics"), object.list("status.currentMetrics")).into(),
        min.unwrap_or_else(|| UNSET.into()).into(),
        object.count("spec.maxReplicas").into(),
        object.count("status.currentReplicas").into(),
        age(object, context),
    ]
}

fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    let all: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| metric(spec, statuses.get(index).unwrap_or(&Value::Null)))
        .collect();
    match all.len() {
        0 => NONE.into(),
        count if count > METRICS_MAX => format!("{} + {} more...", all[..METRICS_MAX].join(", "), count - METRICS_MAX),
        _ => all.join(", "),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let source = match spec.text("type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let (target, current) = (spec.at(source).at("target"), status.at(source).at("current"));
    let average = target.text("averageValue");
    let shown = |field: &str| or(current.text(field), UNKNOWN).to_string();
    match source {
        "external" | "object" if !average.is_empty() => format!("{}/{average} (avg)", shown("averageValue")),
        "external" | "object" => format!("{}/{}", shown("value"), target.text("value")),
        "pods" => format!("{}/{average}", shown("averageValue")),
        _ => {
            let resource = spec.at(source).text("name");
            if !average.is_empty() {
                return format!("{resource}: {}/{average}", shown("averageValue"));
            }
            let percent = |value: Option<i64>, unknown: &str| value.map_or(unknown.into(), |v| format!("{v}%"));
            let measured = percent(current.number("averageUtilization"), UNKNOWN);
            let wanted = percent(target.number("averageUtilization"), "<auto>");
            format!("{resource}: {measured}/{wanted}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn targets_are_short() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}});
        let pods = json!({"type": "Pods", "pods": {"target": {"averageValue": "10"}}});
        let external = json!({"type": "External", "external": {"target": {"value": "5"}}});
        let measured = json!({"resource": {"current": {"averageUtilization": 40}}});
        for (specs, statuses, expect) in [
            (vec![], vec![], "<none>"),
            (vec![cpu.clone()], vec![], "cpu: <unknown>/80%"),
            (vec![cpu.clone()], vec![measured], "cpu: 40%/80%"),
            (
                vec![cpu, pods, external],
                vec![],
                "cpu: <unknown>/80%, <unknown>/10 + 1 more...",
            ),
        ] {
            assert_eq!(metrics(&specs, &statuses), expect);
        }
    }
}
