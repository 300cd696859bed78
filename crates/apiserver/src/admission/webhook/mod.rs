//! Admission webhooks: services of others that are asked about requests, as cluster administrators say.
//!
//! [`source`] follows the configurations, [`client`] reaches a service, [`question`] and [`answer`] are the AdmissionReviews
//! that go there and come back, and [`call`] is one such exchange with everything that is told of it. [`mutating`] and
//! [`validating`] are the plug-ins.
//!
//! A configuration holds from the next request on after it was written: whoever decides drains what was committed. Without
//! one, that and a look at an empty list are all that a request pays.
//!
//! A service decides over requests and nothing else: it is never asked about what could lock everybody out (see
//! [`EXEMPT`]), no redirect of it is followed, its answers have a greatest length, and each question has a deadline.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook`.

pub(crate) mod answer;
mod call;
mod client;
mod config;
mod mutating;
pub(crate) mod question;
mod source;
#[cfg(test)]
mod tests;
mod validating;

pub(crate) use client::{Client, Clients};
pub use config::WebhookConfig;
pub use mutating::MutatingWebhooks;
pub use validating::ValidatingWebhooks;

use super::dynamic::GROUP;
use crate::pipeline::Review;

/// What no webhook is asked about: whoever breaks it must be able to mend it.
/// Source: `IsExemptAdmissionConfigurationResource` of `webhook/predicates/rules/rules.go`.
const EXEMPT: [&str; 6] = [
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

fn is_exempt(review: &Review) -> bool {
    review.kind.group == GROUP && EXEMPT.contains(&&*review.kind.kind)
}
