//! Replication controllers, by example.

use serde_json::json;

use super::strategy::ReplicationControllers;
use crate::row::{Strategy, WriteContext, Writer};
use crate::testing::{Case, NOW, check, yaml};

const CONTROLLER: &str = "{metadata: {name: c}, spec: {template: {metadata: {labels: {app: web}}, spec: {containers: \
                          [{name: a, image: i}]}}}}";

#[test]
fn rules() {
    let template = "spec.template";
    for case in [
        Case::new("the template's labels are the selector and the labels")
            .object(CONTROLLER)
            .field("spec.replicas", 1)
            .field("spec.selector", json!({"app": "web"}))
            .field("metadata.labels", json!({"app": "web"}))
            .field("spec.template.spec.restartPolicy", "Always")
            .field("status", json!({})),
        Case::new("unless they are given")
            .object(
                "{metadata: {name: c, labels: {a: b}}, spec: {replicas: 0, selector: {app: web}, template: {metadata: \
                 {labels: {app: web, c: d}}, spec: {containers: [{name: a, image: i}]}}}}",
            )
            .field("spec.replicas", 0)
            .field("spec.selector", json!({"app": "web"}))
            .field("metadata.labels", json!({"a": "b"})),
        Case::new("nothing").object("{metadata: {name: c}, spec: {}}").errors(&[
            "spec.selector: Required value",
            "spec.template: Required value",
        ]),
        Case::new("numbers, another selector, pods that end")
            .object(
                "{metadata: {name: c}, spec: {replicas: -1, minReadySeconds: -1, selector: {app: db}, template: {metadata: \
                 {labels: {app: web}}, spec: {restartPolicy: OnFailure, activeDeadlineSeconds: 3, containers: [{name: a, \
                 image: i}]}}}}",
            )
            .errors(&[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                &format!(
                    "{template}.metadata.labels: Invalid value: {{\"app\":\"web\"}}: `selector` does not match template \
                     `labels`"
                ),
                &format!("{template}.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\""),
                &format!(
                    "{template}.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is \
                     not Supported"
                ),
            ]),
        Case::new("a selector may change").old(CONTROLLER).object(
            "{metadata: {name: c}, spec: {selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: {containers: \
             [{name: a, image: i}]}}}}",
        ),
        Case::new("but for one that another group could not tell")
            .old(
                "{metadata: {name: c, annotations: {non-convertible.kubernetes.io/spec.selector: x, \
                 non-convertible.kubernetes.io/spec.x: y}}, spec: {template: {metadata: {labels: {app: web}}, spec: \
                 {containers: [{name: a, image: i}]}}}}",
            )
            .object(&CONTROLLER.replace("web", "db"))
            .errors(&[
                "spec.selector: Invalid value: {\"app\":\"db\"}: cannot update non-convertible selector",
                "spec.x: Not found: \"y\": unknown non-convertible field",
            ]),
        Case::new("counters")
            .subresource("status")
            .old(CONTROLLER)
            .object("status: {replicas: 1, fullyLabeledReplicas: 2, readyReplicas: 1, availableReplicas: 2, observedGeneration: -1}")
            .errors(&[
                "status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
                "status.observedGeneration: Invalid value: -1: must be greater than or equal to 0",
            ]),
    ] {
        check(&ReplicationControllers, case);
    }
}

#[test]
fn warnings_of_an_update_are_of_the_template_before_it() {
    let context = WriteContext {
        now: NOW,
        subresource: "",
        user: Writer::named("tester"),
        version: "v1",
    };
    let plain = yaml(CONTROLLER);
    let mut negative = plain.clone();
    negative["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = (-1).into();
    let mut negative_next = negative.clone();
    negative_next["metadata"]["generation"] = 2.into();
    let mut plain_next = plain.clone();
    plain_next["metadata"]["generation"] = 2.into();
    let warnings = |object, old| ReplicationControllers.warnings(object, old, &context).len();
    assert_eq!(warnings(&negative, None), 1);
    assert_eq!(warnings(&negative_next, Some(&plain)), 0);
    assert_eq!(warnings(&plain_next, Some(&negative)), 1);
    assert_eq!(warnings(&negative, Some(&negative)), 0);
}
