//! ValidatingAdmissionPolicy: refuses, warns of, or tells the audit log of requests for which expressions do not hold.
//!
//! Source: `policy/validating/dispatcher.go` and `validator.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Status, StatusCause, Value};
use cel::Budget;
use cel::admission::{Declared, Gives};
use futures::future::BoxFuture;
use serde::Serialize;

use super::params::ParamKind;
use super::source::{Binding, Hook, Policy, Source};
use crate::admission::dynamic::answers::Answers;
use crate::admission::dynamic::evaluate::{COST_MAX, Conditions, Given, all, conditions, error_type};
use crate::admission::dynamic::expression::{Compiler, Expression};
use crate::admission::dynamic::input::{Input, Run, Visible};
use crate::admission::dynamic::items;
use crate::admission::dynamic::matching::{Matched, Seen};
use crate::pipeline::{Authorizer, Plugin, Review, Step};

/// Longer messages of expressions are not taken (upstream's `MaxEvaluatedMessageExpressionSizeBytes`).
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
/// Longer annotations are cut.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;
/// The annotation of what is only told the audit log.
const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// The plug-in.
pub struct ValidatingPolicies {
    source: Source<Judgement>,
    authorizer: Arc<dyn Authorizer>,
}

/// What a validating policy has of its own.
struct Judgement {
    validations: Vec<Validation>,
    annotations: Vec<Annotation>,
}

struct Validation {
    expression: Expression,
    message: String,
    of_message: Option<Expression>,
    reason: String,
}

struct Annotation {
    key: String,
    expression: Expression,
}

/// What one validation says, and how long it took to find out.
struct Decision {
    finding: Finding,
    took: Duration,
}

enum Finding {
    Holds,
    /// It could not be evaluated, and failures are ignored.
    Ignored(String),
    Denied(Denial),
}

#[derive(Clone, Debug)]
struct Denial {
    message: String,
    /// Empty: the expression could not be evaluated.
    reason: String,
}

/// An annotation for the audit log, or why there is none.
struct Told {
    key: String,
    value: Result<String, String>,
    took: Duration,
}

/// What one run says.
struct Outcome {
    conditions: Conditions,
    decisions: Vec<Decision>,
    annotations: Vec<Told>,
}

/// What all policies together say of a request.
#[derive(Default)]
struct Verdict {
    /// The first that refuses: its message and reason.
    denied: Option<(String, String)>,
    /// The first that the audit log is told of: as upstream, whose annotations are not written over.
    failure: Option<String>,
}

// === impl ValidatingPolicies ===

impl ValidatingPolicies {
    /// A plug-in whose expressions may ask this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> ValidatingPolicies {
        let (policies, bindings) = ("validatingadmissionpolicies", "validatingadmissionpolicybindings");
        ValidatingPolicies {
            source: Source::new(policies, bindings, Judgement::compile),
            authorizer,
        }
    }

    async fn judge(&self, hooks: Arc<[Hook<Judgement>]>, seen: Seen<'_>) -> Result<(), Status> {
        let review = seen.review;
        let answers = Answers::new(review.user.clone());
        let mut verdict = Verdict::default();
        for hook in hooks.iter() {
            self.apply(hook, seen, &answers, &mut verdict).await?;
        }
        if let Some(failure) = verdict.failure {
            review.annotate(FAILURE, failure);
        }
        match verdict.denied {
            None => Ok(()),
            Some((message, reason)) => Err(denied(review, message, &reason)),
        }
    }

    async fn apply(
        &self,
        hook: &Hook<Judgement>,
        seen: Seen<'_>,
        answers: &Arc<Answers>,
        verdict: &mut Verdict,
    ) -> Result<(), Status> {
        let (review, policy) = (seen.review, &*hook.policy);
        let matched = match seen.matches(&policy.spec["matchConstraints"]) {
            Ok(Some(matched)) => matched,
            Ok(None) => return Ok(()),
            Err(why) => {
                verdict.misconfigured(policy, None, &why);
                return Ok(());
            }
        };
        let kind = match ParamKind::of(&policy.spec, &review.registry) {
            Ok(kind) => kind,
            Err(why) => {
                verdict.misconfigured(policy, None, &why);
                return Ok(());
            }
        };
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in &hook.bindings {
            let prepared = prepare(seen, &matched, kind.as_ref(), binding, answers).await?;
            let (input, params) = match prepared {
                Ok(None) => continue,
                Ok(Some(prepared)) => prepared,
                Err(why) => {
                    verdict.misconfigured(policy, Some(binding), &why);
                    continue;
                }
            };
            for params in &params {
                let judge = || policy.judge(&input, params.as_ref());
                let outcome = answers.complete(&*self.authorizer, judge).await;
                outcome.conditions.count(&policy.conditioned(), review);
                verdict.take(review, policy, binding, outcome, &mut annotations);
            }
        }
        for (key, values) in annotations {
            review.annotate(format!("{}/{key}", policy.name), values.join(", "));
        }
        Ok(())
    }
}

/// What a binding's runs start from: the input and the parameters of each. `None`: it is not about the request. `Err`
/// inside: why it cannot be used.
type Prepared = Result<Option<(Input, Vec<Option<Value>>)>, String>;

