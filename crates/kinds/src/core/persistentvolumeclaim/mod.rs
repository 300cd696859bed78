//! PersistentVolumeClaim.

mod strategy;
#[cfg(test)]
mod tests;
mod validation;

use api::Value;

use super::persistentvolume::{class, phase};
use crate::build::Row;
use crate::print::{AGE, NAME, UNSET, access_modes, age, name, or, text, wide};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::{Edit, View};

pub use strategy::spec_warnings as warnings;
pub use validation::{template_metadata, validate_spec, validate_template};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .strategy(strategy::PersistentVolumeClaims)
        .status()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

/// The defaults of a claim's spec, also in templates of other kinds.
pub fn default_spec(spec: Option<&mut Value>) {
    if let Some(spec) = spec {
        spec.put_default("volumeMode", "Filesystem");
    }
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "Pending, Bound or Lost."),
        text("Volume", "The volume it is bound to."),
        text("Capacity", "How much fits."),
        text("Access Modes", "How it can be mounted."),
        text("StorageClass", "Its storage class."),
        text("VolumeAttributesClass", "Its volume attributes class."),
        AGE,
        wide("VolumeMode", "Filesystem or Block."),
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let volume = object.text("spec.volumeName");
    let (capacity, modes) = match volume.is_empty() {
        true => (String::new(), String::new()),
        false => (
            or(object.text("status.capacity.storage"), "0").to_string(),
            access_modes(object.list("status.accessModes")),
        ),
    };
    vec![
        name(object),
        phase(object).into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        class(object).into(),
        or(object.text("spec.volumeAttributesClassName"), UNSET).into(),
        age(object, context),
        or(object.text("spec.volumeMode"), UNSET).into(),
    ]
}
