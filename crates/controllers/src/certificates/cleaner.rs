//! Removes requests that nobody needs any more.
//! Source: `pkg/controller/certificates/cleaner/cleaner.go`; upstream looks every hour, here each request has its deadline.

use std::time::Duration;

use client::k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use client::worker::Next;
use client::{DeleteParams, Error, Meta, resources};
use jiff::Timestamp;

use super::{has, is_issued, work_on};
use crate::context::Context;

const WORKERS: usize = 1;
/// How long a request stays that was answered, counted from its verdict.
const ANSWERED: Duration = Duration::from_secs(3600);
/// How long one stays that nobody answered, counted from its creation.
const PENDING: Duration = Duration::from_secs(24 * 3600);

/// When a request goes; `None`: not by itself.
fn goes_at(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let conditions = request
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let answered = conditions
        .into_iter()
        .filter(|condition| match &*condition.type_ {
            "Approved" => is_issued(request),
            "Denied" => true,
            _ => false,
        })
        .filter_map(|condition| Some(condition.last_update_time.as_ref()?.0 + ANSWERED))
        .min();
    let ends = || {
        let certificate = &request.status.as_ref()?.certificate.as_ref()?.0;
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate).ok()?;
        let seconds = pem.parse_x509().ok()?.validity().not_after.timestamp();
        Timestamp::from_second(seconds).ok()
    };
    let expired = has(request, "Approved").then(ends).flatten();
    let untouched = !["Approved", "Denied", "Failed"].iter().any(|kind| has(request, kind));
    let forgotten = untouched
        .then(|| Some(request.metadata.creation_timestamp.as_ref()?.0 + PENDING))
        .flatten();
    [answered, expired, forgotten].into_iter().flatten().min()
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    work_on(&context, Vec::new(), WORKERS, |context, request| async move {
        sync(&context, &request).await
    });
}

async fn sync(context: &Context, request: &CertificateSigningRequest) -> Result<Next, Error> {
    let Some(at) = goes_at(request) else {
        return Ok(Next::Wait);
    };
    let left = Duration::try_from(at.duration_since(context.clock.now())).unwrap_or_default();
    if !left.is_zero() {
        return Ok(Next::After(left));
    }
    let params = DeleteParams::uid(request.metadata.uid.as_deref().unwrap_or_default());
    let resource = resources::CERTIFICATE_SIGNING_REQUESTS;
    match context
        .client
        .delete(&resource, "", request.metadata.name(), &params)
        .await
    {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(Next::Wait),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testkit::Bench;

    #[tokio::test(start_paused = true)]
    async fn requests_go_when_their_time_has_come() {
        let bench = Bench::new();
        start(bench.context("certificate-controller"));
        let spec = json!({"request": "eA==", "signerName": "example.com/s", "usages": ["client auth"]});
        let now = bench.api.clock().now().to_string();
        let status = |kind: &str| json!({"certificate": "eA==", "conditions": [{"type": kind, "status": "True", "lastUpdateTime": now}]});
        for (name, status) in [
            ("pending", json!({})),
            ("denied", status("Denied")),
            ("issued", status("Approved")),
            ("failed", status("Failed")),
        ] {
            bench.api.put(json!({
                "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
                "spec": spec, "status": status,
            }));
        }
        let is_there = |api: &client::testing::FakeApi, name: &str| {
            api.get(&resources::CERTIFICATE_SIGNING_REQUESTS, "", name).is_some()
        };
        tokio::time::sleep(ANSWERED / 2).await;
        assert!(is_there(&bench.api, "denied") && is_there(&bench.api, "issued"));
        bench
            .until(|api| !is_there(api, "denied") && !is_there(api, "issued"))
            .await;
        assert!(is_there(&bench.api, "pending"));
        tokio::time::sleep(PENDING).await;
        assert!(!is_there(&bench.api, "pending"));
        assert!(is_there(&bench.api, "failed"), "a failure stays to be read");
        bench.end().await;
    }
}
