//! How long the certificates of clients are still good, under upstream's name.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/request/x509/x509.go`.

use prometheus_client::metrics::histogram::Histogram;

use super::names::{Names, name};

/// Upstream's buckets, in seconds: none, half an hour, and on to a year.
const SECONDS: [f64; 14] = [
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// Counts requests by what is left of their certificate's time. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct ClientCertificateMetrics(Histogram);

impl Default for ClientCertificateMetrics {
    fn default() -> ClientCertificateMetrics {
        ClientCertificateMetrics(Histogram::new(SECONDS))
    }
}

impl ClientCertificateMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "What is left of the time of certificates that requests come with, in seconds";
        name(r, "apiserver_client_certificate_expiration_seconds", help, &self.0);
    }

    /// A request came with a certificate that is good for so many seconds still.
    pub fn seen(&self, seconds_left: i64) {
        self.0.observe(seconds_left as f64);
    }
}
