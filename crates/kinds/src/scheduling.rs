//! The scheduling.k8s.io group: PriorityClass.

use crate::build::Row;
use crate::print::{AGE, NAME, age, boolean, integer, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .short(&["pc"])
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        integer("Value", "The priority of pods of this class."),
        boolean("Global-Default", "Whether pods that name no class are of this one."),
        AGE,
        text("PreemptionPolicy", "Whether pods of this class may preempt others."),
    ],
    cells: |object, context| {
        vec![
            name(object),
            object.count("value").into(),
            object.flag("globalDefault").into(),
            age(object, context),
            object.text("preemptionPolicy").into(),
        ]
    },
};
