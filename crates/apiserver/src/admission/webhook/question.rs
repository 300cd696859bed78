//! The AdmissionReview that a webhook is sent.
//!
//! Source: `webhook/request/admissionreview.go`.

use api::{Status, Value};
use bytes::Bytes;
use serde::Serialize;

use super::source::Webhook;
use crate::admission::dynamic::input::admission_request;
use crate::admission::dynamic::items;
use crate::admission::dynamic::matching::Matched;
use crate::pipeline::Review;

/// A version of AdmissionReview that both sides speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `admission.k8s.io/v1`.
    V1,
    /// `admission.k8s.io/v1beta1`.
    V1Beta1,
}

impl Version {
    /// The first that a webhook names of those that are known here.
    pub fn of(webhook: &Webhook) -> Option<Version> {
        let named = items(&webhook.spec, "admissionReviewVersions").iter();
        named.filter_map(Value::as_str).find_map(|version| match version {
            "v1" => Some(Version::V1),
            "v1beta1" => Some(Version::V1Beta1),
            _ => None,
        })
    }

    /// In `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Version::V1 => "admission.k8s.io/v1",
            Version::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// The objects of a request in one version; null where there is none.
pub struct Objects {
    /// The new one.
    pub object: Value,
    /// The old one.
    pub old: Value,
}

impl Objects {
    /// Of a request, as a webhook wants to see them.
    ///
    /// # Errors
    /// They cannot be converted.
    pub async fn of(
        review: &Review,
        matched: &Matched,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Objects, Status> {
        Ok(Objects {
            object: matched.convert_any(review, object).await?,
            old: matched.convert_any(review, old).await?,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionReview<'a> {
    kind: &'static str,
    api_version: &'static str,
    request: AdmissionRequest<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionRequest<'a> {
    uid: &'a str,
    #[serde(flatten)]
    facts: &'a Value,
    object: &'a Value,
    old_object: &'a Value,
}

/// The question, as bytes.
pub fn question(review: &Review, matched: &Matched, objects: &Objects, version: Version, uid: &str) -> Bytes {
    let mut facts = admission_request(review, matched);
    // Connections have none; the field is there.
    facts["options"] = review.options.clone();
    let question = AdmissionReview {
        kind: "AdmissionReview",
        api_version: version.api_version(),
        request: AdmissionRequest {
            uid,
            facts: &facts,
            object: &objects.object,
            old_object: &objects.old,
        },
    };
    let bytes = serde_json::to_vec(&question).expect("invariant: trees and texts can be written as JSON");
    Bytes::from(bytes)
}
