//! What key services of encryption at rest (KMS) do, under upstream's names, without the label that tells servers apart.
//!
//! Source: `k8s.io/apiserver/pkg/storage/value/encrypt/envelope/metrics/metrics.go`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::Transformation;
use super::names::{Names, name};
use super::shared::now_seconds;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    provider_name: String,
    method_name: &'static str,
    grpc_status_code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UseLabels {
    transformation_type: &'static str,
    provider_name: String,
    key_id_hash: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KeyLabels {
    provider_name: String,
    key_id_hash: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InvalidLabels {
    provider_name: String,
    error: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProviderLabels {
    provider_name: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// The metrics of key services.
pub struct KeyServiceMetrics {
    calls: Family<CallLabels, Histogram, fn() -> Histogram>,
    uses: Family<UseLabels, Counter>,
    last_uses: Family<UseLabels, Seconds>,
    told: Family<KeyLabels, Seconds>,
    invalid: Family<InvalidLabels, Counter>,
    opened: Family<ProviderLabels, Gauge>,
}

impl Default for KeyServiceMetrics {
    fn default() -> KeyServiceMetrics {
        KeyServiceMetrics {
            calls: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0001, 2.0, 20))),
            uses: Family::default(),
            last_uses: Family::default(),
            told: Family::default(),
            invalid: Family::default(),
            opened: Family::default(),
        }
    }
}

impl KeyServiceMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let metric = |rest: &str| format!("apiserver_envelope_encryption_{rest}");
        let help = "How long key services took to answer, in seconds";
        name(r, &metric("kms_operations_latency_seconds"), help, &self.calls);
        let help = "Values that were sealed or opened, by the service's key";
        name(r, &metric("key_id_hash"), help, &self.uses);
        let help = "When that was the last time, in seconds since 1970";
        name(r, &metric("key_id_hash_last_timestamp_seconds"), help, &self.last_uses);
        let help = "When a service last told that it writes with a key, in seconds since 1970";
        name(
            r,
            &metric("key_id_hash_status_last_timestamp_seconds"),
            help,
            &self.told,
        );
        let help = "Names of keys that services told and that cannot be";
        name(r, &metric("invalid_key_id_from_status"), help, &self.invalid);
        let help = "Seeds and keys that services opened and that are kept";
        name(r, &metric("dek_source_cache_size"), help, &self.opened);
    }

    /// A service was asked; `code` is gRPC's word for how that ended.
    pub fn called(&self, provider: &str, method: &'static str, code: String, took: Duration) {
        let labels = CallLabels {
            provider_name: provider.to_owned(),
            method_name: method,
            grpc_status_code: code,
        };
        self.calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A value was sealed or opened with a key of a service.
    pub fn used(&self, provider: &str, way: Transformation, key_hash: String) {
        let labels = UseLabels {
            transformation_type: way.as_str(),
            provider_name: provider.to_owned(),
            key_id_hash: key_hash,
        };
        self.uses.get_or_create(&labels).inc();
        self.last_uses.get_or_create(&labels).set(now_seconds());
    }

    /// A service told that it writes with a key.
    pub fn told(&self, provider: &str, key_hash: String) {
        let labels = KeyLabels {
            provider_name: provider.to_owned(),
            key_id_hash: key_hash,
        };
        self.told.get_or_create(&labels).set(now_seconds());
    }

    /// It told a name that cannot be: `empty` or `too_long`.
    pub fn invalid(&self, provider: &str, error: &'static str) {
        let labels = InvalidLabels {
            provider_name: provider.to_owned(),
            error,
        };
        self.invalid.get_or_create(&labels).inc();
    }

    /// So many seeds and keys that a service opened are kept.
    pub fn kept(&self, provider: &str, count: usize) {
        let labels = ProviderLabels {
            provider_name: provider.to_owned(),
        };
        self.opened
            .get_or_create(&labels)
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_keys_are_counted_under_upstreams_names() {
        let metrics = KeyServiceMetrics::default();
        metrics.called(
            "vault",
            "/v2.KeyManagementService/Status",
            "OK".into(),
            Duration::from_micros(150),
        );
        metrics.used("vault", Transformation::ToStorage, "sha256:1".into());
        metrics.told("vault", "sha256:1".into());
        metrics.invalid("vault", "empty");
        metrics.kept("vault", 3);
        let mut names = Names::default();
        metrics.register(&mut names);
        let text = names.text();
        let prefix = "apiserver_envelope_encryption_";
        let used = r#"transformation_type="to_storage",provider_name="vault",key_id_hash="sha256:1""#;
        for line in [
            format!(
                r#"{prefix}kms_operations_latency_seconds_bucket{{le="0.0002",provider_name="vault",method_name="/v2.KeyManagementService/Status",grpc_status_code="OK"}} 1"#
            ),
            format!("{prefix}key_id_hash_total{{{used}}} 1"),
            format!("{prefix}key_id_hash_last_timestamp_seconds{{{used}}} "),
            format!(
                r#"{prefix}key_id_hash_status_last_timestamp_seconds{{provider_name="vault",key_id_hash="sha256:1"}} "#
            ),
            format!(r#"{prefix}invalid_key_id_from_status_total{{provider_name="vault",error="empty"}} 1"#),
            format!(r#"{prefix}dek_source_cache_size{{provider_name="vault"}} 3"#),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}
