//! Rules for where a pod may run: tolerations, affinity, spread, gates.
//!
//! Source: `ValidateTolerations`, `validateAffinity`, `validateTopologySpreadConstraints` and what they call in
//! `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::validation::{label_name, label_selector, label_value, labels, qualified_name};
use serde_json::json;

use super::tolerated::Tolerated;
use crate::check::At;
use crate::names;
use crate::view::View;

/// Everything of a pod spec that the scheduler reads.
pub fn validate(spec: &At, tolerated: Tolerated) {
    let selector = spec.get("nodeSelector");
    selector.extend(labels(selector.value, &selector.path));
    affinity(&spec.get("affinity"), tolerated);
    for gate in spec.items("readinessGates") {
        let condition = gate.get("conditionType");
        condition.check(qualified_name(condition.text()));
    }
    let mut seen = BTreeSet::new();
    for gate in spec.items("schedulingGates") {
        let name = gate.value.text("name");
        for message in qualified_name(name) {
            gate.invalid_as(name, message);
        }
        if !seen.insert(name) {
            gate.duplicate(name);
        }
    }
    topology_spread(spec, tolerated);
    tolerations(spec, "tolerations");
}

/// The tolerations of a list.
pub fn tolerations(parent: &At, list: &str) {
    for toleration in parent.items(list) {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        if !key.is_empty() {
            key.extend(label_name(key.text(), &key.path));
        } else if operator.text() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid_as(operator.text(), detail);
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            effect.invalid_as(
                effect.text(),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator.text() {
            "" | "Equal" => {
                let broken = label_value(value.text());
                if !broken.is_empty() {
                    operator.invalid_as(value.text(), broken.join(";"));
                }
            }
            "Exists" if value.is_empty() => {}
            "Exists" => operator.invalid_as(value.text(), "value must be empty when `operator` is 'Exists'"),
            _ => operator.not_supported(&["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            effect.one_of(&TAINT_EFFECTS);
        }
    }
}

/// The effects that a taint can have.
pub const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn affinity(affinity: &At, tolerated: Tolerated) {
    let node = affinity.get("nodeAffinity");
    let required = node.get(REQUIRED);
    if required.is_set() {
        node_selector(&required, tolerated.node_affinity_values);
    }
    for term in node.items(PREFERRED) {
        weight(&term);
        node_selector_term(&term.get("preference"), true);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        affinity.get(kind).items(PREFERRED).iter().for_each(weight);
    }
    for term in pod_affinity_terms(affinity) {
        pod_affinity_term(&term);
        selectors_of_term(&term, tolerated.affinity_values);
    }
}

fn pod_affinity_terms<'a>(affinity: &At<'a>) -> Vec<At<'a>> {
    let mut all = Vec::new();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = affinity.get(kind);
        all.extend(terms.items(REQUIRED));
        let preferred = terms.items(PREFERRED);
        all.extend(preferred.iter().map(|weighted| weighted.get("podAffinityTerm")));
    }
    all
}

/// The selectors of pod (anti-)affinity.
pub fn affinity_selectors(spec: &At) {
    for term in pod_affinity_terms(&spec.get("affinity")) {
        selectors_of_term(&term, false);
    }
}

fn selectors_of_term(term: &At, any_value: bool) {
    for field in ["labelSelector", "namespaceSelector"] {
        let selector = term.get(field);
        selector.extend(label_selector(selector.value, any_value, &selector.path));
    }
}

/// Values that a required node affinity compares with labels can be labels.
pub fn node_affinity_values(spec: &At) {
    let terms = spec
        .get("affinity.nodeAffinity")
        .get(REQUIRED)
        .items("nodeSelectorTerms");
    for requirement in terms.iter().flat_map(|term| term.items("matchExpressions")) {
        for value in requirement.items("values") {
            value.check(label_value(value.text()));
        }
    }
}

