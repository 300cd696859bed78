//! VolumeAttributesClass.
//!
//! Source of the rules: `ValidateVolumeAttributesClass` in `pkg/apis/storage/validation/validation.go`.

use api::Value;
use api::field::ErrorList;

use super::parameters;
use crate::build::Row;
use crate::check::{At, Report};
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "VolumeAttributesClass", "volumeattributesclasses")
        .short(&["vac"])
        .strategy(VolumeAttributesClasses)
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("DriverName", "The CSI driver."), AGE],
    cells: |object, context| vec![name(object), object.text("driverName").into(), age(object, context)],
};

struct VolumeAttributesClasses;

impl Strategy for VolumeAttributesClasses {
    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            parameters::fixed(&object, old, "driverName");
            parameters::fixed(&object, old, "parameters");
            validate(&object);
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    parameters::driver(&object.get("driverName"));
    parameters::parameters(object, false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, check};

    #[test]
    fn rules() {
        let class = "driverName: d.example.com\nparameters: {a: b}";
        for case in [
            Case::new("a class").object(class),
            Case::new("nothing").object("{}").errors(&[
                "driverName: Required value",
                "parameters: Required value: must contain at least one key/value pair",
            ]),
            Case::new("labels may change")
                .old(class)
                .object(&format!("metadata: {{labels: {{a: b}}}}\n{class}")),
            Case::new("the rest may not")
                .old(class)
                .object("driverName: e\nparameters: {a: c}")
                .errors(&[
                    "driverName: Forbidden: updates to driverName are forbidden.",
                    "parameters: Forbidden: updates to parameters are forbidden.",
                ]),
        ] {
            check(&VolumeAttributesClasses, case);
        }
    }
}
