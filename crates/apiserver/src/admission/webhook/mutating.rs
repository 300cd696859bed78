//! MutatingAdmissionWebhook: asks one webhook after another what is to be changed in an object on its way in.
//!
//! Each sees what those before it made. A change has the whole chain of plug-ins run once more, in which webhooks that ask for
//! it (`reinvocationPolicy: IfNeeded`) are called again when something changed after them.
//!
//! Source: `webhook/mutating/dispatcher.go` and `reinvocationcontext.go`.

use std::sync::Arc;

use api::field::quote;
use api::normalize::{UnknownFields, normalize};
use api::{Status, Value, patch};
use base::Random;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::time::Instant;

use super::answer::Answer;
use super::call::{Asker, Ended, Slot, matched};
use super::client::Clients;
use super::config::WebhookConfig;
use super::question::Objects;
use super::source::{Source, Webhook, Webhooks};
use crate::admission::dynamic::answers::Answers;
use crate::admission::dynamic::matching::{Matched, Seen, kind_of, normalized};
use crate::audit::Level;
use crate::pipeline::{Authorizer, Mutator, Plugin, Review, Step};

/// Prefixes of annotations: whether a webhook changed the object, with which patch, and that it failed and was ignored.
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
const PATCH: &str = "patch.webhook.admission.k8s.io/";
const FAILED_OPEN: &str = "failed-open.mutation.webhook.admission.k8s.io/";
/// The one type of patches that there is.
const JSON_PATCH: &str = "JSONPatch";

/// The plug-in.
pub struct MutatingWebhooks {
    source: Source,
    clients: Clients,
    authorizer: Arc<dyn Authorizer>,
}

/// One call: which webhook it is of all, and in which run through the plug-ins.
struct Turn<'a> {
    webhook: &'a Webhook,
    matched: &'a Matched,
    place: String,
}

/// What a webhook made of an object.
struct Made {
    /// The object as it is stored; `None` where there was no patch.
    object: Option<Value>,
    /// Whether it is another one than before.
    changed: bool,
}

/// What the audit log is told (upstream's `MutationAuditAnnotation` and `PatchAuditAnnotation`, in their order).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    configuration: &'a str,
    webhook: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
}

// === impl MutatingWebhooks ===

impl MutatingWebhooks {
    /// A plug-in whose match conditions may ask this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>, config: WebhookConfig, random: Random) -> MutatingWebhooks {
        MutatingWebhooks {
            source: Source::new("mutatingwebhookconfigurations"),
            clients: Clients::new(config, random),
            authorizer,
        }
    }

    async fn mutate(
        &self,
        webhooks: Webhooks,
        review: &Review,
        object: &mut Option<Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let again = review.reinvocation.lock().begin(Mutator::Webhooks, object.as_ref());
        let outcome = self.call_all(&webhooks, review, object, old, again).await;
        review
            .reinvocation
            .lock()
            .end(Mutator::Webhooks, object.as_ref(), false);
        outcome
    }

    async fn call_all(
        &self,
        webhooks: &Webhooks,
        review: &Review,
        object: &mut Option<Value>,
        old: Option<&Value>,
        again: bool,
    ) -> Result<(), Status> {
        let answers = Answers::new(review.user.clone());
        let asker = Asker {
            review,
            clients: &self.clients,
            slot: Slot::Mutating,
        };
        let round = u8::from(again);
        for (index, webhook) in webhooks.iter().enumerate() {
            let seen = Seen {
                review,
                object: object.as_ref(),
                old,
            };
            let found = matched(webhook, Slot::Mutating, seen, &*self.authorizer, &answers).await?;
            let Some(matched) = found else { continue };
            // Whoever was not called the first time is not called the second.
            if again && !review.reinvocation.lock().is_due(Mutator::Webhooks, &webhook.key) {
                continue;
            }
            if let (Some(object), Some(kind)) = (object.as_mut(), kind_of(review)) {
                // Plug-ins before this one may have left nulls, which nobody else ever sees.
                normalized(object, &kind)?;
            }
            let began = Instant::now();
            let objects = Objects::of(review, &matched, object.as_ref(), old).await?;
            let turn = Turn {
                webhook,
                matched: &matched,
                place: format!("round_{round}_index_{index}"),
            };
            let outcome = turn.run(&asker, &objects).await;
            let changed = outcome.as_ref().is_ok_and(|made| made.changed);
            review.annotate(format!("{MUTATION}{}", turn.place), turn.told(Some(changed), None));
            let failed_open = || review.annotate(format!("{FAILED_OPEN}{}", turn.place), &webhook.name);
            let made = asker.settle(webhook, began, outcome, failed_open);
            let key = webhook.is_reinvocable().then(|| webhook.key.clone());
            review.reinvocation.lock().ran(Mutator::Webhooks, changed, key);
            if let Some(made) = made?.and_then(|made| made.object) {
                *object = Some(made);
            }
        }
        Ok(())
    }
}

impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Admit
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        match self.source.webhooks_for(review) {
            None => Box::pin(std::future::ready(Ok(()))),
            Some(webhooks) => Box::pin(self.mutate(webhooks, review, object, old)),
        }
    }
}

// === impl Turn ===

impl Turn<'_> {
    async fn run(&self, asker: &Asker<'_>, objects: &Objects) -> Result<Made, Ended> {
        let answer = asker.ask(self.webhook, self.matched, objects).await?;
        self.patched(asker.review, &answer, objects).await
    }

    /// Applies the patch of an answer, and gives what is new its defaults.
    async fn patched(&self, review: &Review, answer: &Answer, objects: &Objects) -> Result<Made, Ended> {
        const NOTHING: Made = Made {
            object: None,
            changed: false,
        };
        if answer.patch.is_empty() {
            return Ok(NOTHING);
        }
        let failed = |why: String, code| Ended::Failed { why, code };
        let patch: Value = serde_json::from_slice(&answer.patch).map_err(|error| {
            let why = format!("received undecodable patch in webhook response: {error}");
            failed(why, 503)
        })?;
        let operations = match &patch {
            Value::Null => 0,
            Value::Array(operations) => operations.len(),
            _ => {
                let why = "received undecodable patch in webhook response: it is no list of operations";
                return Err(failed(why.into(), 503));
            }
        };
        if operations == 0 {
            return Ok(NOTHING);
        }
        let broken = |why: String| Ended::Broken(Status::internal(why));
        let before = &objects.object;
        if before.is_null() {
            let name = quote(&self.webhook.name);
            return Err(broken(format!(
                "admission webhook {name} attempted to modify the object, which is not supported for this operation"
            )));
        }
        if answer.patch_type != JSON_PATCH {
            let kind = quote(&answer.patch_type);
            return Err(failed(format!("unsupported patch type {kind}"), 400));
        }
        let mut after = patch::json_patch(before, &patch).map_err(|error| broken(error.to_string()))?;
        let schema = self.matched.schema(review).map_err(Ended::Broken)?;
        normalize(&mut after, &schema, UnknownFields::Ignore).map_err(|error| broken(error.to_string()))?;
        if api::meta::gvk(&after) != api::meta::gvk(before) {
            let name = quote(&self.webhook.name);
            return Err(broken(format!(
                "admission webhook {name} changed the kind of the object"
            )));
        }
        let changed = after != *before;
        let told = self.told(None, Some(&patch));
        review.annotate_at(Level::Request, format!("{PATCH}{}", self.place), told);
        let object = self.matched.settled(review, after).await.map_err(Ended::Broken)?;
        Ok(Made {
            object: Some(object),
            changed,
        })
    }

    fn told(&self, mutated: Option<bool>, patch: Option<&Value>) -> String {
        let told = Told {
            configuration: &self.webhook.configuration,
            webhook: &self.webhook.name,
            mutated,
            patch,
            patch_type: patch.map(|_| JSON_PATCH),
        };
        serde_json::to_string(&told).expect("invariant: texts and JSON can be written as JSON")
    }
}
