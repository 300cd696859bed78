//! The flowcontrol.apiserver.k8s.io group: FlowSchema and PriorityLevelConfiguration.

pub mod bootstrap;
mod flowschema;
mod prioritylevel;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use api::Value;

use crate::build::Row;
use crate::check::At;
use crate::generic;
use crate::print::{AGE, NAME, NONE, age, name, or, text};
use crate::row::{Columns, PrintContext, StorageKind, WriteContext};
use crate::view::View;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![flow_schema(), priority_level()]
}

fn flow_schema() -> StorageKind {
    Row::cluster(GROUP, "v1", "FlowSchema", "flowschemas")
        .strategy(flowschema::FlowSchemas)
        .generation()
        .status()
        .columns(FLOW_SCHEMA)
        .build()
}

fn priority_level() -> StorageKind {
    Row::cluster(GROUP, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations")
        .strategy(prioritylevel::PriorityLevels)
        .generation()
        .status()
        .columns(PRIORITY_LEVEL)
        .build()
}

/// The status is written apart, and with it nothing of the metadata.
fn keep_apart(object: &mut Value, old: &Value, context: &WriteContext) {
    generic::keep_apart(object, old, context);
    if context.subresource == "status" {
        generic::keep_metadata(object, old);
    }
}

/// Conditions have types, each its own.
fn conditions(status: &At) {
    let mut seen = BTreeSet::new();
    for condition in status.items("conditions") {
        let kind = condition.get("type");
        if !seen.insert(kind.text()) {
            kind.duplicate(kind.text());
        }
        if kind.is_empty() {
            kind.missing("must not be empty");
        }
    }
}

/// What keeps the server usable stays as upstream made it.
fn mandatory(object: &At, kind: &str, compared: fn(&Value) -> Value, but: &str) {
    let name = object.value.text("metadata.name");
    let Some(fixed) = bootstrap::mandatory(kind, name) else {
        return;
    };
    let spec = object.get("spec");
    let kept = compared(spec.value) == compared(fixed.at("spec"));
    spec.ensure(kept, format!("spec of '{name}'{but} must equal the fixed value"));
}

const FLOW_SCHEMA: Columns = Columns {
    definitions: &[
        NAME,
        text("PriorityLevel", "The priority level of its requests."),
        text("MatchingPrecedence", "Lower is asked first."),
        text("DistinguisherMethod", "What tells its flows apart."),
        AGE,
        text("MissingPL", "Whether the priority level is not there."),
    ],
    cells: |object, context| {
        let dangling = object
            .list("status.conditions")
            .iter()
            .find(|c| c.text("type") == "Dangling");
        vec![
            name(object),
            object.text("spec.priorityLevelConfiguration.name").into(),
            object.count("spec.matchingPrecedence").into(),
            or(object.text("spec.distinguisherMethod.type"), NONE).into(),
            age(object, context),
            dangling.map_or("?", |condition| condition.text("status")).into(),
        ]
    },
};

const PRIORITY_LEVEL: Columns = Columns {
    definitions: &[
        NAME,
        text("Type", "Exempt or Limited."),
        text("NominalConcurrencyShares", "Its share of concurrent requests."),
        text("Queues", "How many queues it has."),
        text("HandSize", "How many queues a flow is dealt."),
        text("QueueLengthLimit", "How many requests wait in a queue."),
        AGE,
    ],
    cells: priority_level_cells,
};

fn priority_level_cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let shown = |field: &str| match object.at("spec.limited").at(field) {
        Value::Null => NONE.into(),
        value => value.clone(),
    };
    vec![
        name(object),
        object.text("spec.type").into(),
        shown("nominalConcurrencyShares"),
        shown("limitResponse.queuing.queues"),
        shown("limitResponse.queuing.handSize"),
        shown("limitResponse.queuing.queueLengthLimit"),
        age(object, context),
    ]
}
