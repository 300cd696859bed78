//! The Webhook authorizer: a service of others is asked in a `SubjectAccessReview`, and its answers are remembered for a
//! while.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/authorizer/webhook/webhook.go`.

pub(super) mod conditions;
mod review;

use std::time::Duration;

use api::Value;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::config::{ReviewVersion, WebhookConfiguration};
use crate::hook::{Hook, HookError, Remembered};
use crate::metrics::shared;
use crate::pipeline::{Authorizer, Decision, RuleSet};
use crate::request::{Attributes, UserInfo};
use conditions::Conditions;

/// An answer to a longer question is not remembered: whoever asks chooses its length. Upstream's.
const ASKED_BYTES_MAX: usize = 10_000;

/// The authorizer.
pub struct Webhook {
    hook: Hook,
    version: ReviewVersion,
    denies_on_error: bool,
    authorized_ttl: Duration,
    unauthorized_ttl: Duration,
    name: String,
    conditions: Conditions,
    answers: Mutex<Remembered<String, Answer>>,
}

/// What a service said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    allowed: bool,
    denied: bool,
    reason: String,
}

// === impl Webhook ===

impl Webhook {
    /// An authorizer that asks through that hook.
    ///
    /// # Errors
    /// A condition cannot be compiled.
    pub fn new(hook: Hook, config: &WebhookConfiguration) -> Result<Webhook, String> {
        Ok(Webhook {
            hook,
            version: config.version,
            denies_on_error: config.denies_on_error,
            authorized_ttl: config.authorized_ttl,
            unauthorized_ttl: config.unauthorized_ttl,
            name: config.name.clone(),
            conditions: Conditions::new(&config.match_conditions)?,
            answers: Mutex::default(),
        })
    }

    async fn ask(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        let spec = review::spec(user, attributes);
        let began = Instant::now();
        let verdict = self.conditions.hold(&spec);
        if !self.conditions.are_none() {
            shared().authorizers.conditions(&self.name, &verdict, began.elapsed());
        }
        match verdict {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()),
            Err(error) => return self.failed(error),
        }
        let question = spec.to_string();
        if let Some(answer) = self.answers.lock().get(&question) {
            return answer.decision();
        }
        let told =
            |outcome: Result<(), &HookError>, took| shared().authorizers.called(&self.name, result(outcome), took);
        let outcome = self.hook.ask_told(&review::review(spec, self.version), told).await;
        if let Err(error) = &outcome
            && !self.denies_on_error
        {
            shared().authorizers.failed_open(&self.name, result(Err(error)));
        }
        let answer = match outcome
            .map_err(|error| error.to_string())
            .and_then(|said| Answer::read(&said))
        {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(webhook = %self.name, %error, "failed to make webhook authorizer request");
                return self.failed(error);
            }
        };
        let ttl = match answer.allowed {
            true => self.authorized_ttl,
            false => self.unauthorized_ttl,
        };
        if asked_bytes(attributes) < ASKED_BYTES_MAX && !ttl.is_zero() {
            self.answers.lock().put(question, answer.clone(), ttl);
        }
        answer.decision()
    }

    fn failed(&self, error: String) -> Decision {
        Decision::Failed {
            denies: self.denies_on_error,
            reason: String::new(),
            error,
        }
    }
}

/// How a call ended, in upstream's words for metrics.
fn result(outcome: Result<(), &HookError>) -> &'static str {
    match outcome {
        Ok(()) => "success",
        Err(error) if error.is_late() => "timeout",
        Err(_) => "error",
    }
}

fn asked_bytes(attributes: &Attributes) -> usize {
    let parts = [
        &attributes.namespace,
        &attributes.verb,
        &attributes.group,
        &attributes.version,
        &attributes.resource,
        &attributes.subresource,
        &attributes.name,
        &attributes.path,
    ];
    let fields = attributes
        .field_selector
        .iter()
        .map(|term| term.field.len() + term.value.len());
    let labels = attributes.label_selector.to_string().len();
    parts.iter().map(|part| part.len()).chain(fields).sum::<usize>() + labels
}

impl Authorizer for Webhook {
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(self.ask(user, attributes))
    }

    fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
        RuleSet {
            incomplete: true,
            evaluation_error: "webhook authorizer does not support user rule resolution".into(),
            ..RuleSet::default()
        }
    }
}

// === impl Answer ===

impl Answer {
    /// What a review says.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn read(review: &Value) -> Result<Answer, String> {
        let kind = review["kind"].as_str().unwrap_or("SubjectAccessReview");
        if kind != "SubjectAccessReview" || !review.is_object() {
            return Err(format!(
                "the answer is of kind {}, not SubjectAccessReview",
                api::field::quote(kind)
            ));
        }
        let status = &review["status"];
        Ok(Answer {
            allowed: status["allowed"] == true,
            denied: status["denied"] == true,
            reason: status["reason"].as_str().unwrap_or("").to_owned(),
        })
    }

    /// What that means.
    pub(crate) fn decision(&self) -> Decision {
        let reason = self.reason.clone();
        match (self.denied, self.allowed) {
            (true, true) => Decision::Failed {
                denies: true,
                reason,
                error: "webhook subject access review returned both allow and deny response".into(),
            },
            (true, false) => Decision::Deny(reason),
            (false, true) => Decision::Allow(reason),
            (false, false) => Decision::NoOpinion(reason),
        }
    }
}

#[cfg(test)]
mod tests;
