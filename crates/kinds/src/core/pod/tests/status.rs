//! What a kubelet may say.

use serde_json::json;

use super::{Pods, check, pod};
use crate::testing::{Case, LABEL, QUALIFIED, SUBDOMAIN};

fn check_status(old: &str, spec: &str, new: &str, errors: &[&str]) {
    let of = |status: &str| {
        let pod = pod("", spec);
        format!("{}, status: {status}}}", &pod[..pod.len() - 1])
    };
    let errors: Vec<String> = errors.iter().map(|error| format!("status.{error}")).collect();
    let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
    let case = Case::new(new).subresource("status").old(&of(old));
    check(&Pods, case.object(&of(new)).errors(&errors));
}

#[test]
fn the_rest_stays() {
    let old = "{metadata: {name: p, ownerReferences: [{name: o}]}, spec: {containers: [{name: a, image: i}]}, status: \
               {qosClass: Burstable}}";
    let new = "{metadata: {name: p, labels: {a: b}}, spec: {}, status: {phase: Running}}";
    let case = Case::new("status")
        .subresource("status")
        .old(old)
        .object(new)
        .field("metadata.ownerReferences", json!([{"name": "o"}]))
        .field("metadata.labels.a", "b")
        .field("spec.containers.0.name", "a")
        .field("status.qosClass", "Burstable")
        .field("status.phase", "Running");
    check(&Pods, case);
}

#[test]
fn observed_generations_stay() {
    let old = "{metadata: {name: p}, spec: {containers: [{name: a, image: i}]}, status: {observedGeneration: 2, conditions: \
               [{type: Ready, observedGeneration: 2}]}}";
    let case = Case::new("observed").subresource("status").old(old);
    let case = case
        .object("{metadata: {name: p}, status: {conditions: [{type: Initialized}, {type: Ready, status: 'True'}]}}")
        .field("status.observedGeneration", 2)
        .field("status.conditions.0.observedGeneration", ())
        .field("status.conditions.1.observedGeneration", 2);
    check(&Pods, case);
}

#[test]
fn values() {
    check_status(
        "{}",
        "",
        "{conditions: [{type: Ready}, {type: a.b/C}], nominatedNodeName: n}",
        &[],
    );
    check_status(
        "{qosClass: Burstable}",
        "",
        "{qosClass: BestEffort, observedGeneration: -1, nominatedNodeName: A, conditions: [{type: a b, \
         observedGeneration: -1}]}",
        &[
            "qosClass: Invalid value: \"BestEffort\": field is immutable",
            "observedGeneration: Invalid value: -1: must be a non-negative integer",
            &format!("nominatedNodeName: Invalid value: \"A\": {SUBDOMAIN}"),
            "conditions[0].observedGeneration: Invalid value: -1: must be a non-negative integer",
            &format!("conditions[0].Type: Invalid value: \"a b\": {QUALIFIED}"),
        ],
    );
    check_status(
        "{}",
        "nodeName: n",
        "{nominatedNodeName: m}",
        &["nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node"],
    );
}

#[test]
fn addresses() {
    check_status(
        "{}",
        "",
        "{podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], hostIP: 1.1.1.1, hostIPs: [{ip: 1.1.1.1}]}",
        &[],
    );
    check_status(
        "{}",
        "",
        "{podIPs: [{ip: x}], hostIP: 1.1.1.1, hostIPs: [{ip: 1.1.1.2}, {ip: 1.1.1.3}]}",
        &[
            "podIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "hostIPs[0].ip: Invalid value: \"1.1.1.2\": must be equal to `hostIP`",
            "hostIPs: Invalid value: [{\"ip\":\"1.1.1.2\"},{\"ip\":\"1.1.1.3\"}]: may specify no more than one IP for each \
             IP family",
        ],
    );
}

#[test]
fn what_ended_stays_ended() {
    let ended =
        |list: &str, code: i64| format!("{{{list}: [{{name: a, state: {{terminated: {{exitCode: {code}}}}}}}]}}");
    let running = |list: &str| format!("{{{list}: [{{name: a, state: {{running: {{}}}}}}]}}");
    let error = |list: &str| format!("{list}[0].state: Forbidden: may not be transitioned to non-terminated state");
    for (policy, list, code, allowed) in [
        ("Always", "containerStatuses", 0, true),
        ("OnFailure", "containerStatuses", 1, true),
        ("OnFailure", "containerStatuses", 0, false),
        ("Never", "containerStatuses", 1, false),
        ("Never", "initContainerStatuses", 0, false),
        ("Always", "ephemeralContainerStatuses", 1, false),
    ] {
        let error = error(list);
        let errors: &[&str] = if allowed { &[] } else { &[&error] };
        check_status(
            &ended(list, code),
            &format!("restartPolicy: {policy}"),
            &running(list),
            errors,
        );
    }
}

