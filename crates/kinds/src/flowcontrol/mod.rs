//! The flowcontrol.apiserver.k8s.io group: FlowSchema and PriorityLevelConfiguration.

use api::Value;

use crate::build::Row;
use crate::generic::WithStatus;
use crate::print::{AGE, NAME, NONE, age, name, or, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::{Edit, View};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![flow_schema(), priority_level()]
}

fn flow_schema() -> StorageKind {
    Row::cluster(GROUP, "v1", "FlowSchema", "flowschemas")
        .strategy(WithStatus(|object| {
            object.object("spec");
            if object.count("spec.matchingPrecedence") == 0 {
                object["spec"].put("matchingPrecedence", 1000);
            }
        }))
        .generation()
        .conditional_update()
        .status()
        .columns(FLOW_SCHEMA)
        .build()
}

fn priority_level() -> StorageKind {
    Row::cluster(GROUP, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations")
        .strategy(WithStatus(default_priority_level))
        .generation()
        .conditional_update()
        .status()
        .columns(PRIORITY_LEVEL)
        .build()
}

fn default_priority_level(object: &mut Value) {
    for (kind, shares) in [("spec.exempt", 0), ("spec.limited", 30)] {
        if let Some(level) = object.existing(kind) {
            level.put_default("nominalConcurrencyShares", shares);
            level.put_default("lendablePercent", 0);
        }
    }
    if let Some(queuing) = object.existing("spec.limited.limitResponse.queuing") {
        for (field, default) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            if queuing.count(field) == 0 {
                queuing.put(field, default);
            }
        }
    }
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
