//! The coordination.k8s.io group: Lease.

use crate::build::Row;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::namespaced("coordination.k8s.io", "v1", "Lease", "leases")
        .created_by_put()
        .conditional_update()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Holder", "Who holds the lease."), AGE],
    cells: |object, context| {
        vec![
            name(object),
            object.text("spec.holderIdentity").into(),
            age(object, context),
        ]
    },
};
