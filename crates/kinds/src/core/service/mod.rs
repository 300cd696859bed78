//! Service.

mod columns;
mod strategy;
mod validation;
mod warnings;

#[cfg(test)]
mod tests;

pub use validation::endpoint_address;

use crate::build::Row;
use crate::names;
use crate::row::StorageKind;
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "Service", "services")
        .short(&["svc"])
        .in_all()
        .stored_under("services/specs")
        .named(names::label)
        .strategy(strategy::Services)
        .handler(
            "proxy",
            Some(("", "v1", "ServiceProxyOptions")),
            &["create", "delete", "get", "patch", "update"],
        )
        .status()
        .created_by_put()
        .returns_deleted()
        .fields(&[
            ("spec.clusterIP", |object| object.text("spec.clusterIP").into()),
            ("spec.type", |object| object.text("spec.type").into()),
        ])
        .reads(&["spec.clusterIP", "spec.type"])
        .columns(columns::COLUMNS)
        .build()
}
