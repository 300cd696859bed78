//! Requests, approvals and certificates as users write them.

use serde_json::json;

use super::strategy::Requests;
use crate::testing::{Case, check};

/// A request for `system:node:a` in `system:nodes`, signed by its own P-256 key (made once with openssl).
pub const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIcE1JR1JBZ0VBTUM4eEZUQVRCZ05WQkFvTURITjVjM1JsYlRwdWIyUmxjekVXTUJRR0ExVUVBd3dOYzNsegpkR1Z0T201dlpHVTZZVEJaTUJNR0J5cUdTTTQ5QWdFR0NDcUdTTTQ5QXdFSEEwSUFCTUhxSEREcmRXTmY3eElkCk9JLzZQWVhlWm1mY3VmQ0ZUdmNDSjFYVmIzMVN1U2Z5WmNHMTR3dVpXYnFPcXprWml2UkZvbHZ4ZFc5d1FMbzQKbHJsalBMQ2dBREFLQmdncWhrak9QUVFEQWdOSEFEQkVBaUFNVDM0Q1I2SnFRRmpGYUN3TlJIU0dTL3lXd3p3MQp4cDhYODVaMUVKczZud0lnU2RGcUNISmcvRFNzVzVVQzFEeVlrVXVhcXk3ZWJSWUhSb21hOFZKRDFLTT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

fn yaml(text: &str) -> String {
    text.replace("REQUEST", REQUEST)
}

#[test]
fn a_request_names_who_asks_and_not_whom_it_says() {
    let object = yaml(
        "spec: {request: REQUEST, signerName: example.com/s, usages: [client auth], username: root, uid: '1', groups: [system:masters], extra: {a: [b]}}\nstatus: {conditions: [{type: Approved, status: 'True'}]}",
    );
    check(
        &Requests,
        Case::new("identity")
            .object(&object)
            .field("spec.username", "tester")
            .field("spec.uid", ())
            .field("spec.groups", ())
            .field("spec.extra", ()),
    );
}

#[test]
fn rules_of_a_request() {
    let cases = [
        (
            "{signerName: example.com/s, usages: [client auth], request: REQUEST, expirationSeconds: 600}",
            vec![],
        ),
        (
            "{signerName: example.com/s, usages: [client auth], request: eA==}",
            vec!["spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST"],
        ),
        (
            "{signerName: example.com/s, request: REQUEST, expirationSeconds: 599}",
            vec![
                "spec.usages: Required value",
                "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
            ],
        ),
        (
            "{signerName: kubernetes.io/legacy-unknown, usages: [any, any], request: REQUEST}",
            vec![
                "spec.usages[1]: Duplicate value: \"any\"",
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
            ],
        ),
        (
            "{signerName: s, usages: [client auth], request: REQUEST}",
            vec![
                "spec.signerName: Invalid value: \"s\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ],
        ),
    ];
    for (spec, errors) in cases {
        let object = yaml(&format!("spec: {spec}"));
        check(&Requests, Case::new(spec).object(&object).errors(&errors));
    }
}

#[test]
fn approvals_and_certificates_have_doors_of_their_own() {
    let approved = "{conditions: [{type: Approved, status: 'True', reason: Because}]}";
    let both = "{conditions: [{type: Approved, status: 'True'}, {type: Denied, status: 'True'}]}";
    let failed = "{conditions: [{type: Failed, status: 'True'}, {type: Approved, status: 'True'}]}";
    for (door, old, new, path, value, errors) in [
        (
            "approval",
            "{}",
            approved,
            "status.conditions.0.lastUpdateTime",
            json!(crate::testing::NOW),
            vec![],
        ),
        (
            "approval",
            "{}",
            both,
            "status.conditions.1.type",
            json!("Denied"),
            vec!["status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"],
        ),
        (
            "approval",
            approved,
            "{}",
            "status.conditions",
            json!(null),
            vec!["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
        ),
        // Whoever may only sign does not approve.
        (
            "status",
            "{}",
            failed,
            "status.conditions.0.type",
            json!("Failed"),
            vec!["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""],
        ),
        // Nor does it change what was said.
        (
            "status",
            approved,
            "{conditions: [{type: Failed, status: 'True'}, {type: Approved, status: 'True', reason: Other}]}",
            "status.conditions.1.reason",
            json!("Because"),
            vec![],
        ),
        (
            "status",
            approved,
            "{}",
            "status.conditions",
            json!(null),
            vec!["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""],
        ),
        (
            "status",
            "{}",
            "{certificate: eA==}",
            "status.certificate",
            json!("eA=="),
            vec![
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block",
            ],
        ),
        ("", "{}", approved, "status", json!({}), vec![]),
    ] {
        let spec = yaml("spec: {signerName: example.com/s, usages: [client auth], request: REQUEST}");
        let (old, new) = (format!("{spec}\nstatus: {old}"), format!("status: {new}"));
        let case = Case::new(door).subresource(door).old(&old).object(&new);
        check(&Requests, case.errors(&errors).field(path, value));
    }
}

/// Rules that are younger than a request do not keep it from being answered; what it asks for does not change.
#[test]
fn requests_of_before_go_on() {
    let old = "spec: {signerName: kubernetes.io/legacy-unknown, usages: [some, some], request: REQUEST}\nstatus: {certificate: \
               eA==, conditions: [{type: Approved, status: 'True'}, {type: Denied, status: 'True'}, {type: '', status: \
               'True'}]}";
    let new = old
        .replace("[some, some]", "[any]")
        .replace("{type: ''", "{type: Failed, status: 'True'}, {type: ''");
    let case = Case::new("old")
        .subresource("approval")
        .old(&yaml(old))
        .object(&yaml(&new));
    check(
        &Requests,
        case.field("spec.usages.0", "some")
            .field("status.conditions.2.type", "Failed"),
    );
    let fresh = Case::new("new").object(&yaml(old));
    check(
        &Requests,
        fresh.errors(&[
            "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API \
             version",
            &usage(0),
            &usage(1),
            "spec.usages[1]: Duplicate value: \"some\"",
        ]),
    );
}

/// What is said of the unknown usage at a place.
fn usage(index: usize) -> String {
    let known = super::validation::USAGES.map(|usage| format!("{usage:?}")).join(", ");
    format!("spec.usages[{index}]: Unsupported value: \"some\": supported values: {known}")
}
