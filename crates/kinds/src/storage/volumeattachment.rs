//! VolumeAttachment.

use crate::build::Row;
use crate::generic::WithStatus;
use crate::print::{AGE, NAME, age, boolean, name, text};
use crate::row::{Column, Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "VolumeAttachment", "volumeattachments")
        .strategy(WithStatus::PLAIN)
        .conditional_update()
        .status()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        Column {
            format: "name",
            ..text("Attacher", "Who attaches the volume.")
        },
        text("PV", "The volume."),
        text("Node", "The node."),
        boolean("Attached", "Whether it is attached."),
        AGE,
    ],
    cells: |object, context| {
        vec![
            name(object),
            object.text("spec.attacher").into(),
            object.text("spec.source.persistentVolumeName").into(),
            object.text("spec.nodeName").into(),
            object.flag("status.attached").into(),
            age(object, context),
        ]
    },
};
