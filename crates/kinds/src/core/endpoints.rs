//! Endpoints.

use api::Value;

use crate::build::Row;
use crate::print::{AGE, NAME, NONE, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "Endpoints", "endpoints")
        .short(&["ep"])
        .stored_under("services/endpoints")
        .created_by_put()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Endpoints", "The addresses that answer."), AGE],
    cells: |object, context| vec![name(object), addresses(object).into(), age(object, context)],
};

/// How many addresses a cell shows.
const SHOWN_MAX: usize = 3;

fn addresses(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in object.list("subsets") {
        let addresses = subset.list("addresses").iter().map(|address| address.text("ip"));
        if subset.list("ports").is_empty() {
            all.extend(addresses.map(String::from));
            continue;
        }
        for port in subset.list("ports") {
            let number = port.count("port");
            all.extend(addresses.clone().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{number}"),
                false => format!("{ip}:{number}"),
            }));
        }
    }
    match all.len() {
        0 if object.list("subsets").is_empty() => NONE.into(),
        0 => String::new(),
        _ => crate::print::with_more(&all, SHOWN_MAX),
    }
}
