//! The rules of `x-kubernetes-validations`: compiled with their schema, evaluated over objects.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/schema/cel` (`compilation.go`, `validation.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Value;
use api::field::{Error, ErrorList, Path, quote};
use cel::admission::STORED;
use cel::declared::Declared;
use cel::{Budget, Environment, ErrorKind, Program, Type, compile};

use super::field_path::normalized;
use super::ratchet::{Correlated, same_element};
use crate::view::View;

/// What all rules of an object may cost together (upstream: `celconfig.RuntimeCELCostBudget`): about a second.
const BUDGET: u64 = 10_000_000;
/// The longest message that an expression may make (upstream: `MaxEvaluatedMessageExpressionSizeBytes`).
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// One rule as it was compiled.
pub struct Compiled {
    /// What gives the verdict; none when the rule is empty.
    pub program: Result<Option<Program>, String>,
    /// What makes the message, if it has such.
    pub message: Result<Option<Program>, String>,
    /// Whether it compares with what was there before.
    pub uses_old: bool,
    /// What an evaluation costs at most.
    pub cost: u64,
    /// What a message costs at most.
    pub message_cost: u64,
}

/// Compiles a rule over values of a type. The two numbers are of the versions whose libraries the rule and its message have.
pub fn compile_rule(rule: &Value, declared: &Declared, minor: u16, minor_of_message: u16) -> Compiled {
    let mut compiled = Compiled {
        program: Ok(None),
        message: Ok(None),
        uses_old: false,
        cost: 0,
        message_cost: 0,
    };
    let text = rule.text("rule");
    if text.trim().is_empty() {
        return compiled;
    }
    let environment = |minor: u16| {
        let kind = declared.kind().clone();
        let old = match rule.flag("optionalOldSelf") {
            true => Type::optional(kind.clone()),
            false => kind.clone(),
        };
        Environment::kubernetes(minor).with("self", kind).with("oldSelf", old)
    };
    match compiled_to(&environment(minor), text, &Type::Bool, "") {
        Ok(program) => {
            compiled.cost = program.estimate(declared).max;
            compiled.uses_old = program.reads("oldSelf");
            compiled.program = Ok(Some(program));
        }
        Err(why) => {
            compiled.program = Err(why);
            return compiled;
        }
    }
    let message = rule.text("messageExpression");
    if !message.is_empty() {
        compiled.message = compiled_to(
            &environment(minor_of_message),
            message,
            &Type::String,
            "messageExpression ",
        )
        .inspect(|program| compiled.message_cost = program.estimate(declared).max)
        .map(Some);
    }
    compiled
}

fn compiled_to(environment: &Environment, text: &str, kind: &Type, what: &str) -> Result<Program, String> {
    const INSTANTIATION: &str = "program instantiation failed: ";
    let program = compile(environment, text).map_err(|issues| {
        let of_host = issues
            .list()
            .iter()
            .find_map(|issue| issue.message.strip_prefix(INSTANTIATION));
        match of_host {
            Some(why) if what.is_empty() => format!("{INSTANTIATION}{why}"),
            Some(why) => format!("{what}instantiation failed: {why}"),
            None => format!("{what}compilation failed: {issues}"),
        }
    })?;
    match (program.result_type() == kind, what) {
        (true, _) => Ok(program),
        (false, "") => Err("cel expression must evaluate to a bool".into()),
        (false, what) => Err(format!("{what}must evaluate to a string")),
    }
}

/// The rules of a schema and of everything below it.
pub struct Rules {
    own: Vec<Rule>,
    kind: Type,
    /// The JSON type, which errors name.
    json_type: String,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
    properties: BTreeMap<String, Rules>,
    all_of: Vec<Rules>,
}

struct Rule {
    compiled: Compiled,
    text: String,
    given_message: String,
    reason: String,
    optional_old: bool,
    /// Below the value that the rule is about.
    field_path: Option<String>,
}

impl Rules {
    /// The rules of a structural schema; none when it has none. `is_resource` marks the root of a resource.
    pub fn of(schema: &Value, is_resource: bool) -> Option<Rules> {
        if !has_rules(schema) {
            return None;
        }
        let declared = Declared::of(schema, is_resource)?;
        of_schema(schema, schema, &declared)
    }

    /// What an object breaks. `old` is what it replaces.
    pub fn validate(
        &self,
        path: Option<&Path>,
        value: &Value,
        old: Option<&Value>,
        schema: &Value,
        ratchets: bool,
    ) -> ErrorList {
        self.judged(path, value, old, schema, ratchets).errors
    }

