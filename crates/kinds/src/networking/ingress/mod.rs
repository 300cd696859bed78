//! Ingress.

mod strategy;
#[cfg(test)]
mod tests;

use api::Value;

pub use strategy::reference;

use crate::build::Row;
use crate::print::{AGE, NAME, NONE, age, load_balancer, name, or, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced(super::GROUP, "v1", "Ingress", "ingresses")
        .short(&["ing"])
        .stored_under("ingress")
        .strategy(strategy::Ingresses)
        .generation()
        .status()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Class", "The ingress class."),
        text("Hosts", "The hosts that are matched."),
        text("Address", "Where it is reached."),
        text("Ports", "The ports it opens."),
        AGE,
    ],
    cells,
};

/// How many hosts a cell shows.
const HOSTS_MAX: usize = 3;

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let ports = if object.list("spec.tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        name(object),
        or(object.text("spec.ingressClassName"), NONE).into(),
        hosts(object.list("spec.rules")).into(),
        load_balancer(object.at("status.loadBalancer")).into(),
        ports.into(),
        age(object, context),
    ]
}

/// Upstream counts what is left over by rules, hosts or not, once three hosts are shown.
fn hosts(rules: &[Value]) -> String {
    let (mut hosts, mut more) = (Vec::new(), false);
    for rule in rules {
        more |= hosts.len() == HOSTS_MAX;
        if !more && !rule.text("host").is_empty() {
            hosts.push(rule.text("host"));
        }
    }
    match (hosts.is_empty(), more) {
        (true, _) => "*".into(),
        (false, false) => hosts.join(","),
        (false, true) => format!("{} + {} more...", hosts.join(","), rules.len() - HOSTS_MAX),
    }
}
