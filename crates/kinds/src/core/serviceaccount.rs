//! ServiceAccount.

use crate::build::Row;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .handler(
            "token",
            Some(("authentication.k8s.io", "v1", "TokenRequest")),
            &["create"],
        )
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Secrets", "The number of secrets that pods may mount."), AGE],
    cells: |object, context| vec![name(object), object.list("secrets").len().into(), age(object, context)],
};