/// Prepares the runs of a binding of a policy that is about the request.
///
/// # Errors
/// The request cannot be judged at all.
async fn prepare(
    seen: Seen<'_>,
    matched: &Matched,
    kind: Option<&ParamKind>,
    binding: &Binding,
    answers: &Arc<Answers>,
) -> Result<Prepared, Status> {
    let review = seen.review;
    let resources = &binding.spec["matchResources"];
    if resources.is_object() {
        match seen.matches(resources) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Ok(None)),
            Err(why) => return Ok(Err(why)),
        }
    }
    let params = match ParamKind::collect(kind, &binding.spec["paramRef"], review).await {
        Ok(params) => params,
        Err(why) => return Ok(Err(why)),
    };
    let object = matched.convert_any(review, seen.object).await;
    let (object, old) = match (object, matched.convert_any(review, seen.old).await) {
        (Ok(object), Ok(old)) => (object, old),
        (Err(status), _) | (_, Err(status)) => {
            return Ok(Err(format!("failed to convert object version: {}", status.message)));
        }
    };
    let input = Input::new(review, matched, object, old, seen.namespace()?, answers);
    Ok(Ok(Some((input, params))))
}

impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Validate
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        match self.source.hooks_for(review) {
            None => Box::pin(std::future::ready(Ok(()))),
            Some(hooks) => Box::pin(self.judge(hooks, Seen { review, object, old })),
        }
    }
}

// === impl Judgement ===

impl Judgement {
    fn compile(spec: &Value, compiler: &Compiler) -> Judgement {
        let text = |of: &Value, field: &str| of[field].as_str().unwrap_or("").to_owned();
        let validation = |validation: &Value| Validation {
            expression: compiler.compile(&validation["expression"], Compiler::AUTHORIZED, Gives::Bool),
            message: text(validation, "message"),
            of_message: match &validation["messageExpression"] {
                Value::String(text) if !text.is_empty() => {
                    let expression = &validation["messageExpression"];
                    Some(compiler.compile(expression, Declared::default(), Gives::Text))
                }
                _ => None,
            },
            reason: text(validation, "reason"),
        };
        let annotation = |annotation: &Value| Annotation {
            key: text(annotation, "key"),
            expression: compiler.compile(&annotation["valueExpression"], Compiler::AUTHORIZED, Gives::TextOrNull),
        };
        Judgement {
            validations: items(spec, "validations").iter().map(validation).collect(),
            annotations: items(spec, "auditAnnotations").iter().map(annotation).collect(),
        }
    }
}

impl Policy<Judgement> {
    /// What could not be found out: a refusal, unless failures are ignored.
    fn failed(&self, message: String) -> Finding {
        match self.fails() {
            false => Finding::Ignored(message),
            true => Finding::Denied(Denial {
                message,
                reason: String::new(),
            }),
        }
    }

    fn judge(&self, input: &Input, params: Option<&Value>) -> Outcome {
        let conditions = conditions(&self.conditioned(), input, params);
        let (decisions, annotations) = match &conditions.verdict {
            Err(why) => Err(why.clone()),
            Ok(false) => Ok((Vec::new(), Vec::new())),
            Ok(true) => self.judge_matched(input, params),
        }
        .unwrap_or_else(|why| {
            let failed = Decision {
                finding: self.failed(why),
                took: Duration::ZERO,
            };
            (vec![failed], Vec::new())
        });
        Outcome {
            conditions,
            decisions,
            annotations,
        }
    }

    /// Judges a request that match conditions let through.
    ///
    /// # Errors
    /// The budget is spent.
    fn judge_matched(&self, input: &Input, params: Option<&Value>) -> Result<(Vec<Decision>, Vec<Told>), String> {
        let run = |authorizer| {
            let matched = true;
            Run::new(input, params, &self.variables, Visible { authorizer, matched })
        };
        let mut budget = Budget::new(COST_MAX);
        let validations = &self.own.validations;
        let expressions = validations.iter().map(|one| Some(&one.expression));
        let given = all(&run(true), expressions, &mut budget)?;
        let messages = all(
            &run(false),
            validations.iter().map(|one| one.of_message.as_ref()),
            &mut budget,
        );
        let decisions = validations
            .iter()
            .zip(given)
            .enumerate()
            .map(|(index, (validation, (given, took)))| {
                let message = messages.as_ref().map(|messages| &messages[index].0);
                let finding = self.decide(validation, given, message);
                Decision { finding, took }
            });
        let decisions = decisions.collect();
        // Annotations have a budget of their own.
        let mut budget = Budget::new(COST_MAX);
        let annotations = &self.own.annotations;
        let expressions = annotations.iter().map(|one| Some(&one.expression));
        let given = all(&run(false), expressions, &mut budget)?;
        let told = annotations.iter().zip(given);
        let told = told.filter_map(|(annotation, (given, took))| {
            let value = self.annotation(given?)?;
            Some(Told {
                key: annotation.key.clone(),
                value,
                took,
            })
        });
        Ok((decisions, told.collect()))
    }

