//! StatefulSet.

mod strategy;
#[cfg(test)]
mod tests;

use api::Value;

use crate::build::Row;
use crate::names;
use crate::print::{AGE, CONTAINERS, IMAGES, NAME, age, container_images, container_names, name, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

use self::strategy::StatefulSets;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .in_all()
        .named(names::label)
        .strategy(StatefulSets)
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
        AGE,
        CONTAINERS,
        IMAGES,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let spec = object.at("spec.template.spec");
    let ready = format!(
        "{}/{}",
        object.count("status.readyReplicas"),
        object.count("spec.replicas")
    );
    vec![
        name(object),
        ready.into(),
        age(object, context),
        container_names(spec),
        container_images(spec),
    ]
}
