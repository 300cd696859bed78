//! IPAddress: one allocated service address.

use api::Value;

use crate::build::Row;
use crate::names;
use crate::print::{AGE, NAME, NONE, age, name, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "IPAddress", "ipaddresses")
        .short(&["ip"])
        .named(names::ip_address)
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("ParentRef", "What the address belongs to."), AGE],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let parent = match object.at("spec.parentRef") {
        Value::Null => NONE.into(),
        parent => {
            let resource = parent.text("resource").to_lowercase();
            let group = parent.text("group").to_lowercase();
            let dot = if group.is_empty() { "" } else { "." };
            let namespace = parent.text("namespace");
            let slash = if namespace.is_empty() { "" } else { "/" };
            format!("{resource}{dot}{group}{slash}{namespace}/{}", parent.text("name"))
        }
    };
    vec![name(object), parent.into(), age(object, context)]
}