    fn decide(&self, validation: &Validation, given: Given<'_>, message: Result<&Given<'_>, &String>) -> Finding {
        let value = match given {
            None => return Finding::Holds,
            Some(Err(why)) => return self.failed(why),
            Some(Ok(value)) => value,
        };
        let message = match message {
            Err(why) => return self.failed(format!("failed messageExpression: {why}")),
            Ok(message) => message,
        };
        if value.as_bool() == Some(true) {
            return Finding::Holds;
        }
        let given = match message {
            Some(Ok(text)) => text.as_str().unwrap_or("").trim(),
            _ => "",
        };
        let fits = !given.is_empty() && given.len() <= MESSAGE_BYTES_MAX && !given.contains('\n');
        let message = match (fits, validation.message.trim()) {
            (true, _) => given.to_owned(),
            (false, "") => format!("failed expression: {}", validation.expression.text.trim()),
            (false, written) => written.to_owned(),
        };
        let reason = match &*validation.reason {
            "" => "Invalid".to_owned(),
            reason => reason.to_owned(),
        };
        Finding::Denied(Denial { message, reason })
    }

    /// What the audit log is told, if anything.
    fn annotation(&self, given: Result<cel::Value<'_>, String>) -> Option<Result<String, String>> {
        match given {
            Err(why) => self.fails().then_some(Err(why)),
            // Null, or another type than the compiler let through: there is none.
            Ok(value) => {
                let text = value.as_str().map(str::trim);
                let text = text.filter(|text| !text.is_empty());
                text.map(|text| Ok(text.to_owned()))
            }
        }
    }
}

// === impl Verdict ===

impl Verdict {
    fn deny<T>(&mut self, policy: &Policy<T>, binding: Option<&Binding>, denial: &Denial) {
        if self.denied.is_some() {
            return;
        }
        let bound = binding.map_or(String::new(), |binding| format!(" with binding '{}'", binding.name));
        let message = format!(
            "ValidatingAdmissionPolicy '{}'{bound} denied request: {}",
            policy.name, denial.message
        );
        self.denied = Some((message, denial.reason.clone()));
    }

    fn misconfigured<T>(&mut self, policy: &Policy<T>, binding: Option<&Binding>, why: &str) {
        if !policy.fails() {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        let denial = Denial {
            message: format!("failed to configure {what}: {why}"),
            reason: String::new(),
        };
        self.deny(policy, binding, &denial);
    }

    fn take(
        &mut self,
        review: &Review,
        policy: &Policy<Judgement>,
        binding: &Binding,
        outcome: Outcome,
        annotations: &mut BTreeMap<String, Vec<String>>,
    ) {
        let count = |message: &str, action, took| {
            let error = error_type(message);
            review
                .metrics
                .policies
                .checked(&policy.name, &binding.name, error, action, took);
        };
        for (index, decision) in outcome.decisions.iter().enumerate() {
            let denial = match &decision.finding {
                Finding::Holds => continue,
                Finding::Ignored(why) => {
                    count(why, "allow", decision.took);
                    continue;
                }
                Finding::Denied(denial) => denial,
            };
            for action in items(&binding.spec, "validationActions") {
                let counted = match action.as_str() {
                    Some("Deny") => {
                        self.deny(policy, Some(binding), denial);
                        "deny"
                    }
                    Some("Warn") => {
                        review.warn(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                            policy.name, binding.name, denial.message
                        ));
                        "warn"
                    }
                    Some("Audit") => {
                        self.failure.get_or_insert_with(|| failure(binding, index, denial));
                        "audit"
                    }
                    _ => continue,
                };
                count(&denial.message, counted, decision.took);
            }
        }
        for Told { key, value, took } in outcome.annotations {
            match value {
                Ok(mut value) => {
                    value.truncate(value.floor_char_boundary(ANNOTATION_BYTES_MAX));
                    let values = annotations.entry(key).or_default();
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                Err(message) => {
                    count(&message, "deny", took);
                    let reason = String::new();
                    self.deny(policy, Some(binding), &Denial { message, reason });
                }
            }
        }
    }
}

/// What the audit log is told of a validation that does not hold (upstream's `ValidationFailureValue`, in its order).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    message: &'a str,
    policy: &'a Value,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a Value,
}

/// A list of one failure, as text.
fn failure(binding: &Binding, index: usize, denial: &Denial) -> String {
    let failure = Failure {
        message: &denial.message,
        policy: &binding.spec["policyName"],
        binding: &binding.name,
        expression_index: index,
        validation_actions: &binding.spec["validationActions"],
    };
    serde_json::to_string(&[failure]).expect("invariant: texts, numbers and JSON can be written as JSON")
}

/// The refusal as upstream makes it: worded as a 403, with the reason and code of the policy.
fn denied(review: &Review, message: String, reason: &str) -> Status {
    let mut status = review.forbidden(&message);
    let reason = if reason.is_empty() { "Invalid" } else { reason };
    status.reason = reason.into();
    status.code = match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let details = status.details.get_or_insert_default();
    details.causes.push(StatusCause {
        message,
        ..StatusCause::default()
    });
    status
}
