//! Normal form by example.

use serde_json::json;

use super::*;

fn of(name: &str) -> SchemaRef {
    SchemaRef::builtin_type(name).unwrap_or_else(|| panic!("{name}"))
}

fn check(ty: &str, mut value: Value, expect: Value) {
    let schema = of(ty);
    let unknown = normalize(&mut value, &schema, UnknownFields::Report).unwrap();
    assert_eq!((&value, unknown.len()), (&expect, 0), "{ty}");
    normalize(&mut value, &schema, UnknownFields::Ignore).unwrap();
    assert_eq!(value, expect, "{ty}: not idempotent");
}

fn refuse(ty: &str, mut value: Value, expect: &str) {
    let text = value.to_string();
    let error = normalize(&mut value, &of(ty), UnknownFields::Ignore).unwrap_err();
    assert_eq!(error.message, expect, "{text}");
}

#[test]
fn what_go_always_writes_is_there() {
    check(
        "api.core.v1.Pod",
        json!({}),
        json!({"metadata": {}, "spec": {"containers": null}, "status": {}}),
    );
    check(
        "api.core.v1.Service",
        json!({"metadata": null, "spec": {}}),
        json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}),
    );
    check(
        "api.apps.v1.Deployment",
        json!({"metadata": {"creationTimestamp": null, "name": ""}}),
        json!({"metadata": {}, "spec": {"selector": null, "strategy": {},
            "template": {"metadata": {}, "spec": {"containers": null}}}, "status": {}}),
    );
    check(
        "api.core.v1.Container",
        json!({"name": "a"}),
        json!({"name": "a", "resources": {}}),
    );
    // A time that is no pointer is null when it is zero, `omitempty` or not.
    check(
        "api.core.v1.PodCondition",
        json!({"lastProbeTime": "0001-01-01T00:00:00Z"}),
        json!({"lastProbeTime": null, "lastTransitionTime": null, "status": "", "type": ""}),
    );
    check(
        "api.apps.v1.ControllerRevision",
        json!({}),
        json!({"data": null, "metadata": {}, "revision": 0}),
    );
}

#[test]
fn a_pointer_to_zero_is_not_unset() {
    check(
        "api.core.v1.PodSecurityContext",
        json!({"runAsUser": 0, "runAsNonRoot": false}),
        json!({"runAsUser": 0, "runAsNonRoot": false}),
    );
    check(
        "api.core.v1.Volume",
        json!({"name": "a", "emptyDir": {}}),
        json!({"name": "a", "emptyDir": {}}),
    );
    check(
        "api.core.v1.Volume",
        json!({"name": "a", "emptyDir": null}),
        json!({"name": "a"}),
    );
    check(
        "api.core.v1.Probe",
        json!({"periodSeconds": 0, "failureThreshold": 3}),
        json!({"failureThreshold": 3}),
    );
}

#[test]
fn scalars_have_one_spelling() {
    check(
        "api.core.v1.ResourceRequirements",
        json!({"limits": {"cpu": "1000m", "memory": "1024Mi", "x": 2, "y": null}}),
        json!({"limits": {"cpu": "1", "memory": "1Gi", "x": "2", "y": "0"}}),
    );
    check(
        "apimachinery.pkg.apis.meta.v1.ObjectMeta",
        json!({"creationTimestamp": "2026-01-01T01:00:00.5+01:00", "labels": {"a": null}, "finalizers": []}),
        json!({"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": ""}}),
    );
    check(
        "api.coordination.v1.LeaseSpec",
        json!({"renewTime": "2026-01-01T01:00:00.000001+01:00"}),
        json!({"renewTime": "2026-01-01T00:00:00.000001Z"}),
    );
    check(
        "api.core.v1.Secret",
        json!({"data": {"a": "/w\n==", "b": null}}),
        json!({"data": {"a": "/w==", "b": ""}, "metadata": {}}),
    );
    check("api.core.v1.TCPSocketAction", json!({"port": null}), json!({"port": 0}));
}

#[test]
fn wrong_types_are_told_in_go_s_words() {
    let pod = "api.core.v1.Pod";
    refuse(
        pod,
        json!({"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}}),
        "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
    );
    refuse(
        pod,
        json!({"spec": {"containers": {}}}),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
    );
    refuse(
        pod,
        json!({"metadata": {"labels": {"a": 1}}}),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    );
    refuse(
        pod,
        json!({"spec": 1}),
        "json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec",
    );
    refuse(
        pod,
        json!([]),
        "json: cannot unmarshal array into Go value of type v1.Pod",
    );
    refuse(
        pod,
        json!({"spec": {"terminationGracePeriodSeconds": 1.5}}),
        "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64",
    );
    refuse(
        pod,
        json!({"spec": {"priority": 4294967296_i64}}),
        "json: cannot unmarshal number 4294967296 into Go struct field PodSpec.spec.priority of type int32",
    );
    refuse(
        pod,
        json!({"spec": {"hostNetwork": "yes"}}),
        "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
    );
    refuse(
        pod,
        json!({"metadata": {"creationTimestamp": "yesterday"}}),
        r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
    );
    refuse(
        "api.core.v1.Secret",
        json!({"data": {"a": "%%"}}),
        "illegal base64 data at input byte 0",
    );
    refuse(
        "api.core.v1.ResourceRequirements",
        json!({"limits": {"cpu": "1x y"}}),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    refuse(
        "api.core.v1.TCPSocketAction",
        json!({"port": {}}),
        "json: cannot unmarshal object into Go value of type int32",
    );
    refuse(
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        json!({"additionalProperties": 1}),
        "boolean or JSON schema expected",
    );
}

#[test]
fn unknown_fields_are_dropped_and_told_with_their_case() {
    let mut value = json!({"Spec": {}, "spec": {"containers": [{"name": "a", "resources": {}, "foo": 1}], "nodeSelector": {"any": "b"}},
        "metadata": {"labels": {"any.key/x": "y"}, "clusterName": "c"}});
    let unknown = normalize(&mut value, &of("api.core.v1.Pod"), UnknownFields::Report).unwrap();
    let told: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            r#"unknown field "Spec""#,
            r#"unknown field "metadata.clusterName""#,
            r#"unknown field "spec.containers[0].foo""#
        ]
    );
    assert_eq!(value["spec"]["containers"][0], json!({"name": "a", "resources": {}}));
    assert!(value.get("Spec").is_none());
}
