//! ControllerRevision.

use api::Value;

use crate::build::Row;
use crate::print::{AGE, NAME, NONE, age, name, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions")
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Controller", "The object whose history this is part of."),
        text("Revision", "The number of the revision."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let owner = object
        .list("metadata.ownerReferences")
        .iter()
        .find(|o| o.flag("controller"));
    let controller = owner.map_or(NONE.into(), |owner| {
        let kind = match owner.text("apiVersion").split_once('/') {
            Some((group, _)) => format!("{}.{group}", owner.text("kind")),
            None => owner.text("kind").into(),
        };
        format!("{}/{}", kind.to_lowercase(), owner.text("name"))
    });
    vec![
        name(object),
        controller.into(),
        object.count("revision").into(),
        age(object, context),
    ]
}
