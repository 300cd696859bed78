//! What the server counts: `/metrics`, with upstream's names and labels, so that dashboards made for Kubernetes show it.
//!
//! Sources: `k8s.io/apiserver/pkg/endpoints/metrics`, `pkg/storage/etcd3/metrics`, and what every Go program tells of its
//! process. What has no meaning here (garbage collection, a watch cache's size) is left out, and what upstream has no name
//! for has one of ours.

mod access;
mod admission;
mod aggregation;
mod allocation;
mod audit;
mod authorizers;
mod certificate_requests;
mod client_certificates;
mod conditions;
mod conversions;
mod credentials;
mod dynamic;
mod expressions;
mod external_signers;
mod features;
mod flow;
mod health;
mod key_services;
mod names;
#[cfg(test)]
mod page;
mod pod_logs;
mod pod_security;
mod policies;
mod process;
mod reads;
mod reloads;
mod requests;
mod sealing;
mod server_certificates;
mod shared;
mod timing;
mod unreadable;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;

use crate::respond::budget::Budget;
use crate::version;
pub use access::Access;
pub use admission::{AdmissionMetrics, Step};
pub use aggregation::AggregationMetrics;
pub use allocation::{AllocationMetrics, Scope};
pub use audit::AuditMetrics;
pub use authorizers::Decisions;
pub use client_certificates::ClientCertificateMetrics;
pub use conversions::{ConversionMetrics, Converted};
pub use dynamic::DynamicMetrics;
pub use flow::{FlowMetrics, InPhase, LevelMetrics, LevelUse, SchemaMetrics};
pub use health::HealthMetrics;
pub use names::{Name, plain};
use names::{Names, name};
pub use pod_security::PodSecurityMetrics;
use process::Process;
pub use reads::{Reads, Sizes, WatchMetrics};
pub use reloads::ReloadMetrics;
pub use requests::{HandedThrough, InFlight, LongRunning, OfAggregator, RequestLabels, Requests, scope};
pub use sealing::{SealingMetrics, Transformation};
pub use server_certificates::RefusedCertificates;
pub use shared::{Shared, shared};
pub use webhooks::Called;

/// Upstream's buckets of requests and of calls to the store, in seconds.
const DURATION_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Prometheus' own buckets, in seconds.
const DEFAULT_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A resource in a version, for watch metrics.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct VersionLabels {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural.
    pub resource: String,
}

/// A stored resource.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ResourceLabels {
    /// The group.
    pub group: String,
    /// The plural.
    pub resource: String,
}

/// A feature gate. Upstream's stage of a gate that is generally available is empty.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FeatureLabels {
    name: &'static str,
    stage: &'static str,
}

/// The versions of a component.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CompatibilityLabels {
    component: &'static str,
    binary: String,
    emulation: String,
    min_compat: String,
}

/// The store, as upstream numbers those of a server; there is one.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClusterLabels {
    storage_cluster_id: &'static str,
}

/// A stored resource in one word: `pods`, `deployments.apps`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QualifiedLabels {
    resource: String,
}

/// A call to the store.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StoreLabels {
    /// `create`, `update` or `delete`.
    pub operation: &'static str,
    /// The group.
    pub group: String,
    /// The plural.
    pub resource: String,
}

/// The server's metrics.
pub struct Metrics {
    names: Mutex<Names>,
    /// Requests and their answers.
    pub requests: Requests,
    /// What is told to the audit log.
    pub audit: AuditMetrics,
    /// Seats and who waits for them.
    pub flow: FlowMetrics,
    /// Who asked, and whether they may.
    pub access: Access,
    /// Admission plug-ins.
    pub admission: AdmissionMetrics,
    /// Admission policies and webhooks.
    pub dynamic: Arc<DynamicMetrics>,
    /// Conversion webhooks.
    pub conversions: ConversionMetrics,
    /// Lists and watches.
    pub reads: Reads,
    /// Health checks, which `/metrics/slis` tells.
    pub health: HealthMetrics,
    /// Frames made for them; one that several watchers are sent counts once.
    pub watch_frames: Counter,
    /// Writes that lost a race and ran again.
    pub write_retries: Counter<u64, AtomicU64>,
    /// TLS handshakes that failed.
    pub tls_handshake_errors: Counter,
    store_revision: Gauge<i64>,
    store_bytes: Family<ClusterLabels, Gauge>,
    store_durations: Family<StoreLabels, Histogram, fn() -> Histogram>,
    store_requests: Family<StoreLabels, Counter>,
    store_errors: Family<StoreLabels, Counter>,
    objects: Family<ResourceLabels, Gauge>,
    objects_qualified: Family<QualifiedLabels, Gauge>,
    whole_bytes: Gauge<i64>,
    whole_refused: Counter,
    compatibility: Family<CompatibilityLabels, Gauge>,
    features: Family<FeatureLabels, Gauge>,
    process: Process,
}

fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

impl Metrics {
    /// The metrics of a server with these admission plug-ins, and what its auditor counts.
    pub fn new(audit: AuditMetrics, plugins: impl Iterator<Item = &'static str>) -> Metrics {
        let metrics = Metrics {
            names: Mutex::default(),
            requests: Requests::default(),
            audit,
            flow: FlowMetrics::default(),
            access: Access::default(),
            admission: AdmissionMetrics::of(plugins),
            dynamic: Arc::default(),
            conversions: ConversionMetrics::default(),
            reads: Reads::default(),
            health: HealthMetrics::default(),
            watch_frames: Counter::default(),
            write_retries: Counter::default(),
            tls_handshake_errors: Counter::default(),
            store_revision: Gauge::default(),
            store_bytes: Family::default(),
            store_durations: Family::new_with_constructor(duration_histogram),
            store_requests: Family::default(),
            store_errors: Family::default(),
            objects: Family::default(),
            objects_qualified: Family::default(),
            whole_bytes: Gauge::default(),
            whole_refused: Counter::default(),
            compatibility: Family::default(),
            features: Family::default(),
            process: Process::default(),
        };
        metrics.register_all();
        metrics
    }

    /// Shows what these count, too.
    pub fn add_reloads(&self, reloads: &ReloadMetrics) {
        reloads.register(&mut self.names.lock());
    }

    /// Shows what is counted of APIServices, too.
    pub fn add_aggregation(&self, aggregation: &AggregationMetrics) {
        aggregation.register(&mut self.names.lock());
    }

    /// Shows what is counted of cluster IPs and node ports, too.
    pub fn add_allocation(&self, allocation: &AllocationMetrics) {
        allocation.register(&mut self.names.lock());
    }

    /// Shows what is counted of sealed values, too.
    pub fn add_sealing(&self, sealing: &SealingMetrics) {
        sealing.register(&mut self.names.lock());
    }

    /// Shows what is counted of clients' certificates, too.
    pub fn add_client_certificates(&self, certificates: &ClientCertificateMetrics) {
        certificates.register(&mut self.names.lock());
    }

    /// Gives every metric its name and its help.
    fn register_all(&self) {
        let r = &mut *self.names.lock();
        self.requests.register(r);
        self.access.register(r);
        self.flow.register(r);
        self.admission.register(r);
        self.dynamic.register(r);
        self.conversions.register(r);
        self.audit.register(r);
        self.reads.register(r);
        let help = "Frames made for watchers; one that several are sent counts once";
        name(r, "apiserver_watch_frames", help, &self.watch_frames);
        let help = "TLS handshakes that failed";
        name(r, "apiserver_tls_handshake_errors", help, &self.tls_handshake_errors);
        let help = "The store's revision";
        name(r, "apiserver_storage_revision", help, &self.store_revision);
        let help = "How large the store's files are, in bytes";
        name(r, "apiserver_storage_size_bytes", help, &self.store_bytes);
        let help = "Writes that lost a race and ran again";
        name(r, "apiserver_storage_write_retries", help, &self.write_retries);
        let help = "Stored objects, by resource and group in one word";
        name(r, "apiserver_storage_objects", help, &self.objects_qualified);
        name(r, "apiserver_resource_objects", "Stored objects", &self.objects);
        let help = "Time until the store had written, in seconds";
        name(r, "etcd_request_duration_seconds", help, &self.store_durations);
        name(r, "etcd_requests", "Writes to the store", &self.store_requests);
        let help = "Writes that the store refused";
        name(r, "etcd_request_errors", help, &self.store_errors);
        let help = "Bytes that answers take now that cannot be encoded while they are sent, by estimate";
        name(r, "apiserver_whole_answers_bytes", help, &self.whole_bytes);
        let help = "Such answers that were refused because others left no room";
        name(r, "apiserver_whole_answers_refused", help, &self.whole_refused);
        client::metrics::of_process().register(r);
        shared().register(r);
        self.process.register(r);
        let build = [
            "major",
            "minor",
            "gitVersion",
            "gitCommit",
            "gitTreeState",
            "buildDate",
            "goVersion",
            "compiler",
            "platform",
        ];
        let document = version::document();
        let labels = build.map(|field| (snake(field), document[field].as_str().unwrap_or_default().to_owned()));
        r.add(
            "kubernetes_build",
            "What was built, and how",
            Info::new(labels.to_vec()),
        );
        let help = "The version of the API, and those that it behaves as and is still understood by";
        name(r, "version_info", help, &self.compatibility);
        let own = version::document();
        let part = |name: &str| own[name].as_str().unwrap_or_default().to_owned();
        let (binary, oldest) = (
            format!("{}.{}", part("major"), part("minor")),
            format!("{}.{}", part("minCompatibilityMajor"), part("minCompatibilityMinor")),
        );
        let labels = CompatibilityLabels {
            component: "kube",
            emulation: binary.clone(),
            binary,
            min_compat: oldest,
        };
        self.compatibility.get_or_create(&labels).set(1);
        let help = "Feature gates of the API: 1 is on";
        name(r, "kubernetes_feature_enabled", help, &self.features);
        for (name, stage, on) in features::GATES {
            let labels = FeatureLabels { name, stage };
            self.features.get_or_create(&labels).set(i64::from(on));
        }
    }

