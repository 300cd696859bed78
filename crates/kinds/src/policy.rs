//! The policy group: PodDisruptionBudget. The eviction subresource that asks it belongs to the core group's pods.
//!
//! Source of the rules: `ValidatePodDisruptionBudget` in `pkg/apis/policy/validation/validation.go`.

use api::Value;
use api::field::ErrorList;
use api::validation::{conditions, int_or_percent, label_selector};

use crate::apps::workload::at_most_all;
use crate::build::Row;
use crate::check::{At, Report};
use crate::generic;
use crate::print::{AGE, NAME, age, integer, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::View;

/// The kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .short(&["pdb"])
        .strategy(PodDisruptionBudgets)
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

struct PodDisruptionBudgets;

impl Strategy for PodDisruptionBudgets {
    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| spec(&object.get("spec"), &Value::Null))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => status(&object.get("status")),
            _ => spec(&object.get("spec"), old.at("spec")),
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn spec(spec: &At, old: &Value) {
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if min.is_set() && max.is_set() {
        spec.invalid("minAvailable and maxUnavailable cannot be both set");
    }
    for amount in [min, max].iter().filter(|amount| amount.is_set()) {
        amount.extend(int_or_percent(amount.value, &amount.path));
        at_most_all(amount);
    }
    let selector = spec.get("selector");
    let known = !label_selector(old.at("selector"), false, &selector.path).is_empty();
    selector.extend(label_selector(selector.value, known, &selector.path));
    let policy = spec.get("unhealthyPodEvictionPolicy");
    if policy.is_set() {
        policy.one_of(&["AlwaysAllow", "IfHealthyBudget"]);
    }
}

fn status(status: &At) {
    let list = status.get("conditions");
    list.extend(conditions(list.value, &list.path));
    for counter in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        status.get(counter).non_negative();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, VALUE, check};

    #[test]
    fn rules() {
        let broken = "{matchExpressions: [{key: a, operator: In, values: ['?']}]}";
        let percent = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex \
                       used for validation is '[0-9]+%')";
        for case in [
            Case::new("a number").object("spec: {minAvailable: 1, selector: {}}"),
            Case::new("a percentage")
                .object("spec: {maxUnavailable: 30%, unhealthyPodEvictionPolicy: AlwaysAllow}\nstatus: {expectedPods: 5}")
                .field("status.expectedPods", ()),
            Case::new("both").object("spec: {minAvailable: 1, maxUnavailable: 1}").errors(&[
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be \
                 both set",
            ]),
            Case::new("amounts")
                .object("spec: {minAvailable: -1, maxUnavailable: 101%, unhealthyPodEvictionPolicy: Some}")
                .errors(&[
                    "spec: Invalid value: {\"maxUnavailable\":\"101%\",\"minAvailable\":-1,\"unhealthyPodEvictionPolicy\":\
                     \"Some\"}: minAvailable and maxUnavailable cannot be both set",
                    "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0",
                    "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                    "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Some\": supported values: \"AlwaysAllow\", \
                     \"IfHealthyBudget\"",
                ]),
            Case::new("text")
                .object("spec: {minAvailable: some}")
                .errors(&[&format!("spec.minAvailable: Invalid value: \"some\": {percent}")]),
            Case::new("selector").object(&format!("spec: {{selector: {broken}}}")).errors(&[&format!(
                "spec.selector.matchExpressions[0].values[0]: Invalid value: \"?\": {VALUE}"
            )]),
            Case::new("what was broken may stay")
                .old(&format!("spec: {{selector: {broken}}}"))
                .object(&format!("spec: {{selector: {broken}, minAvailable: 1}}")),
            Case::new("status")
                .old("spec: {minAvailable: 1}")
                .object("status: {currentHealthy: -1, expectedPods: 1}")
                .subresource("status")
                .field("spec.minAvailable", 1)
                .errors(&["status.currentHealthy: Invalid value: -1: must be greater than or equal to 0"]),
        ] {
            check(&PodDisruptionBudgets, case);
        }
    }
}
