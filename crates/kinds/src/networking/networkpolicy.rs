//! NetworkPolicy (not served: nothing enforces it yet).

use crate::build::Row;
use crate::print::{AGE, NAME, age, name, selector, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced(super::GROUP, "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .generation()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Pod-Selector", "The pods it is about."), AGE],
    cells: |object, context| {
        vec![
            name(object),
            selector(object.at("spec.podSelector")).into(),
            age(object, context),
        ]
    },
};