fn weight(term: &At) {
    let weight = term.get("weight");
    let number = weight.number().unwrap_or(0);
    if !(1..=100).contains(&number) {
        weight.invalid_as(number, "must be in the range 1-100");
    }
}

/// A node selector: at least one term; with `any_value`, values need not be label values.
pub fn node_selector(selector: &At, any_value: bool) {
    let terms = selector.items("nodeSelectorTerms");
    if terms.is_empty() {
        selector
            .get("nodeSelectorTerms")
            .missing("must have at least one node selector term");
    }
    for term in terms {
        node_selector_term(&term, any_value);
    }
}

fn node_selector_term(term: &At, any_value: bool) {
    for requirement in term.items("matchExpressions") {
        let (operator, values) = (requirement.get("operator"), requirement.get("values"));
        let count = requirement.value.list("values").len();
        match operator.text() {
            "In" | "NotIn" if count == 0 => values.missing("must be specified when `operator` is 'In' or 'NotIn'"),
            "Exists" | "DoesNotExist" if count > 0 => {
                values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if count != 1 => {
                values.missing("must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => operator.invalid_as(operator.text(), "not a valid selector operator"),
        }
        let key = requirement.get("key");
        key.extend(label_name(key.text(), &key.path));
        for value in requirement.items("values").iter().filter(|_| !any_value) {
            value.check(label_value(value.text()));
        }
    }
    for requirement in term.items("matchFields") {
        let (operator, key) = (requirement.get("operator"), requirement.get("key"));
        match operator.text() {
            "In" | "NotIn" if requirement.value.list("values").len() == 1 => {}
            "In" | "NotIn" => requirement
                .get("values")
                .missing("must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
            _ => operator.invalid_as(operator.text(), "not a valid selector operator"),
        }
        if key.text() != "metadata.name" {
            key.invalid_as(key.text(), "not a valid field selector key");
            continue;
        }
        for value in requirement.items("values") {
            value.check(names::subdomain(value.text(), false));
        }
    }
}

fn pod_affinity_term(term: &At) {
    let namespace = term.path.child("namespace");
    for name in term.items("namespaces") {
        name.elsewhere(namespace.clone(), name.value)
            .check(names::label(name.text(), false));
    }
    match_label_keys(term);
    let key = term.get("topologyKey");
    if key.is_empty() {
        key.missing("can not be empty");
    }
    key.extend(label_name(key.text(), &key.path));
}

/// Keys whose values are copied from the pod into the selector: none may stand in both.
fn match_label_keys(term: &At) {
    let selector = term.value.at("labelSelector");
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = term.items(field);
        if !keys.is_empty() && selector.is_null() {
            term.get(field)
                .forbidden("must not be specified when labelSelector is not set");
            continue;
        }
        for key in keys {
            key.extend(label_name(key.text(), &key.path));
        }
    }
    let keys: Vec<&str> = term.value.texts("matchLabelKeys").collect();
    let mut selected: BTreeSet<&str> = selector.entries("matchLabels").map(|(key, _)| key).collect();
    for expression in selector.list("matchExpressions") {
        let key = expression.text("key");
        // One use of the key is what the merge itself wrote; upstream only minds the second.
        if let Some(index) = keys.iter().position(|k| *k == key).filter(|_| selected.contains(key)) {
            let at = term.elsewhere(term.path.index(index), selector);
            at.invalid_as(key, "exists in both matchLabelKeys and labelSelector");
        }
        selected.insert(key);
    }
    for key in term.items("matchLabelKeys") {
        if term
            .value
            .texts("mismatchLabelKeys")
            .any(|mismatch| mismatch == key.text())
        {
            key.invalid("exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
}

fn topology_spread(spec: &At, tolerated: Tolerated) {
    let all = spec.items("topologySpreadConstraints");
    for (index, constraint) in all.iter().enumerate() {
        let skew = constraint.get("maxSkew");
        if skew.number().unwrap_or(0) <= 0 {
            skew.invalid_as(skew.number().unwrap_or(0), "must be greater than zero");
        }
        let key = constraint.get("topologyKey");
        if key.is_empty() {
            key.missing("can not be empty");
        }
        let action = constraint.get("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action.text()) {
            action
                .elsewhere(action.path.clone(), action.value)
                .not_supported(&["DoNotSchedule", "ScheduleAnyway"]);
        }
        let same = |other: &At| {
            other.value.text("topologyKey") == key.text() && other.value.text("whenUnsatisfiable") == action.text()
        };
        if all[index + 1..].iter().any(same) {
            let at = constraint.elsewhere(
                constraint.path.child("{topologyKey, whenUnsatisfiable}"),
                constraint.value,
            );
            at.duplicate(json!(format!("{{{}, {}}}", key.text(), action.text())));
        }
        let domains = constraint.get("minDomains");
        if let Some(number) = domains.number() {
            domains.ensure(number > 0, "must be greater than zero");
            let detail = format!(
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                action.text()
            );
            domains.ensure(action.text() == "DoNotSchedule", detail);
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = constraint.get(field);
            if policy.is_set() {
                policy.one_of(&["Honor", "Ignore"]);
            }
        }
    }
    match tolerated.spread_keys {
        true => all.iter().for_each(match_label_keys_once),
        false => spread_keys(spec),
    }
    if !tolerated.spread_selectors {
        spread_selectors(spec);
    }
}

/// The label keys of spread constraints.
pub fn spread_keys(spec: &At) {
    spec.items("topologySpreadConstraints")
        .iter()
        .for_each(match_label_keys);
}

/// The selectors of spread constraints.
pub fn spread_selectors(spec: &At) {
    for constraint in spec.items("topologySpreadConstraints") {
        let selector = constraint.get("labelSelector");
        selector.extend(label_selector(selector.value, false, &selector.path));
    }
}

/// The rule of [`match_label_keys`] from before keys were merged into the selector.
fn match_label_keys_once(constraint: &At) {
    let selector = constraint.value.at("labelSelector");
    let keys = constraint.get("matchLabelKeys");
    if !keys.is_empty() && selector.is_null() {
        keys.forbidden("must not be specified when labelSelector is not set");
    }
    let labels = selector.entries("matchLabels").map(|(key, _)| key);
    let expressions = selector.list("matchExpressions").iter();
    let selected: BTreeSet<&str> = labels
        .chain(expressions.map(|expression| expression.text("key")))
        .collect();
    for key in constraint.items("matchLabelKeys") {
        key.extend(label_name(key.text(), &key.path));
        key.ensure(
            !selected.contains(key.text()),
            "exists in both matchLabelKeys and labelSelector",
        );
    }
}

/// A gated pod's node selector may only become narrower.
pub fn node_selector_narrows(spec: &At, old: &Value) {
    let selector = spec.get("nodeSelector");
    let kept = old
        .entries("nodeSelector")
        .all(|(key, value)| selector.value.get(key) == Some(value));
    selector.ensure(
        kept,
        "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
    );
}

/// A gated pod's required node affinity may only become narrower.
pub fn node_affinity_narrows(spec: &At, old: &Value) {
    let path = format!("affinity.nodeAffinity.{REQUIRED}");
    let old_terms = old.at(&path).list("nodeSelectorTerms");
    if old.at(&path).is_null() {
        return;
    }
    let required = spec.get(&path);
    let terms = required.items("nodeSelectorTerms");
    if !old_terms.is_empty() && old_terms.len() != terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return required.get("nodeSelectorTerms").invalid(detail);
    }
    for (term, old) in terms.iter().zip(old_terms) {
        let extends = |field: &str| term.value.list(field).starts_with(old.list(field));
        let empty = |value: &Value| value.list("matchExpressions").is_empty() && value.list("matchFields").is_empty();
        let narrows = extends("matchExpressions") && extends("matchFields") && (!empty(old) || empty(term.value));
        term.ensure(narrows, "only additions are allowed (no mutations or deletions)");
    }
}
