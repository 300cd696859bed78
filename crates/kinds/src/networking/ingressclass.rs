//! IngressClass.

use api::Value;

use crate::build::Row;
use crate::generic::Defaulted;
use crate::print::{AGE, NAME, NONE, age, name, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "IngressClass", "ingressclasses")
        .strategy(Defaulted(|object| {
            if let Some(parameters) = object.existing("spec.parameters") {
                parameters.put_default("scope", "Cluster");
            }
        }))
        .generation()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Controller", "Who serves ingresses of this class."),
        text("Parameters", "An object with the class's own settings."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let parameters = match object.at("spec.parameters") {
        Value::Null => NONE.into(),
        parameters => {
            let group = parameters.at("apiGroup").as_str().map(|group| format!(".{group}"));
            let (kind, name) = (parameters.text("kind"), parameters.text("name"));
            format!("{kind}{}/{name}", group.unwrap_or_default())
        }
    };
    vec![
        name(object),
        object.text("spec.controller").into(),
        parameters.into(),
        age(object, context),
    ]
}
