//! The apiregistration.k8s.io group: APIService (not served yet: there is no aggregation).

use api::Value;

use crate::build::Row;
use crate::generic::WithStatus;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

/// The kinds.
pub fn rows() -> Vec<StorageKind> {
    let row = Row::cluster("apiregistration.k8s.io", "v1", "APIService", "apiservices")
        .stored_under("apiregistration.k8s.io/apiservices")
        .categories(&["api-extensions"])
        .strategy(WithStatus::PLAIN)
        .conditional_update()
        .status()
        .columns(COLUMNS);
    vec![row.build()]
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Service", "The service that answers for the group version, or Local."),
        text("Available", "Whether it can be reached."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let service = match object.at("spec.service") {
        Value::Null => "Local".into(),
        service => format!("{}/{}", service.text("namespace"), service.text("name")),
    };
    let available = object
        .list("status.conditions")
        .iter()
        .find(|c| c.text("type") == "Available");
    let available = match available {
        Some(condition) if condition.text("status") == "True" => "True".into(),
        Some(condition) => format!("{} ({})", condition.text("status"), condition.text("reason")),
        None => "Unknown".into(),
    };
    vec![name(object), service.into(), available.into(), age(object, context)]
}
