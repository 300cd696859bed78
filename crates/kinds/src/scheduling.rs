//! The scheduling.k8s.io group: PriorityClass.
//!
//! Source of the rules: `ValidatePriorityClass` in `pkg/apis/scheduling/validation/validation.go`.

use api::Value;
use api::field::ErrorList;

use crate::build::Row;
use crate::check::{At, Report};
use crate::print::{AGE, NAME, age, boolean, integer, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .short(&["pc"])
        .strategy(PriorityClasses)
        .generation()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        integer("Value", "The priority of pods of this class."),
        boolean("Global-Default", "Whether pods that name no class are of this one."),
        AGE,
        text("PreemptionPolicy", "Whether pods of this class may preempt others."),
    ],
    cells: |object, context| {
        vec![
            name(object),
            object.count("value").into(),
            object.flag("globalDefault").into(),
            age(object, context),
            object.text("preemptionPolicy").into(),
        ]
    },
};

/// The largest priority that is not the system's own.
const USER_VALUE_MAX: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
/// The classes of the system and their values.
const SYSTEM: [(&str, i64); 2] = [
    ("system-node-critical", 2 * USER_VALUE_MAX + 1000),
    ("system-cluster-critical", 2 * USER_VALUE_MAX),
];

struct PriorityClasses;

impl Strategy for PriorityClasses {
    fn default(&self, object: &mut Value) {
        object.put_default("preemptionPolicy", "PreemptLowerPriority");
    }

    /// Upstream starts the generation at 1 and never raises it: what counts never changes.
    fn generation_changed(&self, _object: &Value, _old: &Value) -> bool {
        false
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            if object.value.count("value") != old.count("value") {
                object.get("value").forbidden("may not be changed in an update.");
            }
            object.get("preemptionPolicy").unchanged(old.at("preemptionPolicy"));
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    let (name, value) = (object.get("metadata.name"), object.value.count("value"));
    if name.text().starts_with(SYSTEM_PREFIX) {
        if let Err(error) = is_known(name.text(), value, object.value.flag("globalDefault")) {
            name.forbidden(format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {error}"
            ));
        }
    } else if value > USER_VALUE_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}");
        object.get("value").forbidden(detail);
    }
    object
        .get("preemptionPolicy")
        .required_one_of(&["PreemptLowerPriority", "Never"]);
}

fn is_known(name: &str, value: i64, global_default: bool) -> Result<(), String> {
    match SYSTEM.iter().find(|(known, _)| *known == name) {
        None => Err(format!("{name} is not a known system priority class")),
        Some((_, expect)) if *expect != value => Err(format!("value of {name} PriorityClass must be {expect}")),
        Some(_) if global_default => Err(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, check};

    #[test]
    fn rules() {
        let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system \
                        use only. error:";
        for case in [
            Case::new("a class")
                .object("metadata: {name: a}\nvalue: 1000000000")
                .field("preemptionPolicy", "PreemptLowerPriority"),
            Case::new("the system's").object("metadata: {name: system-node-critical}\nvalue: 2000001000"),
            Case::new("unknown")
                .object("metadata: {name: system-x}\nvalue: 1")
                .errors(&[&format!("{reserved} system-x is not a known system priority class")]),
            Case::new("another value")
                .object("metadata: {name: system-cluster-critical}\nvalue: 1")
                .errors(&[&format!(
                    "{reserved} value of system-cluster-critical PriorityClass must be 2000000000"
                )]),
            Case::new("a default")
                .object("metadata: {name: system-cluster-critical}\nvalue: 2000000000\nglobalDefault: true")
                .errors(&[&format!(
                    "{reserved} globalDefault of system-cluster-critical PriorityClass must be false"
                )]),
            Case::new("too high")
                .object("metadata: {name: a}\nvalue: 1000000001")
                .errors(&["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]),
            Case::new("policy").object("preemptionPolicy: X").errors(&[
                "preemptionPolicy: Unsupported value: \"X\": supported values: \"PreemptLowerPriority\", \"Never\"",
            ]),
            Case::new("fixed")
                .old("value: 1")
                .object("value: 2\npreemptionPolicy: Never")
                .errors(&[
                    "value: Forbidden: may not be changed in an update.",
                    "preemptionPolicy: Invalid value: \"Never\": field is immutable",
                ]),
        ] {
            check(&super::PriorityClasses, case);
        }
    }
}
