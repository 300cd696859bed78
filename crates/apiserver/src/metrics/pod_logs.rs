//! Requests for pods' logs, by how the kubelet proves who it is, under upstream's names.
//!
//! Source: `pkg/registry/core/pod/rest/metrics.go`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::names::{Names, name};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UsageLabels {
    usage: &'static str,
}

/// The metrics of pods' logs.
#[derive(Default)]
pub struct PodLogMetrics {
    asked: Family<UsageLabels, Counter>,
    refused: Counter,
}

impl PodLogMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let metric = |rest: &str| format!("kube_apiserver_pod_logs_{rest}");
        let help = "Requests for logs of pods, by whether they would take a kubelet whose certificate is not verified";
        name(r, &metric("insecure_backend"), help, &self.asked);
        let help = "Requests for logs of pods whose kubelet's certificate was refused";
        name(r, &metric("backend_tls_failure"), help, &self.refused);
    }

    /// A log is asked for.
    pub fn asked(&self, skips_verification: bool) {
        let usage = match skips_verification {
            true => "skip_tls_allowed",
            false => "enforce_tls",
        };
        self.asked.get_or_create(&UsageLabels { usage }).inc();
    }

    /// The kubelet's certificate was refused.
    pub fn refused(&self) {
        self.refused.inc();
    }
}
