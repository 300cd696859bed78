//! StatefulSet.

use api::Value;
use serde_json::json;

use crate::build::Row;
use crate::core::{persistentvolumeclaim, pod};
use crate::generic::WithStatus;
use crate::print::{AGE, CONTAINERS, IMAGES, NAME, age, container_images, container_names, name, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .in_all()
        .strategy(WithStatus(default))
        .generation()
        .scale()
        .status()
        .columns(COLUMNS)
        .build()
}

fn default(object: &mut Value) {
    pod::default_template(object.existing("spec.template"));
    for claim in object.elements("spec.volumeClaimTemplates") {
        claim.object("status");
        claim["status"].put_default("phase", "Pending");
        persistentvolumeclaim::default_spec(claim.existing("spec"));
    }
    object.object("spec.updateStrategy");
    let spec = &mut object["spec"];
    spec.put_default("podManagementPolicy", "OrderedReady");
    if spec.text("updateStrategy.type").is_empty() {
        spec["updateStrategy"].put("type", "RollingUpdate");
        spec.object("updateStrategy.rollingUpdate");
    }
    if spec.text("updateStrategy.type") == "RollingUpdate"
        && let Some(rolling) = spec.existing("updateStrategy.rollingUpdate")
    {
        rolling.put_default("partition", 0);
    }
    spec.object("persistentVolumeClaimRetentionPolicy");
    spec["persistentVolumeClaimRetentionPolicy"].put_default("whenDeleted", "Retain");
    spec["persistentVolumeClaimRetentionPolicy"].put_default("whenScaled", "Retain");
    spec.put_default("replicas", 1);
    spec.put_default("revisionHistoryLimit", json!(10));
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
