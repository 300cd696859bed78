//! Sealing and opening of stored values, under upstream's names. Values that nothing seals are not counted.
//!
//! Source: `k8s.io/apiserver/pkg/storage/value/metrics.go`.

use std::time::Duration;

use api::GroupResource;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::names::{Names, name};

/// Which way a value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transformation {
    /// It is opened.
    FromStorage,
    /// It is sealed.
    ToStorage,
}

// === impl Transformation ===

impl Transformation {
    /// In labels.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Transformation::FromStorage => "from_storage",
            Transformation::ToStorage => "to_storage",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TypeLabels {
    transformation_type: &'static str,
    transformer_prefix: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    resource: String,
    #[prometheus(flatten)]
    of: TypeLabels,
    status: &'static str,
}

/// Counts what is sealed and opened. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct SealingMetrics {
    operations: Family<OperationLabels, Counter>,
    seconds: Family<TypeLabels, Histogram, fn() -> Histogram>,
}

impl Default for SealingMetrics {
    fn default() -> SealingMetrics {
        SealingMetrics {
            operations: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(5e-6, 2.0, 25))),
        }
    }
}

impl SealingMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "Values that were sealed or opened, by what sealed them and by how that came out";
        name(r, "apiserver_storage_transformation_operations", help, &self.operations);
        let help = "How long sealing or opening a value took, in seconds";
        name(
            r,
            "apiserver_storage_transformation_duration_seconds",
            help,
            &self.seconds,
        );
    }

    /// A value of a resource was sealed or opened, or could not be; `prefix` is what sealed values begin with.
    pub fn transformed(
        &self,
        resource: &GroupResource,
        way: Transformation,
        prefix: String,
        worked: bool,
        took: Duration,
    ) {
        let of = TypeLabels {
            transformation_type: way.as_str(),
            transformer_prefix: prefix,
        };
        if worked {
            self.seconds.get_or_create(&of).observe(took.as_secs_f64());
        }
        let labels = OperationLabels {
            resource: resource.to_string(),
            of,
            // Upstream's word for a failure that no key service told of.
            status: if worked { "OK" } else { "unknown-non-grpc" },
        };
        self.operations.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_counted() {
        let metrics = SealingMetrics::default();
        let secrets = GroupResource {
            group: String::new(),
            resource: "secrets".into(),
        };
        let took = Duration::from_micros(7);
        let prefix = || "k8s:enc:aescbc:v1:".to_owned();
        metrics.transformed(&secrets, Transformation::ToStorage, prefix(), true, took);
        metrics.transformed(&secrets, Transformation::FromStorage, prefix(), false, took);
        let mut names = Names::default();
        metrics.register(&mut names);
        let text = names.text();
        let of = |way: &str| format!("transformation_type=\"{way}\",transformer_prefix=\"k8s:enc:aescbc:v1:\"");
        let operations = "apiserver_storage_transformation_operations_total";
        for line in [
            format!(
                "{operations}{{resource=\"secrets\",{},status=\"OK\"}} 1",
                of("to_storage")
            ),
            format!(
                "{operations}{{resource=\"secrets\",{},status=\"unknown-non-grpc\"}} 1",
                of("from_storage")
            ),
            format!(
                "apiserver_storage_transformation_duration_seconds_count{{{}}} 1",
                of("to_storage")
            ),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(
            !text.contains(&format!("seconds_count{{{}}}", of("from_storage"))),
            "{text}"
        );
    }
}
