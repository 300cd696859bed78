//! What a user is told of where a pod may run.
//!
//! Source: `pkg/api/pod/warnings.go` and `GetWarningsForNodeSelectorTerm` in `pkg/api/node/util.go`.

use api::Value;
use api::validation::label_value;

use super::deprecated_node_label;
use crate::view::View;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const MATCHES_NOTHING: &str = "a null labelSelector results in matching no pod";

/// Labels of nodes that have a new name, and values that no label has.
pub fn of_nodes(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    let (affinity, path) = (
        spec.at("affinity.nodeAffinity"),
        format!("{path}.affinity.nodeAffinity"),
    );
    let required = affinity.at(REQUIRED).list("nodeSelectorTerms");
    for (index, term) in required.iter().enumerate() {
        node_term(
            &format!("{path}.{REQUIRED}.nodeSelectorTerms[{index}]"),
            term,
            false,
            warnings,
        );
    }
    for (index, term) in affinity.list(PREFERRED).iter().enumerate() {
        let at = format!("{path}.{PREFERRED}[{index}].preference");
        node_term(&at, term.at("preference"), true, warnings);
    }
}

/// One term. Values of required ones are validated, so that only those of the others are told of.
fn node_term(path: &str, term: &Value, values: bool, warnings: &mut Vec<String>) {
    for (index, expression) in term.list("matchExpressions").iter().enumerate() {
        let (key, at) = (expression.text("key"), format!("{path}.matchExpressions[{index}]"));
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{at}.key: {key} is {message}"));
        }
        for (index, value) in expression.texts("values").enumerate().filter(|_| values) {
            for message in label_value(value) {
                warnings.push(format!("{at}.values[{index}]: {value} is invalid, {message}"));
            }
        }
    }
}

/// Constraints over nodes' labels that have a new name, or over no pod.
pub fn spread(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    for (index, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let (key, at) = (
            constraint.text("topologyKey"),
            format!("{path}.topologySpreadConstraints[{index}]"),
        );
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{at}.topologyKey: {key} is {message}"));
        }
        if !constraint.has("labelSelector") {
            warnings.push(format!("{at}.labelSelector: {MATCHES_NOTHING}"));
        }
    }
}

/// Terms that select no pod.
pub fn of_pods(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, path) = (spec.at("affinity").at(kind), format!("{path}.affinity.{kind}"));
        for (list, term) in [(REQUIRED, ""), (PREFERRED, "podAffinityTerm")] {
            let below = if term.is_empty() { "" } else { ".podAffinityTerm" };
            for (index, weighted) in affinity.list(list).iter().enumerate() {
                if !weighted.at(term).has("labelSelector") {
                    warnings.push(format!(
                        "{path}.{list}[{index}]{below}.labelSelector: {MATCHES_NOTHING}"
                    ));
                }
            }
        }
    }
}
