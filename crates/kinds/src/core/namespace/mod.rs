//! Namespace.

use crate::build::Row;
use crate::generic::WithStatus;
use crate::names;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row. There is no deletecollection, and PUT is all that `finalize` takes.
pub fn row() -> StorageKind {
    Row::cluster("", "v1", "Namespace", "namespaces")
        .short(&["ns"])
        .named(names::label)
        .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
        .view_with("finalize", &["update"])
        .status()
        .strategy(WithStatus::PLAIN)
        .returns_deleted()
        .fields(&[("status.phase", |object| object.text("status.phase").into())])
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Status", "Active or Terminating."), AGE],
    cells: |object, context| vec![name(object), object.text("status.phase").into(), age(object, context)],
};
