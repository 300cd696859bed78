//! Expressions as they are stored, compiled.

use api::Value;
use cel::admission::{Composition, Declared, Gives, Refusal, STORED, compile_to, environment};
use cel::{Environment, Program};
use tokio::time::Instant;

use crate::metrics::shared;

/// An expression, compiled or not.
pub struct Expression {
    /// As it is written.
    pub text: String,
    /// What it was compiled to, or why it could not be.
    pub program: Result<Program, Refusal>,
}

/// Compiles expressions of one policy or webhook.
#[derive(Default)]
pub struct Compiler {
    params: bool,
    composed: Composition,
}

// === impl Compiler ===

impl Compiler {
    /// What most expressions have.
    pub const AUTHORIZED: Declared = Declared {
        params: false,
        authorizer: true,
        patches: false,
    };

    /// Of expressions that may see parameters, or not.
    pub fn new(params: bool) -> Compiler {
        Compiler {
            params,
            composed: Composition::default(),
        }
    }

    /// Lets the expressions after it use a variable.
    pub fn add(&mut self, name: &str, variable: &Expression) {
        self.composed.add(name, variable.program.as_ref().ok());
    }

    /// Compiles an expression.
    pub fn compile(&self, text: &Value, declared: Declared, gives: Gives) -> Expression {
        let text = text.as_str().unwrap_or("");
        let began = Instant::now();
        let program = compile_to(&self.environment(declared), text, gives);
        shared().expressions.compiled(began.elapsed());
        Expression {
            text: text.to_owned(),
            program,
        }
    }

    fn environment(&self, declared: Declared) -> Environment {
        let params = self.params;
        let environment = environment(STORED, Declared { params, ..declared });
        self.composed.declare(environment)
    }
}
