//! CSIStorageCapacity.
//!
//! Source of the rules: `ValidateCSIStorageCapacity` and `ValidateCSIStorageCapacityUpdate` in
//! `pkg/apis/storage/validation/validation.go`.

use api::Value;
use api::field::ErrorList;
use api::quantity::Quantity;
use api::validation::label_selector;

use crate::build::Row;
use crate::check::{At, Report};
use crate::core::pod::warnings;
use crate::names;
use crate::print::{NAME, UNSET, name, or, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced(super::GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities")
        .strategy(CsiStorageCapacities)
        .conditional_update()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("StorageClassName", "The storage class it is about."),
        text("Capacity", "How much is left."),
    ],
    cells: |object, _| {
        vec![
            name(object),
            object.text("storageClassName").into(),
            or(object.text("capacity"), UNSET).into(),
        ]
    },
};

struct CsiStorageCapacities;

impl Strategy for CsiStorageCapacities {
    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object, &Value::Null))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            validate(&object, old);
            for field in ["nodeTopology", "storageClassName"] {
                object.get(field).unchanged(old.at(field));
            }
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        warnings::node_selector("nodeTopology", object.at("nodeTopology"))
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At, old: &Value) {
    let topology = object.get("nodeTopology");
    let known = !label_selector(old.at("nodeTopology"), false, &topology.path).is_empty();
    topology.extend(label_selector(topology.value, known, &topology.path));
    let class = object.get("storageClassName");
    class.check(names::subdomain(class.text(), false));
    let capacity = object.get("capacity");
    if Quantity::from_value(capacity.value).is_ok_and(|quantity| quantity.sign() < 0) {
        capacity.invalid("must be greater than or equal to 0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, SUBDOMAIN, VALUE, check};

    #[test]
    fn rules() {
        let old = "storageClassName: s\nnodeTopology: {matchLabels: {a: b}}";
        for case in [
            Case::new("a capacity").object("storageClassName: s\ncapacity: 1Gi\nmaximumVolumeSize: 1Gi"),
            Case::new("no topology is nowhere, an empty one anywhere").object("storageClassName: s\nnodeTopology: {}"),
            Case::new("broken")
                .object("storageClassName: ''\ncapacity: '-1'\nnodeTopology: {matchLabels: {a: '?'}}")
                .errors(&[
                    &format!("nodeTopology.matchLabels: Invalid value: \"?\": {VALUE}"),
                    &format!("storageClassName: Invalid value: \"\": {SUBDOMAIN}"),
                    "capacity: Invalid value: \"-1\": must be greater than or equal to 0",
                ]),
            Case::new("capacity changes")
                .old(old)
                .object("storageClassName: s\nnodeTopology: {matchLabels: {a: b}}\ncapacity: 5Gi"),
            Case::new("what it is about stays")
                .old(old)
                .object("storageClassName: t\nnodeTopology: {matchLabels: {a: c}}")
                .errors(&[
                    "nodeTopology: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable",
                    "storageClassName: Invalid value: \"t\": field is immutable",
                ]),
        ] {
            check(&CsiStorageCapacities, case);
        }
    }
}
