//! DaemonSet.

use api::Value;
use serde_json::json;

use crate::build::Row;
use crate::core::pod;
use crate::generic::WithStatus;
use crate::print::{
    AGE, CONTAINERS, IMAGES, NAME, SELECTOR, age, container_images, container_names, integer, labels, name, selector,
    text,
};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("apps", "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .in_all()
        .strategy(WithStatus(default))
        .generation()
        .status()
        .columns(COLUMNS)
        .build()
}

fn default(object: &mut Value) {
    pod::default_template(object.existing("spec.template"));
    object.object("spec.updateStrategy");
    let strategy = &mut object["spec"]["updateStrategy"];
    strategy.put_default("type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        strategy.object("rollingUpdate");
        strategy["rollingUpdate"].put_default("maxUnavailable", 1);
        strategy["rollingUpdate"].put_default("maxSurge", 0);
    }
    object["spec"].put_default("revisionHistoryLimit", json!(10));
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
