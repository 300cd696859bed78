//! ReplicaSet.

mod strategy;

#[cfg(test)]
mod tests;

use crate::build::Row;
use crate::print::{
    AGE, CONTAINERS, IMAGES, NAME, SELECTOR, age, container_images, container_names, integer, name, selector,
};
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
        .fields(&[("status.replicas", |object| object.count("status.replicas").to_string())])
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        integer("Desired", "How many pods there should be."),
        integer("Current", "How many pods there are."),
        integer("Ready", "How many pods are ready."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, context| {
        let spec = object.at("spec.template.spec");
        vec![
            name(object),
            object.count("spec.replicas").into(),
            object.count("status.replicas").into(),
            object.count("status.readyReplicas").into(),
            age(object, context),
            container_names(spec),
            container_images(spec),
            selector(object.at("spec.selector")).into(),
        ]
    },
};
