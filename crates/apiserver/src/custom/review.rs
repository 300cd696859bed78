//! ConversionReviews: objects go to a webhook in one version and come back in another.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`.

use std::sync::Arc;
use std::time::Duration;

use api::field::{Path, quote};
use api::{GroupVersionKind, Reason, Status, Value, meta, validation};
use bytes::Bytes;
use kinds::custom::Definition;
use serde_json::json;
use tokio::time::Instant;

use super::Webhook;
use crate::admission::webhook::Client;
use crate::cluster::Cluster;
use crate::metrics::Converted;
use crate::server::Server;

/// The versions of ConversionReview that we speak.
pub const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

const GROUP: &str = "apiextensions.k8s.io";
/// How long a webhook may take (upstream: the default of `webhook.ClientManager`).
const TIMEOUT: Duration = Duration::from_secs(30);

/// What was wrong with a call, as metrics name it.
const CALL: &str = "conversion_webhook_call_failure";
const MALFORMED: &str = "conversion_webhook_malformed_response_failure";
const PARTIAL: &str = "conversion_webhook_partial_response_failure";
const INVALID: &str = "conversion_webhook_invalid_converted_object_failure";

/// Has a webhook convert objects, which are in another version each.
///
/// # Errors
/// 500, in upstream's words.
pub async fn convert(
    server: &Server,
    definition: &Definition,
    webhook: &Webhook,
    wanted: &GroupVersionKind,
    objects: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let from = meta::gvk(&objects[0]);
    let begun = Instant::now();
    let outcome = ask(server, webhook, wanted, objects, &from).await;
    let (took, metrics) = (begun.elapsed(), &server.metrics.conversions);
    let (failure, outcome) = match outcome {
        Ok(converted) => (Some(None), Ok(converted)),
        Err((kind, why)) => (kind.map(Some), Err(Status::failure(Reason::InternalError, why))),
    };
    if let Some(failure) = failure {
        metrics.called(failure, took);
    }
    let what = Converted {
        crd_name: definition.name.clone(),
        from_version: from.version,
        to_version: wanted.version.clone(),
        succeeded: if outcome.is_ok() { "true" } else { "false" },
    };
    metrics.converted(&what, took);
    outcome
}

/// Fails with what metrics call it, unless nobody was asked, and upstream's text, which has none of our own words around it.
async fn ask(
    server: &Server,
    webhook: &Webhook,
    wanted: &GroupVersionKind,
    objects: Vec<Value>,
    from: &GroupVersionKind,
) -> Result<Vec<Value>, (Option<&'static str>, String)> {
    let failed = |why: String| format!("conversion webhook for {from} {why}");
    let Some(version) = webhook.review else {
        return Err((None, "no supported conversion review versions".into()));
    };
    let uid = server.random.uuid();
    let review = json!({
        "kind": "ConversionReview", "apiVersion": format!("{GROUP}/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": wanted.api_version(), "objects": objects},
    });
    let called = |why: String| (Some(CALL), failed(format!("failed: {why}")));
    let client = client(server, webhook).map_err(called)?;
    let answer = client.ask(Bytes::from(review.to_string()), TIMEOUT, None).await;
    let answer = answer.map_err(|failure| called(failure.why))?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| called(error.to_string()))?;
    let accepted = accepted(&answer, (version, &uid), wanted, &objects);
    accepted.map_err(|(kind, why)| (Some(kind), failed(why)))
}

/// The objects of an answer, which keep what a conversion cannot change. It names the version and the uid of the question.
///
/// # Errors
/// What metrics call it, and why it is no answer, after the webhook's name.
pub(crate) fn accepted(
    answer: &Value,
    (version, uid): (&str, &str),
    wanted: &GroupVersionKind,
    objects: &[Value],
) -> Result<Vec<Value>, (&'static str, String)> {
    let converted = converted(answer, version, uid).map_err(|why| (MALFORMED, format!("failed: {why}")))?;
    if converted.len() != objects.len() {
        let (found, expected) = (converted.len(), objects.len());
        return Err((PARTIAL, format!("returned {found} objects, expected {expected}")));
    }
    let mut out = Vec::with_capacity(converted.len());
    for (index, (original, made)) in objects.iter().zip(converted).enumerate() {
        let kind = meta::gvk(&made);
        let invalid = |why: String| {
            let why = match objects.len() {
                1 => format!("returned invalid object: {why}"),
                _ => format!("returned invalid converted object at index {index}: {why}"),
            };
            (INVALID, why)
        };
        if kind.group_version() != wanted.group_version() {
            let (expected, got) = (wanted.group_version(), kind.group_version());
            return Err(invalid(format!(
                "invalid groupVersion (expected {expected}, received {got})"
            )));
        }
        if kind.kind != wanted.kind {
            let (expected, got) = (&wanted.kind, &kind.kind);
            return Err(invalid(format!("invalid kind (expected {expected}, received {got})")));
        }
        check(original, &made).map_err(invalid)?;
        let restored = restored(original, made);
        out.push(restored.map_err(|why| (INVALID, format!("returned invalid metadata: {why}")))?);
    }
    Ok(out)
}