/// A container's own policy and rules come before those of the pod; one that starts all anew lets all leave their end.
#[test]
fn own_rules_decide_what_ended() {
    let ended =
        |code: i64| format!("{{containerStatuses: [{{name: a, state: {{terminated: {{exitCode: {code}}}}}}}]}}");
    let running = "{containerStatuses: [{name: a, state: {running: {}}}]}";
    let rule = |action: &str| {
        format!(
            "restartPolicy: Never, restartPolicyRules: [{{action: {action}, exitCodes: {{operator: In, values: [42]}}}}]"
        )
    };
    for (container, code, allowed) in [
        (rule("Restart"), 42, true),
        (rule("Restart"), 1, false),
        (rule("RestartAllContainers"), 1, true),
        ("restartPolicy: OnFailure".into(), 1, true),
        ("restartPolicy: OnFailure".into(), 0, false),
        ("restartPolicy: Always".into(), 0, true),
    ] {
        let with = |status: &str| {
            let pod = pod(&container, "restartPolicy: Never");
            format!("{}, status: {status}}}", &pod[..pod.len() - 1])
        };
        let error = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
        let errors: &[&str] = if allowed { &[] } else { &[error] };
        let case = Case::new(&container).subresource("status").old(&with(&ended(code)));
        check(&Pods, case.object(&with(running)).errors(errors));
    }
}

#[test]
fn claims() {
    check_status(
        "{}",
        "resourceClaims: [{name: c, resourceClaimTemplateName: t}]",
        "{resourceClaimStatuses: [{name: c, resourceClaimName: made}, {name: c}, {name: d}]}",
        &[
            "resourceClaimStatuses[1].name: Duplicate value: \"c\"",
            "resourceClaimStatuses[2].name: Invalid value: \"d\": must match the name of an entry in \
             `spec.resourceClaims`",
        ],
    );
}

#[test]
fn extended_claims() {
    let at = "extendedResourceClaimStatus";
    check_status(
        "{}",
        "",
        "{extendedResourceClaimStatus: {resourceClaimName: Made, requestMappings: [{containerName: a, resourceName: x/gpu, \
         requestName: r}, {containerName: none, resourceName: x/gpu, requestName: R}, {containerName: none, resourceName: x/gpu, \
         requestName: R}]}}",
        &[
            &format!(
                "{at}.requestMappings[0].resourceName: Invalid value: \"x/gpu\": must match the extended resource name of an entry \
                 in spec.initContainers.resources.requests or spec.containers.resources.requests"
            ),
            &format!(
                "{at}.requestMappings[1].containerName: Invalid value: \"none\": must match the name of an entry in \
                 spec.initContainers.name or spec.containers.name"
            ),
            &format!("{at}.requestName: Invalid value: \"R\": {LABEL}"),
            &format!(
                "{at}.requestMappings[2].containerName: Invalid value: \"none\": must match the name of an entry in \
                 spec.initContainers.name or spec.containers.name"
            ),
            &format!("{at}.requestName: Invalid value: \"R\": {LABEL}"),
            &format!("{at}.requestMappings[2].containerName: Duplicate value: \"none\""),
            &format!("{at}.requestMappings[2].resourceName: Duplicate value: \"x/gpu\""),
            &format!("{at}.requestMappings[2].requestName: Duplicate value: \"R\""),
            &format!("{at}.resourceClaimName: Invalid value: \"Made\": {SUBDOMAIN}"),
        ],
    );
    check_status(
        "{}",
        "",
        "{extendedResourceClaimStatus: {}}",
        &[
            &format!("{at}.requestMappings: Required value: at least one request mapping is required"),
            &format!("{at}.resourceClaimName: Required value"),
        ],
    );
}

#[test]
fn devices() {
    let at = "containerStatuses[0].allocatedResourcesStatus";
    check_status(
        "{}",
        "",
        "{containerStatuses: [{name: a, allocatedResourcesStatus: [{name: x/gpu, resources: [{resourceID: '1', health: Fine}, \
         {resourceID: '1', health: Healthy, message: ''}]}, {name: 'claim:c'}]}, {name: other, allocatedResourcesStatus: \
         [{name: x/gpu}]}], ephemeralContainerStatuses: [{name: e, allocatedResourcesStatus: [{name: x/gpu}]}]}",
        &[
            &format!("{at}[0].name: Invalid value: \"x/gpu\": must match one of the container's resource requests"),
            &format!(
                "{at}[0].resources[0].health: Unsupported value: \"Fine\": supported values: \"Healthy\", \"Unhealthy\", \
                 \"Unknown\""
            ),
            &format!("{at}[0].resources[1].message: Required value: must be non-empty if specified"),
            &format!("{at}[0].resources[1].resourceID: Duplicate value: \"1\""),
            &format!(
                "{at}[1].name: Invalid value: \"claim:c\": must match one of the container's resource claims in a format \
                 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"
            ),
            "ephemeralContainerStatuses[0].allocatedResourcesStatus: Forbidden: must not be specified in container status",
        ],
    );
}

#[test]
fn users() {
    let range = "must be between 0 and 2147483647, inclusive";
    let status = "{containerStatuses: [{name: a, user: {linux: {uid: -1, gid: -1, supplementalGroups: [-1]}}}]}";
    let at = "containerStatuses[0].user.linux";
    check_status(
        "{}",
        "",
        status,
        &[
            &format!("{at}.uid: Invalid value: -1: {range}"),
            &format!("{at}.gid: Invalid value: -1: {range}"),
            &format!("{at}.supplementalGroups[0]: Invalid value: -1: {range}"),
        ],
    );
    check_status(
        "{}",
        "os: {name: windows}",
        status,
        &[&format!("{at}: Forbidden: cannot be set for a windows pod")],
    );
}
