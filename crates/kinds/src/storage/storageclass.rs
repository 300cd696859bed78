//! StorageClass.

use api::Value;

use crate::build::Row;
use crate::generic::Defaulted;
use crate::print::{AGE, NAME, age, or, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "StorageClass", "storageclasses")
        .short(&["sc"])
        .strategy(Defaulted(|object| {
            object.put_default("reclaimPolicy", "Delete");
            object.put_default("volumeBindingMode", "Immediate");
        }))
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Provisioner", "Who makes volumes of this class."),
        text("ReclaimPolicy", "What happens to a volume when its claim goes."),
        text("VolumeBindingMode", "When claims are bound."),
        text("AllowVolumeExpansion", "Whether volumes can grow."),
        AGE,
    ],
    cells,
};

const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let is_default = DEFAULT_ANNOTATIONS
        .iter()
        .any(|key| api::meta::annotation(object, key) == Some("true"));
    let default = if is_default { " (default)" } else { "" };
    vec![
        format!("{}{default}", object.text("metadata.name")).into(),
        object.text("provisioner").into(),
        or(object.text("reclaimPolicy"), "Delete").into(),
        or(object.text("volumeBindingMode"), "Immediate").into(),
        object.flag("allowVolumeExpansion").into(),
        age(object, context),
    ]
}
