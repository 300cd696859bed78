//! VolumeAttributesClass.

use crate::build::Row;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "VolumeAttributesClass", "volumeattributesclasses")
        .short(&["vac"])
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("DriverName", "The CSI driver."), AGE],
    cells: |object, context| vec![name(object), object.text("driverName").into(), age(object, context)],
};
