//! The coordination.k8s.io group: Lease.
//!
//! Source of the rules: `ValidateLeaseSpec` in `pkg/apis/coordination/validation/validation.go`.

use api::Value;
use api::field::ErrorList;

use crate::build::Row;
use crate::check::{At, Report};
use crate::gates;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::View;

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::namespaced("coordination.k8s.io", "v1", "Lease", "leases")
        .strategy(Leases)
        .created_by_put()
        .conditional_update()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Holder", "Who holds the lease."), AGE],
    cells: |object, context| {
        vec![
            name(object),
            object.text("spec.holderIdentity").into(),
            age(object, context),
        ]
    },
};

struct Leases;

impl Strategy for Leases {
    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        gates::drop_disabled(object, None, "coordination.v1.Lease");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        gates::drop_disabled(object, Some(old), "coordination.v1.Lease");
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object.get("spec")))
    }

    fn validate_update(&self, object: &Value, _old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object.get("spec")))
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(spec: &At) {
    let seconds = spec.get("leaseDurationSeconds");
    if seconds.number().is_some_and(|seconds| seconds <= 0) {
        seconds.invalid("must be greater than 0");
    }
    spec.get("leaseTransitions").non_negative();
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, check};

    #[test]
    fn rules() {
        for case in [
            Case::new("a lease").object("spec: {holderIdentity: a, leaseDurationSeconds: 40, leaseTransitions: 0}"),
            Case::new("numbers")
                .object("spec: {leaseDurationSeconds: 0, leaseTransitions: -1}")
                .errors(&[
                    "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                    "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                ]),
            Case::new("coordinated election is off")
                .object("spec: {strategy: OldestEmulationVersion, preferredHolder: a}")
                .field("spec.strategy", ())
                .field("spec.preferredHolder", ()),
        ] {
            check(&super::Leases, case);
            let update = Case::new("update")
                .old("spec: {}")
                .object("spec: {leaseTransitions: -1}");
            check(
                &super::Leases,
                update.errors(&["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"]),
            );
        }
    }
}
