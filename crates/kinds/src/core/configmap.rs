//! ConfigMap.

use crate::build::Row;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "ConfigMap", "configmaps")
        .short(&["cm"])
        .trigger(|object| Some(object.text("metadata.name").into()))
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Data", "The number of values."), AGE],
    cells: |object, context| {
        let values = object.entries("data").count() + object.entries("binaryData").count();
        vec![name(object), values.into(), age(object, context)]
    },
};
