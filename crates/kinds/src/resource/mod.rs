//! The resource.k8s.io group: dynamic resource allocation.

use api::Value;

use crate::build::Row;
use crate::generic::{Defaulted, WithStatus};
use crate::print::{AGE, NAME, NAME_AND_AGE, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::{Edit, View};

const GROUP: &str = "resource.k8s.io";

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![device_class(), claim(), claim_template(), slice()]
}

fn device_class() -> StorageKind {
    Row::cluster(GROUP, "v1", "DeviceClass", "deviceclasses")
        .generation()
        .returns_deleted()
        .columns(NAME_AND_AGE)
        .build()
}

fn claim() -> StorageKind {
    Row::namespaced(GROUP, "v1", "ResourceClaim", "resourceclaims")
        .strategy(WithStatus(|object| default_requests(object, "spec")))
        .status()
        .returns_deleted()
        .columns(CLAIM)
        .build()
}

fn claim_template() -> StorageKind {
    Row::namespaced(GROUP, "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
        .strategy(Defaulted(|object| default_requests(object, "spec.spec")))
        .returns_deleted()
        .columns(NAME_AND_AGE)
        .build()
}

fn slice() -> StorageKind {
    Row::cluster(GROUP, "v1", "ResourceSlice", "resourceslices")
        .generation()
        .returns_deleted()
        .trigger(|object| Some(object.text("spec.nodeName").into()))
        .fields(&[
            ("spec.nodeName", |object| object.text("spec.nodeName").into()),
            ("spec.driver", |object| object.text("spec.driver").into()),
        ])
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

/// One device of what is asked for, counted exactly.
fn default_requests(object: &mut Value, spec: &str) {
    let Some(spec) = object.existing(spec) else { return };
    for request in spec.elements("devices.requests") {
        if let Some(exactly) = request.existing("exactly") {
            default_request(exactly);
        }
        for alternative in request.elements("firstAvailable") {
            default_request(alternative);
        }
    }
}

fn default_request(request: &mut Value) {
    request.put_default("allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" && request.count("count") == 0 {
        request.put("count", 1);
    }
    for toleration in request.elements("tolerations") {
        toleration.put_default("operator", "Equal");
    }
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
