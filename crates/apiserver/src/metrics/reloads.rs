//! What was read again while the server runs: configurations under upstream's names, certificates under one of ours.
//!
//! Source: `metrics.go` of `k8s.io/apiserver/pkg/server/options/authenticationconfig`, `.../authorizationconfig` and
//! `.../encryptionconfig`, without the label that tells servers apart: each server is asked for its own.

use std::fmt::Write as _;

use base::Clock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use sha2::{Digest as _, Sha256};

use super::names::{Names, name};

/// The configurations that upstream counts, each under names of its own.
const CONFIGURATIONS: [&str; 3] = ["authentication", "authorization", "encryption"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HashLabels {
    hash: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FileLabels {
    files: &'static str,
    status: &'static str,
}

#[derive(Clone, Default)]
struct Configuration {
    reloads: Family<StatusLabels, Counter>,
    last: Family<StatusLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    info: Family<HashLabels, Gauge>,
}

/// Counts what is read again. Cheap to clone; clones count together.
#[derive(Clone, Default)]
pub struct ReloadMetrics {
    configurations: [Configuration; 3],
    files: Family<FileLabels, Counter>,
}

// === impl ReloadMetrics ===

impl ReloadMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        for (what, own) in CONFIGURATIONS.iter().zip(&self.configurations) {
            let metric = |rest: &str| format!("apiserver_{what}_config_controller_{rest}");
            let help = "Reloads of the configuration, by outcome";
            name(r, &metric("automatic_reloads"), help, &own.reloads);
            let help = "When the configuration was last reloaded, by outcome, in seconds since 1970";
            name(r, &metric("automatic_reload_last_timestamp_seconds"), help, &own.last);
            name(r, &metric("last_config_info"), "The configuration in force", &own.info);
        }
        let help = "Reloads of certificates and keys, by what they are for and by outcome";
        name(r, "trireme_certificate_file_reloads", help, &self.files);
    }

    /// These contents of `what` are in force since the start.
    pub fn began(&self, what: &str, contents: &[Vec<u8>]) {
        if let Some(configuration) = self.configuration(what) {
            configuration.is(contents);
        }
    }

    /// Contents were read again, and taken; or they could not be used.
    pub fn reloaded(&self, what: &'static str, contents: &[Vec<u8>], taken: bool, clock: &Clock) {
        let status = if taken { "success" } else { "failure" };
        let Some(configuration) = self.configuration(what) else {
            self.files.get_or_create(&FileLabels { files: what, status }).inc();
            return;
        };
        let labels = StatusLabels { status };
        configuration.reloads.get_or_create(&labels).inc();
        let now = clock.now().as_millisecond() as f64 / 1000.0;
        configuration.last.get_or_create(&labels).set(now);
        if taken {
            configuration.is(contents);
        }
    }

    fn configuration(&self, what: &str) -> Option<&Configuration> {
        let at = CONFIGURATIONS.iter().position(|own| *own == what)?;
        Some(&self.configurations[at])
    }
}

// === impl Configuration ===

impl Configuration {
    /// The one with this digest is in force.
    fn is(&self, contents: &[Vec<u8>]) {
        let mut hash = "sha256:".to_owned();
        for byte in Sha256::digest(contents.concat()) {
            // Writing to a String cannot fail.
            let _ = write!(hash, "{byte:02x}");
        }
        self.info.clear();
        self.info.get_or_create(&HashLabels { hash }).set(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reloads_are_told_under_upstreams_names() {
        let (metrics, clock) = (ReloadMetrics::default(), Clock::real());
        let mut names = Names::default();
        metrics.register(&mut names);
        metrics.began("authorization", &[b"one".to_vec()]);
        metrics.reloaded("authorization", &[b"two".to_vec()], true, &clock);
        metrics.reloaded("authorization", &[b"three".to_vec()], false, &clock);
        metrics.reloaded("serving", &[], true, &clock);
        let text = names.text();
        let two = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";
        for line in [
            "apiserver_authorization_config_controller_automatic_reloads_total{status=\"success\"} 1",
            "apiserver_authorization_config_controller_automatic_reloads_total{status=\"failure\"} 1",
            &format!("apiserver_authorization_config_controller_last_config_info{{hash=\"sha256:{two}\"}} 1"),
            "trireme_certificate_file_reloads_total{files=\"serving\",status=\"success\"} 1",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert_eq!(text.matches("last_config_info{").count(), 1);
    }
}
