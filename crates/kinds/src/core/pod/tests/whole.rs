//! The resources of a pod as a whole.

use serde_json::json;

use super::{Pods, check, check_spec, pod};
use crate::testing::Case;

#[test]
fn rules() {
    for good in [
        "resources: {}",
        "resources: {requests: {cpu: 1}, limits: {cpu: 2, memory: 1Gi}}",
        "resources: {limits: {cpu: 1, hugepages-2Mi: 4Mi}}",
    ] {
        check_spec(good, &[]);
    }
    check_spec(
        "resourceClaims: [{name: c, resourceClaimName: d}], resources: {claims: [{name: c}], requests: {ephemeral-storage: 1, \
         x: 1, cpu: 2}, limits: {cpu: 1}}",
        &[
            "resources.claims: Forbidden: claims may not be set for Resources at pod-level",
            "resources.requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \
             \"hugepages-\", \"memory\"",
            "resources.requests[x]: Invalid value: \"x\": must be a standard resource type or fully qualified",
            "resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check_spec(
        "os: {name: windows}, resources: {limits: {x: 1}}",
        &["resources: Forbidden: may not be set for a windows pod"],
    );
}

#[test]
fn containers_fit() {
    let with = |container: &str, spec: &str| pod(&format!("resources: {container}"), spec);
    for (container, spec, errors) in [
        (
            "{requests: {cpu: 1}, limits: {cpu: 2}}",
            "resources: {requests: {cpu: 1}, limits: {cpu: 2}}",
            vec![],
        ),
        (
            "{requests: {cpu: 2}, limits: {cpu: 4}}",
            "resources: {requests: {cpu: 1}, limits: {cpu: 3}}",
            vec![
                "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container \
                 requests of 2",
                "spec.resources.containers[0][cpu].limits: Invalid value: \"4\": must be less than or equal to pod limits \
                 of 3",
            ],
        ),
        (
            "{limits: {cpu: 1, hugepages-2Mi: 4Mi}}",
            "resources: {limits: {cpu: 1, hugepages-2Mi: 2Mi}, requests: {hugepages-2Mi: 2Mi}}",
            vec![
                "spec.resources.requests[hugepages-2Mi]: Invalid value: \"2Mi\": must be greater than or equal to aggregate \
                 container requests of 4Mi",
                "spec.resources.limits[hugepages-2Mi]: Invalid value: \"2Mi\": must be greater than or equal to aggregate \
                 container limits of 4Mi",
                "spec.resources.containers[0][hugepages-2Mi].limits: Invalid value: \"4Mi\": must be less than or equal to \
                 pod limits of 2Mi",
            ],
        ),
    ] {
        check(&Pods, Case::new(spec).object(&with(container, spec)).errors(&errors));
    }
}

#[test]
fn requests_are_filled_in() {
    let both = json!({"cpu": "2", "memory": "1Gi"});
    for (container, own, requests, limits, class) in [
        (
            "",
            "{limits: {cpu: '2'}}",
            json!({"cpu": "2"}),
            json!({"cpu": "2"}),
            "Burstable",
        ),
        (
            "requests: {cpu: '1'}",
            "{limits: {cpu: '2', memory: 1Gi}}",
            json!({"cpu": "1", "memory": "1Gi"}),
            both.clone(),
            "Burstable",
        ),
        (
            "",
            "{limits: {cpu: '2', memory: 1Gi}}",
            both.clone(),
            both,
            "Guaranteed",
        ),
        (
            "requests: {cpu: '1'}",
            "{requests: {memory: 1Gi}}",
            json!({"memory": "1Gi"}),
            json!(null),
            "Burstable",
        ),
        (
            "limits: {cpu: '1', hugepages-2Mi: 4Mi}",
            "{limits: {cpu: '1'}}",
            json!({"cpu": "1", "hugepages-2Mi": "4Mi"}),
            json!({"cpu": "1", "hugepages-2Mi": "4Mi"}),
            "Burstable",
        ),
        ("requests: {cpu: '1'}", "{}", json!(null), json!(null), "BestEffort"),
    ] {
        let object = pod(&format!("resources: {{{container}}}"), &format!("resources: {own}"));
        let case = Case::new(own).object(&object).field("status.qosClass", class);
        let case = case.field("spec.resources.requests", requests);
        check(&Pods, case.field("spec.resources.limits", limits));
    }
}

#[test]
fn resize() {
    let with = |own: &str| pod("", &format!("resources: {own}"));
    for (old, new, errors) in [
        ("{limits: {cpu: 1}}", "{requests: {cpu: 1}, limits: {cpu: 2}}", vec![]),
        (
            "{requests: {cpu: 1}}",
            "{requests: {cpu: 1}, limits: {memory: 1Gi}}",
            vec![],
        ),
        (
            "{requests: {cpu: 1, memory: 1Gi}}",
            "{requests: {cpu: 1}}",
            vec!["spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"],
        ),
        (
            "{requests: {cpu: 1}}",
            "{requests: {cpu: 1}, limits: {hugepages-2Mi: 2Mi}}",
            vec!["spec: Forbidden: only cpu and memory resources are mutable at pod-level"],
        ),
    ] {
        let case = Case::new(new).subresource("resize").old(&with(old));
        check(&Pods, case.object(&with(new)).errors(&errors));
    }
    let gone = Case::new("gone")
        .subresource("resize")
        .old(&with("{requests: {cpu: 1}}"));
    check(
        &Pods,
        gone.object(&pod("", "")).errors(&[
            "spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing",
            "spec.resources: Forbidden: pod-level resources cannot be removed",
        ]),
    );
}
