//! ReplicationController.

use api::Value;

use super::pod;
use crate::apps::workload;
use crate::build::Row;
use crate::generic::WithStatus;
use crate::print;
use crate::row::{Columns, StorageKind};
use crate::view::{Edit, View};

/// The row. Deleting one leaves its pods alone, as clients from before garbage collection expect.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .in_all()
        .stored_under("controllers")
        .strategy(WithStatus(default))
        .generation()
        .orphans()
        .scale()
        .status()
        .fields(&[("status.replicas", |object| object.count("status.replicas").to_string())])
        .columns(COLUMNS)
        .build()
}

fn default(object: &mut Value) {
    pod::default_template(object.existing("spec.template"));
    object.object("spec");
    object["spec"].put_default("replicas", 1);
    let labels = object.at("spec.template.metadata.labels").clone();
    if labels.is_null() {
        return;
    }
    for (parent, field) in [("spec", "selector"), ("metadata", "labels")] {
        if object.at(parent).entries(field).next().is_none() {
            object.object(parent).insert(field.into(), labels.clone());
        }
    }
}

const COLUMNS: Columns = Columns {
    definitions: workload::REPLICAS_COLUMNS,
    cells: |object, context| {
        let selector = print::labels(object.at("spec.selector"));
        workload::replicas_cells(object, context, selector)
    },
};
