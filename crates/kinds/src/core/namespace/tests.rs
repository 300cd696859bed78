//! Namespaces, by example.

use serde_json::json;

use super::Namespaces;
use crate::testing::{Case, check};

#[test]
fn create() {
    for case in [
        Case::new("named")
            .object("metadata: {name: a}")
            .field("metadata.labels", json!({"kubernetes.io/metadata.name": "a"}))
            .field("spec.finalizers", json!(["kubernetes"]))
            .field("status.phase", "Active"),
        Case::new("a status of one's own is dropped")
            .object("metadata: {name: a}\nstatus: {phase: Terminating}")
            .field("status.phase", "Active"),
        Case::new("finalizers are names")
            .object("spec: {finalizers: [example.com/a, b, 'c d']}")
            .errors(&[
                "spec.finalizers: Invalid value: \"b\": name is neither a standard finalizer name nor is it fully \
                 qualified",
                "spec.finalizers: Invalid value: \"c d\": name part must consist of alphanumeric characters, '-', '_' \
                 or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
                 '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "spec.finalizers: Invalid value: \"c d\": name is neither a standard finalizer name nor is it fully \
                 qualified",
            ]),
    ] {
        check(&Namespaces, case);
    }
}

#[test]
fn update() {
    let old = "metadata: {name: a}\nspec: {finalizers: [kubernetes]}";
    for case in [
        Case::new("the main resource writes metadata only")
            .old(old)
            .object("metadata: {name: a, labels: {x: z}}\nspec: {finalizers: []}\nstatus: {phase: Terminating}")
            .field("metadata.labels.x", "z")
            .field("spec.finalizers", json!(["kubernetes"]))
            .field("status.phase", "Active"),
        Case::new("finalize writes finalizers")
            .subresource("finalize")
            .old(old)
            .object("metadata: {name: a}\nspec: {finalizers: []}\nstatus: {phase: Terminating}")
            .field("spec.finalizers", json!([]))
            .field("status.phase", "Active"),
        Case::new("a bad finalizer")
            .subresource("finalize")
            .old(old)
            .object("metadata: {name: a}\nspec: {finalizers: [x]}")
            .errors(&[
                "spec.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully \
                 qualified",
            ]),
        Case::new("terminating while alive")
            .subresource("status")
            .old(old)
            .object("metadata: {name: a}\nstatus: {phase: Terminating}")
            .errors(&[
                "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty",
            ]),
        Case::new("alive while terminating")
            .subresource("status")
            .old(old)
            .object("metadata: {name: a, deletionTimestamp: '2026-01-01T00:00:00Z'}\nstatus: {phase: Active}")
            .errors(&[
                "status.Phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` is not \
                 empty",
            ]),
    ] {
        check(&Namespaces, case);
    }
}
