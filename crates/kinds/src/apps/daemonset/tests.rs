//! Daemon sets, by example.

use serde_json::json;

use super::strategy::{DaemonSets, TEMPLATE_GENERATION};
use crate::testing::{Case, check};

const SET: &str = "{spec: {selector: {matchLabels: {app: log}}, template: {metadata: {labels: {app: log}}, spec: {containers: \
                   [{name: a, image: i}]}}}}";

fn with(spec: &str) -> String {
    SET.replace("{spec: {", &format!("{{spec: {{{spec}, "))
}

#[test]
fn rules() {
    let rolling = |fields: &str| with(&format!("updateStrategy: {{rollingUpdate: {{{fields}}}}}"));
    for case in [
        Case::new("a set")
            .object(SET)
            .field("spec.revisionHistoryLimit", 10)
            .field("spec.template.spec.dnsPolicy", "ClusterFirst")
            .field(
                "spec.updateStrategy",
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}),
            )
            .field("status", json!({})),
        Case::new("no selector")
            .object("spec: {template: {spec: {containers: [{name: a, image: i}]}}}")
            .errors(&[
                "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
            ]),
        Case::new("an empty selector")
            .object(&SET.replace("matchLabels: {app: log}", ""))
            .errors(&["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"]),
        Case::new("pods run forever")
            .object(&SET.replace(
                "spec: {containers",
                "spec: {restartPolicy: Never, activeDeadlineSeconds: 5, containers",
            ))
            .errors(&[
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not \
                 Supported",
            ]),
        Case::new("numbers")
            .object(&with("minReadySeconds: -1, revisionHistoryLimit: -1"))
            .errors(&[
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ]),
        Case::new("another strategy")
            .object(&with("updateStrategy: {type: Recreate}"))
            .errors(&[
                "spec.updateStrategy: Unsupported value: \"Recreate\": supported values: \"RollingUpdate\", \"OnDelete\"",
            ]),
        Case::new("on deletion").object(&with("updateStrategy: {type: OnDelete}")),
        Case::new("surge first").object(&rolling("maxUnavailable: 0, maxSurge: 10%")),
        Case::new("both").object(&rolling("maxUnavailable: 1, maxSurge: 1")).errors(&[
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is \
             non-zero",
        ]),
        Case::new("neither").object(&rolling("maxUnavailable: 0")).errors(&[
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ]),
        Case::new("more than all").object(&rolling("maxUnavailable: 101%")).errors(&[
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ]),
        Case::new("the selector is for life")
            .old(SET)
            .object(&SET.replace("app: log", "app: db"))
            .errors(&["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable"]),
        Case::new("counters")
            .subresource("status")
            .old("status: {collisionCount: 2}")
            .object("status: {numberReady: -1}")
            .errors(&[
                "status.numberReady: Invalid value: -1: must be greater than or equal to 0",
                "status.collisionCount: Invalid value: 0: cannot be decremented",
            ]),
    ] {
        check(&DaemonSets, case);
    }
}

#[test]
fn templates_are_counted() {
    let path = "metadata.annotations";
    let count = |n: &str| json!({TEMPLATE_GENERATION: n});
    let old = SET.replace(
        "{spec: {s",
        &format!("{{metadata: {{annotations: {{{TEMPLATE_GENERATION}: '3'}}}}, spec: {{s"),
    );
    for case in [
        Case::new("the first").object(SET).field(path, count("1")),
        Case::new("the same").old(&old).object(SET).field(path, count("3")),
        Case::new("the next")
            .old(&old)
            .object(&SET.replace("image: i", "image: j"))
            .field(path, count("4")),
    ] {
        check(&DaemonSets, case);
    }
}
