//! `metadata.managedFields`: who set what, kept on every write; and server-side apply.
//!
//! The bookkeeping itself is `api::apply`; this file knows rows, versions and subresources.

use std::borrow::Cow;

use api::apply::{self, FieldSet, Request, Versions};
use api::schema::SchemaRef;
use api::{Status, Value, meta};
use kinds::row::SubresourceRole;

use crate::options::WriteOptions;
use crate::registry::Served;
use crate::respond::view;

pub use api::apply::ignore_time_changes as ignore_times;

/// The other versions of a kind, for owners that wrote through them.
struct Siblings<'a>(&'a Served);

impl Versions for Siblings<'_> {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, SchemaRef)> {
        let kind = &self.0.kind;
        if let Some(custom) = &kind.custom {
            let index = kind
                .versions
                .iter()
                .position(|(gvk, _)| gvk.api_version() == api_version)?;
            let converted = custom.for_managers(object, index)?;
            return Some((converted, kind.versions[index].1.clone()));
        }
        let index_of = |version: &str| kind.versions.iter().position(|(gvk, _)| gvk.api_version() == version);
        // Objects go both ways: what was converted for another owner comes back.
        let from = index_of(object.get("apiVersion").and_then(Value::as_str).unwrap_or(""))?;
        let index = index_of(api_version)?;
        let hub = view::to_hub_version(kind, from, object.clone()).ok()?;
        let converted = view::from_hub_version(kind, index, hub).ok()?;
        Some((converted, kind.versions[index].1.clone()))
    }
}

/// Fields that a write through this endpoint resets, and so never owns (upstream: GetResetFields).
fn reset_fields(served: &Served, subresource: &str) -> Option<FieldSet> {
    if let Some(fields) = served.kind.row.strategy.reset_fields(subresource) {
        return Some(FieldSet::of_fields(fields));
    }
    let split = served
        .subresource("status")
        .is_some_and(|subresource| subresource.role == SubresourceRole::View);
    match subresource {
        "" if split => Some(FieldSet::of_fields(&["status"])),
        "status" => Some(FieldSet::of_fields(&["spec"])),
        _ => None,
    }
}

/// Calls `work` with the request in the terms of `api::apply`.
fn with_request<T>(
    served: &Served,
    subresource: &str,
    manager: &str,
    now: &str,
    work: impl FnOnce(&Request<'_>) -> T,
) -> T {
    let reset = reset_fields(served, subresource);
    let siblings = Siblings(served);
    let several = served.kind.versions.len() > 1;
    work(&Request {
        kind: &served.gvk,
        schema: &served.schema,
        manager,
        subresource,
        now,
        reset: reset.as_ref(),
        versions: several.then_some(&siblings as &dyn Versions),
    })
}

/// Notes that `manager` wrote `object` (a hub object) over `live`.
pub fn update(
    served: &Served,
    subresource: &str,
    live: Option<&Value>,
    object: &mut Value,
    manager: &str,
    now: &str,
) -> Result<(), Status> {
    tracing::trace!(target: "walk", "its managers");
    if served.is_hub() {
        let live = live.unwrap_or(&Value::Null);
        with_request(served, subresource, manager, now, |request| {
            apply::update(live, object, request)
        });
        return Ok(());
    }
    let seen = |tree: &Value| view::from_hub(served, tree.clone());
    let live = live.map(seen).transpose()?.unwrap_or_default();
    let mut new = seen(object)?;
    with_request(served, subresource, manager, now, |request| {
        apply::update(&live, &mut new, request)
    });
    let metadata = meta::metadata_mut(object);
    match new["metadata"].get_mut("managedFields").map(Value::take) {
        Some(fields) if !fields.is_null() => metadata.insert("managedFields".into(), fields),
        _ => metadata.remove("managedFields"),
    };
    Ok(())
}

/// Applies a configuration; the answer is a hub object in normal form, defaults aside.
pub fn apply(
    served: &Served,
    subresource: &str,
    live: Option<&Value>,
    config: &Value,
    options: &WriteOptions,
    now: &str,
) -> Result<Value, Status> {
    let live = match live {
        Some(live) => view::seen(served, live)?,
        None => Cow::Owned(Value::Null),
    };
    let manager = &options.field_manager;
    let applied = with_request(served, subresource, manager, now, |request| {
        apply::apply(&live, config, request, options.force)
    });
    let mut object = applied.map_err(|error| error.to_status())?;
    view::renormalize(&mut object, served).map_err(|status| Status::bad_request(status.message))?;
    view::to_hub(served, object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::options::FieldValidation;
    use crate::registry::Registry;

    #[test]
    fn objects_are_converted_both_ways_for_owners_in_other_versions() {
        let registry = Registry::new(kinds::rows(), SchemaRef::builtin).unwrap();
        let served = registry.find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let options = WriteOptions {
            dry_run: false,
            manager: "one".into(),
            field_manager: "one".into(),
            field_validation: FieldValidation::Warn,
            force: false,
        };
        let config = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
        let hub = apply(served, "", None, &config, &options, "2026-01-01T00:00:00Z").unwrap();
        let siblings = Siblings(served);
        let v1 = view::from_hub(served, hub.clone()).unwrap();
        let (v2, _) = siblings.convert(&v1, "autoscaling/v2").unwrap();
        assert_eq!(v2, hub);
        let (back, _) = siblings.convert(&v2, "autoscaling/v1").unwrap();
        assert_eq!(back, v1);
        assert!(siblings.convert(&v1, "autoscaling/v3").is_none());
    }
}
