//! NamespaceLifecycle: nothing is written into a namespace that is absent, nothing new into one that goes.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`. That a namespace cannot begin to go
//! between this verdict and the write is the guard's business in the storage layer (D5).

use api::{GroupResource, Status, StatusCause, Value};
use futures::future::BoxFuture;

use crate::pipeline::{Operation, Plugin, Review, Step};

/// Namespaces that the cluster cannot live without.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The plug-in.
pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Admit
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        _object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(check(review)))
    }
}

fn check(review: &Review) -> Result<(), Status> {
    let about_namespaces = review.resource.group.is_empty() && review.resource.resource == "namespaces";
    if about_namespaces {
        if review.operation == Operation::Delete && IMMORTAL.contains(&&*review.name) {
            return Err(review.forbidden("this namespace may not be deleted"));
        }
        return Ok(());
    }
    if review.namespace.is_empty() || review.operation == Operation::Delete || is_access_review(review) {
        return Ok(());
    }
    let namespaces = GroupResource {
        group: String::new(),
        resource: "namespaces".into(),
    };
    let Some(namespace) = review.cluster.get(&namespaces, "", &review.namespace) else {
        return Err(Status::not_found(&namespaces, &review.namespace));
    };
    let creates = review.operation == Operation::Create;
    // Its phase is `Terminating` then and only then: validation sees to that.
    if !creates || !namespace.is_deleting() {
        return Ok(());
    }
    let name = &review.namespace;
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = review.forbidden(&why);
    if let Some(details) = &mut status.details {
        details.causes.push(StatusCause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".into(),
        });
    }
    Err(status)
}

fn is_access_review(review: &Review) -> bool {
    review.resource.group == "authorization.k8s.io" && review.resource.resource == "localsubjectaccessreviews"
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use serde_json::json;

    #[test]
    fn namespaces_are_honoured() {
        let world = World::new(&[
            (
                "namespaces",
                json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}),
            ),
            (
                "namespaces",
                json!({
                    "metadata": {"name": "going", "deletionTimestamp": "2026-01-01T00:00:00Z"},
                    "status": {"phase": "Terminating"},
                }),
            ),
        ]);
        for (operation, namespace, expect) in [
            (Operation::Create, "a", None),
            (Operation::Create, "absent", Some("namespaces \"absent\" not found")),
            (
                Operation::Create,
                "going",
                Some(
                    "pods \"x\" is forbidden: unable to create new content in namespace going because it is being terminated",
                ),
            ),
            (Operation::Update, "going", None),
            (Operation::Update, "absent", Some("namespaces \"absent\" not found")),
            (Operation::Delete, "absent", None),
        ] {
            let review = world.review(operation, "", "pods", "", namespace, "x");
            let got = check(&review).err();
            assert_eq!(
                got.as_ref().map(|status| &*status.message),
                expect,
                "{operation:?} {namespace}"
            );
        }
        let review = world.review(Operation::Create, "", "pods", "", "going", "x");
        let causes = check(&review).unwrap_err().details.unwrap().causes;
        assert_eq!(causes[0].reason, "NamespaceTerminating");
    }

    #[test]
    fn some_namespaces_stay() {
        let world = World::new(&[]);
        for (name, ok) in [
            ("default", false),
            ("kube-system", false),
            ("kube-public", false),
            ("mine", true),
        ] {
            let review = world.review(Operation::Delete, "", "namespaces", "", name, name);
            assert_eq!(check(&review).is_ok(), ok, "{name}");
        }
    }
}
