//! Stateful sets, by example.

use serde_json::json;

use super::strategy::StatefulSets;
use crate::row::{Strategy, WriteContext, Writer};
use crate::testing::{Case, LABEL, NOW, QUALIFIED, check, yaml};

/// A set in flow YAML: fields of its spec besides selector and template.
fn set(fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { ", " };
    format!(
        "{{metadata: {{name: s}}, spec: {{selector: {{matchLabels: {{app: db}}}}, template: {{metadata: {{labels: {{app: \
         db}}}}, spec: {{containers: [{{name: a, image: i}}]}}}}{comma}{fields}}}}}"
    )
}

const CLAIM: &str = "volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: \
                     {requests: {storage: 1Gi}}}}]";

#[test]
fn defaults() {
    for case in [
        Case::new("a rolling update, one by one")
            .object(&set(CLAIM))
            .field("spec.replicas", 1)
            .field("spec.podManagementPolicy", "OrderedReady")
            .field(
                "spec.updateStrategy",
                json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
            )
            .field(
                "spec.persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
            )
            .field("spec.revisionHistoryLimit", 10)
            .field("spec.volumeClaimTemplates.0.apiVersion", "v1")
            .field("spec.volumeClaimTemplates.0.kind", "PersistentVolumeClaim")
            .field("spec.volumeClaimTemplates.0.spec.volumeMode", "Filesystem")
            .field("spec.volumeClaimTemplates.0.status", json!({"phase": "Pending"}))
            .field("spec.template.spec.restartPolicy", "Always")
            .field("status", json!({})),
        Case::new("what is given stays")
            .object(&set(
                "replicas: 0, podManagementPolicy: Parallel, updateStrategy: {type: OnDelete}, revisionHistoryLimit: 0, \
                 persistentVolumeClaimRetentionPolicy: {whenScaled: Delete}",
            ))
            .field("spec.replicas", 0)
            .field("spec.podManagementPolicy", "Parallel")
            .field("spec.updateStrategy", json!({"type": "OnDelete"}))
            .field(
                "spec.persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Retain", "whenScaled": "Delete"}),
            )
            .field("spec.revisionHistoryLimit", 0),
        Case::new("a strategy that is named gets no parameters")
            .object(&set("updateStrategy: {type: RollingUpdate}"))
            .field("spec.updateStrategy", json!({"type": "RollingUpdate"})),
        Case::new("how many may be away is a feature that is off")
            .object(&set("updateStrategy: {rollingUpdate: {maxUnavailable: 0}}"))
            .field(
                "spec.updateStrategy",
                json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
            ),
    ] {
        check(&StatefulSets, case);
    }
}

#[test]
fn create() {
    let not_found = "Not found: \"data\"";
    for (fields, errors) in [
        (
            "replicas: -1, minReadySeconds: -1, ordinals: {start: -1}",
            vec![
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0".to_string(),
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0".into(),
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0".into(),
            ],
        ),
        (
            "podManagementPolicy: Random",
            vec!["spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'".into()],
        ),
        (
            "updateStrategy: {type: Never}",
            vec![
                "spec.updateStrategy: Invalid value: {\"type\":\"Never\"}: must be 'RollingUpdate' or 'OnDelete'".into(),
            ],
        ),
        (
            "updateStrategy: {type: OnDelete, rollingUpdate: {partition: 1}}",
            vec![
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy \
                 'RollingUpdate'"
                    .into(),
            ],
        ),
        (
            "updateStrategy: {rollingUpdate: {partition: -1}}",
            vec![
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0"
                    .into(),
            ],
        ),
        (
            "persistentVolumeClaimRetentionPolicy: {whenDeleted: Keep, whenScaled: Lose}",
            vec![
                "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Keep\": supported values: \
                 \"Retain\", \"Delete\""
                    .into(),
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Lose\": supported values: \
                 \"Retain\", \"Delete\""
                    .into(),
            ],
        ),
        (
            "serviceName: a_b",
            vec![format!("spec.serviceName: Invalid value: \"a_b\": {LABEL}")],
        ),
        (
            "volumeClaimTemplates: [{metadata: {name: data}}]",
            vec![
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required".into(),
                "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value".into(),
            ],
        ),
        (
            "selector: null",
            vec![
                "spec.selector: Required value".into(),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template \
                 `labels`"
                    .into(),
            ],
        ),
        (
            "selector: {}",
            vec!["spec.selector: Invalid value: {}: empty selector is invalid for statefulset".into()],
        ),
        (
            "selector: {matchExpressions: [{key: a, operator: X}]}",
            vec![
                "spec.selector.matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator".into(),
                "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"X\"}]}".into(),
            ],
        ),
        (
            "template: {metadata: {labels: {app: db, 'a b': c}}, spec: {restartPolicy: Never, activeDeadlineSeconds: 5, \
             hostname: 'a b', subdomain: 'c d', containers: [{name: a, image: i, volumeMounts: [{name: data, mountPath: \
             /d}]}]}}",
            vec![
                format!("spec.template.labels: Invalid value: \"a b\": {QUALIFIED}"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"".into(),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported"
                    .into(),
                format!("spec.template.spec.containers[0].volumeMounts[0].name: {not_found}"),
            ],
        ),
    ] {
        let mut object = yaml(&set(""));
        let given = yaml(&format!("{{{fields}}}"));
        for (field, value) in given.as_object().expect("fields") {
            object["spec"][field] = value.clone();
        }
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&StatefulSets, Case::new(fields).object(&object.to_string()).errors(&errors));
    }
}

