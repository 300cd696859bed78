//! Controllers and what they own: who controls an object, what to adopt and what to let go. Pure.
//!
//! Source of the rules: `pkg/controller/controller_ref_manager.go`.

use std::sync::Arc;

use api::Value;
use client::Metadata;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use client::{Meta, Object, Resource};
use serde_json::json;

use crate::views::Selector;

/// The reference to the controller of an object.
pub(crate) fn controller_of(metadata: &Metadata) -> Option<&OwnerReference> {
    metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// The reference that makes `owner` the controller of an object.
pub(crate) fn controller_reference(resource: &Resource, owner: &Metadata) -> Value {
    json!({
        "apiVersion": resource.api_version(), "kind": resource.kind, "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The index key of objects that nobody controls, by namespace.
pub(crate) const ORPHAN_INDEX: &str = "orphan";

/// What the objects that concern an owner are to it.
#[derive(Debug)]
pub(crate) struct Claims<T> {
    /// Its own, and they match.
    pub own: Vec<Arc<T>>,
    /// Nobody's, and they match: to be adopted.
    pub adopt: Vec<Arc<T>>,
    /// Its own, but they do not match any more: to be let go.
    pub release: Vec<Arc<T>>,
}

/// Decides which of the candidates belong to the owner.
pub(crate) fn claim<T: Object>(
    owner: &Metadata,
    selector: &Selector,
    candidates: impl IntoIterator<Item = Arc<T>>,
    metadata: impl Fn(&T) -> &Metadata,
) -> Claims<T> {
    let mut claims = Claims {
        own: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    for candidate in candidates {
        let meta = metadata(&candidate);
        let matches = selector.matches(meta);
        match controller_of(meta) {
            Some(controller) if controller.uid != owner.uid() => {}
            Some(_) if matches => claims.own.push(candidate),
            // An owner that is being deleted lets the garbage collector decide.
            Some(_) if owner.is_deleting() => {}
            Some(_) => claims.release.push(candidate),
            None if owner.is_deleting() || !matches || meta.is_deleting() => {}
            None => claims.adopt.push(candidate),
        }
    }
    claims
}

/// The patch that adopts.
pub(crate) fn adoption(resource: &Resource, owner: &Metadata, object: &Metadata) -> Value {
    json!({"metadata": {"uid": object.uid(), "ownerReferences": [controller_reference(resource, owner)]}})
}

/// The patch that lets go.
pub(crate) fn release(owner_uid: &str, object: &Metadata) -> Value {
    json!({"metadata": {"uid": object.uid(), "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Pod;

    fn meta(value: Value) -> Metadata {
        serde_json::from_value(value).unwrap()
    }

    /// `own adopt release`, each 0 or 1, for a pod.
    fn check(pod: Value, owner_deleting: bool, expect: (usize, usize, usize)) {
        let mut owner = meta(json!({"name": "rs", "namespace": "default", "uid": "rs-1"}));
        if owner_deleting {
            owner = meta(json!({"name": "rs", "uid": "rs-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        }
        let selector: crate::views::ReplicaSet =
            serde_json::from_value(json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}})).unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": pod})).unwrap();
        let claims = claim(&owner, &selector.spec.selector, [Arc::new(pod.clone())], |pod| {
            &pod.metadata
        });
        assert_eq!(
            (claims.own.len(), claims.adopt.len(), claims.release.len()),
            expect,
            "{pod:?}"
        );
    }

    #[test]
    fn claims() {
        let owner = |uid: &str| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": uid, "controller": true}]);
        let web = json!({"app": "web"});
        let db = json!({"app": "db"});
        check(
            json!({"labels": web, "ownerReferences": owner("rs-1")}),
            false,
            (1, 0, 0),
        );
        check(
            json!({"labels": web, "ownerReferences": owner("rs-1")}),
            true,
            (1, 0, 0),
        );
        check(
            json!({"labels": db, "ownerReferences": owner("rs-1")}),
            false,
            (0, 0, 1),
        );
        check(json!({"labels": db, "ownerReferences": owner("rs-1")}), true, (0, 0, 0));
        check(
            json!({"labels": web, "ownerReferences": owner("other")}),
            false,
            (0, 0, 0),
        );
        check(json!({"labels": web}), false, (0, 1, 0));
        check(json!({"labels": web}), true, (0, 0, 0));
        check(
            json!({"labels": web, "deletionTimestamp": "2026-01-01T00:00:00Z"}),
            false,
            (0, 0, 0),
        );
        check(json!({"labels": db}), false, (0, 0, 0));
    }
}
