//! ResourceQuota (not served: nothing enforces it yet).

use api::Value;

use crate::build::Row;
use crate::generic::WithStatus;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "ResourceQuota", "resourcequotas")
        .short(&["quota"])
        .strategy(WithStatus::PLAIN)
        .status()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Request", "Used and allowed requests."),
        text("Limit", "Used and allowed limits."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = object.at("status.used");
    for (resource, hard) in object.entries("status.hard") {
        let used = used.get(resource).and_then(Value::as_str).unwrap_or("0");
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or(""));
        match resource.starts_with("limits.") {
            true => limits.push(text),
            false => requests.push(text),
        }
    }
    vec![
        name(object),
        requests.join(", ").into(),
        limits.join(", ").into(),
        age(object, context),
    ]
}
