//! Deployments, by example.

use serde_json::json;

use super::strategy::Deployments;
use crate::row::Strategy;
use crate::testing::{Case, QUALIFIED, check};

/// A deployment in flow YAML: fields of its spec besides selector and template.
fn deployment(fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { ", " };
    format!(
        "{{metadata: {{name: d}}, spec: {{selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: \
         web}}}}, spec: {{containers: [{{name: a, image: i}}]}}}}{comma}{fields}}}}}"
    )
}

#[test]
fn defaults() {
    for case in [
        Case::new("rolling update")
            .object(&deployment(""))
            .field("spec.replicas", 1)
            .field(
                "spec.strategy",
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}),
            )
            .field("spec.revisionHistoryLimit", 10)
            .field("spec.progressDeadlineSeconds", 600)
            .field("spec.template.spec.restartPolicy", "Always")
            .field("spec.template.spec.enableServiceLinks", ())
            .field("spec.template.spec.containers.0.imagePullPolicy", "Always")
            .field("status", json!({})),
        Case::new("recreate")
            .object(&deployment("replicas: 0, strategy: {type: Recreate}"))
            .field("spec.replicas", 0)
            .field("spec.strategy", json!({"type": "Recreate"})),
    ] {
        check(&Deployments, case);
    }
}

#[test]
fn create() {
    let template = "spec.template";
    for (fields, errors) in [
        (
            "replicas: -1, minReadySeconds: -1, revisionHistoryLimit: -1, progressDeadlineSeconds: -2",
            vec![
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0".to_string(),
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0".into(),
                "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0".into(),
                "spec.progressDeadlineSeconds: Invalid value: -2: must be greater than or equal to 0".into(),
                "spec.progressDeadlineSeconds: Invalid value: -2: must be greater than minReadySeconds".into(),
            ],
        ),
        (
            "strategy: {type: X}",
            vec!["spec.strategy: Unsupported value: \"X\": supported values: \"Recreate\", \"RollingUpdate\"".into()],
        ),
        (
            "strategy: {type: Recreate, rollingUpdate: {}}",
            vec![
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"
                    .into(),
            ],
        ),
        (
            "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}",
            vec![
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"
                    .into(),
            ],
        ),
        (
            "strategy: {rollingUpdate: {maxSurge: -1, maxUnavailable: 101%}}",
            vec![
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0".into(),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"
                    .into(),
            ],
        ),
        (
            "selector: null",
            vec![
                "spec.selector: Required value".into(),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
                    .into(),
            ],
        ),
        (
            "selector: {}",
            vec!["spec.selector: Invalid value: {}: empty selector is invalid for deployment".into()],
        ),
        (
            "selector: {matchLabels: {app: db}}",
            vec![format!(
                "{template}.metadata.labels: Invalid value: {{\"app\":\"web\"}}: `selector` does not match template \
                 `labels`"
            )],
        ),
        (
            "template: {metadata: {labels: {app: web, 'a b': c}, annotations: {'d e': f}}, spec: {restartPolicy: Never, \
             activeDeadlineSeconds: 5, containers: [{name: a, image: i}], ephemeralContainers: [{name: e, image: i}]}}",
            vec![
                format!("{template}.labels: Invalid value: \"a b\": {QUALIFIED}"),
                format!("{template}.annotations: Invalid value: \"d e\": {QUALIFIED}"),
                format!("{template}.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""),
                format!(
                    "{template}.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not \
                     Supported"
                ),
                format!(
                    "{template}.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template"
                ),
            ],
        ),
    ] {
        // A field that is given twice counts the last time.
        let base = deployment("");
        let object = match fields.split_once(':') {
            Some((field, _)) if ["selector", "template"].contains(&field) => {
                let mut value = crate::testing::yaml(&base);
                let given = crate::testing::yaml(&format!("{{{fields}}}"));
                value["spec"][field] = given[field].clone();
                value.to_string()
            }
            _ => deployment(fields),
        };
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&Deployments, Case::new(fields).object(&object).errors(&errors));
    }
}

#[test]
fn a_template_is_not_a_pod() {
    // What only pods mind: blanks around an image, host ports that are left open.
    let object = deployment("").replace("image: i", "image: ' i', ports: [{containerPort: 80}]");
    let object = object.replace("spec: {containers", "spec: {hostNetwork: true, containers");
    let case = Case::new("template").object(&object);
    check(
        &Deployments,
        case.field("spec.template.spec.containers.0.ports.0.hostPort", ()),
    );
}

#[test]
fn update() {
    let old = deployment("replicas: 3");
    for case in [
        Case::new("anything but the selector").object(&deployment("replicas: 5").replace("image: i", "image: j")),
        Case::new("the selector is for life")
            .object(&old.replace("app: web", "app: db"))
            .errors(&["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable"]),
        Case::new("status is written apart")
            .subresource("status")
            .object("{metadata: {name: d, labels: {a: b}}, status: {replicas: 2, updatedReplicas: 2}}")
            .field("metadata.labels", ())
            .field("spec.replicas", 3)
            .field("status.replicas", 2),
        Case::new("counters")
            .subresource("status")
            .object(
                "{metadata: {name: d}, status: {replicas: 1, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 3, \
                 unavailableReplicas: -1}}",
            )
            .errors(&[
                "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
                "status.unavailableReplicas: Invalid value: -1: must be greater than or equal to 0",
            ]),
    ] {
        check(&Deployments, case.old(&old));
    }
    let case = Case::new("collisions are counted up").subresource("status");
    check(
        &Deployments,
        case.old("status: {collisionCount: 2}")
            .object("status: {collisionCount: 1}")
            .errors(&["status.collisionCount: Invalid value: 1: cannot be decremented"]),
    );
}

#[test]
fn annotations_raise_the_generation() {
    let of = |annotation: &str| json!({"metadata": {"annotations": {"a": annotation}}, "spec": {}});
    assert!(Deployments.generation_changed(&of("x"), &of("y")));
    assert!(!Deployments.generation_changed(&of("x"), &of("x")));
}
