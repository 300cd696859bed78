//! CSINode.

use crate::build::Row;
use crate::print::{AGE, NAME, age, integer, name};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "CSINode", "csinodes")
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
