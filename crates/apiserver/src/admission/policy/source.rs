//! The policies of one kind and their bindings, compiled, as the replica has them.
//!
//! Invariant: `hooks` is what `policies` and `bindings` say, or `None` after they changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Value, meta};
use cel::admission::Gives;
use parking_lot::Mutex;

use super::is_exempt;
use crate::admission::dynamic::evaluate::Conditioned;
use crate::admission::dynamic::expression::{Compiler, Expression};
use crate::admission::dynamic::follow::{changes, follow};
use crate::admission::dynamic::items;
use crate::cluster::{Changes, Cluster};
use crate::pipeline::Review;

/// One policy.
pub struct Policy<T> {
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: Value,
    /// Match conditions.
    pub conditions: Vec<Expression>,
    /// What `variables` composes, in its order; each sees those before it.
    pub variables: Vec<(String, Expression)>,
    /// What policies of its kind do.
    pub own: T,
}

/// One binding.
pub struct Binding {
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: Value,
}

/// A policy with its bindings.
pub struct Hook<T> {
    /// The policy.
    pub policy: Arc<Policy<T>>,
    /// In the order of their names; at least one.
    pub bindings: Vec<Arc<Binding>>,
}

/// Compiles what only policies of one kind have.
pub type CompileOwn<T> = fn(&Value, &Compiler) -> T;

/// The policies of one kind.
pub struct Source<T> {
    policies: &'static str,
    bindings: &'static str,
    compile: CompileOwn<T>,
    state: Mutex<Option<State<T>>>,
}

struct State<T> {
    policies: Box<dyn Changes>,
    bindings: Box<dyn Changes>,
    by_name: BTreeMap<String, Arc<Policy<T>>>,
    bound: BTreeMap<String, Arc<Binding>>,
    hooks: Option<Arc<[Hook<T>]>>,
}

// === impl Source ===

impl<T> Source<T> {
    /// Of policies and bindings with these plurals.
    pub fn new(policies: &'static str, bindings: &'static str, compile: CompileOwn<T>) -> Source<T> {
        Source {
            policies,
            bindings,
            compile,
            state: Mutex::new(None),
        }
    }

    /// Every policy that may be about a request; `None` when there is none, as with most requests of most clusters.
    pub fn hooks_for(&self, review: &Review) -> Option<Arc<[Hook<T>]>> {
        let hooks = self.hooks(&*review.cluster);
        (!hooks.is_empty() && !is_exempt(review)).then_some(hooks)
    }

    /// Every policy that is bound, as of now.
    fn hooks(&self, cluster: &dyn Cluster) -> Arc<[Hook<T>]> {
        let mut state = self.state.lock();
        let state = state.get_or_insert_with(|| State::follow(cluster, self.policies, self.bindings));
        state.drain(self.compile);
        let hooks = state.hooks.take().unwrap_or_else(|| state.bind());
        state.hooks = Some(hooks.clone());
        hooks
    }
}

// === impl State ===

impl<T> State<T> {
    fn follow(cluster: &dyn Cluster, policies: &str, bindings: &str) -> State<T> {
        State {
            policies: changes(cluster, policies),
            bindings: changes(cluster, bindings),
            by_name: BTreeMap::new(),
            bound: BTreeMap::new(),
            hooks: None,
        }
    }

    fn drain(&mut self, compile: CompileOwn<T>) {
        let changed = follow(&mut *self.policies, &mut self.by_name, |object| {
            Policy::compile(object, compile)
        });
        let bound = follow(&mut *self.bindings, &mut self.bound, Binding::of);
        if changed || bound {
            self.hooks = None;
        }
    }

    fn bind(&self) -> Arc<[Hook<T>]> {
        let hooks = self.by_name.values().filter_map(|policy| {
            let bindings = self.bound.values();
            let bindings: Vec<_> = bindings
                .filter(|binding| binding.spec["policyName"] == *policy.name)
                .cloned()
                .collect();
            (!bindings.is_empty()).then(|| Hook {
                policy: policy.clone(),
                bindings,
            })
        });
        hooks.collect()
    }
}

// === impl Policy ===

impl<T> Policy<T> {
    fn compile(object: &Value, own: CompileOwn<T>) -> Policy<T> {
        let spec = object["spec"].clone();
        let mut compiler = Compiler::new(spec["paramKind"].is_object());
        let mut variables = Vec::new();
        for variable in items(&spec, "variables") {
            let name = variable["name"].as_str().unwrap_or("").to_owned();
            let expression = compiler.compile(&variable["expression"], Compiler::AUTHORIZED, Gives::Anything);
            compiler.add(&name, &expression);
            variables.push((name, expression));
        }
        let conditions = items(&spec, "matchConditions")
            .iter()
            .map(|condition| compiler.compile(&condition["expression"], Compiler::AUTHORIZED, Gives::Bool));
        Policy {
            name: meta::name(object).to_owned(),
            conditions: conditions.collect(),
            variables,
            own: own(&spec, &compiler),
            spec,
        }
    }

    /// Its match conditions.
    pub fn conditioned(&self) -> Conditioned<'_> {
        Conditioned {
            name: &self.name,
            kind: "policy",
            // Of mutating policies too, as upstream has it.
            step: "validate",
            conditions: &self.conditions,
            variables: &self.variables,
            fails: self.fails(),
        }
    }

    /// Whether a request is refused when the policy cannot be evaluated.
    pub fn fails(&self) -> bool {
        self.spec["failurePolicy"] != "Ignore"
    }
}

// === impl Binding ===

impl Binding {
    fn of(object: &Value) -> Binding {
        Binding {
            name: meta::name(object).to_owned(),
            spec: object["spec"].clone(),
        }
    }
}
