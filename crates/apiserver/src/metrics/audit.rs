//! What the audit log counts, under upstream's names. Source: `k8s.io/apiserver/pkg/audit/metrics.go`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::names::{Names, name};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LevelLabels {
    level: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PluginLabels {
    plugin: &'static str,
}

/// The audit log's metrics. Cheap to clone; clones count together.
#[derive(Clone, Default)]
pub struct AuditMetrics {
    levels: Family<LevelLabels, Counter>,
    events: Counter,
    errors: Family<PluginLabels, Counter>,
    rejected: Counter,
}

impl AuditMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        name(
            r,
            "apiserver_audit_level",
            "Requests that are told of, by level",
            &self.levels,
        );
        name(r, "apiserver_audit_event", "Audit events", &self.events);
        name(r, "apiserver_audit_error", "Audit events that were lost", &self.errors);
        let help = "Requests that were refused because their event was lost";
        name(r, "apiserver_audit_requests_rejected", help, &self.rejected);
    }

    /// A request is told of.
    pub fn level(&self, level: &'static str) {
        self.levels.get_or_create(&LevelLabels { level }).inc();
    }

    /// An event is told.
    pub fn told(&self) {
        self.events.inc();
    }

    /// A request was refused because its event was lost.
    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// An event was lost.
    pub fn lost(&self, plugin: &'static str) {
        self.errors.get_or_create(&PluginLabels { plugin }).inc();
    }

    /// How many were lost.
    #[cfg(test)]
    pub fn losses(&self, plugin: &'static str) -> u64 {
        self.errors.get_or_create(&PluginLabels { plugin }).get()
    }
}
