//! CSIStorageCapacity.

use crate::build::Row;
use crate::print::{NAME, UNSET, name, or, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced(super::GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities")
        .conditional_update()
        .returns_deleted()
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
