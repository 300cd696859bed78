//! DaemonSet.

mod strategy;
#[cfg(test)]
mod tests;

use api::Value;

use crate::build::Row;
use crate::print::{
    AGE, CONTAINERS, IMAGES, NAME, SELECTOR, age, container_images, container_names, integer, labels, name, selector,
    text,
};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

use self::strategy::DaemonSets;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("apps", "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .in_all()
        .strategy(DaemonSets)
        .generation()
        .status()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        integer("Desired", "On how many nodes the pod should run."),
        integer("Current", "On how many of them it runs."),
        integer("Ready", "On how many of them it is ready."),
        integer("Up-to-date", "How many pods are of the current template."),
        integer("Available", "How many pods are available."),
        text("Node Selector", "The labels of the nodes."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let (spec, status) = (object.at("spec.template.spec"), object.at("status"));
    vec![
        name(object),
        status.count("desiredNumberScheduled").into(),
        status.count("currentNumberScheduled").into(),
        status.count("numberReady").into(),
        status.count("updatedNumberScheduled").into(),
        status.count("numberAvailable").into(),
        labels(spec.at("nodeSelector")).into(),
        age(object, context),
        container_names(spec),
        container_images(spec),
        selector(object.at("spec.selector")).into(),
    ]
}
