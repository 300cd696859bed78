//! PodTemplate.

use api::Value;

use super::pod;
use crate::build::Row;
use crate::print::{NAME, container_images, container_names, labels, name, text};
use crate::row::{Columns, StorageKind, Strategy};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "PodTemplate", "podtemplates")
        .strategy(PodTemplates)
        .returns_deleted()
        .generation()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Containers", "Names of each container in the template."),
        text("Images", "Images referenced by each container in the template."),
        text("Pod Labels", "The labels of the template."),
    ],
    cells: |object, _| {
        let spec = object.at("template.spec");
        vec![
            name(object),
            container_names(spec),
            container_images(spec),
            labels(object.at("template.metadata.labels")).into(),
        ]
    },
};

struct PodTemplates;

impl Strategy for PodTemplates {
    fn default(&self, object: &mut Value) {
        pod::default_template(object.existing("template"));
    }

    fn generation_changed(&self, object: &Value, old: &Value) -> bool {
        object.at("template") != old.at("template")
    }
}
