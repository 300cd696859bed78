//! HorizontalPodAutoscalers, by example.

use serde_json::json;

use super::strategy::Autoscalers;
use crate::testing::{Case, LABEL, check};

const TARGET: &str = "scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}";

/// An autoscaler in flow YAML: its target, three pods at most, and more fields of its spec.
fn scaler(fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { ", " };
    format!("{{metadata: {{name: h}}, spec: {{{TARGET}, maxReplicas: 3{comma}{fields}}}}}")
}

#[test]
fn defaults() {
    let up = json!({"selectPolicy": "Max", "stabilizationWindowSeconds": 0, "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]});
    for case in [
        Case::new("eighty percent of one cpu")
            .object(&scaler(""))
            .field("spec.minReplicas", 1)
            .field(
                "spec.metrics",
                json!([{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 80}}}]),
            )
            .field("spec.behavior", ())
            .field("status", json!({})),
        Case::new("rules for both directions once there is one")
            .object(&scaler(
                "behavior: {scaleDown: {stabilizationWindowSeconds: 5, selectPolicy: Min}}",
            ))
            .field("spec.behavior.scaleUp", up)
            .field(
                "spec.behavior.scaleDown",
                json!({"stabilizationWindowSeconds": 5, "selectPolicy": "Min",
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}),
            ),
        Case::new("what carries v2 through v1 is nobody's to write")
            .object(&scaler("").replace(
                "name: h",
                "name: h, annotations: {a: b, autoscaling.alpha.kubernetes.io/metrics: '[]'}",
            ))
            .field("metadata.annotations", json!({"a": "b"})),
        Case::new("tolerance")
            .object(&scaler("behavior: {scaleUp: {tolerance: 100m}}"))
            .field("spec.behavior.scaleUp.tolerance", "100m"),
    ] {
        check(&Autoscalers, case);
    }
}

