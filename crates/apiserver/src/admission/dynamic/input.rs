//! What expressions see of a request, and of what others of their policy give.
//!
//! Composed variables are evaluated when somebody reads them, once in each run. An expression that reads one that is not
//! known yet is abandoned, the variable is evaluated, and the expression again: so a chain of a thousand variables is no
//! recursion.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use api::{Map, Value};
use cel::admission::{REQUEST_RESOURCE, VARIABLES, namespace, request};
use cel::{Budget, Error, ResourceAttributes, Type, Variables};
use serde_json::json;
use tokio::time::Instant;

use super::answers::Answers;
use super::expression::Expression;
use super::matching::Matched;
use crate::metrics::shared;
use crate::pipeline::Review;

/// The objects and facts of a request in the version that a policy wants.
pub struct Input {
    /// `object`.
    pub object: Value,
    /// `oldObject`.
    pub old: Value,
    /// `request`.
    pub request: Value,
    /// `request` for match conditions, which see the resource as it was asked for.
    pub request_as_made: Value,
    /// `namespaceObject`.
    pub namespace: Value,
    /// What the request is about, for the authorizer.
    pub resource: ResourceAttributes,
    /// Who answers for the authorizer.
    pub answers: Arc<Answers>,
    request_type: Type,
    namespace_type: Type,
}

// === impl Input ===

impl Input {
    /// Of a request as a policy sees it. The objects are in the matched version, null where there is none.
    pub fn new(
        review: &Review,
        matched: &Matched,
        object: Value,
        old: Value,
        of_namespace: Option<Value>,
        answers: &Arc<Answers>,
    ) -> Input {
        let mut as_made = matched.clone();
        as_made.resource = review.requested.clone();
        let text = |text: &str| text.to_owned();
        Input {
            object,
            old,
            request: admission_request(review, matched),
            request_as_made: admission_request(review, &as_made),
            namespace: of_namespace.map_or(Value::Null, shown_namespace),
            resource: ResourceAttributes {
                group: text(&review.requested.group),
                resource: text(&review.requested.resource),
                subresource: text(&review.subresource),
                namespace: text(&review.namespace),
                name: text(&review.name),
                ..ResourceAttributes::default()
            },
            answers: answers.clone(),
            request_type: request(),
            namespace_type: namespace(),
        }
    }
}

/// The `AdmissionRequest`; fields that upstream omits when empty are absent.
pub fn admission_request(review: &Review, matched: &Matched) -> Value {
    let kind = |of: &api::GroupVersionKind| json!({"group": of.group, "version": of.version, "kind": of.kind});
    let resource =
        |of: &api::GroupVersionResource| json!({"group": of.group, "version": of.version, "resource": of.resource});
    let requested_kind = review.requested_kind();
    let mut request = json!({
        "kind": kind(&matched.kind),
        "resource": resource(&matched.resource),
        "requestKind": kind(&requested_kind),
        "requestResource": resource(&review.requested),
        "operation": review.operation.as_str(),
        "userInfo": review.user.to_value(),
        "dryRun": review.dry_run,
    });
    for (field, value) in [
        ("subResource", &review.subresource),
        ("requestSubResource", &review.subresource),
        ("name", &review.name),
        ("namespace", &review.namespace),
    ] {
        if !value.is_empty() {
            request[field] = value.as_str().into();
        }
    }
    if !review.options.is_null() {
        request["options"] = review.options.clone();
    }
    request
}

/// A Namespace with the metadata that expressions may see.
/// Source: `CreateNamespaceObject` of `plugin/cel/condition.go`.
fn shown_namespace(mut namespace: Value) -> Value {
    const SHOWN: [&str; 12] = [
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "finalizers",
    ];
    if let Some(metadata) = namespace.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| SHOWN.contains(&field.as_str()));
    }
    namespace
}

/// Which of the input an expression may see.
#[derive(Clone, Copy)]
pub struct Visible {
    /// The authorizer.
    pub authorizer: bool,
    /// `namespaceObject`, and the resource as the policy matched it.
    pub matched: bool,
}

/// One run over the same input: the composed variables keep their values.
pub struct Run<'a> {
    input: &'a Input,
    params: &'a Value,
    visible: Visible,
    composed: &'a [(String, Expression)],
    nothing: &'a Value,
    known: RefCell<HashMap<usize, Result<cel::Value<'a>, Error>>>,
    /// The composed variable that the last evaluation read in vain.
    wanted: Cell<Option<usize>>,
    /// What composed variables cost since somebody asked.
    spent: Cell<u64>,
}

static NULL: Value = Value::Null;
static EMPTY: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::Object(Map::new()));