    /// The same, with what is forgiven.
    pub fn judged(
        &self,
        path: Option<&Path>,
        value: &Value,
        old: Option<&Value>,
        schema: &Value,
        ratchets: bool,
    ) -> Judged {
        let mut run = Run {
            budget: Budget::new(BUDGET),
            errors: ErrorList::new(),
            forgiven: Vec::new(),
            ended: false,
        };
        let correlation = match (ratchets, old) {
            (true, Some(old)) => Some(Correlated::new(value, old, schema)),
            _ => None,
        };
        let at = At {
            path: path.cloned().unwrap_or_default(),
            schema,
            is_root: true,
            unchanged_above: false,
            correlation,
        };
        self.judge(value, old, &at, &mut run);
        Judged {
            errors: run.errors,
            forgiven: run.forgiven,
        }
    }
}

/// Whether there are rules in a schema, on its structural spine.
pub fn has_rules(schema: &Value) -> bool {
    !schema.list("x-kubernetes-validations").is_empty()
        || has_rules_object(schema.at("items"))
        || has_rules_object(schema.at("additionalProperties"))
        || schema.entries("properties").any(|(_, property)| has_rules(property))
        || schema.list("allOf").iter().any(has_rules)
}

fn has_rules_object(schema: &Value) -> bool {
    schema.is_object() && has_rules(schema)
}

/// `rules` is where the rules stand: the schema itself, or what `allOf` says of it.
fn of_schema(rules: &Value, schema: &Value, declared: &Declared) -> Option<Rules> {
    let own: Vec<Rule> = rules
        .list("x-kubernetes-validations")
        .iter()
        .map(|rule| Rule {
            compiled: compile_rule(rule, declared, STORED, STORED),
            text: rule.text("rule").trim().to_owned(),
            given_message: rule.text("message").trim().to_owned(),
            reason: rule.text("reason").to_owned(),
            optional_old: rule.flag("optionalOldSelf"),
            field_path: Some(rule.text("fieldPath"))
                .filter(|path| !path.is_empty())
                .and_then(|path| normalized(path, schema, true).ok())
                .map(|found| found.text),
        })
        .collect();
    let below = |name: &str| {
        let (rules, schema) = (rules.at(name), schema.at(name));
        let both = rules.is_object() && schema.is_object();
        let found = declared.element().filter(|_| both)?;
        of_schema(rules, schema, found).map(Box::new)
    };
    let mut properties = BTreeMap::new();
    for (name, rules) in rules.entries("properties") {
        let Some(property) = schema.at("properties").get(name) else {
            continue;
        };
        // A name that expressions cannot say has a type of its own all the same.
        let unnamed;
        let declared = match declared.property(name) {
            Some(declared) => declared,
            None if cel::escape(name).is_some() => continue,
            None => match Declared::of(property, property.flag("x-kubernetes-embedded-resource")) {
                Some(made) => {
                    unnamed = made;
                    &unnamed
                }
                None => continue,
            },
        };
        if let Some(rules) = of_schema(rules, property, declared) {
            properties.insert(name.to_owned(), rules);
        }
    }
    let all_of = rules.list("allOf").iter();
    let made = Rules {
        own,
        kind: declared.kind().clone(),
        json_type: schema.text("type").to_owned(),
        items: below("items"),
        additional: below("additionalProperties"),
        properties,
        all_of: all_of
            .filter_map(|nested| of_schema(nested, schema, declared))
            .collect(),
    };
    let is_empty = made.own.is_empty()
        && made.items.is_none()
        && made.additional.is_none()
        && made.properties.is_empty()
        && made.all_of.is_empty();
    (!is_empty).then_some(made)
}

/// What an object breaks.
pub struct Judged {
    /// What it is refused for.
    pub errors: ErrorList,
    /// What its unchanged parts broke before.
    pub forgiven: Vec<String>,
}

/// One evaluation of all rules.
struct Run {
    budget: Budget,
    errors: ErrorList,
    forgiven: Vec<String>,
    /// Whether the budget is spent: nothing more is evaluated.
    ended: bool,
}

/// Where a value stands.
struct At<'v> {
    path: Path,
    schema: &'v Value,
    is_root: bool,
    /// Whether what is around the value is what it was, and the value itself has no counterpart.
    unchanged_above: bool,
    correlation: Option<Correlated<'v>>,
}

impl<'v> At<'v> {
    /// Whether errors of this value are forgiven: it is what it was.
    fn is_unchanged(&self) -> bool {
        match &self.correlation {
            Some(correlation) => correlation.is_unchanged(),
            None => self.unchanged_above,
        }
    }