#[test]
fn numbers_and_targets() {
    let group = "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group";
    for (object, errors) in [
        (scaler("minReplicas: 3"), vec![]),
        (
            scaler("minReplicas: 0"),
            vec![
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero \
                 replicas",
            ],
        ),
        (
            scaler("minReplicas: 4"),
            vec!["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"],
        ),
        (
            scaler("").replace("maxReplicas: 3", "maxReplicas: 0"),
            vec![
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ],
        ),
        (
            scaler("").replace("maxReplicas: 3", "maxReplicas: -1"),
            vec![
                "spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1",
                "spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`",
            ],
        ),
        (
            scaler("").replace(TARGET, "scaleTargetRef: {apiVersion: apps/v1}"),
            vec![
                "spec.scaleTargetRef.kind: Required value",
                "spec.scaleTargetRef.name: Required value",
            ],
        ),
        (
            scaler("").replace("kind: Deployment, name: d", "kind: a/b, name: .."),
            vec![
                "spec.scaleTargetRef.kind: Invalid value: \"a/b\": may not contain '/'",
                "spec.scaleTargetRef.name: Invalid value: \"..\": may not be '..'",
            ],
        ),
        (scaler("").replace("apps/v1", "v1"), vec![group]),
        (
            scaler("")
                .replace("apps/v1", "v1")
                .replace("Deployment", "ReplicationController"),
            vec![],
        ),
        (
            scaler("").replace("apps/v1", "a/b/c"),
            vec!["spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
        ),
    ] {
        check(&Autoscalers, Case::new(&object).object(&object).errors(&errors));
    }
}

/// One metric and the errors it earns, below `spec.metrics[0]`.
#[test]
fn metrics() {
    let supported = "supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"";
    let value = "target: {type: Value, value: 1}";
    for (metric, errors) in [
        ("type: Object, object: {describedObject: {kind: Service, name: s}, metric: {name: m}, target: {type: Value, value: 1}}", vec![]),
        ("type: External, external: {metric: {name: m}, target: {type: Value, value: 1}}", vec![]),
        ("type: Pods, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: 1}}", vec![]),
        ("type: Resource, resource: {name: memory, target: {type: Utilization, averageUtilization: 1}}", vec![]),
        ("type: ContainerResource, containerResource: {name: cpu, container: c, target: {type: AverageValue, averageValue: 1}}", vec![]),
        (
            "type: ''",
            vec![
                "type: Required value: must specify a metric source type".to_string(),
                format!("type: Unsupported value: \"\": {supported}"),
            ],
        ),
        ("type: Other", vec![format!("type: Unsupported value: \"Other\": {supported}")]),
        ("type: Pods", vec!["pods: Required value: must populate information for the given metric source".into()]),
        (
            "type: Pods, pods: {metric: {name: a/b}, target: {type: X, averageValue: '0'}}, resource: {}",
            vec![
                "pods.metric.name: Invalid value: \"a/b\": may not contain '/'".into(),
                "pods.target.type: Invalid value: \"X\": must be either Utilization, Value, or AverageValue".into(),
                "pods.target.averageValue: Invalid value: \"0\": must be positive".into(),
                "resource: Forbidden: must populate the given metric source only".into(),
            ],
        ),
        (
            "type: Pods, pods: {metric: {}, target: {}}",
            vec![
                "pods.metric.name: Required value: must specify a metric name".into(),
                "pods.target.type: Required value: must specify a metric target type".into(),
                "pods.target.type: Invalid value: \"\": must be either Utilization, Value, or AverageValue".into(),
                "pods.target.averageValue: Required value: must specify a positive target averageValue".into(),
            ],
        ),
        (
            "type: Object, object: {describedObject: {apiVersion: a/b/c, kind: Service}, metric: {name: m}, target: {type: Value}}",
            vec![
                "object.describedObject.name: Required value".into(),
                "object.describedObject.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c".into(),
                "object.target.averageValue: Required value: must set either a target value or averageValue".into(),
            ],
        ),
        (
            "type: External, external: {metric: {name: m}, target: {type: Value}}",
            vec![
                "external.target.averageValue: Required value: must set either a target value for metric or a per-pod target"
                    .into(),
            ],
        ),
        (
            "type: External, external: {metric: {name: m}, target: {type: Value, value: 1, averageValue: 1}}",
            vec![
                "external.target.value: Forbidden: may not set both a target value for metric and a per-pod target".into(),
            ],
        ),
        (
            "type: Resource, resource: {target: {type: Utilization}}",
            vec![
                "resource.name: Required value: must specify a resource name".into(),
                "resource.target.averageUtilization: Required value: must set either a target raw value or a target \
                 utilization"
                    .into(),
            ],
        ),
        (
            "type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 0, averageValue: 1}}",
            vec![
                "resource.target.averageUtilization: Invalid value: 0: must be greater than 0".into(),
                "resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization"
                    .into(),
            ],
        ),
        (
            "type: ContainerResource, containerResource: {name: hair, container: a_b, target: {type: AverageValue, averageValue: 1}}",
            vec![
                "containerResource.name: Invalid value: \"hair\": must be a standard resource type or fully qualified".into(),
                "containerResource.name: Invalid value: \"hair\": must be a standard resource for containers".into(),
                format!("containerResource.container: Invalid value: \"a_b\": {LABEL}"),
            ],
        ),
    ] {
        let errors: Vec<String> = errors.iter().map(|error| format!("spec.metrics[0].{error}")).collect();
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        let object = scaler(&format!("metrics: [{{{metric}}}]"));
        check(&Autoscalers, Case::new(metric).object(&object).errors(&errors));
    }
    let external = format!("metrics: [{{type: External, external: {{metric: {{name: m}}, {value}}}}}]");
    let zero = scaler(&format!("minReplicas: 0, {external}"));
    let case = Case::new("from zero").object(&zero);
    check(
        &Autoscalers,
        case.errors(&["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"]),
    );
}

#[test]
fn behavior() {
    let at = "spec.behavior.scaleUp";
    for (rules, errors) in [
        ("stabilizationWindowSeconds: 3600, selectPolicy: Disabled", vec![]),
        (
            "stabilizationWindowSeconds: -1",
            vec!["stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero"],
        ),
        (
            "stabilizationWindowSeconds: 3601",
            vec!["stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600"],
        ),
        (
            "selectPolicy: Some",
            vec!["selectPolicy: Unsupported value: \"Some\": supported values: \"Disabled\", \"Max\", \"Min\""],
        ),
        (
            "policies: []",
            vec!["policies: Required value: must specify at least one Policy"],
        ),
        (
            "policies: [{type: X, value: 0, periodSeconds: 0}]",
            vec![
                "policies[0].type: Unsupported value: \"X\": supported values: \"Percent\", \"Pods\"",
                "policies[0].value: Invalid value: 0: must be greater than zero",
                "policies[0].periodSeconds: Invalid value: 0: must be greater than zero",
            ],
        ),
        (
            "policies: [{type: Pods, value: 1, periodSeconds: 1801}]",
            vec!["policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"],
        ),
    ] {
        let errors: Vec<String> = errors.iter().map(|error| format!("{at}.{error}")).collect();
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        let object = scaler(&format!("behavior: {{scaleUp: {{{rules}}}}}"));
        check(&Autoscalers, Case::new(rules).object(&object).errors(&errors));
    }
}

#[test]
fn update() {
    let external = "metrics: [{type: External, external: {metric: {name: m}, target: {type: Value, value: 1}}}]";
    let zero = scaler(&format!("minReplicas: 0, {external}"));
    let ungrouped = scaler("").replace("apps/v1", "v1");
    let described = "metrics: [{type: Object, object: {describedObject: {apiVersion: a/b/c, kind: Service, name: s}, metric: \
                     {name: m}, target: {type: Value, value: 1}}}]";
    for case in [
        Case::new("who scaled to zero goes on")
            .old(&zero)
            .object(&zero.replace("name: m", "name: n")),
        Case::new("a version that was stored")
            .old(&ungrouped)
            .object(&ungrouped.replace("maxReplicas: 3", "maxReplicas: 4")),
        Case::new("not for another kind")
            .old(&ungrouped)
            .object(&ungrouped.replace("Deployment", "StatefulSet"))
            .errors(&["spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group"]),
        Case::new("a version of what is measured that was stored")
            .old(&scaler(described))
            .object(&scaler(&described.replace("name: m", "name: n"))),
        Case::new("status is written apart")
            .old(&scaler(""))
            .subresource("status")
            .object("{metadata: {name: h}, spec: {maxReplicas: 9}, status: {currentReplicas: -1, desiredReplicas: -2}}")
            .field("spec.maxReplicas", 3)
            .errors(&[
                "status.currentReplicas: Invalid value: -1: must be greater than or equal to 0",
                "status.desiredReplicas: Invalid value: -2: must be greater than or equal to 0",
            ]),
    ] {
        check(&Autoscalers, case);
    }
}
