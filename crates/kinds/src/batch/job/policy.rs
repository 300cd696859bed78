//! When a job's pods count as failed, and when the job as done: the failure and success policies.
//!
//! Source: `validatePodFailurePolicy` and `validateSuccessPolicy` in `pkg/apis/batch/validation/validation.go`.

use std::collections::BTreeSet;

use api::field::Error;
use api::validation::qualified_name;

use super::indexes;
use crate::check::At;
use crate::view::View;

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
const INDEXES_BYTES_MAX: usize = 64 * 1024;

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// `podFailurePolicy` of a job's spec.
pub fn failure(spec: &At) {
    let policy = spec.get("podFailurePolicy");
    too_many(&policy.get("rules"), RULES_MAX);
    let template = spec.value.at("template.spec");
    let lists = ["containers", "initContainers"];
    let containers: BTreeSet<&str> = lists
        .into_iter()
        .flat_map(|list| template.list(list))
        .map(|container| container.text("name"))
        .collect();
    for rule in policy.items("rules") {
        failure_rule(&rule, &containers, spec.value.has("backoffLimitPerIndex"));
    }
}

fn failure_rule(rule: &At, containers: &BTreeSet<&str>, per_index: bool) {
    let action = rule.get("action");
    match action.text() {
        "FailIndex" => action.ensure(per_index, "requires the backoffLimitPerIndex to be set"),
        _ => named(&action, &ACTIONS),
    }
    let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
    if codes.is_set() {
        exit_codes(&codes, containers);
    }
    if !conditions.is_empty() {
        too_many(&conditions, CONDITIONS_MAX);
        for pattern in rule.items("onPodConditions") {
            let kind = pattern.get("type");
            kind.check(qualified_name(kind.text()));
            named(&pattern.get("status"), &STATUSES);
        }
    }
    match (codes.is_set(), !conditions.is_empty()) {
        (true, true) => rule.broken("specifying both OnExitCodes and OnPodConditions is not supported"),
        (false, false) => rule.broken("specifying one of OnExitCodes and OnPodConditions is required"),
        _ => {}
    }
}

fn exit_codes(codes: &At, containers: &BTreeSet<&str>) {
    let operator = codes.get("operator");
    named(&operator, &OPERATORS);
    let container = codes.get("containerName");
    if container.is_set() && !containers.contains(container.text()) {
        container.invalid("must be one of the container or initContainer names in the pod template");
    }
    let values = codes.get("values");
    if values.is_empty() {
        values.invalid("at least one value is required");
    } else {
        too_many(&values, EXIT_CODES_MAX);
    }
    let items = codes.items("values");
    let mut seen = BTreeSet::new();
    for value in &items {
        let code = value.number().unwrap_or(0);
        if operator.text() == "In" && code == 0 {
            value.invalid("must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            value.duplicate(code);
        }
    }
    if !items.iter().map(|value| value.number().unwrap_or(0)).is_sorted() {
        values.invalid("must be ordered");
    }
}

/// `successPolicy` of an indexed job's spec.
pub fn success(spec: &At) {
    let rules = spec.get("successPolicy.rules");
    if rules.is_empty() {
        rules.missing("at least one rules must be specified when the successPolicy is specified");
    }
    too_many(&rules, RULES_MAX);
    // An indexed job without completions was refused for that.
    let completions = spec.value.count("completions");
    for rule in spec.items("successPolicy.rules") {
        success_rule(&rule, completions);
    }
}

fn success_rule(rule: &At, completions: i64) {
    let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
    if !count.is_set() && !indexes.is_set() {
        rule.missing("at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = 0;
    if indexes.is_set() {
        if indexes.text().len() > INDEXES_BYTES_MAX {
            indexes.too_long(INDEXES_BYTES_MAX);
        }
        match indexes::count(indexes.text(), completions) {
            Ok(counted) => total = counted,
            Err(why) => indexes.invalid(format!("error parsing succeededIndexes: {why}")),
        }
    }
    let Some(wanted) = count.number() else { return };
    count.non_negative();
    if wanted > completions {
        count.invalid(format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        ));
    }
    if indexes.is_set() && wanted > total {
        count.invalid(format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        ));
    }
}

/// One of some names; the error for none lists them, as Go prints a list.
fn named(at: &At, names: &[&str]) {
    if at.is_empty() {
        let quoted: Vec<String> = names.iter().map(|name| api::field::quote(name)).collect();
        return at.missing(format!("valid values: [{}]", quoted.join(" ")));
    }
    at.one_of(names);
}

fn too_many(list: &At, max: usize) {
    let count = list.value.as_array().map_or(0, Vec::len);
    if count > max {
        list.report.push(Error::too_many(&list.path, count, max));
    }
}
