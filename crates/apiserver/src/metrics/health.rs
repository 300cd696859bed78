//! How health checks came out: what `/metrics/slis` serves.
//! Source: `k8s.io/component-base/metrics/prometheus/slis`.

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::names::{Name, Names, name};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CheckLabels {
    name: String,
    r#type: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    name: String,
    r#type: String,
    status: &'static str,
}

/// The metrics of health checks, in a registry of their own.
pub struct HealthMetrics {
    names: Mutex<Names>,
    last: Family<CheckLabels, Gauge>,
    all: Family<StatusLabels, Counter>,
}

impl Default for HealthMetrics {
    fn default() -> HealthMetrics {
        let metrics = HealthMetrics {
            names: Mutex::default(),
            last: Family::default(),
            all: Family::default(),
        };
        let mut names = metrics.names.lock();
        let help = "How a health check came out the last time: 1 is well";
        name(&mut names, "kubernetes_healthcheck", help, &metrics.last);
        let help = "Health checks, by how they came out";
        name(&mut names, "kubernetes_healthchecks", help, &metrics.all);
        drop(names);
        metrics
    }
}

impl HealthMetrics {
    /// A check of `healthz`, `livez` or `readyz` came out.
    pub fn checked(&self, check: &str, which: &str, well: bool) {
        let labels = CheckLabels {
            name: check.to_owned(),
            r#type: which.to_owned(),
        };
        self.last.get_or_create(&labels).set(i64::from(well));
        let labels = StatusLabels {
            name: labels.name,
            r#type: labels.r#type,
            status: if well { "success" } else { "error" },
        };
        self.all.get_or_create(&labels).inc();
    }

    /// Everything that `/metrics/slis` serves, by name.
    pub fn names(&self) -> Vec<Name> {
        self.names.lock().all().to_vec()
    }

    /// The text of `/metrics/slis`, in OpenMetrics.
    pub fn text(&self) -> String {
        self.names.lock().text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_counted_by_how_they_came_out() {
        let metrics = HealthMetrics::default();
        for well in [true, true, false] {
            metrics.checked("etcd", "readyz", well);
        }
        let text = metrics.text();
        for line in [
            r#"kubernetes_healthcheck{name="etcd",type="readyz"} 0"#,
            r#"kubernetes_healthchecks_total{name="etcd",type="readyz",status="success"} 2"#,
            r#"kubernetes_healthchecks_total{name="etcd",type="readyz",status="error"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
