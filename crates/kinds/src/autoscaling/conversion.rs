//! Between autoscaling/v2, the hub, and v1, which knows one CPU target and carries the rest in annotations.
//!
//! Source of names and annotations: `pkg/apis/autoscaling/v1/conversion.go` and `pkg/apis/autoscaling/annotations.go`.

use api::quantity::Quantity;
use api::{Status, Value};
use serde_json::json;

use super::{CPU_UTILIZATION_DEFAULT, cpu_metric};
use crate::row::Conversion;
use crate::view::{Edit, View};

/// autoscaling/v1.
pub const V1: Conversion = Conversion { to_hub, from_hub };

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Every annotation that carries something; the last two did so in releases before a field of the behavior.
const CARRYING: [&str; 6] = [
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// One field of a metric in both versions. A quantity that upstream's v1 types hold by value is `"0"` when absent.
struct Field {
    v1: &'static str,
    v2: &'static str,
    by_value: bool,
}

const fn field(v1: &'static str, v2: &'static str) -> Field {
    Field {
        v1,
        v2,
        by_value: false,
    }
}

const fn by_value(v1: &'static str, v2: &'static str) -> Field {
    Field { v1, v2, by_value: true }
}

type Table = [(&'static str, &'static [Field]); 5];

const SPEC: Table = [
    (
        "resource",
        &[
            field("name", "name"),
            field("targetAverageUtilization", "target.averageUtilization"),
            field("targetAverageValue", "target.averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            field("name", "name"),
            field("container", "container"),
            field("targetAverageUtilization", "target.averageUtilization"),
            field("targetAverageValue", "target.averageValue"),
        ],
    ),
    (
        "pods",
        &[
            field("metricName", "metric.name"),
            field("selector", "metric.selector"),
            by_value("targetAverageValue", "target.averageValue"),
        ],
    ),
    (
        "object",
        &[
            field("target", "describedObject"),
            field("metricName", "metric.name"),
            field("selector", "metric.selector"),
            by_value("targetValue", "target.value"),
            field("averageValue", "target.averageValue"),
        ],
    ),
    (
        "external",
        &[
            field("metricName", "metric.name"),
            field("metricSelector", "metric.selector"),
            field("targetValue", "target.value"),
            field("targetAverageValue", "target.averageValue"),
        ],
    ),
];

const STATUS: Table = [
    (
        "resource",
        &[
            field("name", "name"),
            field("currentAverageUtilization", "current.averageUtilization"),
            by_value("currentAverageValue", "current.averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            field("name", "name"),
            field("container", "container"),
            field("currentAverageUtilization", "current.averageUtilization"),
            by_value("currentAverageValue", "current.averageValue"),
        ],
    ),
    (
        "pods",
        &[
            field("metricName", "metric.name"),
            field("selector", "metric.selector"),
            by_value("currentAverageValue", "current.averageValue"),
        ],
    ),
    (
        "object",
        &[
            field("target", "describedObject"),
            field("metricName", "metric.name"),
            field("selector", "metric.selector"),
            by_value("currentValue", "current.value"),
            field("averageValue", "current.averageValue"),
        ],
    ),
    (
        "external",
        &[
            field("metricName", "metric.name"),
            field("metricSelector", "metric.selector"),
            by_value("currentValue", "current.value"),
            field("currentAverageValue", "current.averageValue"),
        ],
    ),
];

/// The fields of scaling rules as upstream's internal type writes them into the annotation.
const RULE_FIELDS: [(&str, &str); 4] = [
    ("StabilizationWindowSeconds", "stabilizationWindowSeconds"),
    ("SelectPolicy", "selectPolicy"),
    ("Policies", "policies"),
    ("Tolerance", "tolerance"),
];
const POLICY_FIELDS: [(&str, &str); 3] = [("Type", "type"), ("Value", "value"), ("PeriodSeconds", "periodSeconds")];

fn to_hub(mut object: Value) -> Result<Value, Status> {
    let carried = |key: &str| -> Option<Value> {
        let text = object.at("metadata.annotations").get(key)?.as_str()?;
        serde_json::from_str(text).ok()
    };
    let (metrics, current) = (carried(METRICS), carried(CURRENT_METRICS));
    let (conditions, behavior) = (carried(CONDITIONS), carried(BEHAVIOR));

    let mut all: Vec<Value> = list(metrics)
        .iter()
        .map(|metric| metric_to_v2(metric, &SPEC, "target"))
        .collect();
    let cpu = object
        .cut("spec.targetCPUUtilizationPercentage")
        .and_then(|v| v.as_i64());
    all.extend(cpu.map(cpu_metric));
    if all.is_empty() {
        all.push(cpu_metric(CPU_UTILIZATION_DEFAULT));
    }
    object.object("spec").insert("metrics".into(), all.into());
    if let Some(behavior) = behavior
        .map(|internal| behavior_to_v2(&internal))
        .filter(|b| b.entries("").count() > 0)
    {
        object.object("spec").insert("behavior".into(), behavior);
    }

    let cpu = object
        .cut("status.currentCPUUtilizationPercentage")
        .and_then(|v| v.as_i64());
    let status = object.object("status");
    if let Some(current) = current {
        let current: Vec<Value> = list(Some(current))
            .iter()
            .map(|m| metric_to_v2(m, &STATUS, ""))
            .collect();
        status.insert("currentMetrics".into(), current.into());
    } else if let Some(cpu) = cpu {
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": cpu}}});
        status.insert("currentMetrics".into(), json!([metric]));
    }
    if let Some(conditions) = conditions {
        status.insert("conditions".into(), conditions);
    }
    drop_annotations(&mut object);
    Ok(object)
}

fn from_hub(mut object: Value) -> Result<Value, Status> {
    drop_annotations(&mut object);
    let mut carried = Vec::new();

    let metrics = list(object.cut("spec.metrics"));
    let is_cpu = |metric: &Value| metric.text("type") == "Resource" && metric.text("resource.name") == "cpu";
    let utilization = |metric: &Value| {
        metric
            .number("resource.target.averageUtilization")
            .filter(|_| is_cpu(metric))
    };
    if let Some(cpu) = metrics.iter().find_map(utilization) {
        object
            .object("spec")
            .insert("targetCPUUtilizationPercentage".into(), cpu.into());
    }
    let others = metrics.iter().filter(|metric| utilization(metric).is_none());
    carried.push((
        METRICS,
        others.map(|metric| metric_to_v1(metric, &SPEC)).collect::<Vec<_>>(),
    ));

    let current = list(object.cut("status.currentMetrics"));
    let last_cpu = current.iter().filter(|metric| is_cpu(metric));
    let last_cpu = last_cpu
        .filter_map(|metric| metric.number("resource.current.averageUtilization"))
        .next_back();
    if let Some(cpu) = last_cpu {
        object
            .object("status")
            .insert("currentCPUUtilizationPercentage".into(), cpu.into());
    }
    carried.push((
        CURRENT_METRICS,
        current.iter().map(|metric| metric_to_v1(metric, &STATUS)).collect(),
    ));
    carried.push((CONDITIONS, list(object.cut("status.conditions"))));

    for (key, values) in carried {
        if !values.is_empty() {
            annotate(&mut object, key, &Value::Array(values));
        }
    }
    if let Some(behavior) = object.cut("spec.behavior").filter(|behavior| !behavior.is_null()) {
        annotate(&mut object, BEHAVIOR, &behavior_to_internal(&behavior));
    }
    Ok(object)
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    let annotations = object.object("metadata.annotations");
    annotations.insert(key.into(), value.to_string().into());
}

/// Removes the annotations that carry v2 through v1.
pub fn drop_annotations(object: &mut Value) {
    if let Some(annotations) = object.existing("metadata.annotations").and_then(Value::as_object_mut) {
        if !CARRYING.iter().any(|key| annotations.contains_key(*key)) {
            return;
        }
        for key in CARRYING {
            annotations.remove(key);
        }
        if annotations.is_empty() {
            object.cut("metadata.annotations");
        }
    }
}

/// `target` is where the type of the target is written; empty for statuses, which have none.
fn metric_to_v2(metric: &Value, table: &Table, target: &str) -> Value {
    let mut out = json!({"type": metric.text("type")});
    for (source, fields) in table {
        let given = metric.at(source);
        if given.is_null() {
            continue;
        }
        let mut converted = json!({});
        for field in *fields {
            match given.at(field.v1) {
                Value::Null if field.by_value => put_at(&mut converted, field.v2, "0".into()),
                Value::Null => {}
                value => put_at(&mut converted, field.v2, value.clone()),
            }
        }
        // The zero that v1 cannot leave out beside an average is no value.
        let is_zero = Quantity::from_value(converted.at("target.value")).is_ok_and(|value| value.sign() == 0);
        if *source == "object" && given.has("averageValue") && is_zero {
            converted.cut("target.value");
        }
        if !target.is_empty() {
            let kind = target_type(source, given);
            converted.object(target).insert("type".into(), kind.into());
        }
        out.put(source, converted);
    }
    out
}

fn metric_to_v1(metric: &Value, table: &Table) -> Value {
    let mut out = json!({"type": metric.text("type")});
    for (source, fields) in table {
        let given = metric.at(source);
        if given.is_null() {
            continue;
        }
        let mut converted = json!({});
        for field in *fields {
            match given.at(field.v2) {
                Value::Null if field.by_value => converted.put(field.v1, "0"),
                Value::Null => {}
                value => converted.put(field.v1, value.clone()),
            }
        }
        out.put(source, converted);
    }
    out
}

fn target_type(source: &str, v1: &Value) -> &'static str {
    match source {
        "resource" | "containerResource" if v1.has("targetAverageUtilization") => "Utilization",
        "object" if !v1.has("averageValue") => "Value",
        "external" if v1.has("targetValue") => "Value",
        _ => "AverageValue",
    }
}

fn put_at(object: &mut Value, path: &str, value: Value) {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    object.object(parent).insert(name.into(), value);
}

fn behavior_to_internal(behavior: &Value) -> Value {
    let mut out = json!({"ScaleUp": null, "ScaleDown": null});
    for (v2, internal) in [("scaleUp", "ScaleUp"), ("scaleDown", "ScaleDown")] {
        if !behavior.has(v2) {
            continue;
        }
        let mut rules = json!({});
        for (internal_name, name) in RULE_FIELDS {
            rules.put(internal_name, behavior.at(v2).at(name).clone());
        }
        let policies = behavior.at(v2).list("policies").iter();
        let policies: Vec<Value> = policies
            .map(|p| rename(p, POLICY_FIELDS.map(|(to, from)| (from, to))))
            .collect();
        rules.put("Policies", policies);
        out.put(internal, rules);
    }
    out
}

fn behavior_to_v2(behavior: &Value) -> Value {
    let mut out = json!({});
    for (v2, internal) in [("scaleUp", "ScaleUp"), ("scaleDown", "ScaleDown")] {
        if !behavior.has(internal) {
            continue;
        }
        let mut rules = rename(behavior.at(internal), RULE_FIELDS);
        let policies = behavior.at(internal).list("Policies").iter();
        let policies: Vec<Value> = policies.map(|policy| rename(policy, POLICY_FIELDS)).collect();
        rules.put("policies", policies);
        out.put(v2, rules);
    }
    out
}

fn rename<const N: usize>(object: &Value, names: [(&str, &str); N]) -> Value {
    let mut out = json!({});
    for (from, to) in names {
        if object.has(from) {
            out.put(to, object.at(from).clone());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_round_trip(hub: Value) {
        let v1 = from_hub(hub.clone()).expect("converts");
        assert!(!v1.has("spec.metrics") && !v1.has("spec.behavior"), "{v1}");
        assert_eq!(to_hub(v1).expect("converts"), hub);
    }

    #[test]
    fn everything_survives_v1() {
        check_round_trip(json!({
            "metadata": {"name": "h", "annotations": {"mine": "kept"}},
            "spec": {"maxReplicas": 5, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "memory",
                        "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "qps"},
                        "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {"metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}},
                        "describedObject": {"kind": "Service", "name": "s"},
                        "target": {"type": "Value", "value": "5"}}},
                    {"type": "Object", "object": {"metric": {"name": "hits"},
                        "describedObject": {"kind": "Service", "name": "s"},
                        "target": {"type": "AverageValue", "averageValue": "5"}}},
                    {"type": "External", "external": {"metric": {"name": "queue"},
                        "target": {"type": "AverageValue", "averageValue": "3"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                        "target": {"type": "Utilization", "averageUtilization": 70}}},
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 50}}}],
                "behavior": {"scaleUp": {"selectPolicy": "Max", "stabilizationWindowSeconds": 3,
                    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}}},
            "status": {"currentReplicas": 1, "desiredReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [
                    {"type": "Resource", "resource": {"name": "cpu",
                        "current": {"averageUtilization": 45, "averageValue": "450m"}}},
                    {"type": "Object", "object": {"metric": {"name": "hits"},
                        "describedObject": {"kind": "Service", "name": "s"}, "current": {"value": "4"}}}]}}));
    }

    #[test]
    fn v1_shows_its_one_target() {
        let v1 = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60},
            "status": {"currentCPUUtilizationPercentage": 40}});
        let hub = to_hub(v1.clone()).expect("converts");
        assert_eq!(hub.at("spec.metrics"), &json!([cpu_metric(60)]));
        let back = from_hub(hub).expect("converts");
        assert_eq!(back.at("spec"), v1.at("spec"));
        assert_eq!(back.at("status.currentCPUUtilizationPercentage"), 40);

        let without = to_hub(json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3}})).expect("converts");
        assert_eq!(
            without.at("spec.metrics"),
            &json!([cpu_metric(80)]),
            "the default of upstream's controller"
        );
    }

    #[test]
    fn broken_annotations_are_dropped() {
        let v1 = json!({"metadata": {"annotations": {METRICS: "no json", BEHAVIOR: "{}"}}, "spec": {}});
        let hub = to_hub(v1).expect("converts");
        assert!(!hub.has("metadata.annotations") && !hub.has("spec.behavior"), "{hub}");
    }
}
