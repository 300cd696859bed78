//! The resource.k8s.io group: dynamic resource allocation.

mod claim;
mod class;
mod devices;
mod partitions;
mod sharing;
mod slice;
mod taints;
#[cfg(test)]
mod tests;

use api::Value;

use crate::build::Row;
use crate::print::{AGE, NAME, NAME_AND_AGE, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

const GROUP: &str = "resource.k8s.io";

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![device_class(), claim(), claim_template(), slice()]
}

fn device_class() -> StorageKind {
    Row::cluster(GROUP, "v1", "DeviceClass", "deviceclasses")
        .strategy(class::DeviceClasses)
        .generation()
        .returns_deleted()
        .columns(NAME_AND_AGE)
        .build()
}

fn claim() -> StorageKind {
    Row::namespaced(GROUP, "v1", "ResourceClaim", "resourceclaims")
        .strategy(claim::ResourceClaims)
        .status()
        .returns_deleted()
        .columns(CLAIM)
        .build()
}

fn claim_template() -> StorageKind {
    Row::namespaced(GROUP, "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
        .strategy(claim::ResourceClaimTemplates)
        .returns_deleted()
        .columns(NAME_AND_AGE)
        .build()
}

fn slice() -> StorageKind {
    Row::cluster(GROUP, "v1", "ResourceSlice", "resourceslices")
        .strategy(slice::ResourceSlices)
        .generation()
        .returns_deleted()
        .trigger(|object| Some(object.text("spec.nodeName").into()))
        .fields(&[
            ("spec.nodeName", |object| object.text("spec.nodeName").into()),
            ("spec.driver", |object| object.text("spec.driver").into()),
        ])
        .reads(&["spec.nodeName", "spec.driver"])
        .columns(SLICE)
        .build()
}

fn claim_state(object: &Value) -> String {
    let deleted = api::meta::is_deleting(object);
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if object.has("status.allocation") {
        states.push("allocated");
        if !object.list("status.reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    states.join(",")
}

const CLAIM: Columns = Columns {
    definitions: &[NAME, text("State", "Pending, allocated, reserved or deleted."), AGE],
    cells: |object, context| vec![name(object), claim_state(object).into(), age(object, context)],
};

const SLICE: Columns = Columns {
    definitions: &[
        NAME,
        text("Node", "The node whose devices these are."),
        text("Driver", "The driver that serves them."),
        text("Pool", "The pool they are part of."),
        AGE,
    ],
    cells: |object, context| {
        vec![
            name(object),
            object.text("spec.nodeName").into(),
            object.text("spec.driver").into(),
            object.text("spec.pool.name").into(),
            age(object, context),
        ]
    },
};
