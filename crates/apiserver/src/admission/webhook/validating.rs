//! ValidatingAdmissionWebhook: asks all webhooks at once whether a request may go on.
//!
//! Source: `webhook/validating/dispatcher.go`.

use std::sync::Arc;

use api::{Status, Value};
use base::Random;
use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::call::{Asker, Slot, matched};
use super::client::Clients;
use super::config::WebhookConfig;
use super::question::Objects;
use super::source::{Source, Webhooks};
use crate::admission::dynamic::answers::Answers;
use crate::admission::dynamic::matching::{Matched, Seen};
use crate::pipeline::{Authorizer, Plugin, Review, Step};

/// The annotation of a webhook that failed and was ignored, with its place among those that were called.
const FAILED_OPEN: &str = "failed-open.validating.webhook.admission.k8s.io/round_0_index_";

/// The plug-in.
pub struct ValidatingWebhooks {
    source: Source,
    clients: Clients,
    authorizer: Arc<dyn Authorizer>,
}

// === impl ValidatingWebhooks ===

impl ValidatingWebhooks {
    /// A plug-in whose match conditions may ask this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>, config: WebhookConfig, random: Random) -> ValidatingWebhooks {
        ValidatingWebhooks {
            source: Source::new("validatingwebhookconfigurations"),
            clients: Clients::new(config, random),
            authorizer,
        }
    }

    async fn judge(&self, webhooks: Webhooks, seen: Seen<'_>) -> Result<(), Status> {
        let review = seen.review;
        let answers = Answers::new(review.user.clone());
        let mut relevant = Vec::new();
        // Most want the objects in the same version.
        let mut versions: Vec<(Matched, Objects)> = Vec::new();
        for webhook in webhooks.iter() {
            let found = matched(webhook, Slot::Validating, seen, &*self.authorizer, &answers).await?;
            let Some(matched) = found else { continue };
            let known = versions.iter().position(|(other, _)| *other == matched);
            let at = match known {
                Some(at) => at,
                None => {
                    let objects = Objects::of(review, &matched, seen.object, seen.old).await?;
                    versions.push((matched, objects));
                    versions.len() - 1
                }
            };
            relevant.push((webhook, at));
        }
        let asker = Asker {
            review,
            clients: &self.clients,
            slot: Slot::Validating,
        };
        let (asker, versions) = (&asker, &versions);
        let calls = relevant.iter().enumerate().map(|(index, (webhook, at))| async move {
            let began = Instant::now();
            let (matched, objects) = &versions[*at];
            let outcome = asker.ask(webhook, matched, objects).await;
            let failed_open = || review.annotate(format!("{FAILED_OPEN}{index}"), &webhook.name);
            asker.settle(webhook, began, outcome, failed_open)
        });
        // All are heard. Where upstream tells the refusal that came first, here it is that of the first webhook.
        let verdicts = join_all(calls).await;
        verdicts.into_iter().find_map(Result::err).map_or(Ok(()), Err)
    }
}

impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
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
        match self.source.webhooks_for(review) {
            None => Box::pin(std::future::ready(Ok(()))),
            Some(webhooks) => Box::pin(self.judge(webhooks, Seen { review, object, old })),
        }
    }
}
