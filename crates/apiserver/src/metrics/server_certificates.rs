//! Certificates of other servers that nobody should have any more, under upstream's names: refused here in any case.
//!
//! Source: `k8s.io/apiserver/pkg/util/x509metrics`, with `metrics.go` of `pkg/util/webhook` there and of `k8s.io/kube-aggregator`.

use prometheus_client::metrics::counter::Counter;
use rustls::CertificateError;

use super::names::{Names, name};

/// `sha1WithRSAEncryption` (1.2.840.113549.1.1.5) and `ecdsa-with-SHA1` (1.2.840.10045.4.1).
const SHA1: [&[u8]; 2] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01],
];

/// Of servers of one sort.
#[derive(Clone, Debug, Default)]
pub struct RefusedCertificates {
    without_names: Counter,
    with_sha1: Counter,
}

/// Of all of them.
#[derive(Default)]
pub struct ServerCertificateMetrics {
    /// Webhooks of every kind.
    pub webhooks: RefusedCertificates,
    /// Servers that answer for other group versions.
    pub aggregated: RefusedCertificates,
}

impl ServerCertificateMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        for (of, own) in [("webhooks", &self.webhooks), ("kube_aggregator", &self.aggregated)] {
            let metric = |rest: &str| format!("apiserver_{of}_x509_{rest}");
            let help = "Servers whose certificates have no names but the subject's";
            name(r, &metric("missing_san"), help, &own.without_names);
            let help = "Servers whose certificates are signed by means of SHA-1";
            name(r, &metric("insecure_sha1"), help, &own.with_sha1);
        }
    }
}

impl RefusedCertificates {
    /// A certificate was refused.
    pub fn refused(&self, why: &CertificateError) {
        match why {
            CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                self.without_names.inc();
            }
            CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id, ..
            } if is_sha1(signature_algorithm_id) => {
                self.with_sha1.inc();
            }
            _ => {}
        }
    }
}

/// Whether an algorithm is one of those: its identifier alone, or with what says that it is one.
fn is_sha1(algorithm: &[u8]) -> bool {
    SHA1.iter()
        .any(|known| algorithm.windows(known.len()).any(|part| part == *known))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn what_is_out_of_date_is_counted() {
        let metrics = ServerCertificateMetrics::default();
        let expected = ServerName::try_from("a.example").unwrap();
        let named = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: expected.clone(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        };
        let signed = |signature_algorithm_id: &[u8]| CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: signature_algorithm_id.to_vec(),
            supported_algorithms: Vec::new(),
        };
        let sha1_with_rsa = [&[0x06, 0x09], SHA1[0], &[0x05, 0x00]].concat();
        for why in [
            named(&[]),
            named(&["b"]),
            signed(&sha1_with_rsa),
            CertificateError::Expired,
        ] {
            metrics.webhooks.refused(&why);
        }
        metrics.aggregated.refused(&signed(SHA1[1]));
        metrics
            .aggregated
            .refused(&signed(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]));
        let mut names = Names::default();
        metrics.register(&mut names);
        let text = names.text();
        for line in [
            "apiserver_webhooks_x509_missing_san_total 1",
            "apiserver_webhooks_x509_insecure_sha1_total 1",
            "apiserver_kube_aggregator_x509_missing_san_total 0",
            "apiserver_kube_aggregator_x509_insecure_sha1_total 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
