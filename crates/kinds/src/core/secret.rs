//! Secret.

use crate::build::Row;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "Secret", "secrets")
        .trigger(|object| Some(object.text("metadata.name").into()))
        .fields(&[("type", |object| object.text("type").into())])
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Type", "What the secret is for."),
        text("Data", "The number of values."),
        AGE,
    ],
    cells: |object, context| {
        vec![
            name(object),
            object.text("type").into(),
            object.entries("data").count().into(),
            age(object, context),
        ]
    },
};
