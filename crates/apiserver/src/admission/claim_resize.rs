//! PersistentVolumeClaimResize: only a bound claim grows, and only where its storage class lets it.
//!
//! Source: `plugin/pkg/admission/storage/persistentvolume/resize`.

use api::quantity::Quantity;
use api::{GroupResource, Status, Value, meta};
use futures::future::BoxFuture;

use crate::pipeline::{Operation, Plugin, Review, Step};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The plug-in.
pub struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Validate
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let outcome = match (object, old) {
            (Some(new), Some(old)) if review.is_about("", "persistentvolumeclaims", "") => may_grow(review, new, old),
            _ => Ok(()),
        };
        Box::pin(std::future::ready(outcome))
    }
}

fn may_grow(review: &Review, new: &Value, old: &Value) -> Result<(), Status> {
    if size(new) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(review.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let (name, before) = (class(new), class(old));
    let classes = GroupResource {
        group: "storage.k8s.io".into(),
        resource: "storageclasses".into(),
    };
    let grows = !name.is_empty()
        && name == before
        && review
            .cluster
            .get(&classes, "", name)
            .is_some_and(|class| class.value()["allowVolumeExpansion"] == true);
    match grows {
        true => Ok(()),
        false => Err(review.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        )),
    }
}

fn size(claim: &Value) -> Quantity {
    let request = &claim["spec"]["resources"]["requests"]["storage"];
    Quantity::from_value(request).unwrap_or_else(|_| Quantity::zero())
}

fn class(claim: &Value) -> &str {
    let field = || claim["spec"]["storageClassName"].as_str().unwrap_or("");
    meta::annotation(claim, CLASS_ANNOTATION).unwrap_or_else(field)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;

    #[tokio::test]
    async fn what_may_grow() {
        let class = |name: &str, allow: bool| {
            let class = json!({"metadata": {"name": name}, "allowVolumeExpansion": allow});
            ("storageclasses.storage.k8s.io", class)
        };
        let world = World::new(&[class("grows", true), class("fixed", false)]);
        let claim = |phase: &str, class: &str, size: &str| {
            json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}},
                "status": {"phase": phase}})
        };
        let resize = "persistentvolumeclaims \"a\" is forbidden: only dynamically provisioned pvc can be resized and the \
                      storageclass that provisions the pvc must support resize";
        for (phase, class, size, expect) in [
            ("Bound", "grows", "2Gi", ""),
            ("Bound", "fixed", "1Gi", ""),
            ("Bound", "fixed", "2Gi", resize),
            ("Bound", "gone", "2Gi", resize),
            ("Bound", "", "2Gi", resize),
            (
                "Pending",
                "grows",
                "2Gi",
                "persistentvolumeclaims \"a\" is forbidden: Only bound persistent volume claims can be expanded",
            ),
        ] {
            let review = world.review(Operation::Update, "", "persistentvolumeclaims", "", "n", "a");
            let (new, old) = (claim(phase, class, size), claim(phase, class, "1Gi"));
            let outcome = PersistentVolumeClaimResize
                .validate(&review, Some(&new), Some(&old))
                .await;
            let said = outcome.err().map(|status| status.message).unwrap_or_default();
            assert_eq!(said, expect, "{phase} {class} {size}");
        }
    }
}