#[test]
fn claims_are_volumes() {
    let mounts = "containers: [{name: a, image: i, volumeMounts: [{name: data, mountPath: /d}]}]";
    let with = |volumes: &str| set(CLAIM).replace("containers: [{name: a, image: i}]", &format!("{mounts}{volumes}"));
    for case in [
        Case::new("a claim is mounted").object(&with("")),
        Case::new("and hides a volume of its name").object(&with(", volumes: [{name: data, hostPath: {path: ''}}]")),
        Case::new("other volumes come after the claims")
            .object(&with(", volumes: [{name: other, hostPath: {path: ''}}]"))
            .errors(&["spec.template.spec.volumes[1].hostPath.path: Required value"]),
    ] {
        check(&StatefulSets, case);
    }
}

#[test]
fn update() {
    let old = set(&format!("replicas: 3, serviceName: s, {CLAIM}"));
    let immutable = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                     'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                     'minReadySeconds' are forbidden";
    for case in [
        Case::new("what may change")
            .object(&set(&format!(
                "replicas: 5, serviceName: s, minReadySeconds: 3, ordinals: {{start: 1}}, revisionHistoryLimit: 1, \
                 updateStrategy: {{type: OnDelete}}, persistentVolumeClaimRetentionPolicy: {{whenDeleted: Delete}}, {CLAIM}"
            )).replace("image: i", "image: j")),
        Case::new("claims").object(&old.replace("1Gi", "2Gi")).errors(&[immutable]),
        Case::new("the service").object(&old.replace("serviceName: s", "serviceName: t")).errors(&[immutable]),
        Case::new("the order").object(&old.replace("serviceName: s", "serviceName: s, podManagementPolicy: Parallel")).errors(&[immutable]),
        Case::new("status is written apart")
            .subresource("status")
            .object("{metadata: {name: s}, status: {replicas: 2, readyReplicas: 1, availableReplicas: 1}}")
            .field("spec.replicas", 3)
            .field("status.replicas", 2),
        Case::new("counters")
            .subresource("status")
            .object(
                "{metadata: {name: s}, status: {replicas: 1, readyReplicas: 2, currentReplicas: 2, updatedReplicas: 2, \
                 availableReplicas: 3, observedGeneration: -1, collisionCount: -1}}",
            )
            .errors(&[
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas",
                "status.observedGeneration: Invalid value: -1: must be greater than or equal to 0",
                "status.collisionCount: Invalid value: -1: must be greater than or equal to 0",
            ]),
    ] {
        check(&StatefulSets, case.old(&old));
    }
}

/// What an older server stored may stay broken as it is; what was good may not become broken.
#[test]
fn what_is_stored_is_tolerated() {
    let bad_claim = set("serviceName: a.b, volumeClaimTemplates: [{metadata: {name: data}}]");
    let bad_pod = set("").replace("image: i", "image: ''");
    let bad_label = "labels: {app: db, 'a b': c}";
    for case in [
        Case::new("a service and claims")
            .old(&bad_claim)
            .object(&bad_claim.replace("image: i", "image: j")),
        Case::new("a pod")
            .old(&bad_pod)
            .object(&bad_pod.replace("name: a", "name: 'a b'")),
        Case::new("but not its labels")
            .old(&bad_pod)
            .object(&bad_pod.replace(
                "{metadata: {labels: {app: db}}, spec",
                &format!("{{metadata: {{{bad_label}}}, spec"),
            ))
            .errors(&[&format!("spec.template.labels: Invalid value: \"a b\": {QUALIFIED}")]),
        Case::new("a good pod stays good")
            .old(&set(""))
            .object(&bad_pod)
            .errors(&["spec.template.spec.containers[0].image: Required value"]),
    ] {
        check(&StatefulSets, case);
    }
}

#[test]
fn warnings() {
    let context = WriteContext {
        now: NOW,
        subresource: "",
        user: Writer::named("tester"),
        version: "v1",
    };
    let object = yaml(&set(&format!(
        "revisionHistoryLimit: -1, {}",
        CLAIM.replace("1Gi", "100m")
    )));
    let history =
        "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
    let claim = |step: &str| {
        format!(
            "spec.volumeClaimTemplates[0]{step}.resources.requests[storage]: fractional byte value \"100m\" is invalid, must \
             be an integer"
        )
    };
    assert_eq!(
        StatefulSets.warnings(&object, None, &context),
        [claim(""), history.into()]
    );
    assert_eq!(
        StatefulSets.warnings(&object, Some(&object), &context),
        [claim(".Spec"), history.into()]
    );
}
