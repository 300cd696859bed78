//! What is stored and cannot be read, under upstream's name. Source: `k8s.io/apiserver/pkg/storage/etcd3/metrics/metrics.go`.

use api::GroupResource;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::names::{Names, name};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResourceLabels {
    group: String,
    resource: String,
}

/// Counts objects whose bytes are none.
#[derive(Default)]
pub struct UnreadableMetrics(Family<ResourceLabels, Counter>);

impl UnreadableMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "Stored objects that could not be read";
        name(r, "apiserver_storage_decode_errors", help, &self.0);
    }

    /// One more of that resource.
    pub fn found(&self, of: &GroupResource) {
        let labels = ResourceLabels {
            group: of.group.clone(),
            resource: of.resource.clone(),
        };
        self.0.get_or_create(&labels).inc();
    }
}
