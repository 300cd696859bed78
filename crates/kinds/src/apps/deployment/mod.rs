//! Deployment.

mod strategy;

#[cfg(test)]
mod tests;

use crate::build::Row;
use crate::print::{
    AGE, CONTAINERS, IMAGES, NAME, SELECTOR, age, container_images, container_names, name, selector_text, text,
};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .in_all()
        .strategy(strategy::Deployments)
        .generation()
        .scale()
        .status()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Ready", "How many pods are ready, of how many."),
        text("Up-to-date", "How many pods are of the current template."),
        text("Available", "How many pods are available."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, context| {
        let spec = object.at("spec.template.spec");
        let ready = format!(
            "{}/{}",
            object.count("status.readyReplicas"),
            object.count("spec.replicas")
        );
        vec![
            name(object),
            ready.into(),
            object.count("status.updatedReplicas").into(),
            object.count("status.availableReplicas").into(),
            age(object, context),
            container_names(spec),
            container_images(spec),
            selector_text(object.at("spec.selector")).into(),
        ]
    },
};
