//! One call of one webhook: the question, the answer, and what is told of both in metrics, the audit log and warnings.
//!
//! Source: `webhook/mutating/dispatcher.go`, `webhook/validating/dispatcher.go` and `webhook/generic/webhook.go`.

use std::sync::Arc;
use std::time::Duration;

use api::field::quote;
use api::{Status, validation};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::answer::{Answer, Rubbish};
use super::client::Clients;
use super::question::{Objects, Version, question};
use super::source::Webhook;
use crate::admission::dynamic::answers::Answers;
use crate::admission::dynamic::evaluate::conditions;
use crate::admission::dynamic::input::Input;
use crate::admission::dynamic::matching::{Matched, Seen};
use crate::metrics::Called;
use crate::pipeline::{Authorizer, Review};

/// Which plug-in calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// MutatingAdmissionWebhook.
    Mutating,
    /// ValidatingAdmissionWebhook.
    Validating,
}

/// How a call did not end well.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// The webhook could not be asked; its failure policy says what that means.
    Failed {
        /// For people.
        why: String,
        /// For metrics.
        code: u16,
    },
    /// It said no.
    Denied(Status),
    /// The server cannot go on, whatever the failure policy says.
    Broken(Status),
}

/// Everything that is needed to call webhooks about one request.
pub struct Asker<'a> {
    /// The request.
    pub review: &'a Review,
    /// What reaches them.
    pub clients: &'a Clients,
    /// Who calls.
    pub slot: Slot,
}

// === impl Slot ===

impl Slot {
    /// In the metrics of match conditions.
    fn step(self) -> &'static str {
        match self {
            Slot::Mutating => "admit",
            Slot::Validating => "validate",
        }
    }

    /// In the metrics of webhooks.
    fn calling(self) -> &'static str {
        match self {
            Slot::Mutating => "admit",
            Slot::Validating => "validating",
        }
    }
}

/// Whether a webhook is called about a request, and as what it sees it.
///
/// # Errors
/// It would be, and whether it is cannot be said.
pub async fn matched(
    webhook: &Webhook,
    slot: Slot,
    seen: Seen<'_>,
    authorizer: &dyn Authorizer,
    answers: &Arc<Answers>,
) -> Result<Option<Matched>, Status> {
    let review = seen.review;
    let Some(matched) = seen.matches_webhook(&webhook.spec)? else {
        return Ok(None);
    };
    let conditioned = webhook.conditioned(slot.step());
    if conditioned.conditions.is_empty() {
        return Ok(Some(matched));
    }
    let Objects { object, old } = Objects::of(review, &matched, seen.object, seen.old).await?;
    // Match conditions do not see the namespace.
    let input = Input::new(review, &matched, object, old, None, answers);
    let found = answers
        .complete(authorizer, || conditions(&conditioned, &input, None))
        .await;
    found.count(&conditioned, review);
    match found.verdict {
        Ok(true) => Ok(Some(matched)),
        Ok(false) => {
            let metrics = &review.metrics.conditions;
            metrics.excluded(&webhook.name, slot.step(), review.operation);
            Ok(None)
        }
        Err(why) => Err(review.forbidden(&why)),
    }
}

// === impl Asker ===