    fn below(&self, path: Path, schema: &'v Value, correlation: Option<Correlated<'v>>) -> At<'v> {
        At {
            path,
            schema,
            is_root: false,
            unchanged_above: self.is_unchanged(),
            correlation,
        }
    }
}

impl Rules {
    fn judge<'v>(&self, value: &'v Value, old: Option<&'v Value>, at: &At<'v>, run: &mut Run) {
        let old = old.filter(|old| !old.is_null());
        if value.is_null() || run.ended {
            return;
        }
        self.judge_own(value, old, at, run);
        for nested in &self.all_of {
            if run.ended {
                return;
            }
            let nested_at = At {
                path: at.path.clone(),
                schema: at.schema,
                is_root: at.is_root,
                unchanged_above: at.unchanged_above,
                correlation: None,
            };
            nested.judge(value, old, &nested_at, run);
        }
        match value {
            Value::Array(items) => {
                let Some(rules) = &self.items else { return };
                let old_items = old.and_then(Value::as_array);
                for (index, item) in items.iter().enumerate() {
                    let before = old_items.and_then(|old| same_element(at.schema, item, old));
                    let correlation = at.correlation.and_then(|correlation| correlation.index(index));
                    let below = at.below(at.path.index(index), at.schema.at("items"), correlation);
                    rules.judge(item, before, &below, run);
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    let before = old.and_then(|old| old.get(name));
                    // The type of an object is no field that an update changes.
                    let is_type = at.is_root && matches!(&**name, "apiVersion" | "kind");
                    let correlation = at.correlation.filter(|_| !is_type);
                    let correlation = correlation.and_then(|correlation| correlation.key(name));
                    if let Some(rules) = self.properties.get(name) {
                        let schema = at.schema.at("properties").get(name).unwrap_or(&Value::Null);
                        let below = at.below(at.path.child(name), schema, correlation);
                        rules.judge(value, before, &below, run);
                    } else if let Some(rules) = &self.additional {
                        let below = at.below(at.path.key(name), at.schema.at("additionalProperties"), correlation);
                        rules.judge(value, before, &below, run);
                    }
                }
            }
            _ => {}
        }
    }

    fn judge_own<'v>(&self, value: &'v Value, old: Option<&'v Value>, at: &At<'v>, run: &mut Run) {
        if self.own.is_empty() {
            return;
        }
        let invalid = |detail: String| Error::invalid(&at.path, self.json_type.as_str(), detail);
        let this = cel::Value::from_json(value, &self.kind);
        let before = old.map(|old| cel::Value::from_json(old, &self.kind));
        for rule in &self.own {
            if run.ended {
                return;
            }
            let program = match &rule.compiled.program {
                Ok(Some(program)) => program,
                Ok(None) => continue,
                Err(why) => {
                    run.errors.push(invalid(format!("rule compile error: {why}")));
                    continue;
                }
            };
            // A rule about a transition needs both ends of it.
            if rule.compiled.uses_old && before.is_none() && !rule.optional_old {
                continue;
            }
            let mut variables: Vec<(&str, cel::Value<'v>)> = vec![("self", this.clone())];
            match (&before, rule.optional_old) {
                (before, true) => {
                    let old = cel::Value::Optional(before.clone().map(Arc::new));
                    variables.push(("oldSelf", old));
                }
                (Some(before), false) => variables.push(("oldSelf", before.clone())),
                (None, false) => {}
            }
            let shown = rule.shown();
            match program.evaluate(&variables, &mut run.budget) {
                Ok(verdict) if verdict.as_bool() == Some(true) => {}
                Ok(_) => self.broken(rule, value, &variables, at, run),
                Err(error) => {
                    let text = error.to_string();
                    run.ended = error.kind() != ErrorKind::Evaluation;
                    run.errors.push(invalid(match error.kind() {
                        ErrorKind::Budget => text,
                        ErrorKind::Cost => format!(
                            "'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                        ),
                        ErrorKind::Evaluation if text.starts_with("no such overload") => format!(
                            "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                        ),
                        ErrorKind::Evaluation => format!("{text} evaluating rule: {shown}"),
                    }));
                }
            }
        }
    }

    fn broken<'v>(&self, rule: &Rule, value: &Value, variables: &dyn cel::Variables<'v>, at: &At<'v>, run: &mut Run) {
        let path = match &rule.field_path {
            Some(below) if at.path == Path::root() => Path::new(below),
            Some(below) if below.starts_with('[') => Path::new(&format!("{}{below}", at.path)),
            Some(below) => at.path.child(below),
            None => at.path.clone(),
        };
        let forgiven = !rule.compiled.uses_old && at.is_unchanged();
        let add = |error: Error, run: &mut Run| match forgiven {
            true => run.forgiven.push(error.to_string()),
            false => run.errors.push(error),
        };
        let mut detail = None;
        if let Ok(Some(message)) = &rule.compiled.message {
            match message.evaluate(variables, &mut run.budget) {
                Ok(text) => {
                    let text = text.as_str().unwrap_or("").trim().to_owned();
                    let good = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
                    detail = good.then_some(text);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Evaluation => {}
                    kind => {
                        run.ended = true;
                        let why = match kind {
                            ErrorKind::Budget => "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned(),
                            _ => format!(
                                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {}",
                                quote(&rule.text)
                            ),
                        };
                        add(Error::invalid(&path, self.json_type.as_str(), why), run);
                        return;
                    }
                },
            }
        }
        let detail = detail.unwrap_or_else(|| match rule.given_message.is_empty() {
            true => format!("failed rule: {}", rule.shown()),
            false => rule.given_message.clone(),
        });
        let hidden = matches!(&*self.json_type, "object" | "array");
        let error = match &*rule.reason {
            "FieldValueForbidden" => Error::forbidden(&path, detail),
            "FieldValueRequired" => Error::required(&path, detail),
            "FieldValueDuplicate" => Error::duplicate(&path, value.clone()),
            _ if hidden => Error::broken(&path, detail),
            _ => Error::invalid(&path, value.clone(), detail),
        };
        add(error, run);
    }
}

impl Rule {
    /// What names the rule in messages.
    fn shown(&self) -> &str {
        match self.given_message.is_empty() {
            true => &self.text,
            false => &self.given_message,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(rules: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"},
                "names": {"type": "array", "items": {"type": "string",
                    "x-kubernetes-validations": [{"rule": "self != 'bad'", "message": "bad name"}]}}},
            "x-kubernetes-validations": rules}}})
    }

    fn check(rules: Value, old: Option<Value>, new: Value, expect: &[&str]) {
        let schema = schema(rules);
        let made = Rules::of(&schema, true).unwrap();
        let found = made.validate(
            None,
            &json!({"spec": new}),
            old.map(|old| json!({"spec": old})).as_ref(),
            &schema,
            true,
        );
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expect, "{schema}");
    }

    #[test]
    fn rules_are_judged() {
        let order = json!([{"rule": "self.min <= self.max"}]);
        check(order.clone(), None, json!({"min": 1, "max": 2}), &[]);
        check(
            order.clone(),
            None,
            json!({"min": 3, "max": 2}),
            &["spec: Invalid value: failed rule: self.min <= self.max"],
        );
        // What an update leaves alone is not held against it.
        check(
            order,
            Some(json!({"min": 3, "max": 2})),
            json!({"min": 3, "max": 2}),
            &[],
        );
        let broken = json!({"spec": {"min": 3, "max": 2}});
        let schema = schema(json!([{"rule": "self.min <= self.max"}]));
        let judged = Rules::of(&schema, true)
            .unwrap()
            .judged(None, &broken, Some(&broken), &schema, true);
        assert_eq!(
            judged.forgiven,
            ["spec: Invalid value: failed rule: self.min <= self.max"]
        );
        let told = json!([{"rule": "self.min <= self.max", "messageExpression": "'min is ' + string(self.min)",
            "fieldPath": ".min", "reason": "FieldValueForbidden"}]);
        check(
            told,
            None,
            json!({"min": 3, "max": 2}),
            &["spec.min: Forbidden: min is 3"],
        );
        check(
            json!([{"rule": "self.min <= self.max"}]),
            None,
            json!({"min": 3}),
            &["spec: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max"],
        );
        check(
            json!([]),
            None,
            json!({"names": ["a", "bad"]}),
            &["spec.names[1]: Invalid value: \"bad\": bad name"],
        );
    }

    #[test]
    fn transitions_need_what_was_before() {
        let grows = json!([{"rule": "self.min >= oldSelf.min", "message": "must not shrink"}]);
        check(grows.clone(), None, json!({"min": 1}), &[]);
        check(grows.clone(), Some(json!({"min": 1})), json!({"min": 2}), &[]);
        check(
            grows,
            Some(json!({"min": 2})),
            json!({"min": 1}),
            &["spec: Invalid value: must not shrink"],
        );
        let optional = json!([{"rule": "oldSelf.hasValue() || self.min == 1", "optionalOldSelf": true, "message": "starts at one"}]);
        check(
            optional.clone(),
            None,
            json!({"min": 2}),
            &["spec: Invalid value: starts at one"],
        );
        check(optional, Some(json!({"min": 1})), json!({"min": 2}), &[]);
    }
}
