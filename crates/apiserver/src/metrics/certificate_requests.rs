//! Whether signers give certificates the time that was asked for, under upstream's names.
//!
//! Source: `pkg/registry/certificates/certificates/storage/metrics.go`.

use api::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::names::{Names, name};
use crate::pki;

/// Certificates begin a little before they are made, in seconds.
const BACKDATED_SECONDS: i64 = 300;
/// Signers of others have no names here.
const OTHERS: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
#[allow(non_snake_case)]
struct SignerLabels {
    signerName: String,
}

/// The metrics of CertificateSigningRequests.
#[derive(Default)]
pub struct CertificateRequestMetrics {
    wanted: Family<SignerLabels, Counter>,
    given: Family<SignerLabels, Counter>,
}

impl CertificateRequestMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let metric = |rest: &str| format!("apiserver_certificates_registry_csr_{rest}");
        let help = "Certificates whose requests asked for a time, by signer";
        name(r, &metric("requested_duration"), help, &self.wanted);
        let help = "Those of them that have that time, nearly";
        name(r, &metric("honored_duration"), help, &self.given);
    }

    /// A request was written.
    pub fn updated(&self, old: &Value, new: &Value) {
        let certificate = |request: &Value| request["status"]["certificate"].as_str().unwrap_or("").to_owned();
        let Some(wanted) = old["spec"]["expirationSeconds"].as_i64() else {
            return;
        };
        let issued = certificate(new);
        if !certificate(old).is_empty() || issued.is_empty() {
            return;
        }
        let signer = old["spec"]["signerName"].as_str().unwrap_or("");
        let labels = SignerLabels {
            signerName: match signer.starts_with("kubernetes.io/") {
                true => signer.to_owned(),
                false => OTHERS.to_owned(),
            },
        };
        self.wanted.get_or_create(&labels).inc();
        let pem = BASE64.decode(issued).ok().and_then(|pem| String::from_utf8(pem).ok());
        let Some((begin, end)) = pem.and_then(|pem| pki::validity(&pem).ok()) else {
            return;
        };
        let missing = wanted.abs_diff(end.as_second() - begin.as_second());
        if missing < (BACKDATED_SECONDS + wanted / 20).unsigned_abs() {
            self.given.get_or_create(&labels).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use base::{Clock, Random};
    use serde_json::json;

    use super::*;
    use crate::pki::Authority;

    #[test]
    fn certificates_are_compared_with_what_was_asked_for() {
        let metrics = CertificateRequestMetrics::default();
        let authority = Authority::generate("ca", Clock::real().now(), Random::seeded(1)).unwrap();
        let authority = authority.with_leaf_seconds(7200);
        let pair = authority.issue_client("jane", None, Clock::real().now()).unwrap();
        let issued = BASE64.encode(pair.certificate_pem);
        let request = |seconds: Value, signer: &str, certificate: &str| json!({"spec": {"expirationSeconds": seconds, "signerName": signer}, "status": {"certificate": certificate}});
        let own = "kubernetes.io/kube-apiserver-client";
        for (seconds, signer, before, after) in [
            (json!(7200), own, "", &*issued),
            (json!(7000), own, "", &issued),
            (json!(86_400), own, "", &issued),
            // Counted before, not yet, and not asked for.
            (json!(7200), own, &*issued, &issued),
            (json!(7200), own, "", ""),
            (json!(null), own, "", &issued),
            (json!(7200), "example.com/signer", "", "bm90aGluZw=="),
        ] {
            metrics.updated(
                &request(seconds.clone(), signer, before),
                &request(seconds, signer, after),
            );
        }
        let mut names = Names::default();
        metrics.register(&mut names);
        let text = names.text();
        for line in [
            "csr_requested_duration_total{signerName=\"kubernetes.io/kube-apiserver-client\"} 3",
            "csr_honored_duration_total{signerName=\"kubernetes.io/kube-apiserver-client\"} 2",
            "csr_requested_duration_total{signerName=\"other\"} 1",
        ] {
            let line = format!("apiserver_certificates_registry_{line}");
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains("honored_duration_total{signerName=\"other\"}"));
    }
}
