//! Volumes and claims in use stay: a finalizer keeps each until nothing uses it any more. Admission
//! (StorageObjectInUseProtection) sets it on new objects; the controllers here set it where it is missing and remove it.
//!
//! Source: `pkg/controller/volume/pvcprotection` and `pkg/controller/volume/pvprotection`.

pub(crate) mod claims;
pub(crate) mod volumes;

use api::Value;
use client::worker::Next;
use client::{Client, Error, Metadata, Resource};
use serde_json::json;

/// What to do about the finalizer of one object.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Nothing,
    Add,
    Remove,
}

/// An object that lives has the finalizer, and one that is to go keeps it while it is used.
fn decide(metadata: &Metadata, finalizer: &str, used: impl FnOnce() -> bool) -> Action {
    let has = metadata.finalizers.iter().flatten().any(|name| name == finalizer);
    match (metadata.deletion_timestamp.is_some(), has) {
        (false, false) => Action::Add,
        (true, true) if !used() => Action::Remove,
        _ => Action::Nothing,
    }
}

/// Writes the finalizer into the object as it was just read, or takes it out.
async fn write(
    client: &Client,
    resource: &Resource,
    mut object: Value,
    action: Action,
    finalizer: &str,
) -> Result<Next, Error> {
    let mut names: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    match action {
        Action::Nothing => return Ok(Next::Wait),
        Action::Add => names.push(finalizer.into()),
        Action::Remove => names.retain(|name| name != finalizer),
    }
    object["metadata"]["finalizers"] = json!(names);
    let (namespace, name) = (api::meta::namespace(&object), api::meta::name(&object));
    match client.update(resource, namespace, name, None, &object).await {
        Ok(_) => Ok(Next::Wait),
        Err(error) if error.is_not_found() => Ok(Next::Wait),
        Err(error) if error.is_conflict() => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_come_and_go() {
        let deleted = json!("2026-01-01T00:00:00Z");
        for (metadata, used, expect) in [
            (json!({}), false, Action::Add),
            (json!({"finalizers": ["other"]}), true, Action::Add),
            (json!({"finalizers": ["f"]}), false, Action::Nothing),
            (
                json!({"finalizers": ["f"], "deletionTimestamp": deleted}),
                false,
                Action::Remove,
            ),
            (
                json!({"finalizers": ["f"], "deletionTimestamp": deleted}),
                true,
                Action::Nothing,
            ),
            (
                json!({"finalizers": ["other"], "deletionTimestamp": deleted}),
                false,
                Action::Nothing,
            ),
        ] {
            let view: Metadata = serde_json::from_value(metadata.clone()).expect("metadata");
            assert_eq!(decide(&view, "f", || used), expect, "{metadata}");
        }
    }
}
