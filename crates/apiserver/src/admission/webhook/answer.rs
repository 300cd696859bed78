//! The AdmissionReview that a webhook answers, checked before anything of it counts.
//!
//! Source: `VerifyAdmissionResponse` of `webhook/request/admissionreview.go` and `ToStatusErr` of `webhook/errors`.

use std::collections::BTreeMap;

use api::field::quote;
use api::{Status, StatusDetails, Value};
use base64::Engine as _;
use serde::Deserialize;

use super::question::Version;

/// What a webhook says.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether the request may go on.
    pub allowed: bool,
    /// What is to be changed: the bytes of a JSON patch, or empty.
    pub patch: Vec<u8>,
    /// Of which type the patch is.
    pub patch_type: String,
    /// Why the request is refused.
    pub result: Option<Refused>,
    /// For the audit log.
    pub annotations: BTreeMap<String, String>,
    /// For the client.
    pub warnings: Vec<String>,
}

/// The Status of an answer.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Refused {
    #[serde(deserialize_with = "or_default")]
    message: String,
    #[serde(deserialize_with = "or_default")]
    reason: String,
    details: Option<StatusDetails>,
    #[serde(deserialize_with = "or_default")]
    code: i32,
}

/// Why an answer is none.
#[derive(Debug, PartialEq)]
pub enum Rubbish {
    /// It cannot be read.
    Unreadable(String),
    /// It can, and says what cannot be.
    Invalid(String),
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AdmissionReview {
    #[serde(deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    api_version: String,
    response: Option<Response>,
    /// Of a Status in place of a review.
    #[serde(deserialize_with = "or_default")]
    message: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Response {
    #[serde(deserialize_with = "or_default")]
    uid: String,
    #[serde(deserialize_with = "or_default")]
    allowed: bool,
    status: Option<Refused>,
    #[serde(deserialize_with = "or_default")]
    patch: String,
    patch_type: Option<String>,
    #[serde(deserialize_with = "or_default")]
    audit_annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    warnings: Vec<String>,
}

/// Null is what is not there.
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Answer {
    /// Reads an answer to the question with that uid.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &[u8], version: Version, uid: &str, mutating: bool) -> Result<Answer, Rubbish> {
        let review: AdmissionReview = serde_json::from_slice(bytes).map_err(|error| {
            let why = match error.is_data() {
                true => format!("json: {error}"),
                false => format!("couldn't get version/kind; json parse error: {error}"),
            };
            Rubbish::Unreadable(why)
        })?;
        let found = (&*review.api_version, &*review.kind);
        // What is not said is taken for what was asked for.
        let is_other = (!found.0.is_empty() && found.0 != version.api_version())
            || (!found.1.is_empty() && found.1 != "AdmissionReview");
        if is_other {
            return Err(Rubbish::Unreadable(other(&review, version)));
        }
        let response = review.response.as_ref();
        let response = response.ok_or_else(|| Rubbish::Invalid("webhook response was absent".into()))?;
        let patch = base64::engine::general_purpose::STANDARD.decode(&response.patch);
        let mut patch = patch.map_err(|_| Rubbish::Unreadable("illegal base64 data in response.patch".into()))?;
        let mut patch_type = response.patch_type.clone().unwrap_or_default();
        match version {
            Version::V1 => check(&review, response, &patch, uid, mutating).map_err(Rubbish::Invalid)?,
            // What the older version does not verify it does not say either.
            Version::V1Beta1 => {
                if !mutating {
                    patch.clear();
                }
                let is_patched = !patch.is_empty();
                patch_type = if is_patched { "JSONPatch".into() } else { String::new() };
            }
        }
        let response = review.response.unwrap_or_default();
        Ok(Answer {
            allowed: response.allowed,
            patch,
            patch_type,
            result: response.status,
            annotations: response.audit_annotations,
            warnings: response.warnings,
        })
    }

    /// The refusal that the client is told.
    pub fn refusal(self, webhook: &str) -> Status {
        let result = self.result.unwrap_or_default();
        let denied = format!("admission webhook {} denied the request", quote(webhook));
        let message = match (&*result.message, &*result.reason) {
            ("", "") => format!("{denied} without explanation"),
            ("", why) | (why, _) => format!("{denied}: {why}"),
        };
        let mut status = Status::failure(api::Reason::Unknown, message);
        status.reason = result.reason;
        status.details = result.details;
        // No refusal is a success, nor anything that is no code of HTTP.
        status.code = u16::try_from(result.code).unwrap_or(0);
        if !(400..1000).contains(&status.code) {
            status.code = 400;
        }
        status
    }
}

/// What only version 1 verifies.
fn check(review: &AdmissionReview, response: &Response, patch: &[u8], uid: &str, mutating: bool) -> Result<(), String> {
    if response.uid != uid {
        let found = quote(&response.uid);
        return Err(format!("expected response.uid={}, got {found}", quote(uid)));
    }
    let expected = Version::V1.api_version();
    if review.api_version != expected || review.kind != "AdmissionReview" {
        let (group, version) = review.api_version.split_once('/').unwrap_or(("", &review.api_version));
        let kind = &review.kind;
        return Err(format!(
            "expected webhook response of {expected}, Kind=AdmissionReview, got {group}/{version}, Kind={kind}"
        ));
    }
    match (mutating, patch.is_empty(), &response.patch_type) {
        (true, false, None) => Err("webhook returned response.patch but not response.patchType".into()),
        (true, true, Some(_)) => Err("webhook returned response.patchType but not response.patch".into()),
        (true, false, Some(kind)) if kind.is_empty() => {
            Err("webhook returned invalid response.patchType of \"\"".into())
        }
        (false, false, _) => Err("validating webhook may not return response.patch".into()),
        (false, true, Some(_)) => Err("validating webhook may not return response.patchType".into()),
        _ => Ok(()),
    }
}

/// Why an object of another kind is no answer.
fn other(review: &AdmissionReview, version: Version) -> String {
    let short = |api_version: &str| api_version.rsplit('/').next().unwrap_or("").to_owned();
    let (kind, found, wanted) = (&review.kind, &review.api_version, version.api_version());
    match (&**kind, &**found) {
        ("AdmissionReview", "admission.k8s.io/v1" | "admission.k8s.io/v1beta1") => format!(
            "converting ({}.AdmissionReview) to ({}.AdmissionReview): unknown conversion",
            short(found),
            short(wanted)
        ),
        ("Status", "v1") => review.message.as_str().unwrap_or("").to_owned(),
        _ => format!(
            "no kind {} is registered for version {} in scheme \"admission\"",
            quote(kind),
            quote(found)
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(version: Version, mutating: bool, response: &Value) -> Result<Answer, Rubbish> {
        let review = json!({"apiVersion": version.api_version(), "kind": "AdmissionReview", "response": response});
        Answer::read(review.to_string().as_bytes(), version, "u", mutating)
    }

    #[test]
    fn answers_of_version_one_are_verified() {
        for (mutating, response, expect) in [
            (true, json!(null), Some("webhook response was absent")),
            (
                true,
                json!({"uid": "x"}),
                Some("expected response.uid=\"u\", got \"x\""),
            ),
            (true, json!({"uid": "u", "allowed": true}), None),
            (
                true,
                json!({"uid": "u", "patch": "W10="}),
                Some("webhook returned response.patch but not response.patchType"),
            ),
            (
                true,
                json!({"uid": "u", "patchType": "JSONPatch"}),
                Some("webhook returned response.patchType but not response.patch"),
            ),
            (
                true,
                json!({"uid": "u", "patch": "W10=", "patchType": ""}),
                Some("webhook returned invalid response.patchType of \"\""),
            ),
            (
                true,
                json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"}),
                None,
            ),
            (
                false,
                json!({"uid": "u", "patch": "W10="}),
                Some("validating webhook may not return response.patch"),
            ),
            (
                false,
                json!({"uid": "u", "patchType": "JSONPatch"}),
                Some("validating webhook may not return response.patchType"),
            ),
            (
                false,
                json!({"uid": "u", "patch": null, "patchType": null, "warnings": null}),
                None,
            ),
        ] {
            let got = read(Version::V1, mutating, &response).map(drop);
            let expect = expect.map(|why| Rubbish::Invalid(why.into()));
            assert_eq!(got.err(), expect, "{mutating} {response}");
        }
    }

    #[test]
    fn the_older_version_is_not() {
        let response = json!({"uid": "x", "allowed": true, "patch": "W10="});
        let mutating = read(Version::V1Beta1, true, &response).unwrap();
        assert_eq!((&*mutating.patch, &*mutating.patch_type), (&b"[]"[..], "JSONPatch"));
        assert!(read(Version::V1Beta1, false, &response).unwrap().patch.is_empty());
        let bare = br#"{"response": {"allowed": true}}"#;
        assert!(Answer::read(bare, Version::V1Beta1, "u", false).unwrap().allowed);
    }

    #[test]
    fn rubbish_is_told() {
        for (text, expect) in [
            (
                "<html>",
                "couldn't get version/kind; json parse error: expected value at line 1 column 1",
            ),
            (
                r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}"#,
                "converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion",
            ),
            (r#"{"apiVersion": "v1", "kind": "Status", "message": "no"}"#, "no"),
            (
                r#"{"apiVersion": "v1", "kind": "Pod"}"#,
                "no kind \"Pod\" is registered for version \"v1\" in scheme \"admission\"",
            ),
            (
                r#"{"response": {"patch": "!"}}"#,
                "illegal base64 data in response.patch",
            ),
        ] {
            let got = Answer::read(text.as_bytes(), Version::V1, "u", true);
            assert_eq!(got, Err(Rubbish::Unreadable(expect.into())), "{text}");
        }
        let mistyped = Answer::read(br#"{"response": {"allowed": "yes"}}"#, Version::V1, "u", true);
        assert!(matches!(mistyped, Err(Rubbish::Unreadable(why)) if why.starts_with("json: invalid type")));
        let bare = Answer::read(br#"{"response": {"uid": "u"}}"#, Version::V1, "u", true);
        let why = "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=";
        assert_eq!(bare, Err(Rubbish::Invalid(why.into())));
    }

    #[test]
    fn refusals_are_failures() {
        for (status, code, reason, message) in [
            (json!(null), 400, "", "denied the request without explanation"),
            (json!({"message": "no"}), 400, "", "denied the request: no"),
            (
                json!({"reason": "Forbidden", "code": 403}),
                403,
                "Forbidden",
                "denied the request: Forbidden",
            ),
            (
                json!({"reason": "r", "message": "m", "code": 200, "status": "Success"}),
                400,
                "r",
                "denied the request: m",
            ),
            (
                json!({"code": 70000}),
                400,
                "",
                "denied the request without explanation",
            ),
        ] {
            let answer = read(Version::V1, false, &json!({"uid": "u", "status": status})).unwrap();
            let got = answer.refusal("x");
            assert_eq!(
                (got.code, &*got.reason, &*got.status),
                (code, reason, "Failure"),
                "{status}"
            );
            assert_eq!(got.message, format!("admission webhook \"x\" {message}"));
        }
    }
}
