//! Node.

mod columns;
mod legacy;
mod strategy;

#[cfg(test)]
mod tests;

use crate::build::Row;
use crate::row::StorageKind;
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster("", "v1", "Node", "nodes")
        .short(&["no"])
        .stored_under("minions")
        .strategy(strategy::Nodes)
        .handler(
            "proxy",
            Some(("", "v1", "NodeProxyOptions")),
            &["create", "delete", "get", "patch", "update"],
        )
        .status()
        .trigger(|object| Some(object.text("metadata.name").into()))
        .fields(&[("spec.unschedulable", |object| {
            object.flag("spec.unschedulable").to_string()
        })])
        .reads(&["metadata.name", "spec.unschedulable"])
        .columns(columns::COLUMNS)
        .build()
}
