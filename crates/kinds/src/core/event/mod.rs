//! Event: stored as core/v1, served also as events.k8s.io/v1.

mod columns;
mod conversion;
mod validation;

use api::Value;

use crate::build::Row;
use crate::row::StorageKind;
use crate::view::View;

/// How long an event is kept, upstream's `--event-ttl`.
const KEPT_SECONDS: u64 = 3600;

type Field = (&'static str, fn(&Value) -> String);

const SHARED_FIELDS: [Field; 2] = [
    ("reason", |object| object.text("reason").into()),
    ("type", |object| object.text("type").into()),
];

const CORE_FIELDS: &[Field] = &[
    ("involvedObject.kind", |object| {
        object.text("involvedObject.kind").into()
    }),
    ("involvedObject.namespace", |object| {
        object.text("involvedObject.namespace").into()
    }),
    ("involvedObject.name", |object| {
        object.text("involvedObject.name").into()
    }),
    ("involvedObject.uid", |object| object.text("involvedObject.uid").into()),
    ("involvedObject.apiVersion", |object| {
        object.text("involvedObject.apiVersion").into()
    }),
    ("involvedObject.resourceVersion", |object| {
        object.text("involvedObject.resourceVersion").into()
    }),
    ("involvedObject.fieldPath", |object| {
        object.text("involvedObject.fieldPath").into()
    }),
    ("reportingComponent", |object| object.text("reportingComponent").into()),
    ("source", source),
    SHARED_FIELDS[0],
    SHARED_FIELDS[1],
];

const EVENTS_FIELDS: &[Field] = &[
    ("regarding.kind", CORE_FIELDS[0].1),
    ("regarding.namespace", CORE_FIELDS[1].1),
    ("regarding.name", CORE_FIELDS[2].1),
    ("regarding.uid", CORE_FIELDS[3].1),
    ("regarding.apiVersion", CORE_FIELDS[4].1),
    ("regarding.resourceVersion", CORE_FIELDS[5].1),
    ("regarding.fieldPath", CORE_FIELDS[6].1),
    ("reportingController", CORE_FIELDS[7].1),
    SHARED_FIELDS[0],
    SHARED_FIELDS[1],
];

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "Event", "events")
        .short(&["ev"])
        .strategy(validation::Events)
        .expires_after(KEPT_SECONDS)
        .created_by_put()
        .fields(CORE_FIELDS)
        .columns(columns::CORE)
        .also_served("events.k8s.io", "v1", conversion::EVENTS_V1, |served| {
            served.selectable_fields = EVENTS_FIELDS;
            served.columns = Some(columns::EVENTS_V1);
        })
        .reads(&[
            "involvedObject",
            "reason",
            "reportingComponent",
            "source.component",
            "type",
        ])
        .build()
}

/// What the `source` selector compares: the component, or the reporting controller of newer events.
fn source(object: &Value) -> String {
    match object.text("source.component") {
        "" => object.text("reportingComponent").into(),
        component => component.into(),
    }
}
