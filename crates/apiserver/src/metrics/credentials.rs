//! What became of tokens, under upstream's names.
//!
//! Sources: `k8s.io/apiserver/pkg/authentication/token/cache/stats.go`, `plugin/pkg/authenticator/token/oidc/metrics.go` there
//! (without the label that tells servers apart), and `pkg/serviceaccount/metrics.go`.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use sha2::{Digest as _, Sha256};

use super::DEFAULT_SECONDS;
use super::names::{Names, name};
use super::shared::now_seconds;

/// Upstream's buckets of tokens of other issuers, in seconds.
const ISSUER_SECONDS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct IssuerLabels {
    result: &'static str,
    jwt_issuer_hash: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KeySetLabels {
    jwt_issuer_hash: String,
    hash: String,
}

/// The metrics of tokens.
pub struct CredentialMetrics {
    cache_requests: Family<StatusLabels, Counter>,
    cache_seconds: Family<StatusLabels, Histogram, fn() -> Histogram>,
    fetches: Family<StatusLabels, Counter>,
    fetching: Family<StatusLabels, Gauge>,
    issuer_seconds: Family<IssuerLabels, Histogram, fn() -> Histogram>,
    key_fetches: Family<IssuerLabels, Gauge<f64, AtomicU64>>,
    key_sets: Family<KeySetLabels, Gauge>,
    /// By issuer, both as hashes: one set of keys is in force.
    keys_in_force: Mutex<BTreeMap<String, String>>,
    valid: Counter,
    stale: Counter,
    legacy: Counter,
    of_manual_secrets: Counter,
    of_automatic_secrets: Counter,
    withdrawn: Counter,
}

impl Default for CredentialMetrics {
    fn default() -> CredentialMetrics {
        CredentialMetrics {
            cache_requests: Family::default(),
            cache_seconds: Family::new_with_constructor(|| Histogram::new(DEFAULT_SECONDS)),
            fetches: Family::default(),
            fetching: Family::default(),
            issuer_seconds: Family::new_with_constructor(|| Histogram::new(ISSUER_SECONDS)),
            key_fetches: Family::default(),
            key_sets: Family::default(),
            keys_in_force: Mutex::default(),
            valid: Counter::default(),
            stale: Counter::default(),
            legacy: Counter::default(),
            of_manual_secrets: Counter::default(),
            of_automatic_secrets: Counter::default(),
            withdrawn: Counter::default(),
        }
    }
}

/// Counts something as going on until it is dropped.
pub struct Going(Gauge);

impl Going {
    fn on(gauge: Gauge) -> Going {
        gauge.inc();
        Going(gauge)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl CredentialMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let metric = |rest: &str| format!("authentication_token_cache_{rest}");
        let help = "Tokens that were looked for among those that are remembered, by whether they were";
        name(r, &metric("request"), help, &self.cache_requests);
        let help = "How long finding out took, in seconds, by whether the token was remembered";
        name(r, &metric("request_duration_seconds"), help, &self.cache_seconds);
        let help = "Tokens that were not remembered, by how finding out ended";
        name(r, &metric("fetch"), help, &self.fetches);
        let help = "Tokens that are being found out, and requests that wait for it";
        name(r, &metric("active_fetch_count"), help, &self.fetching);
        let metric = |rest: &str| format!("apiserver_authentication_jwt_authenticator_{rest}");
        let help = "How long it took to verify a token of another issuer, in seconds";
        name(r, &metric("latency_seconds"), help, &self.issuer_seconds);
        let help = "When an issuer's keys were last asked for, by outcome, in seconds since 1970";
        name(r, &metric("jwks_fetch_last_timestamp_seconds"), help, &self.key_fetches);
        let help = "The keys of an issuer that are in force";
        name(r, &metric("jwks_fetch_last_key_set_info"), help, &self.key_sets);
        let help = "Uses of pods' tokens that outlive what they tell, within the time that they tell";
        name(r, "serviceaccount_valid_tokens", help, &self.valid);
        let help = "Uses of such tokens after that: whoever sends them does not read them again";
        name(r, "serviceaccount_stale_tokens", help, &self.stale);
        let help = "Uses of tokens without audiences, as controllers of other clusters put them into Secrets";
        name(r, "serviceaccount_legacy_tokens", help, &self.legacy);
        let help = "Uses of tokens of Secrets that somebody made";
        let metric = "serviceaccount_legacy_manual_token_uses";
        name(r, metric, help, &self.of_manual_secrets);
        let help = "Uses of tokens of Secrets that came with their accounts";
        let metric = "serviceaccount_legacy_auto_token_uses";
        name(r, metric, help, &self.of_automatic_secrets);
        let help = "Uses of such tokens that were withdrawn";
        let metric = "serviceaccount_invalid_legacy_auto_token_uses";
        name(r, metric, help, &self.withdrawn);
    }

    /// A token was looked for among those that are remembered, and found out in so long.
    pub fn looked_up(&self, hit: bool, took: Duration) {
        let labels = StatusLabels {
            status: if hit { "hit" } else { "miss" },
        };
        self.cache_requests.get_or_create(&labels).inc();
        self.cache_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Finding out a token begins.
    pub fn fetches(&self) -> Going {
        Going::on(
            self.fetching
                .get_or_create(&StatusLabels { status: "in_flight" })
                .clone(),
        )
    }

    /// A request waits for that.
    pub fn waits(&self) -> Going {
        Going::on(self.fetching.get_or_create(&StatusLabels { status: "blocked" }).clone())
    }

    /// Finding out ended.
    pub fn fetched(&self, ok: bool) {
        let status = if ok { "ok" } else { "error" };
        self.fetches.get_or_create(&StatusLabels { status }).inc();
    }

    /// A token of an issuer was verified, or refused.
    pub fn verified(&self, issuer: &str, ok: bool, took: Duration) {
        let labels = issuer_labels(issuer, ok);
        self.issuer_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// An issuer was asked for its keys, and answered with this document or not at all.
    pub fn keys_asked(&self, issuer: &str, document: Option<&[u8]>) {
        let labels = issuer_labels(issuer, document.is_some());
        self.key_fetches.get_or_create(&labels).set(now_seconds());
        let Some(document) = document else { return };
        let (issuer, keys) = (labels.jwt_issuer_hash, hash(document));
        let before = self.keys_in_force.lock().insert(issuer.clone(), keys.clone());
        if let Some(before) = before.filter(|before| *before != keys) {
            self.key_sets.remove(&key_set_labels(&issuer, &before));
        }
        self.key_sets.get_or_create(&key_set_labels(&issuer, &keys)).set(1);
    }

    /// Nobody takes the tokens of an issuer any more.
    pub fn forget_issuer(&self, issuer: &str) {
        let hash = hash(issuer.as_bytes());
        if let Some(keys) = self.keys_in_force.lock().remove(&hash) {
            self.key_sets.remove(&key_set_labels(&hash, &keys));
        }
        for ok in [true, false] {
            self.key_fetches.remove(&issuer_labels(issuer, ok));
        }
    }

    /// A pod's token was used, within the time that it tells or after it.
    pub fn used(&self, stale: bool) {
        let counter = if stale { &self.stale } else { &self.valid };
        counter.inc();
    }

    /// A token without audiences was used.
    pub fn used_legacy(&self) {
        self.legacy.inc();
    }

    /// A token of a Secret was used, which came with its account or was made by somebody.
    pub fn used_of_secret(&self, automatic: bool) {
        let counter = match automatic {
            true => &self.of_automatic_secrets,
            false => &self.of_manual_secrets,
        };
        counter.inc();
    }

    /// A token that was withdrawn was used.
    pub fn used_withdrawn(&self) {
        self.withdrawn.inc();
    }
}

fn issuer_labels(issuer: &str, ok: bool) -> IssuerLabels {
    IssuerLabels {
        result: if ok { "success" } else { "failure" },
        jwt_issuer_hash: hash(issuer.as_bytes()),
    }
}

fn key_set_labels(issuer_hash: &str, hash: &str) -> KeySetLabels {
    KeySetLabels {
        jwt_issuer_hash: issuer_hash.to_owned(),
        hash: hash.to_owned(),
    }
}

/// As upstream shows what is not to be shown.
fn hash(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_under_upstreams_words() {
        let metrics = CredentialMetrics::default();
        let took = Duration::from_millis(3);
        metrics.looked_up(true, took);
        metrics.looked_up(false, took);
        metrics.fetched(false);
        let waits = metrics.waits();
        drop(metrics.fetches());
        metrics.verified("https://i", true, took);
        metrics.keys_asked("https://i", Some(b"one"));
        metrics.keys_asked("https://i", Some(b"two"));
        metrics.keys_asked("https://i", None);
        metrics.used(true);
        metrics.used_legacy();
        metrics.used_of_secret(false);
        metrics.used_withdrawn();
        let mut names = Names::default();
        metrics.register(&mut names);
        let text = names.text();
        let (issuer, two) = (hash(b"https://i"), hash(b"two"));
        let jwt = "apiserver_authentication_jwt_authenticator";
        for line in [
            r#"authentication_token_cache_request_total{status="hit"} 1"#.to_owned(),
            r#"authentication_token_cache_request_duration_seconds_count{status="miss"} 1"#.into(),
            r#"authentication_token_cache_fetch_total{status="error"} 1"#.into(),
            r#"authentication_token_cache_active_fetch_count{status="blocked"} 1"#.into(),
            r#"authentication_token_cache_active_fetch_count{status="in_flight"} 0"#.into(),
            format!(r#"{jwt}_latency_seconds_bucket{{le="0.005",result="success",jwt_issuer_hash="{issuer}"}} 1"#),
            format!(r#"{jwt}_jwks_fetch_last_timestamp_seconds{{result="success",jwt_issuer_hash="{issuer}"}} "#),
            format!(r#"{jwt}_jwks_fetch_last_timestamp_seconds{{result="failure",jwt_issuer_hash="{issuer}"}} "#),
            format!(r#"{jwt}_jwks_fetch_last_key_set_info{{jwt_issuer_hash="{issuer}",hash="{two}"}} 1"#),
            "serviceaccount_stale_tokens_total 1".into(),
            "serviceaccount_valid_tokens_total 0".into(),
            "serviceaccount_legacy_tokens_total 1".into(),
            "serviceaccount_legacy_manual_token_uses_total 1".into(),
            "serviceaccount_legacy_auto_token_uses_total 0".into(),
            "serviceaccount_invalid_legacy_auto_token_uses_total 1".into(),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert_eq!(text.matches("last_key_set_info{").count(), 1, "{text}");
        metrics.forget_issuer("https://i");
        let text = names.text();
        assert!(
            !text.contains("jwks_fetch_last_key_set_info{") && !text.contains("last_timestamp_seconds{"),
            "{text}"
        );
        drop(waits);
        assert!(names.text().contains(r#"active_fetch_count{status="blocked"} 0"#));
    }
}
