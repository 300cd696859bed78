//! Approves requests of a known shape when whoever asked may have them approved.
//! Source: `pkg/controller/certificates/approver/sarapprove.go`.

use std::sync::Arc;

use api::Value;
use client::k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use client::worker::Next;
use client::{Error, Meta, resources};
use futures::future::BoxFuture;
use serde_json::json;

use super::{Asked, KUBELET_CLIENT, add_condition, has, is_issued, read, settle, work_on};
use crate::context::Context;

const WORKERS: usize = 2;

/// A shape that a request was recognized as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recognized {
    /// Whoever asked must be allowed to create this subresource of requests.
    pub permission: &'static str,
    /// What the approval says.
    pub message: &'static str,
}

/// Kubelets that renew their own client certificate, and those that get their first one.
pub(crate) fn kubelet_client(request: &CertificateSigningRequest, asked: &Asked) -> Vec<Recognized> {
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    if request.spec.signer_name != KUBELET_CLIENT || asked.is_kubelet_client(usages).is_err() {
        return Vec::new();
    }
    let own = request.spec.username.as_deref() == Some(&asked.common_name);
    let by_itself = own.then_some(Recognized {
        permission: "selfnodeclient",
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
    });
    let first = Recognized {
        permission: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    };
    by_itself.into_iter().chain([first]).collect()
}

/// Says which shapes a request has.
pub(crate) type Recognize = Arc<dyn Fn(&CertificateSigningRequest, &Asked) -> Vec<Recognized> + Send + Sync>;

/// Starts the controller for the shapes that `recognize` knows, once all `ready` are.
pub(crate) fn start(context: Context, ready: Vec<BoxFuture<'static, bool>>, recognize: Recognize) {
    work_on(&context, ready, WORKERS, move |context, request| {
        let recognize = recognize.clone();
        async move { approve(&context, &request, &recognize).await }
    });
}

async fn approve(context: &Context, request: &CertificateSigningRequest, recognize: &Recognize) -> Result<Next, Error> {
    if is_issued(request) || has(request, "Approved") || has(request, "Denied") {
        return Ok(Next::Wait);
    }
    let shapes = read(request)
        .map(|asked| recognize(request, &asked))
        .unwrap_or_default();
    for shape in &shapes {
        if !may(context, request, shape.permission).await? {
            continue;
        }
        let (name, now) = (request.metadata.name(), context.now_text());
        let written = settle(
            &context.client,
            name,
            "approval",
            request.metadata.uid.as_deref(),
            |object| {
                add_condition(object, "Approved", "AutoApproved", shape.message, &now);
            },
        );
        return match written.await {
            Ok(()) => Ok(Next::Wait),
            Err(error) if error.is_not_found() => Ok(Next::Wait),
            Err(error) if error.is_conflict() => Ok(Next::Retry),
            Err(error) => Err(error),
        };
    }
    if shapes.is_empty() {
        return Ok(Next::Wait);
    }
    let tried: Vec<&str> = shapes.iter().map(|shape| shape.permission).collect();
    tracing::info!(
        request = request.metadata.name(),
        ?tried,
        "recognized, but not approved by a review"
    );
    // The right may be given later.
    Ok(Next::Retry)
}

async fn may(context: &Context, request: &CertificateSigningRequest, permission: &str) -> Result<bool, Error> {
    let spec = &request.spec;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": {
                "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create",
                "subresource": permission, "version": "*",
            },
        },
    });
    let answer: Value = context
        .client
        .create_in(&resources::SUBJECT_ACCESS_REVIEWS, "", &review)
        .await?;
    Ok(answer["status"]["allowed"] == true)
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    #[test]
    fn kubelets_are_recognized() {
        let usages = ["digital signature", "client auth"];
        for (user, asker, signer, expect) in [
            (
                "system:node:a",
                "system:node:a",
                KUBELET_CLIENT,
                &["selfnodeclient", "nodeclient"][..],
            ),
            ("system:node:a", "system:bootstrap:x", KUBELET_CLIENT, &["nodeclient"]),
            ("a", "a", KUBELET_CLIENT, &[]),
            ("system:node:a", "system:node:a", super::super::CLIENT, &[]),
        ] {
            let mut request = request("system:nodes", user, &[], signer, &usages);
            request.spec.username = Some(asker.into());
            let shapes = kubelet_client(&request, &read(&request).unwrap());
            let permissions: Vec<_> = shapes.iter().map(|shape| shape.permission).collect();
            assert_eq!(permissions, expect, "{user} {asker}");
        }
    }
}
