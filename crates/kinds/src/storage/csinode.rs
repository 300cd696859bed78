//! CSINode.
//!
//! Source of the rules: `ValidateCSINode` and `ValidateCSINodeUpdate` in `pkg/apis/storage/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::ErrorList;
use api::validation::qualified_name;

use crate::build::Row;
use crate::check::{At, Report};
use crate::core::pod::volumes;
use crate::print::{AGE, NAME, age, integer, name};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// How a driver may call a node.
const NODE_ID_CHARACTERS_MAX: usize = 256;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "CSINode", "csinodes")
        .strategy(CsiNodes)
        .conditional_update()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, integer("Drivers", "How many CSI drivers the node has."), AGE],
    cells: |object, context| {
        vec![
            name(object),
            object.list("spec.drivers").len().into(),
            age(object, context),
        ]
    },
};

struct CsiNodes;

impl Strategy for CsiNodes {
    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            validate(&object);
            drivers_stay(&object, old);
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    let mut seen = BTreeSet::new();
    for driver in object.items("spec.drivers") {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        volumes::driver_name(&name);
        id.required();
        if id.text().len() > NODE_ID_CHARACTERS_MAX {
            id.invalid(format!("must be {NODE_ID_CHARACTERS_MAX} characters or less"));
        }
        driver.get("allocatable.count").non_negative();
        name.unique(&mut seen);
        let mut keys = BTreeSet::new();
        for key in driver.value.texts("topologyKeys") {
            if key.is_empty() {
                driver.missing("");
            }
            if !keys.insert(key) {
                driver.duplicate(key);
            }
            for message in qualified_name(key) {
                driver.invalid_as(key, message);
            }
        }
    }
}

/// A driver that is there keeps all but how many volumes it takes.
fn drivers_stay(object: &At, old: &Value) {
    let without_count = |driver: &Value| {
        let mut driver = driver.clone();
        driver.cut("allocatable");
        driver
    };
    let drivers = object.get("spec.drivers");
    for old in old.list("spec.drivers") {
        for new in object.value.list("spec.drivers") {
            let (new, old) = (without_count(new), without_count(old));
            if new.text("name") == old.text("name") && new != old {
                drivers.invalid_as(new, "field is immutable");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, check};

    #[test]
    fn rules() {
        let long = "n".repeat(257);
        let object = format!(
            "spec: {{drivers: [{{name: a, nodeID: n, topologyKeys: [k, k], allocatable: {{count: -1}}}}, \
             {{name: a, nodeID: {long}}}, {{name: '', nodeID: ''}}]}}"
        );
        for case in [
            Case::new("no drivers").object("spec: {drivers: []}"),
            Case::new("a driver")
                .object("spec: {drivers: [{name: a.b, nodeID: n, topologyKeys: [a.b/zone], allocatable: {count: 5}}]}"),
            Case::new("broken").object(&object).errors(&[
                "spec.drivers[0]: Duplicate value: \"k\"",
                "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                "spec.drivers[1].name: Duplicate value: \"a\"",
                &format!("spec.drivers[1].nodeID: Invalid value: \"{long}\": must be 256 characters or less"),
                "spec.drivers[2].name: Required value",
                "spec.drivers[2].nodeID: Required value",
            ]),
            Case::new("drivers come and go, and hold more")
                .old("spec: {drivers: [{name: a, nodeID: n}, {name: b, nodeID: n, allocatable: {count: 1}}]}")
                .object("spec: {drivers: [{name: c, nodeID: n}, {name: b, nodeID: n, allocatable: {count: 2}}]}"),
            Case::new("a driver stays what it is")
                .old("spec: {drivers: [{name: a, nodeID: n}]}")
                .object("spec: {drivers: [{name: a, nodeID: m}]}")
                .errors(&["spec.drivers: Invalid value: {\"name\":\"a\",\"nodeID\":\"m\"}: field is immutable"]),
        ] {
            check(&CsiNodes, case);
        }
    }
}
