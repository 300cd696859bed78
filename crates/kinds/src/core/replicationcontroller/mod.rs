//! ReplicationController.

mod strategy;
#[cfg(test)]
mod tests;

use crate::apps::workload;
use crate::build::Row;
use crate::print;
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row. Deleting one leaves its pods alone, as clients from before garbage collection expect.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .in_all()
        .stored_under("controllers")
        .strategy(strategy::ReplicationControllers)
        .generation()
        .orphans()
        .scale()
        .status()
        .fields(&[("status.replicas", |object| object.count("status.replicas").to_string())])
        .reads(&["status.replicas"])
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: workload::REPLICAS_COLUMNS,
    cells: |object, context| {
        let selector = print::labels(object.at("spec.selector"));
        workload::replicas_cells(object, context, selector)
    },
};
