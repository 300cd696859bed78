//! Expressions of policies and webhooks as they are when they are written: they have to compile.
//!
//! New ones are compiled with the libraries of the version before the server's, so that a rollback understands them; those
//! that the stored object has already, with the server's own.
//! Source: `validateValidationExpression` and its neighbours in `pkg/apis/admissionregistration/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::Error;
use cel::admission::{Composition, Declared, Gives, NEW, Refusal, STORED, compile_to, environment};
use cel::{Environment, Program};

use crate::check::At;
use crate::view::View;

/// Expressions that the stored object has.
#[derive(Default)]
pub struct Known<'o>(BTreeSet<&'o str>);

impl<'o> Known<'o> {
    /// Those in a field of the elements of a list.
    pub fn of(old: &'o Value, list: &str, field: &str) -> Known<'o> {
        Known::of_all(old.list(list), field)
    }

    /// Those in a field of these.
    pub fn of_all(items: impl IntoIterator<Item = &'o Value>, field: &str) -> Known<'o> {
        Known(items.into_iter().map(|item| item.text(field)).collect())
    }

    fn minor(&self, expression: &str) -> u16 {
        match self.0.contains(expression) {
            true => STORED,
            false => NEW,
        }
    }
}

/// The expressions of one policy: which variables they have.
pub struct Expressions<'o> {
    old: &'o Value,
    params: bool,
    composed: Option<Composition>,
}

impl<'o> Expressions<'o> {
    /// Those of a policy with this spec, in place of another one (null: there was none). Only with `composed` do they see
    /// the variables that are added.
    pub fn new(spec: &At, old: &'o Value, composed: bool) -> Expressions<'o> {
        Expressions {
            old,
            params: spec.get("paramKind").is_set(),
            composed: composed.then(Composition::default),
        }
    }

    /// The spec that is stored.
    pub fn old(&self) -> &'o Value {
        self.old
    }

    /// Checks an expression, and lets those after it use it by a name.
    pub fn variable(&mut self, name: &str, at: &At, known: &Known) {
        let declared = Declared {
            authorizer: true,
            ..Declared::default()
        };
        let environment = self.environment(known.minor(at.text()), declared);
        let program = checked(at, at.value, compile_to(&environment, at.text(), Gives::Anything));
        if let Some(composed) = &mut self.composed {
            composed.add(name, program.as_ref());
        }
    }

    /// Checks an expression.
    pub fn check(&self, at: &At, known: &Known, declared: Declared, gives: Gives) {
        let environment = self.environment(known.minor(at.text()), declared);
        checked(at, at.value, compile_to(&environment, at.text(), gives));
    }

    /// Checks an expression without the space around it; errors show what is given.
    pub fn check_trimmed(&self, at: &At, shown: &Value, known: &Known, declared: Declared, gives: Gives) {
        let environment = self.environment(known.minor(at.text()), declared);
        checked(at, shown, compile_to(&environment, at.text().trim(), gives));
    }

    fn environment(&self, minor: u16, declared: Declared) -> Environment {
        let params = self.params;
        let environment = environment(minor, Declared { params, ..declared });
        match &self.composed {
            Some(composed) => composed.declare(environment),
            None => environment,
        }
    }
}

/// Checks a condition of one more request; conditions see no variables.
pub fn condition(at: &At, known: &Known, params: bool) {
    let declared = Declared {
        params,
        authorizer: true,
        patches: false,
    };
    let text = at.text().trim();
    let compiled = compile_to(&environment(known.minor(text), declared), text, Gives::Bool);
    checked(at, &text.into(), compiled);
}

/// Reports why an expression cannot be used.
fn checked(at: &At, shown: &Value, compiled: Result<Program, Refusal>) -> Option<Program> {
    match compiled {
        Ok(program) => Some(program),
        Err(refusal) if refusal.internal => {
            at.report.push(Error::internal(&at.path, refusal.detail));
            None
        }
        Err(refusal) => {
            at.invalid_as(shown.clone(), refusal.detail);
            None
        }
    }
}
