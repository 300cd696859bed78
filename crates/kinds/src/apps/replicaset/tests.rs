//! Replica sets, by example.

use serde_json::json;

use super::strategy::ReplicaSets;
use crate::testing::{Case, check};

const SET: &str = "{spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: \
                   [{name: a, image: i}]}}}}";

#[test]
fn rules() {
    for case in [
        Case::new("a set")
            .object(SET)
            .field("spec.replicas", 1)
            .field("spec.template.spec.dnsPolicy", "ClusterFirst")
            .field("status", json!({})),
        Case::new("another template")
            .object(&SET.replace("labels: {app: web}", "labels: {app: db}"))
            .errors(&[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template \
                 `labels`",
            ]),
        Case::new("the selector is for life")
            .old(SET)
            .object(&SET.replace("app: web", "app: db"))
            .errors(&["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable"]),
        Case::new("counters")
            .subresource("status")
            .old(SET)
            .object("status: {replicas: 1, fullyLabeledReplicas: 2, observedGeneration: -1}")
            .errors(&[
                "status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.observedGeneration: Invalid value: -1: must be greater than or equal to 0",
            ]),
    ] {
        check(&ReplicaSets, case);
    }
}
