//! CSIDriver.

use api::Value;
use serde_json::json;

use crate::build::Row;
use crate::generic::Defaulted;
use crate::print::{AGE, NAME, NONE, UNSET, age, boolean, joined, name, or, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "CSIDriver", "csidrivers")
        .strategy(Defaulted(default))
        .generation()
        .conditional_update()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

fn default(object: &mut Value) {
    object.object("spec");
    let spec = &mut object["spec"];
    spec.put_default("attachRequired", true);
    spec.put_default("podInfoOnMount", false);
    spec.put_default("storageCapacity", false);
    spec.put_default("fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.list("volumeLifecycleModes").is_empty() {
        spec.put("volumeLifecycleModes", json!(["Persistent"]));
    }
    spec.put_default("requiresRepublish", false);
    spec.put_default("seLinuxMount", false);
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        boolean("AttachRequired", "Whether volumes are attached first."),
        boolean("PodInfoOnMount", "Whether the driver is told of the pod."),
        boolean("StorageCapacity", "Whether the scheduler looks at capacity."),
        text("TokenRequests", "Audiences of the tokens that the driver gets."),
        boolean("RequiresRepublish", "Whether volumes are published again and again."),
        text("Modes", "Persistent, Ephemeral or both."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let spec = object.at("spec");
    let tokens = match spec.has("tokenRequests") {
        true => joined(spec.list("tokenRequests"), "audience"),
        false => UNSET.into(),
    };
    let modes: Vec<&str> = spec.texts("volumeLifecycleModes").collect();
    vec![
        name(object),
        spec.boolean("attachRequired").unwrap_or(true).into(),
        spec.flag("podInfoOnMount").into(),
        spec.flag("storageCapacity").into(),
        tokens.into(),
        spec.flag("requiresRepublish").into(),
        or(&modes.join(","), NONE).into(),
        age(object, context),
    ]
}
