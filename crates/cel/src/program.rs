//! Programs: what expressions are compiled to, and how they are run.

use std::fmt;

use crate::ast::Expr;
use crate::check::{Checked, check};
use crate::cost::estimate::{Estimate, Sizes, estimate};
use crate::environment::Environment;
use crate::eval;
use crate::fold::fold_constants;
use crate::issues::Issues;
use crate::library::Regexes;
use crate::parser::parse;
use crate::types::Type;
use crate::value::Value;

/// What one evaluation may cost: `PerCallLimit` of `k8s.io/apiserver/pkg/apis/cel`. About 0.1 s.
pub const CALL_COST_MAX: u64 = 1_000_000;

/// An expression that can be evaluated, any number of times and by any number of threads.
#[derive(Debug)]
pub struct Program {
    /// As it was checked.
    pub(crate) checked: Checked,
    /// As it is evaluated: constants are folded.
    pub(crate) plan: Expr,
    pub(crate) regexes: Regexes,
}

/// Compiles an expression.
///
/// # Errors
/// The issues that cel-go would report, in its words.
pub fn compile(environment: &Environment, text: &str) -> Result<Program, Issues> {
    compile_with(environment, text, true)
}

/// With or without folding of constants: upstream's tests of costs go without.
pub(crate) fn compile_with(environment: &Environment, text: &str, fold: bool) -> Result<Program, Issues> {
    let parsed = parse(text, environment.syntax())?;
    let checked = check(environment, text, parsed)?;
    let plan = checked.root.clone();
    let mut program = Program {
        checked,
        plan,
        regexes: Regexes::default(),
    };
    if fold && let Err(error) = fold_constants(&mut program) {
        let mut issues = Issues::new(text);
        issues.add_placeless(format!("program instantiation failed: {error}"));
        return Err(issues);
    }
    Ok(program)
}

impl Program {
    /// The type of what the expression gives.
    pub fn result_type(&self) -> &Type {
        &self.checked.types[self.checked.root.id]
    }

    /// Evaluates the expression.
    ///
    /// # Errors
    /// The error of the evaluation, or that it cost more than a call may, or than is left of the budget.
    pub fn evaluate<'a>(&self, variables: &dyn Variables<'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
        let (value, cost) = eval::run(self, &self.plan, variables, CALL_COST_MAX);
        let spent = budget.spend(cost);
        match value {
            Err(error) if error.kind() == ErrorKind::Cost => Err(error),
            value => spent.and(value),
        }
    }

    /// What an evaluation may cost at least and at most, whatever the values are. `sizes` tells how large they may be.
    pub fn estimate(&self, sizes: &dyn Sizes) -> Estimate {
        estimate(&self.checked, sizes)
    }
}

/// What variables are bound to.
pub trait Variables<'a> {
    /// A variable's value; `None` when it is not bound.
    fn variable(&self, name: &str) -> Option<Value<'a>>;

    /// A field of a variable whose fields are only computed when an expression reaches them (`variables.x` of a policy).
    /// `None` when there is no such field that the variable's value does not have itself.
    fn field(&self, _variable: &str, _field: &str) -> Option<Result<Value<'a>, Error>> {
        None
    }
}

impl<'a, const N: usize> Variables<'a> for [(&str, Value<'a>); N] {
    fn variable(&self, name: &str) -> Option<Value<'a>> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
    }
}

impl<'a> Variables<'a> for Vec<(&str, Value<'a>)> {
    fn variable(&self, name: &str) -> Option<Value<'a>> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
    }
}

/// What several evaluations may cost together.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// So much.
    pub fn new(cost: u64) -> Budget {
        Budget { left: cost }
    }

    /// As much as one evaluation may cost.
    pub fn for_one_call() -> Budget {
        Budget::new(CALL_COST_MAX)
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes from it.
    ///
    /// # Errors
    /// When there is not so much left; then nothing is.
    pub fn spend(&mut self, cost: u64) -> Result<(), Error> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                let message =
                    "validation failed due to running out of cost budget, no further validation rules will be run";
                Err(Error {
                    kind: ErrorKind::Budget,
                    message: message.into(),
                })
            }
        }
    }
}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// What sort of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The expression failed on these values: a key that is not there, an overflow.
    Evaluation,
    /// It cost more than one evaluation may.
    Cost,
    /// The budget is spent.
    Budget,
}

impl Error {
    /// An error of an expression, which `&&`, `||` and macros may absorb. Hosts make these in their functions.
    pub fn evaluation(message: impl Into<String>) -> Error {
        Error {
            kind: ErrorKind::Evaluation,
            message: message.into(),
        }
    }

    pub(crate) fn too_expensive() -> Error {
        Error {
            kind: ErrorKind::Cost,
            message: "operation cancelled: actual cost limit exceeded".into(),
        }
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