// === impl Run ===

impl<'a> Run<'a> {
    /// A run with these parameters and composed variables.
    pub fn new(
        input: &'a Input,
        params: Option<&'a Value>,
        composed: &'a [(String, Expression)],
        visible: Visible,
    ) -> Run<'a> {
        Run {
            input,
            params: params.unwrap_or(&NULL),
            visible,
            composed,
            nothing: &EMPTY,
            known: RefCell::default(),
            wanted: Cell::new(None),
            spent: Cell::new(0),
        }
    }

    /// An expression's value, or its error; both charged with what it cost and what the variables did that it was the
    /// first to read. `Err` outside: the budget is spent.
    pub fn evaluate(
        &self,
        expression: &Expression,
        budget: &mut Budget,
    ) -> Result<Result<cel::Value<'a>, String>, String> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(refusal) => return Ok(Err(format!("compilation error: {refusal}"))),
        };
        let began = Instant::now();
        let (outcome, cost) = self.settle(program);
        shared().expressions.evaluated(began.elapsed());
        budget.spend(self.spent.take()).map_err(|error| error.to_string())?;
        budget.spend(cost).map_err(|error| error.to_string())?;
        let text = &expression.text;
        Ok(outcome.map_err(|error| format!("expression '{text}' resulted in error: {error}")))
    }

    /// Evaluates a program after the variables that it reads.
    fn settle(&self, program: &cel::Program) -> (Result<cel::Value<'a>, Error>, u64) {
        // Each variable reads only those before it, so that this ends.
        let mut waiting: Vec<usize> = Vec::new();
        loop {
            let of_variable = waiting.last().map(|index| (*index, &self.composed[*index]));
            let (program, name) = match of_variable {
                None => (program, None),
                Some((index, (name, expression))) => match &expression.program {
                    Ok(program) => (program, Some((index, name))),
                    Err(refusal) => {
                        let name = api::field::quote(name);
                        let message = format!("composited variable {name} fails to compile: {refusal}");
                        self.known.borrow_mut().insert(index, Err(Error::evaluation(message)));
                        waiting.pop();
                        continue;
                    }
                },
            };
            let mut budget = Budget::new(u64::MAX);
            let outcome = program.evaluate(self, &mut budget);
            let cost = u64::MAX - budget.left();
            if let Some(wanted) = self.wanted.take() {
                if waiting.contains(&wanted) {
                    // Two of the same name, the later one of which reads the earlier one: there is but one.
                    let message = format!("composited variable {} reads itself", self.composed[wanted].0);
                    self.known.borrow_mut().insert(wanted, Err(Error::evaluation(message)));
                } else {
                    waiting.push(wanted);
                }
                continue;
            }
            let Some((index, name)) = name else {
                return (outcome, cost);
            };
            self.spent.set(self.spent.get().saturating_add(cost));
            let value = outcome.map_err(|error| {
                let name = api::field::quote(name);
                Error::evaluation(format!("composited variable {name} fails to evaluate: {error}"))
            });
            self.known.borrow_mut().insert(index, value);
            waiting.pop();
        }
    }
}

impl<'a> Variables<'a> for Run<'a> {
    fn variable(&self, name: &str) -> Option<cel::Value<'a>> {
        let input = self.input;
        let seen = |value: &'a Value| cel::Value::from_json(value, &Type::Dyn);
        Some(match name {
            "object" => seen(&input.object),
            "oldObject" => seen(&input.old),
            "params" => seen(self.params),
            "request" if self.visible.matched => cel::Value::from_json(&input.request, &input.request_type),
            "request" => cel::Value::from_json(&input.request_as_made, &input.request_type),
            "namespaceObject" if self.visible.matched => cel::Value::from_json(&input.namespace, &input.namespace_type),
            "namespaceObject" => cel::Value::Null,
            VARIABLES => seen(self.nothing),
            "authorizer" if self.visible.authorizer => cel::Value::authorizer(input.answers.clone()),
            REQUEST_RESOURCE if self.visible.authorizer => {
                cel::Value::resource_check(input.answers.clone(), input.resource.clone())
            }
            _ => return None,
        })
    }

    fn field(&self, variable: &str, field: &str) -> Option<Result<cel::Value<'a>, Error>> {
        if variable != VARIABLES {
            return None;
        }
        // Of two with the same name the later one counts.
        let index = self.composed.iter().rposition(|(name, _)| name == field)?;
        if let Some(known) = self.known.borrow().get(&index) {
            return Some(known.clone());
        }
        self.wanted.set(Some(index));
        Some(Err(Error::evaluation(format!("{field} is not known yet"))))
    }
}
