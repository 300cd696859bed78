//! What an external signer of tokens does, under upstream's names.
//!
//! Source: `pkg/serviceaccount/externaljwt/metrics/metrics.go`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::names::{Names, name};
use super::shared::now_seconds;

/// Upstream's buckets of calls, in seconds.
const CALL_SECONDS: [f64; 14] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// The metrics of external signers.
pub struct ExternalSignerMetrics {
    answered: Seconds,
    keys_of: Seconds,
    fetches: Family<CodeLabels, Counter>,
    signs: Family<CodeLabels, Counter>,
    calls: Family<CallLabels, Histogram, fn() -> Histogram>,
}

impl Default for ExternalSignerMetrics {
    fn default() -> ExternalSignerMetrics {
        ExternalSignerMetrics {
            answered: Seconds::default(),
            keys_of: Seconds::default(),
            fetches: Family::default(),
            signs: Family::default(),
            calls: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
        }
    }
}

impl ExternalSignerMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let metric = |rest: &str| format!("apiserver_externaljwt_{rest}");
        let help = "When an external signer of tokens last told its keys, in seconds since 1970; 0: there is none";
        name(r, &metric("fetch_keys_success_timestamp"), help, &self.answered);
        let help = "How old it said that those were, in seconds since 1970";
        name(r, &metric("fetch_keys_data_timestamp"), help, &self.keys_of);
        let help = "How often it was asked for its keys, by how that ended";
        name(r, &metric("fetch_keys_request"), help, &self.fetches);
        let help = "How often it was asked to sign, by how that ended";
        name(r, &metric("sign_request"), help, &self.signs);
        let help = "How long it took to answer, in seconds";
        name(r, &metric("request_duration_seconds"), help, &self.calls);
    }

    /// It was asked something; `code` is gRPC's word for how that ended.
    pub fn called(&self, method: &'static str, code: &str, took: Duration) {
        let code = code.to_owned();
        let labels = CallLabels { method, code };
        self.calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// It was asked for its keys.
    pub fn fetched(&self, code: &str) {
        let labels = CodeLabels { code: code.to_owned() };
        self.fetches.get_or_create(&labels).inc();
        if code == "OK" {
            self.answered.set(now_seconds());
        }
    }

    /// Its keys are of that time.
    pub fn keys_are_of(&self, seconds: f64) {
        self.keys_of.set(seconds);
    }

    /// It was asked to sign.
    pub fn signed(&self, code: &str) {
        let labels = CodeLabels { code: code.to_owned() };
        self.signs.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_are_counted_under_upstreams_names() {
        let metrics = ExternalSignerMetrics::default();
        metrics.called("/v1.ExternalJWTSigner/Sign", "OK", Duration::from_millis(3));
        metrics.fetched("OK");
        metrics.fetched("Unavailable");
        metrics.keys_are_of(1_700_000_000.5);
        metrics.signed("unknown-non-grpc");
        let mut names = Names::default();
        metrics.register(&mut names);
        let text = names.text();
        let prefix = "apiserver_externaljwt_";
        for line in [
            "fetch_keys_data_timestamp 1700000000.5",
            "fetch_keys_request_total{code=\"OK\"} 1",
            "fetch_keys_request_total{code=\"Unavailable\"} 1",
            "sign_request_total{code=\"unknown-non-grpc\"} 1",
            "request_duration_seconds_bucket{le=\"0.005\",method=\"/v1.ExternalJWTSigner/Sign\",code=\"OK\"} 1",
        ] {
            let line = format!("{prefix}{line}");
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains("fetch_keys_success_timestamp 0"), "{text}");
    }
}
