//! ReplicaSet.

mod strategy;

#[cfg(test)]
mod tests;

use crate::apps::workload;
use crate::build::Row;
use crate::print;
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("apps", "v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .in_all()
        .strategy(strategy::ReplicaSets)
        .generation()
        .scale()
        .status()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: workload::REPLICAS_COLUMNS,
    cells: |object, context| {
        let selector = print::selector(object.at("spec.selector"));
        workload::replicas_cells(object, context, selector)
    },
};
