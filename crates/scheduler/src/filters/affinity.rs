//! NodeAffinity: the node's labels (and its name) must match the pod's selector and required terms.
//!
//! Source: `k8s.io/component-helpers/scheduling/corev1/nodeaffinity`.

use crate::cluster::Node;
use crate::view::{Expression, PodSpec, Term};

/// The nodes a pod accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConstraints {
    /// `spec.nodeSelector`: all must be equal.
    selector: Vec<(Box<str>, Box<str>)>,
    /// Required terms, of which one must match. `None`: no such rule. Empty: nothing matches.
    required: Option<Vec<Matcher>>,
}

/// A preferred term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// What a match counts.
    pub weight: i64,
    matcher: Matcher,
}

/// Requirements that must all hold. Empty ones match nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Matcher {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: Box<str>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<Box<str>>),
    NotIn(Vec<Box<str>>),
    Exists,
    DoesNotExist,
    Greater(i64),
    Less(i64),
    /// An operator or a number that the API server should not have let through.
    Never,
}

// === impl NodeConstraints ===

impl NodeConstraints {
    /// Compiles a pod's selector and required terms.
    pub fn of_spec(spec: &PodSpec) -> NodeConstraints {
        let selector = spec
            .node_selector
            .iter()
            .map(|(key, value)| ((&**key).into(), (&**value).into()))
            .collect();
        let required = spec.affinity.node_affinity.required.as_ref();
        NodeConstraints {
            selector,
            required: required.map(|rule| rule.node_selector_terms.iter().map(Matcher::of_term).collect()),
        }
    }

    /// Whether the node is accepted.
    pub fn match_node(&self, node: &Node) -> bool {
        self.selector.iter().all(|(key, value)| node.label(key) == Some(value))
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }

    /// The names of the only nodes that can match, when every required term names some by `metadata.name`.
    pub fn only_nodes(&self) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        for term in self.required.as_ref()? {
            let by_name = term.fields.iter().find_map(|field| match &field.test {
                Test::In(values) if &*field.key == "metadata.name" => Some(values),
                _ => None,
            })?;
            names.extend(by_name.iter().map(|name| &**name));
        }
        Some(names)
    }
}

// === impl Preference ===

impl Preference {
    /// Compiles a pod's preferred terms.
    pub fn of_spec(spec: &PodSpec) -> Vec<Preference> {
        let preferred = spec.affinity.node_affinity.preferred.iter();
        let useful = preferred.filter(|term| term.weight != 0);
        useful
            .map(|term| Preference {
                weight: term.weight,
                matcher: Matcher::of_term(&term.preference),
            })
            .collect()
    }

    /// Whether the node is preferred.
    pub fn matches(&self, node: &Node) -> bool {
        self.matcher.matches(node)
    }
}

// === impl Matcher ===

impl Matcher {
    fn of_term(term: &Term) -> Matcher {
        let compile = |list: &[Expression]| list.iter().map(Requirement::of_expression).collect();
        Matcher {
            labels: compile(&term.match_expressions),
            fields: compile(&term.match_fields),
        }
    }

    fn matches(&self, node: &Node) -> bool {
        let empty = self.labels.is_empty() && self.fields.is_empty();
        let field = |key: &str| (key == "metadata.name").then_some(&*node.name);
        !empty
            && self
                .labels
                .iter()
                .all(|requirement| requirement.holds(node.label(&requirement.key)))
            && self
                .fields
                .iter()
                .all(|requirement| requirement.holds(field(&requirement.key)))
    }
}

// === impl Requirement ===

impl Requirement {
    fn of_expression(expression: &Expression) -> Requirement {
        let values = || expression.values.iter().map(|value| (&**value).into()).collect();
        let number = || expression.values.first().and_then(|value| value.parse().ok());
        let test = match &*expression.operator {
            "In" => Test::In(values()),
            "NotIn" => Test::NotIn(values()),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            "Gt" => number().map_or(Test::Never, Test::Greater),
            "Lt" => number().map_or(Test::Never, Test::Less),
            _ => Test::Never,
        };
        Requirement {
            key: (&*expression.key).into(),
            test,
        }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.iter().any(|own| &**own == value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.iter().any(|own| &**own == value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Greater(than) => number().is_some_and(|number| number > *than),
            Test::Less(than) => number().is_some_and(|number| number < *than),
            Test::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::NodeView;
    use serde_json::{Value, json};

    fn matches(spec: Value) -> bool {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let view: NodeView = serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"zone": "z1", "size": "4", "word": "x"}},
        }))
        .unwrap();
        NodeConstraints::of_spec(&spec).match_node(&Node::of_view(&view))
    }

    fn required(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        required(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
    }

    #[test]
    fn nodes_match_as_upstream_has_it() {
        for (spec, expect) in [
            (json!({}), true),
            (json!({"nodeSelector": {"zone": "z1"}}), true),
            (json!({"nodeSelector": {"zone": "z2"}}), false),
            (json!({"nodeSelector": {"none": ""}}), false),
            (expression("zone", "In", &["z0", "z1"]), true),
            (expression("zone", "NotIn", &["z1"]), false),
            (expression("none", "NotIn", &["z1"]), true),
            (expression("zone", "Exists", &[]), true),
            (expression("zone", "DoesNotExist", &[]), false),
            (expression("size", "Gt", &["3"]), true),
            (expression("size", "Gt", &["4"]), false),
            (expression("size", "Lt", &["5"]), true),
            (expression("word", "Gt", &["1"]), false),
            (required(json!([])), false),
            (required(json!([{}])), false),
            (
                required(json!([{}, {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}])),
                true,
            ),
            (
                required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}])),
                true,
            ),
            (
                required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}])),
                false,
            ),
        ] {
            assert_eq!(matches(spec.clone()), expect, "{spec}");
        }
    }
}
