//! StorageObjectInUseProtection: new volumes and claims get the finalizer that keeps them while they are used. The
//! protection controllers take it away again.
//!
//! Source: `plugin/pkg/admission/storage/storageobjectinuseprotection`.

use api::{Status, Value};
use futures::future::BoxFuture;
use serde_json::json;

use crate::pipeline::{Operation, Plugin, Review, Step};

/// (resource, finalizer).
const PROTECTED: [(&str, &str); 2] = [
    ("persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("persistentvolumes", "kubernetes.io/pv-protection"),
];

/// The plug-in.
pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Admit
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let about = PROTECTED.iter().find(|(resource, _)| review.is_about("", resource, ""));
        if let (Some((_, finalizer)), Some(object)) = (about, object.as_mut()) {
            protect(object, finalizer);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn protect(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(names) if names.iter().any(|name| name == finalizer) => {}
        Some(names) => names.push(finalizer.into()),
        None => *finalizers = json!([finalizer]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;

    #[tokio::test]
    async fn volumes_and_claims_are_protected_once() {
        let claim = "kubernetes.io/pvc-protection";
        for (resource, subresource, given, expect) in [
            ("persistentvolumeclaims", "", json!(null), json!([claim])),
            ("persistentvolumeclaims", "", json!(["a"]), json!(["a", claim])),
            ("persistentvolumeclaims", "", json!([claim]), json!([claim])),
            (
                "persistentvolumes",
                "",
                json!(null),
                json!(["kubernetes.io/pv-protection"]),
            ),
            ("persistentvolumes", "status", json!(null), json!(null)),
            ("pods", "", json!(null), json!(null)),
        ] {
            let review = World::default().review(Operation::Create, "", resource, subresource, "n", "a");
            let mut object = Some(json!({"metadata": {"finalizers": given}}));
            let admitted = StorageObjectInUseProtection.admit(&review, &mut object, None).await;
            assert!(admitted.is_ok());
            assert_eq!(object.unwrap()["metadata"]["finalizers"], expect, "{resource}");
        }
    }
}
