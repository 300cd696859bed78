//! Signs approved requests to the signers of `kubernetes.io`.
//! Source: `pkg/controller/certificates/signer/signer.go`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::Error;
use client::Meta;
use client::k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use client::worker::Next;

use super::{
    Asked, CLIENT, CertificateSigner, KUBELET_CLIENT, KUBELET_SERVING, add_condition, has, is_issued, read, settle,
    work_on,
};
use crate::context::Context;

const WORKERS: usize = 2;
/// The shortest life that is given, in seconds.
const SECONDS_MIN: i64 = 600;

/// What to do with a request.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Not ours, not approved, or done.
    Leave,
    /// Tell why it is never signed.
    Fail(String),
    Sign,
}

fn decide(request: &CertificateSigningRequest) -> Verdict {
    if !has(request, "Approved") || has(request, "Denied") || has(request, "Failed") || is_issued(request) {
        return Verdict::Leave;
    }
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    let check: fn(&Asked, &[String]) -> Result<(), String> = match &*request.spec.signer_name {
        KUBELET_CLIENT => Asked::is_kubelet_client,
        KUBELET_SERVING => Asked::is_kubelet_serving,
        CLIENT => client_usages,
        _ => return Verdict::Leave,
    };
    let Some(asked) = read(request) else {
        return Verdict::Fail("unable to parse csr".into());
    };
    match check(&asked, usages) {
        Ok(()) => Verdict::Sign,
        Err(why) => Verdict::Fail(why),
    }
}

fn client_usages(_: &Asked, usages: &[String]) -> Result<(), String> {
    let extra = usages
        .iter()
        .find(|usage| !matches!(&***usage, "digital signature" | "key encipherment" | "client auth"));
    match extra {
        Some(usage) => Err(format!("invalid usage for client certificate: {usage}")),
        None if !usages.iter().any(|usage| usage == "client auth") => {
            Err("missing required usage for client certificate: client auth".into())
        }
        None => Ok(()),
    }
}

/// Starts the controller.
pub(crate) fn start(context: Context, signer: Arc<dyn CertificateSigner>) {
    work_on(&context, Vec::new(), WORKERS, move |context, request| {
        let signer = signer.clone();
        async move { sync(&context, &request, &*signer).await }
    });
}

async fn sync(
    context: &Context,
    request: &CertificateSigningRequest,
    signer: &dyn CertificateSigner,
) -> Result<Next, Error> {
    let outcome = match decide(request) {
        Verdict::Leave => return Ok(Next::Wait),
        Verdict::Fail(why) => Err(why),
        Verdict::Sign => {
            let pem = String::from_utf8_lossy(&request.spec.request.0);
            let seconds = request
                .spec
                .expiration_seconds
                .map(|seconds| i64::from(seconds).max(SECONDS_MIN));
            signer.sign(&pem, request.spec.usages.as_deref().unwrap_or_default(), seconds)
        }
    };
    let now = context.now_text();
    let written = settle(
        &context.client,
        request.metadata.name(),
        "status",
        request.metadata.uid.as_deref(),
        |object| match &outcome {
            Ok(certificate) => object["status"]["certificate"] = BASE64.encode(certificate).into(),
            Err(why) => add_condition(object, "Failed", "SignerValidationFailure", why, &now),
        },
    );
    match written.await {
        Ok(()) => Ok(Next::Wait),
        Err(error) if error.is_not_found() => Ok(Next::Wait),
        Err(error) if error.is_conflict() => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use client::resources::CERTIFICATE_SIGNING_REQUESTS;
    use serde_json::json;

    use super::super::tests::request;
    use super::*;
    use crate::testkit::Bench;

    struct Echo;

    impl CertificateSigner for Echo {
        fn sign(&self, _: &str, usages: &[String], seconds: Option<i64>) -> Result<String, String> {
            Ok(format!("{} for {seconds:?}", usages.join("+")))
        }
    }

    fn approved(signer: &str, usages: &[&str]) -> CertificateSigningRequest {
        let mut request = request("system:nodes", "system:node:a", &[], signer, usages);
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        request.status = Some(serde_json::from_value(approved).unwrap());
        request
    }

    #[test]
    fn only_what_is_approved_and_right_is_signed() {
        let usages = ["digital signature", "client auth"];
        assert_eq!(decide(&approved(KUBELET_CLIENT, &usages)), Verdict::Sign);
        assert_eq!(decide(&approved(CLIENT, &usages)), Verdict::Sign);
        assert_eq!(decide(&approved("example.com/s", &usages)), Verdict::Leave);
        assert_eq!(
            decide(&approved(CLIENT, &["client auth", "server auth"])),
            Verdict::Fail("invalid usage for client certificate: server auth".into())
        );
        assert_eq!(
            decide(&approved(CLIENT, &["digital signature"])),
            Verdict::Fail("missing required usage for client certificate: client auth".into())
        );
        let mut pending = approved(CLIENT, &usages);
        pending.status = None;
        assert_eq!(decide(&pending), Verdict::Leave);
        let mut denied = approved(CLIENT, &usages);
        denied.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].type_ = "Denied".into();
        assert_eq!(decide(&denied), Verdict::Leave);
    }

    #[tokio::test(start_paused = true)]
    async fn the_certificate_or_the_failure_is_written() {
        let bench = Bench::new();
        start(bench.context("certificate-controller"), Arc::new(Echo));
        for (name, usages, pointer, expect) in [
            (
                "good",
                &["client auth"][..],
                "/status/certificate",
                json!(BASE64.encode("client auth for Some(600)")),
            ),
            (
                "bad",
                &[],
                "/status/conditions/1/reason",
                json!("SignerValidationFailure"),
            ),
        ] {
            let mut request = approved(CLIENT, usages);
            request.metadata.name = Some(name.into());
            request.spec.expiration_seconds = Some(1);
            bench.api.put(serde_json::to_value(&request).unwrap());
            let seen = |api: &client::testing::FakeApi| {
                let object = api.get(&CERTIFICATE_SIGNING_REQUESTS, "", name)?;
                object.pointer(pointer).cloned()
            };
            bench.until(|api| seen(api).is_some()).await;
            assert_eq!(seen(&bench.api), Some(expect));
        }
        bench.end().await;
    }
}