    /// Notes how many objects of a resource are stored, the newest revision of them that is in memory, and how many changes
    /// there were.
    pub fn count_objects(&self, group: &str, resource: &str, count: usize, revision: u64, events: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let qualified = match group {
            "" => resource.to_owned(),
            _ => format!("{resource}.{group}"),
        };
        let labels = QualifiedLabels { resource: qualified };
        self.objects_qualified.get_or_create(&labels).set(count);
        let labels = ResourceLabels {
            group: group.to_owned(),
            resource: resource.to_owned(),
        };
        self.objects.get_or_create(&labels).set(count);
        self.reads.version(&labels, revision);
        self.reads.received(&labels, events);
    }

    /// Notes how large the store's files are.
    pub fn store_size(&self, bytes: u64) {
        let labels = ClusterLabels {
            storage_cluster_id: "etcd-0",
        };
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.store_bytes.get_or_create(&labels).set(bytes);
    }

    /// Notes what whole answers take.
    pub fn whole_answers(&self, budget: &Budget) {
        self.whole_bytes.set(i64::try_from(budget.used()).unwrap_or(i64::MAX));
        // The budget counts; what is shown is brought up to it.
        let known = self.whole_refused.get();
        self.whole_refused.inc_by(budget.refused().saturating_sub(known));
    }

    /// Counts a call to the store.
    pub fn stored(&self, labels: &StoreLabels, took: Duration, refused: bool) {
        self.store_requests.get_or_create(labels).inc();
        self.store_durations.get_or_create(labels).observe(took.as_secs_f64());
        if refused {
            self.store_errors.get_or_create(labels).inc();
        }
    }

    /// The text of `/metrics`, in OpenMetrics.
    pub fn text(&self, revision: u64) -> String {
        self.store_revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.process.measure();
        client::metrics::of_process().measure();
        self.names.lock().text()
    }

    /// Everything that is served, by name.
    pub fn names(&self) -> Vec<Name> {
        self.names.lock().all().to_vec()
    }
}

/// `gitVersion` as a label's name: `git_version`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_writes_are_counted_under_both_names() {
        let metrics = Metrics::new(AuditMetrics::default(), std::iter::empty());
        metrics.count_objects("apps", "deployments", 3, 5, 9);
        metrics.count_objects("", "pods", 2, 5, 9);
        let labels = StoreLabels {
            operation: "create",
            group: "apps".into(),
            resource: "deployments".into(),
        };
        metrics.stored(&labels, Duration::from_millis(3), false);
        metrics.stored(&labels, Duration::from_millis(30), true);
        let text = metrics.text(7);
        for line in [
            "apiserver_storage_objects{resource=\"deployments.apps\"} 3",
            "apiserver_storage_objects{resource=\"pods\"} 2",
            "apiserver_resource_objects{group=\"apps\",resource=\"deployments\"} 3",
            "apiserver_storage_revision 7",
            "etcd_requests_total{operation=\"create\",group=\"apps\",resource=\"deployments\"} 2",
            "etcd_request_errors_total{operation=\"create\",group=\"apps\",resource=\"deployments\"} 1",
            "etcd_request_duration_seconds_bucket{le=\"0.005\",operation=\"create\",group=\"apps\",resource=\"deployments\"} 1",
            "git_version=\"v1.36.0+trireme.",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
