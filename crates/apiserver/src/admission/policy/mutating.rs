//! MutatingAdmissionPolicy: changes objects on their way in.
//!
//! A policy that changed something has the whole chain of plug-ins run once more, in which policies that ask for it
//! (`reinvocationPolicy: IfNeeded`) run again when something changed after them.
//!
//! Source: `policy/mutating/dispatcher.go`, `reinvocationcontext.go` and `policy/generic/policy_dispatcher.go`.

use std::sync::Arc;

use api::schema::SchemaRef;
use api::{Status, StatusCause, Value, meta};
use cel::Budget;
use cel::admission::{Declared, Gives};
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::params::ParamKind;
use super::patches::{self, Failure};
use super::source::{Binding, Hook, Policy, Source};
use crate::admission::dynamic::answers::Answers;
use crate::admission::dynamic::evaluate::{COST_MAX, conditions, error_type};
use crate::admission::dynamic::expression::{Compiler, Expression};
use crate::admission::dynamic::input::{Input, Run, Visible};
use crate::admission::dynamic::items;
use crate::admission::dynamic::matching::{Matched, Seen, kind_of, normalized};
use crate::pipeline::{Authorizer, Mutator, Operation, Plugin, Review, Step};

/// The plug-in.
pub struct MutatingPolicies {
    source: Source<Vec<Mutation>>,
    authorizer: Arc<dyn Authorizer>,
}

/// One step of a policy.
struct Mutation {
    gives: Gives,
    expression: Expression,
}

/// One run of a policy for a request.
struct Invocation {
    policy: Arc<Policy<Vec<Mutation>>>,
    binding: Arc<Binding>,
    matched: Matched,
    params: Option<Value>,
}

/// What policies do to a request until somebody refuses it.
struct Chain<'a> {
    review: &'a Review,
    authorizer: &'a dyn Authorizer,
    answers: Arc<Answers>,
    old: Option<&'a Value>,
    namespace: Option<Value>,
    /// What went wrong: the policy's name, with its binding, and why; those only whose policy fails then.
    refusals: Vec<String>,
    /// A policy could be configured and failed while it ran.
    invalid: bool,
}

// === impl MutatingPolicies ===

impl MutatingPolicies {
    /// A plug-in whose expressions may ask this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> MutatingPolicies {
        let (policies, bindings) = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        MutatingPolicies {
            source: Source::new(policies, bindings, Mutation::compile),
            authorizer,
        }
    }

    async fn mutate(
        &self,
        hooks: Arc<[Hook<Vec<Mutation>>]>,
        review: &Review,
        object: &mut Option<Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let mut chain = Chain {
            review,
            authorizer: &*self.authorizer,
            answers: Answers::new(review.user.clone()),
            old,
            namespace: None,
            refusals: Vec::new(),
            invalid: false,
        };
        let mut invocations = Vec::new();
        let seen = Seen {
            review,
            object: object.as_ref(),
            old,
        };
        for hook in hooks.iter() {
            chain.select(hook, seen, &mut invocations).await;
        }
        if !invocations.is_empty() {
            chain.namespace = seen.namespace()?;
            chain.run(&invocations, object).await?;
        }
        chain.refused()
    }
}

impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Admit
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Delete
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        match self.source.hooks_for(review) {
            None => Box::pin(std::future::ready(Ok(()))),
            Some(hooks) => Box::pin(self.mutate(hooks, review, object, old)),
        }
    }
}

// === impl Mutation ===

impl Mutation {
    fn compile(spec: &Value, compiler: &Compiler) -> Vec<Mutation> {
        let declared = Declared {
            patches: true,
            ..Compiler::AUTHORIZED
        };
        let compile = |mutation: &Value| {
            let (field, gives) = match mutation["patchType"].as_str() {
                Some("JSONPatch") => ("jsonPatch", Gives::Patches),
                _ => ("applyConfiguration", Gives::Configuration),
            };
            let expression = compiler.compile(&mutation[field]["expression"], declared, gives);
            Mutation { gives, expression }
        };
        items(spec, "mutations").iter().map(compile).collect()
    }
}

