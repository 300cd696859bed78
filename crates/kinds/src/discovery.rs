//! The discovery.k8s.io group: EndpointSlice.

use api::Value;

use crate::build::Row;
use crate::print::{AGE, NAME, age, name, text, with_more};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .generation()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("AddressType", "IPv4, IPv6 or FQDN."),
        text("Ports", "The ports of every endpoint."),
        text("Endpoints", "The addresses."),
        AGE,
    ],
    cells,
};

/// How many elements a cell shows.
const SHOWN_MAX: usize = 3;

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let ports: Vec<String> = object
        .list("ports")
        .iter()
        .map(|port| match (port.number("port"), port.at("name").as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.into(),
            (None, None) => "*".into(),
        })
        .collect();
    let endpoints = object.list("endpoints").iter();
    let addresses: Vec<String> = endpoints.flat_map(|e| e.texts("addresses")).map(String::from).collect();
    vec![
        name(object),
        object.text("addressType").into(),
        with_more(&ports, SHOWN_MAX).into(),
        with_more(&addresses, SHOWN_MAX).into(),
        age(object, context),
    ]
}
