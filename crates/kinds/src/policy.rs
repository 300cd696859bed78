//! The policy group: PodDisruptionBudget (not served: nothing keeps a budget yet; the eviction subresource of pods
//! belongs to the core group's pods).

use api::Value;

use crate::build::Row;
use crate::generic::WithStatus;
use crate::print::{AGE, NAME, age, integer, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .short(&["pdb"])
        .strategy(WithStatus::PLAIN)
        .generation()
        .conditional_update()
        .status()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Min Available", "How many pods must stay available."),
        text("Max Unavailable", "How many pods may be unavailable."),
        integer("Allowed Disruptions", "How many pods may be disrupted now."),
        AGE,
    ],
    cells: |object, context| {
        vec![
            name(object),
            number_or_percent(object.at("spec.minAvailable")),
            number_or_percent(object.at("spec.maxUnavailable")),
            object.count("status.disruptionsAllowed").into(),
            age(object, context),
        ]
    },
};

fn number_or_percent(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::String(text) => text.clone().into(),
        number => number.to_string().into(),
    }
}
