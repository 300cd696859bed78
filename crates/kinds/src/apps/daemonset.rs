//! DaemonSet.

use api::Value;
use serde_json::json;

use crate::build::Row;
use crate::core::pod;
use crate::generic;
use crate::print::{
    AGE, CONTAINERS, IMAGES, NAME, SELECTOR, age, container_images, container_names, integer, labels, name, selector,
    text,
};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

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

/// The number of the template, which apps/v1 keeps in an annotation since its field is gone.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

struct DaemonSets;

impl Strategy for DaemonSets {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        let annotations = object.object("metadata.annotations");
        annotations.entry(TEMPLATE_GENERATION).or_insert_with(|| "1".into());
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        let before = api::meta::annotation(old, TEMPLATE_GENERATION).and_then(|text| text.parse::<i64>().ok());
        let changed = object.at("spec.template") != old.at("spec.template");
        if let Some(before) = before {
            let now = (before + i64::from(changed)).to_string();
            object
                .object("metadata.annotations")
                .insert(TEMPLATE_GENERATION.into(), now.into());
        }
    }
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

#[cfg(test)]
mod tests {
    use crate::testing::{Case, check};
    use serde_json::json;

    #[test]
    fn templates_are_counted() {
        let path = "metadata.annotations";
        let count = |n: &str| json!({super::TEMPLATE_GENERATION: n});
        let set = "spec: {template: {spec: {containers: [{name: a, image: i}]}}}";
        let old = format!(
            "metadata: {{annotations: {{{}: '3'}}}}\n{set}",
            super::TEMPLATE_GENERATION
        );
        for case in [
            Case::new("the first").object(set).field(path, count("1")),
            Case::new("the same").old(&old).object(set).field(path, count("3")),
            Case::new("the next")
                .old(&old)
                .object(&set.replace("image: i", "image: j"))
                .field(path, count("4")),
        ] {
            check(&super::DaemonSets, case);
        }
    }
}
