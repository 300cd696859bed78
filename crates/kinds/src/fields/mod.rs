//! The account of every field of every deep kind: the rule that checks or defaults it and the example that shows it.
//!
//! `rules.txt` and `rules_of_policy.txt` are the account; tests walk the schema of each deep kind and fail for a field that is not in it, for one
//! that is in it without existing, and for rules and examples that are no functions of ours.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::GroupVersionKind;
use api::schema::{Node, SchemaRef, Shape};

#[cfg(test)]
mod tests;

/// The account: workloads and what they are made of; and what rules over them.
const TABLES: [&str; 3] = [
    include_str!("rules.txt"),
    include_str!("rules_of_definitions.txt"),
    include_str!("rules_of_policy.txt"),
];

/// What is known of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// Where the field is: `spec.containers[].image`.
    pub path: String,
    /// The function that checks or defaults it; or that upstream has no rule, that the fields below are accounted, or
    /// that its feature is off.
    pub rule: &'static str,
    /// The example that shows the rule; empty where there is none to show.
    pub test: &'static str,
}

/// Said of fields that upstream takes as they are.
pub const NO_RULE: &str = "upstream has none";
/// Said of fields whose own fields are accounted.
pub const BELOW: &str = "see the fields below";
/// Said of fields whose feature gate is off.
pub const GATED: &str = "dropped on write: its feature is off";
/// Said of fields that nobody accounted for.
pub const UNACCOUNTED: &str = "UNACCOUNTED";

type Rules = BTreeMap<(&'static str, &'static str), (&'static str, &'static str)>;

static RULES: LazyLock<Rules> = LazyLock::new(read);

/// The fields of a deep kind, in the order of the schema; `None` when the kind is unknown or not deep. What is below a
/// field whose feature is off, or a type that was accounted further up in the same object, is left out.
pub fn account(kind: &str) -> Option<Vec<FieldRule>> {
    let row = crate::rows()
        .into_iter()
        .find(|row| row.kind.eq_ignore_ascii_case(kind) && row.strategy.is_deep())?;
    let schema = SchemaRef::builtin(&GroupVersionKind::new(&row.group, &row.hub, &row.kind))?;
    let mut rules = Vec::new();
    walk(schema.node(), "", &mut Vec::new(), &mut rules);
    Some(rules)
}

/// The deep kinds, in the order of their rows.
pub fn deep_kinds() -> Vec<String> {
    let rows = crate::rows().into_iter().filter(|row| row.strategy.is_deep());
    rows.map(|row| row.kind.to_string()).collect()
}

fn walk<'g>(node: Node<'g>, path: &str, seen: &mut Vec<&'g str>, rules: &mut Vec<FieldRule>) {
    match node.shape() {
        Shape::Scalar(_) => {}
        Shape::Map { value: item } | Shape::List { item, .. } => walk(item, &format!("{path}[]"), seen, rules),
        Shape::Object(fields) => {
            if seen.contains(&node.name()) {
                return;
            }
            seen.push(node.name());
            let type_name = short(node.name());
            for field in fields.iter() {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{}", field.name());
                let found = RULES.get(&(type_name, field.name()));
                let (rule, test) = found.copied().unwrap_or((UNACCOUNTED, ""));
                rules.push(FieldRule {
                    path: path.clone(),
                    rule,
                    test,
                });
                if rule != GATED {
                    walk(field.schema(), &path, seen, rules);
                }
            }
        }
    }
}

/// The name of a type as the table writes it.
fn short(definition: &str) -> &str {
    let name = definition.strip_prefix("api.").unwrap_or(definition);
    name.strip_prefix("apimachinery.pkg.apis.").unwrap_or(name)
}

fn read() -> Rules {
    let mut rules = Rules::new();
    let mut types: Vec<&str> = Vec::new();
    let lines = TABLES.into_iter().flat_map(str::lines);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if !line.starts_with(' ') {
            types = line.split_whitespace().collect();
            continue;
        }
        let mut parts = line.split('|').map(str::trim);
        let (rule, test, fields) = (parts.next(), parts.next(), parts.next());
        let rule = match rule {
            Some("none") => NO_RULE,
            Some("below") => BELOW,
            Some("gate") => GATED,
            rule => rule.unwrap_or(UNACCOUNTED),
        };
        for field in fields.unwrap_or("").split_whitespace() {
            for type_name in &types {
                rules.insert((type_name, field), (rule, test.unwrap_or("")));
            }
        }
    }
    rules
}