impl Asker<'_> {
    /// Asks a webhook about the request.
    ///
    /// # Errors
    /// It says no, or nothing.
    pub async fn ask(&self, webhook: &Webhook, matched: &Matched, objects: &Objects) -> Result<Answer, Ended> {
        let review = self.review;
        if review.dry_run && !webhook.takes_dry_runs() {
            let name = quote(&webhook.name);
            let status = Status::bad_request(format!("admission webhook {name} does not support dry run"));
            return Err(Ended::Broken(status));
        }
        let failed = |why: String, code: u16| Ended::Failed { why, code };
        let version = Version::of(webhook).ok_or_else(|| {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview versions";
            failed(format!("{why} (v1, v1beta1)"), 400)
        })?;
        let client = webhook.client(self.clients, review);
        let client = client.map_err(|why| failed(format!("could not get REST client: {why}"), 500))?;
        let uid = self.clients.uid();
        let question = question(review, matched, objects, version, &uid);
        let asked = client.ask(question, self.timeout(webhook), review.trace.as_ref());
        let asked = asked.instrument(self.span(webhook, &uid)).await;
        let bytes =
            asked.map_err(|failure| failed(format!("failed to call webhook: {}", failure.why), failure.code))?;
        let answer = Answer::read(&bytes, version, &uid, self.slot == Slot::Mutating).map_err(|rubbish| {
            let why = match rubbish {
                Rubbish::Unreadable(why) => format!("failed to call webhook: {why}"),
                Rubbish::Invalid(why) => format!("received invalid webhook response: {why}"),
            };
            failed(why, 503)
        })?;
        for (key, value) in &answer.annotations {
            self.annotate(webhook, key, value);
        }
        for warning in &answer.warnings {
            review.warn(warning);
        }
        match answer.allowed {
            true => Ok(answer),
            false => Err(Ended::Denied(answer.refusal(&webhook.name))),
        }
    }

    /// Its own, and never longer than the request has.
    fn timeout(&self, webhook: &Webhook) -> Duration {
        let own = webhook.timeout();
        let left = self
            .review
            .deadline
            .map(|end| end.saturating_duration_since(Instant::now()));
        left.map_or(own, |left| own.min(left))
    }

    fn span(&self, webhook: &Webhook, uid: &str) -> tracing::Span {
        let name = match self.slot {
            Slot::Mutating => "Call mutating webhook",
            Slot::Validating => "Call validating webhook",
        };
        let review = self.review;
        tracing::trace_span!(
            target: "otel",
            "Call webhook",
            otel.name = name,
            configuration = webhook.configuration,
            webhook = webhook.name,
            resource = %review.requested.resource,
            subresource = review.subresource,
            operation = review.operation.as_str(),
            UID = uid,
        )
    }

    /// Tells the audit log what the webhook wants it told, under keys that begin with its name.
    fn annotate(&self, webhook: &Webhook, key: &str, value: &str) {
        let key = format!("{}/{key}", webhook.name);
        // Source: `checkKeyFormat` of `k8s.io/apiserver/pkg/admission/attributes.go`.
        if key.split('/').count() != 2 || !validation::qualified_name(&key).is_empty() {
            tracing::warn!(webhook = webhook.name, key, "an audit annotation's key is none");
            return;
        }
        self.review.annotate(key, value);
    }

    /// Counts a call, and says what its end means for the request.
    ///
    /// # Errors
    /// The request is refused.
    pub fn settle<T>(
        &self,
        webhook: &Webhook,
        began: Instant,
        outcome: Result<T, Ended>,
        failed_open: impl FnOnce(),
    ) -> Result<Option<T>, Status> {
        let metrics = &self.review.metrics.webhooks;
        let call = Called {
            name: &webhook.name,
            step: self.slot.calling(),
            operation: self.review.operation,
        };
        let took = began.elapsed();
        let ended = match outcome {
            Ok(answer) => {
                metrics.called(call, false, 200, took);
                return Ok(Some(answer));
            }
            Err(ended) => ended,
        };
        match ended {
            Ended::Failed { why, code } => {
                let rejected = webhook.fails();
                metrics.called(call, rejected, code, took);
                let why = format!("failed calling webhook {}: {why}", quote(&webhook.name));
                if rejected {
                    metrics.rejected(call, "calling_webhook_error", code);
                    tracing::warn!(webhook = webhook.name, %why, "a webhook failed, and so does the request");
                    return Err(Status::internal(why));
                }
                metrics.failed_open(call);
                tracing::warn!(webhook = webhook.name, %why, "a webhook failed, and is ignored");
                failed_open();
                Ok(None)
            }
            Ended::Denied(status) => {
                metrics.rejected(call, "no_error", status.code);
                metrics.called(call, true, status.code, took);
                Err(status)
            }
            Ended::Broken(status) => {
                metrics.rejected(call, "apiserver_internal_error", 0);
                metrics.called(call, true, 0, took);
                Err(status)
            }
        }
    }
}
