//! Which APIServices are not available, under upstream's names.
//!
//! Source: `k8s.io/kube-aggregator/pkg/controllers/status/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::names::{Names, name};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NameLabels {
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    name: String,
    reason: &'static str,
}

/// The metrics of APIServices.
#[derive(Clone, Default)]
pub struct AggregationMetrics {
    unavailable: Family<NameLabels, Gauge>,
    became_unavailable: Family<ReasonLabels, Counter>,
}

impl AggregationMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "APIServices that are not available, by name: 1 is not available";
        name(r, "aggregator_unavailable_apiservice", help, &self.unavailable);
        let help = "How often an APIService stopped being available, by name and reason";
        name(r, "aggregator_unavailable_apiservice", help, &self.became_unavailable);
    }

    /// Notes how an APIService is now.
    pub fn is_available(&self, name: &str, is_available: bool) {
        let labels = NameLabels { name: name.to_owned() };
        self.unavailable.get_or_create(&labels).set(i64::from(!is_available));
    }

    /// An APIService is gone.
    pub fn forget(&self, name: &str) {
        self.unavailable.remove(&NameLabels { name: name.to_owned() });
    }

    /// An APIService is not available any more.
    pub fn became_unavailable(&self, name: &str, reason: &'static str) {
        let labels = ReasonLabels {
            name: name.to_owned(),
            reason,
        };
        self.became_unavailable.get_or_create(&labels).inc();
    }
}
