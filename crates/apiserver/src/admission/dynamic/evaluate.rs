//! Match conditions, and lists of expressions under one budget.
//!
//! Source: `plugin/cel/condition.go` and `plugin/webhook/matchconditions/matcher.go` of `k8s.io/apiserver/pkg/admission`.

use std::time::Duration;

use api::Value;
use cel::Budget;
use tokio::time::Instant;

use super::aggregate;
use super::expression::Expression;
use super::input::{Input, Run, Visible};
use crate::pipeline::Review;

/// What all expressions of a policy may cost in one run (upstream's `RuntimeCELCostBudget`): about a second.
pub const COST_MAX: u64 = 10_000_000;
/// The same for match conditions (upstream's `RuntimeCELCostBudgetMatchConditions`).
const CONDITIONS_COST_MAX: u64 = 2_500_000;

/// What an expression gave; `None` where there is no expression.
pub type Given<'a> = Option<Result<cel::Value<'a>, String>>;

/// Which error it is in upstream's metrics, by the text as there: what does not begin as one of the others is `invalid_error`.
pub fn error_type(message: &str) -> &'static str {
    if message.starts_with("compilation") {
        return "compile_error";
    }
    match message.starts_with("validation failed due to running out of cost budget") {
        true => "out_of_budget",
        false => "invalid_error",
    }
}

/// Evaluates expressions in one run; each with how long it took.
///
/// # Errors
/// The budget is spent.
pub fn all<'a>(
    run: &Run<'a>,
    expressions: impl IntoIterator<Item = Option<&'a Expression>>,
    budget: &mut Budget,
) -> Result<Vec<(Given<'a>, Duration)>, String> {
    let each = expressions.into_iter().map(|expression| match expression {
        None => Ok((None, Duration::ZERO)),
        Some(expression) => {
            let began = Instant::now();
            let given = run.evaluate(expression, budget)?;
            Ok((Some(given), began.elapsed()))
        }
    });
    each.collect()
}

/// What match conditions say.
pub struct Conditions {
    /// Whether they hold. One that is false decides, whatever fails beside it. `Err`: none is false, and some cannot be
    /// evaluated; a policy that ignores failures does not match then.
    pub verdict: Result<bool, String>,
    /// When they kept the policy away: how many could not be evaluated, and how long that took.
    kept_away: Option<(u64, Duration)>,
}

/// A policy or a webhook with its match conditions.
pub struct Conditioned<'a> {
    /// Its name.
    pub name: &'a str,
    /// `policy` or `webhook`.
    pub kind: &'static str,
    /// `admit` or `validate`.
    pub step: &'static str,
    /// The conditions.
    pub conditions: &'a [Expression],
    /// The composed variables that they see.
    pub variables: &'a [(String, Expression)],
    /// Whether a request is refused when they cannot be evaluated.
    pub fails: bool,
}

impl Conditions {
    const HOLD: Conditions = Conditions {
        verdict: Ok(true),
        kept_away: None,
    };

    /// Counts what was found out, once.
    pub fn count(&self, of: &Conditioned<'_>, review: &Review) {
        if let Some((errors, took)) = self.kept_away {
            let metrics = &review.metrics.conditions;
            metrics.kept_away(of.name, of.kind, of.step, review.operation, errors, took);
        }
    }
}

/// Evaluates match conditions.
pub fn conditions(of: &Conditioned<'_>, input: &Input, params: Option<&Value>) -> Conditions {
    if of.conditions.is_empty() {
        return Conditions::HOLD;
    }
    let began = Instant::now();
    let visible = Visible {
        authorizer: true,
        matched: false,
    };
    let run = Run::new(input, params, of.variables, visible);
    let mut budget = Budget::new(CONDITIONS_COST_MAX);
    let mut errors = Vec::new();
    let mut verdict = match all(&run, of.conditions.iter().map(Some), &mut budget) {
        Err(why) => Err(why),
        Ok(given) => {
            let mut given = given.into_iter().filter_map(|(given, _)| given);
            let is_false = given.any(|given| match given {
                Ok(value) => value.as_bool() == Some(false),
                Err(why) => {
                    errors.push(why);
                    false
                }
            });
            match (is_false, errors.is_empty()) {
                (true, _) => Ok(false),
                (false, true) => return Conditions::HOLD,
                (false, false) => Err(aggregate(errors.clone())),
            }
        }
    };
    if verdict.is_err() && !of.fails {
        verdict = Ok(false);
    }
    Conditions {
        verdict,
        kept_away: Some((errors.len() as u64, began.elapsed())),
    }
}
