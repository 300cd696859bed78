//! Nodes, by example.

use serde_json::json;

use super::strategy::Nodes;
use crate::row::{Strategy as _, WriteContext, Writer};
use crate::testing::{Case, LABEL, NOW, check, yaml};

#[test]
fn defaults() {
    for case in [
        Case::new("what fits is what is there")
            .object("status: {capacity: {cpu: '2'}}")
            .field("status.allocatable", json!({"cpu": "2"})),
        Case::new("one range in two fields")
            .object("spec: {podCIDR: 10.0.0.0/24}")
            .field("spec.podCIDRs", json!(["10.0.0.0/24"])),
        Case::new("one range in two fields, the other way")
            .object("spec: {podCIDRs: [10.0.0.0/24]}")
            .field("spec.podCIDR", "10.0.0.0/24"),
        Case::new("a kubelet registers with its status")
            .object("status: {phase: Running}")
            .field("status.phase", "Running"),
    ] {
        check(&Nodes, case);
    }
}

#[test]
fn create() {
    for case in [
        Case::new("taints").object("spec: {taints: [{key: a, effect: NoSchedule}, {key: a, effect: NoExecute}]}"),
        Case::new("bad taints")
            .object(
                "spec: {taints: [{key: a, effect: NoSchedule}, {key: a, effect: NoSchedule}, {key: b}, {key: c, \
                 effect: X}, {key: d, value: 'a b', effect: NoExecute}]}",
            )
            .errors(&[
                "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be \
                 unique by key and effect pair",
                "metadata.taints[2].effect: Required value",
                "metadata.taints[3].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \
                 \"PreferNoSchedule\", \"NoExecute\"",
                "metadata.taints[4].value: Invalid value: \"a b\": a valid label must be an empty string or consist \
                 of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
                 (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ]),
        Case::new("amounts")
            .object("status: {capacity: {cpu: '-1', pods: 500m}, allocatable: {cpu: '1'}}")
            .errors(&[
                "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
                "status.capacity.pods: Invalid value: \"500m\": must be an integer",
            ]),
        Case::new("swap")
            .object("status: {nodeInfo: {swap: {capacity: 0}}}")
            .errors(&["metadata.nodeSwapStatus.capacity: Invalid value: 0: must be greater than zero"]),
        Case::new("ranges")
            .object("spec: {podCIDRs: [10.0.0.0/24, 10.0.1.0/24]}")
            .errors(&[
                "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR \
                 for each IP family",
            ]),
        Case::new("a range that is none").object("spec: {podCIDRs: [x]}").errors(&[
            "spec.podCIDRs[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ]),
    ] {
        check(&Nodes, case);
    }
}

#[test]
fn warnings() {
    let context = |subresource| WriteContext {
        now: NOW,
        subresource,
        user: Writer::named("tester"),
        version: "v1",
    };
    let node = yaml("spec: {externalID: x, configSource: {}, podCIDRs: [10.0.0.1/24]}");
    let told = Nodes.warnings(&node, None, &context(""));
    assert_eq!(
        told,
        [
            "spec.configSource: the feature is removed",
            "spec.externalID: this field is deprecated, and is unused by Kubernetes",
            "spec.podCIDRs[0]: CIDR value \"10.0.0.1/24\" is ambiguous in this context (should be \"10.0.0.0/24\" or \
             \"10.0.0.1/32\"?)",
        ]
    );
    assert!(Nodes.warnings(&node, Some(&node), &context("status")).is_empty());
}

#[test]
fn update() {
    for case in [
        Case::new("status is written apart")
            .old("status: {phase: Running}")
            .object("spec: {unschedulable: true}\nstatus: {phase: Pending}")
            .field("spec.unschedulable", true)
            .field("status.phase", "Running"),
        Case::new("given once")
            .old("spec: {podCIDRs: [10.0.0.0/24], providerID: a}")
            .object("spec: {podCIDRs: [10.0.1.0/24], providerID: b}")
            .errors(&[
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
            ]),
        Case::new("what was never right is told of again")
            .old("spec: {taints: [{key: b}]}")
            .object("spec: {podCIDRs: [10.0.0.0/24, y], taints: [{key: b}]}")
            .errors(&[
                "metadata.taints[0].effect: Required value",
                "metadata.taints[0].effect: Required value",
                "spec.podCIDRs: Internal error: invalid PodCIDRs. failed to check with dual stack with error:invalid \
                 CIDR[1]: <nil> (invalid CIDR address: y)",
                "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"y\"]: may specify no more than one CIDR for each IP family",
                "spec.podCIDRs[1]: Invalid value: \"y\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ]),
        Case::new("features")
            .subresource("status")
            .old("status: {}")
            .object("status: {declaredFeatures: [A, B/c, B/c, a, Z]}")
            .errors(&[
                "status.declaredFeatures[2]: Duplicate value: \"B/c\"",
                "status.declaredFeatures[3]: Invalid value: \"a\": invalid feature name \"a\": must start with an UpperCamelCase \
                 segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and \
                 contain only alphanumeric characters and slashes",
                "status.declaredFeatures[4]: Invalid value: \"Z\": list must be sorted alphabetically",
            ]),
        Case::new("external id")
            .old("spec: {}")
            .object("spec: {externalID: x}")
            .errors(&["spec.externalID: Forbidden: may not be updated"]),
        Case::new("an address twice")
            .subresource("status")
            .old("status: {}")
            .object(
                "status: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: InternalIP, address: 10.0.0.1}]}",
            )
            .errors(&["status.addresses[1]: Duplicate value: {\"address\":\"10.0.0.1\",\"type\":\"InternalIP\"}"]),
    ] {
        check(&Nodes, case);
    }
}

#[test]
fn declared_features() {
    let at = "status.declaredFeatures";
    let shape = "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or \
                 MyFeature/mySubFeature), and contain only alphanumeric characters and slashes";
    for (list, errors) in [
        ("[A, B/c, B/d1]", vec![]),
        ("[A, A]", vec![format!("{at}[1]: Duplicate value: \"A\"")]),
        (
            "[B, A]",
            vec![format!(
                "{at}[1]: Invalid value: \"A\": list must be sorted alphabetically"
            )],
        ),
        (
            "[a, 'b/']",
            vec![
                format!("{at}[0]: Invalid value: \"a\": invalid feature name \"a\": {shape}"),
                format!("{at}[1]: Invalid value: \"b/\": invalid feature name \"b/\": {shape}"),
            ],
        ),
    ] {
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        let object = format!("status: {{declaredFeatures: {list}}}");
        check(&Nodes, Case::new(list).object(&object).errors(&errors));
    }
}

/// Nobody reads them any more, and they are checked all the same.
#[test]
fn annotations_of_old() {
    let node = |annotation: &str, text: &str| {
        json!({"metadata": {"annotations": {format!("scheduler.alpha.kubernetes.io/{annotation}"): text}}}).to_string()
    };
    let at = "metadata.annotations";
    for (annotation, text, errors) in [
        ("taints", r#"[{"key": "a", "effect": "NoSchedule"}]"#, vec![]),
        (
            "taints",
            r#"[{"key": "a"}]"#,
            vec![format!(
                "{at}.scheduler.alpha.kubernetes.io/taints[0].effect: Required value"
            )],
        ),
        (
            "taints",
            "{}",
            vec![format!(
                "{at}: Invalid value: \"scheduler.alpha.kubernetes.io/taints\": json: cannot unmarshal object into Go value of \
                 type []core.Taint"
            )],
        ),
        (
            "preferAvoidPods",
            r#"{"preferAvoidPods": [{"podSignature": {"podController": {"controller": true}}}]}"#,
            vec![],
        ),
        (
            "preferAvoidPods",
            r#"{"preferAvoidPods": [{}, {"podSignature": {"podController": {"controller": false}}}]}"#,
            vec![
                format!("{at}.scheduler.alpha.kubernetes.io/preferAvoidPods[0].PodSignature: Required value"),
                format!(
                    "{at}.scheduler.alpha.kubernetes.io/preferAvoidPods[1].PodSignature.PodController.Controller: Invalid value: \
                     false: must point to a controller"
                ),
            ],
        ),
        (
            "preferAvoidPods",
            "{",
            vec![format!(
                "{at}.AvoidPods: Invalid value: \"scheduler.alpha.kubernetes.io/preferAvoidPods\": unexpected end of JSON input"
            )],
        ),
    ] {
        let object = node(annotation, text);
        let once: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&Nodes, Case::new(text).object(&object).errors(&once));
        // Upstream looks at them as a new node's and as a change's.
        let twice = [once.clone(), once.clone()].concat();
        check(&Nodes, Case::new(text).old("{}").object(&object).errors(&twice));
        check(
            &Nodes,
            Case::new(text)
                .old("{}")
                .object(&object)
                .subresource("status")
                .errors(&once),
        );
    }
}

/// Only nodes have them that had them before.
#[test]
fn configurations_of_old() {
    let source = "{configMap: {namespace: n, name: c, kubeletConfigKey: k}}";
    let had = format!("{{spec: {{configSource: {source}}}, status: {{config: {{error: x}}}}}}");
    for case in [
        Case::new("of a new node").object(&had).field("spec.configSource", ()).field("status.config", ()),
        Case::new("good").old(&had).object(&had),
        Case::new("broken")
            .old(&had)
            .object("spec: {configSource: {configMap: {uid: u, resourceVersion: '1', namespace: N, name: '', kubeletConfigKey: a/b}}}")
            .errors(&[
                "spec.configSource.configMap.uid: Forbidden: uid must not be set in spec",
                "spec.configSource.configMap.resourceVersion: Forbidden: resourceVersion must not be set in spec",
                &format!("spec.configSource.configMap.namespace: Invalid value: \"N\": {LABEL}"),
                "spec.configSource.configMap.name: Required value",
                "spec.configSource.configMap.kubeletConfigKey: Invalid value: \"a/b\": a valid config key must consist of \
                 alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for \
                 validation is '[-._a-zA-Z0-9]+')",
            ]),
        Case::new("nothing in it").old(&had).object("spec: {configSource: {}}").errors(&[
            "spec.configSource: Invalid value: {}: exactly one reference subfield must be non-nil",
        ]),
        Case::new("in a status")
            .old(&had)
            .object(&format!("{{status: {{config: {{active: {source}, assigned: {{}}}}}}}}"))
            .subresource("status")
            .errors(&[
                "status.config.active.configMap.uid: Required value",
                "status.config.active.configMap.resourceVersion: Required value",
                "status.config.assigned: Invalid value: {}: exactly one reference subfield must be non-nil",
            ]),
    ] {
        check(&Nodes, case);
    }
}

#[test]
fn each_range_that_changes_is_told() {
    let old = "spec: {podCIDRs: [10.0.0.0/24, 'fd00::/64']}";
    let why = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
    for (new, errors) in [
        ("spec: {podCIDRs: [10.0.1.0/24, 'fd00:1::/64']}", &[why, why][..]),
        ("spec: {podCIDRs: [10.0.1.0/24]}", &[why]),
        (old, &[]),
    ] {
        check(&Nodes, Case::new(new).old(old).object(new).errors(errors));
    }
}
