//! PersistentVolume.

mod sources;
mod strategy;
#[cfg(test)]
mod tests;
pub mod validation;

use api::Value;

use crate::build::Row;
use crate::print::{AGE, NAME, UNSET, access_modes, age, name, or, text, wide};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

pub use strategy::resource_version;

/// The annotation that named the class before the field did, and still wins.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The annotation that held mount options before the field did.
pub const MOUNT_OPTIONS_ANNOTATION: &str = "volume.beta.kubernetes.io/mount-options";

/// The row.
pub fn row() -> StorageKind {
    Row::cluster("", "v1", "PersistentVolume", "persistentvolumes")
        .short(&["pv"])
        .strategy(strategy::PersistentVolumes)
        .status()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Capacity", "How much fits."),
        text("Access Modes", "How it can be mounted."),
        text("Reclaim Policy", "What happens when its claim goes."),
        text("Status", "Available, Bound, Released, Failed or Pending."),
        text("Claim", "The claim it is bound to."),
        text("StorageClass", "Its storage class."),
        text("VolumeAttributesClass", "Its volume attributes class."),
        text("Reason", "Why it is in this status."),
        AGE,
        wide("VolumeMode", "Filesystem or Block."),
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let claim = match object.at("spec.claimRef") {
        Value::Null => String::new(),
        claim => format!("{}/{}", claim.text("namespace"), claim.text("name")),
    };
    vec![
        name(object),
        or(object.at("spec.capacity").text("storage"), "0").into(),
        access_modes(object.list("spec.accessModes")).into(),
        object.text("spec.persistentVolumeReclaimPolicy").into(),
        phase(object).into(),
        claim.into(),
        class(object).into(),
        or(object.text("spec.volumeAttributesClassName"), UNSET).into(),
        object.text("status.reason").into(),
        age(object, context),
        or(object.text("spec.volumeMode"), UNSET).into(),
    ]
}

/// The phase, or that the object is going.
pub fn phase(object: &Value) -> &str {
    match api::meta::is_deleting(object) {
        true => "Terminating",
        false => object.text("status.phase"),
    }
}

/// The storage class by annotation or field.
pub fn class(object: &Value) -> &str {
    api::meta::annotation(object, CLASS_ANNOTATION).unwrap_or_else(|| object.text("spec.storageClassName"))
}