fn client(server: &Server, webhook: &Webhook) -> Result<Arc<Client>, String> {
    let mut client = webhook.client.lock();
    if let Some(client) = &*client {
        return Ok(client.clone());
    }
    let cluster: Arc<dyn Cluster> = server.storage.clone();
    let mut config = webhook.config.clone();
    // A bundle of white space is none.
    let bundle = config["caBundle"].as_str().unwrap_or("");
    let is_blank = {
        use base64::Engine as _;
        let decoded = base64::engine::general_purpose::STANDARD.decode(bundle);
        decoded.is_ok_and(|bytes| bytes.iter().all(u8::is_ascii_whitespace))
    };
    if is_blank && let Some(config) = config.as_object_mut() {
        config.remove("caBundle");
    }
    let made = webhook.clients.client(&config, &cluster, server.services.as_ref())?;
    *client = Some(made.clone());
    Ok(made)
}

/// The objects of an answer.
fn converted(answer: &Value, version: &str, uid: &str) -> Result<Vec<Value>, String> {
    if version == "v1" {
        let found = meta::gvk(answer);
        let wanted = GroupVersionKind::new(GROUP, version, "ConversionReview");
        if found != wanted {
            return Err(format!("expected webhook response of {wanted}, got {found}"));
        }
    }
    let response = &answer["response"];
    if !response.is_object() {
        return Err("no response provided".into());
    }
    let told = response["uid"].as_str().unwrap_or("");
    // The older version does not verify it.
    if version == "v1" && told != uid {
        return Err(format!("expected response.uid={}, got {}", quote(uid), quote(told)));
    }
    let result = &response["result"];
    let status = result["status"].as_str().unwrap_or("");
    if status != "Success" {
        return Err(match result["message"].as_str() {
            Some(message) if !message.is_empty() => message.to_owned(),
            _ => format!("response.result.status was '{status}', not 'Success'"),
        });
    }
    Ok(response["convertedObjects"].as_array().cloned().unwrap_or_default())
}

/// What a conversion cannot change.
fn check(original: &Value, made: &Value) -> Result<(), String> {
    for (what, text) in [
        ("name", meta::name as fn(&Value) -> &str),
        ("namespace", meta::namespace),
        ("UID", meta::uid),
    ] {
        let (expected, got) = (text(original), text(made));
        if expected != got {
            return Err(format!("must have the same {what}: {expected} != {got}"));
        }
    }
    Ok(())
}

/// The metadata is the original's, but for labels and annotations.
fn restored(original: &Value, mut made: Value) -> Result<Value, String> {
    let told = made
        .get("metadata")
        .cloned()
        .ok_or("missing metadata in converted object")?;
    if !told.is_object() {
        return Err("invalid metadata of type string in converted object".into());
    }
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let Some(own) = metadata.as_object_mut() else { break };
        match &told[field] {
            Value::Null => {
                own.remove(field);
            }
            value => {
                let Some(map) = value.as_object() else {
                    return Err(format!("invalid metadata.{field} in converted object"));
                };
                if let Some((key, _)) = map.iter().find(|(_, value)| !value.is_string()) {
                    return Err(format!("metadata.{field}[{key}] must be a string"));
                }
                let path = Path::new("metadata").child(field);
                let errors = match (own.get(field) == Some(value), field) {
                    (true, _) => Vec::new(),
                    (false, "labels") => validation::labels(value, &path),
                    (false, _) => validation::annotations(value, &path),
                };
                if !errors.is_empty() {
                    return Err(api::field::aggregate(&errors));
                }
                own.insert(field.into(), value.clone());
            }
        }
    }
    made["metadata"] = metadata;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let good = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {"uid": "u",
            "result": {"status": "Success"}, "convertedObjects": [{"a": 1}]}});
        assert_eq!(converted(&good, "v1", "u"), Ok(vec![json!({"a": 1})]));
        for (pointer, value, expect) in [
            ("/response/uid", json!("x"), "expected response.uid=\"u\", got \"x\""),
            ("/response/result", json!({"status": "Failed", "message": "no"}), "no"),
            (
                "/response/result",
                json!({}),
                "response.result.status was '', not 'Success'",
            ),
            ("/response", json!(null), "no response provided"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            assert_eq!(converted(&bad, "v1", "u"), Err(expect.to_owned()), "{pointer}");
        }
    }

    #[test]
    fn metadata_is_the_original_s() {
        let original = json!({"metadata": {"name": "a", "uid": "u", "labels": {"x": "1"}, "annotations": {"y": "1"}}});
        let made = json!({"metadata": {"name": "a", "uid": "u", "labels": {"x": "2"}, "generation": 7}, "spec": {}});
        assert_eq!(
            restored(&original, made.clone()).unwrap(),
            json!({"metadata": {"name": "a", "uid": "u", "labels": {"x": "2"}}, "spec": {}})
        );
        assert_eq!(check(&original, &made), Ok(()));
        let other = json!({"metadata": {"name": "b", "uid": "u"}});
        assert_eq!(check(&original, &other), Err("must have the same name: a != b".into()));
    }
}