// === impl Invocation ===

impl Invocation {
    /// What tells the runs of a request apart.
    fn key(&self) -> String {
        let params = self.params.as_ref().map_or(String::new(), |params| {
            format!("{}/{}", meta::namespace(params), meta::name(params))
        });
        format!("{} {} {params}", self.policy.name, self.binding.name)
    }
}

// === impl Chain ===

impl Chain<'_> {
    /// The runs of a policy that is about the request.
    async fn select(&mut self, hook: &Hook<Vec<Mutation>>, seen: Seen<'_>, invocations: &mut Vec<Invocation>) {
        let policy = &hook.policy;
        let kind = seen.matches(&policy.spec["matchConstraints"]).and_then(|matched| {
            let kind = ParamKind::of(&policy.spec, &self.review.registry);
            matched.map_or(Ok(None), |matched| Ok(Some((matched, kind?))))
        });
        let (matched, kind) = match kind {
            Ok(None) => return,
            Ok(Some(found)) => found,
            Err(why) => return self.refuse(policy, None, &format!("failed to configure policy: {why}")),
        };
        for binding in &hook.bindings {
            let resources = &binding.spec["matchResources"];
            let about = match resources.is_object() {
                true => seen.matches(resources).map(|matched| matched.is_some()),
                false => Ok(true),
            };
            let params = match about {
                Ok(true) => ParamKind::collect(kind.as_ref(), &binding.spec["paramRef"], self.review).await,
                Ok(false) => Ok(Vec::new()),
                Err(why) => Err(why),
            };
            match params {
                Err(why) => self.refuse(policy, Some(binding), &format!("failed to configure binding: {why}")),
                Ok(params) => invocations.extend(params.into_iter().map(|params| Invocation {
                    policy: policy.clone(),
                    binding: binding.clone(),
                    matched: matched.clone(),
                    params,
                })),
            }
        }
    }

    fn refuse<T>(&mut self, policy: &Policy<T>, binding: Option<&Binding>, why: &str) {
        if !policy.fails() {
            return;
        }
        self.refusals.push(match binding {
            Some(binding) => format!(
                "policy '{}' with binding '{}' denied request: {why}",
                policy.name, binding.name
            ),
            None => format!("policy {} denied request: {why}", api::field::quote(&policy.name)),
        });
    }

    async fn run(&mut self, invocations: &[Invocation], object: &mut Option<Value>) -> Result<(), Status> {
        if let (Some(object), Some(kind)) = (object.as_mut(), kind_of(self.review)) {
            // Plug-ins before this one may have left nulls, which expressions would take for values.
            normalized(object, &kind)?;
        }
        let again = self
            .review
            .reinvocation
            .lock()
            .begin(Mutator::Policies, object.as_ref());
        let mut applied = false;
        for invocation in invocations {
            let Some(before) = object.as_ref() else { break };
            let seen = invocation.matched.convert(self.review, before).await?;
            match self.condition(invocation, &seen).await? {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    self.failed(invocation, &why);
                    continue;
                }
            }
            let key = invocation.key();
            if again && !self.review.reinvocation.lock().is_due(Mutator::Policies, &key) {
                continue;
            }
            let after = self.changed(invocation, &seen, &mut applied).await?;
            let changed = after != seen;
            if changed {
                *object = Some(invocation.matched.convert_back(self.review, after).await?);
            }
            let reinvocable = invocation.policy.spec["reinvocationPolicy"] == "IfNeeded";
            let mut state = self.review.reinvocation.lock();
            state.ran(Mutator::Policies, changed, reinvocable.then_some(key));
        }
        let mut state = self.review.reinvocation.lock();
        state.end(Mutator::Policies, object.as_ref(), applied);
        Ok(())
    }

    fn failed(&mut self, invocation: &Invocation, why: &str) {
        if self.refusals.is_empty() && invocation.policy.fails() {
            self.invalid = true;
        }
        self.refuse(&invocation.policy, Some(&invocation.binding), why);
    }

    async fn input(&self, invocation: &Invocation, object: &Value) -> Result<Input, Status> {
        let matched = &invocation.matched;
        let old = matched.convert_any(self.review, self.old).await?;
        let namespace = self.namespace.clone();
        Ok(Input::new(
            self.review,
            matched,
            object.clone(),
            old,
            namespace,
            &self.answers,
        ))
    }

    async fn condition(&self, invocation: &Invocation, object: &Value) -> Result<Result<bool, String>, Status> {
        if invocation.policy.conditions.is_empty() {
            return Ok(Ok(true));
        }
        let input = self.input(invocation, object).await?;
        let evaluate = || conditions(&invocation.policy.conditioned(), &input, invocation.params.as_ref());
        let found = self.answers.complete(self.authorizer, evaluate).await;
        found.count(&invocation.policy.conditioned(), self.review);
        Ok(found.verdict)
    }

    /// The object after all steps of a policy, each of which sees what those before it made. One that fails changes
    /// nothing.
    async fn changed(&mut self, invocation: &Invocation, object: &Value, applied: &mut bool) -> Result<Value, Status> {
        let schema = invocation.matched.schema(self.review)?;
        let mut object = object.clone();
        for mutation in &invocation.policy.own {
            let input = self.input(invocation, &object).await?;
            let step = || mutation.step(invocation, &input, &schema);
            let began = Instant::now();
            let outcome = self.answers.complete(self.authorizer, step).await;
            let error = match &outcome {
                Ok(_) => "no_error",
                Err(Failure::OfServer(status)) => error_type(&status.message),
                Err(Failure::OfPolicy(why)) => error_type(why),
            };
            let names = (&invocation.policy.name, &invocation.binding.name);
            self.review
                .metrics
                .policies
                .mutated(names.0, names.1, error, began.elapsed());
            match outcome {
                Ok(after) => {
                    *applied = true;
                    object = self.settled(invocation, after).await?;
                }
                Err(Failure::OfServer(status)) => return Err(status),
                Err(Failure::OfPolicy(why)) => self.failed(invocation, &why),
            }
        }
        Ok(object)
    }

    /// With the defaults of what is new in it.
    async fn settled(&self, invocation: &Invocation, object: Value) -> Result<Value, Status> {
        let hub = invocation.matched.settled(self.review, object).await?;
        invocation.matched.convert(self.review, &hub).await
    }

    /// The refusal that upstream makes of all that went wrong.
    fn refused(self) -> Result<(), Status> {
        let Some(first) = self.refusals.first() else {
            return Ok(());
        };
        let mut status = self.review.forbidden("admission request denied by policy");
        status.message.clone_from(first);
        if self.invalid {
            status.reason = "Invalid".into();
        }
        let details = status.details.get_or_insert_default();
        details.causes.extend(self.refusals.iter().map(|message| StatusCause {
            message: message.clone(),
            ..StatusCause::default()
        }));
        Err(status)
    }
}

impl Mutation {
    fn step(&self, invocation: &Invocation, input: &Input, schema: &SchemaRef) -> Result<Value, Failure> {
        if let Err(refusal) = &self.expression.program {
            return Err(Failure::OfPolicy(refusal.to_string()));
        }
        let visible = Visible {
            authorizer: true,
            matched: true,
        };
        let run = Run::new(input, invocation.params.as_ref(), &invocation.policy.variables, visible);
        let given = run.evaluate(&self.expression, &mut Budget::new(COST_MAX));
        let value = given.and_then(|given| given).map_err(Failure::OfPolicy)?;
        match self.gives {
            Gives::Patches => patches::patch(&input.object, &value, schema),
            _ => patches::apply(&input.object, &value, schema),
        }
    }
}
