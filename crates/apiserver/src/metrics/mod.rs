//! What the server counts: `/metrics`, with upstream's names and labels, so that dashboards made for Kubernetes show it.
//!
//! Sources: `k8s.io/apiserver/pkg/endpoints/metrics`, `pkg/storage/etcd3/metrics`, and what every Go program tells of its
//! process. What has no meaning here (garbage collection, a watch cache's size) is left out, and what upstream has no name
//! for has one of ours.

mod audit;
mod flow;
mod process;
mod requests;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::respond::budget::Budget;
use crate::version;
pub use audit::AuditMetrics;
pub use flow::{FlowMetrics, SchemaMetrics};
use process::Process;
pub use requests::{InFlight, LongRunning, RequestLabels, Requests};

/// Upstream's buckets of requests and of calls to the store, in seconds.
const DURATION_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

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
    registry: Mutex<Registry>,
    /// Requests and their answers.
    pub requests: Requests,
    /// What is told to the audit log.
    pub audit: AuditMetrics,
    /// Seats and who waits for them.
    pub flow: FlowMetrics,
    /// Events sent to watchers.
    pub watch_events: Family<VersionLabels, Counter>,
    /// Frames made for them; one that several watchers are sent counts once.
    pub watch_frames: Counter,
    /// Writes that lost a race and ran again.
    pub write_retries: Counter<u64, AtomicU64>,
    /// TLS handshakes that failed.
    pub tls_handshake_errors: Counter,
    store_revision: Gauge<i64>,
    store_durations: Family<StoreLabels, Histogram, fn() -> Histogram>,
    store_requests: Family<StoreLabels, Counter>,
    store_errors: Family<StoreLabels, Counter>,
    objects: Family<ResourceLabels, Gauge>,
    objects_qualified: Family<QualifiedLabels, Gauge>,
    whole_bytes: Gauge<i64>,
    whole_refused: Gauge<i64>,
    process: Process,
}

fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

fn name(registry: &mut Registry, name: &str, help: &str, metric: &(impl Metric + Clone)) {
    registry.register(name, help, metric.clone());
}

impl Metrics {
    /// The metrics of a server, and what its auditor counts.
    pub fn new(audit: AuditMetrics) -> Metrics {
        let metrics = Metrics {
            registry: Mutex::default(),
            requests: Requests::default(),
            audit,
            flow: FlowMetrics::default(),
            watch_events: Family::default(),
            watch_frames: Counter::default(),
            write_retries: Counter::default(),
            tls_handshake_errors: Counter::default(),
            store_revision: Gauge::default(),
            store_durations: Family::new_with_constructor(duration_histogram),
            store_requests: Family::default(),
            store_errors: Family::default(),
            objects: Family::default(),
            objects_qualified: Family::default(),
            whole_bytes: Gauge::default(),
            whole_refused: Gauge::default(),
            process: Process::default(),
        };
        metrics.register_all();
        metrics
    }

    /// Gives every metric its name and its help.
    fn register_all(&self) {
        let r = &mut *self.registry.lock();
        self.requests.register(r);
        self.flow.register(r);
        self.audit.register(r);
        name(
            r,
            "apiserver_watch_events",
            "Events sent to watchers",
            &self.watch_events,
        );
        let help = "Frames made for watchers; one that several are sent counts once";
        name(r, "apiserver_watch_frames", help, &self.watch_frames);
        let help = "TLS handshakes that failed";
        name(r, "apiserver_tls_handshake_errors", help, &self.tls_handshake_errors);
        let help = "The store's revision";
        name(r, "apiserver_storage_revision", help, &self.store_revision);
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
        let help = "What was built, and how";
        r.register("kubernetes_build", help, Info::new(labels.to_vec()));
    }

    /// Notes how many objects of a resource are stored.
    pub fn count_objects(&self, group: &str, resource: &str, count: usize) {
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
    }

    /// Notes what whole answers take.
    pub fn whole_answers(&self, budget: &Budget) {
        self.whole_bytes.set(i64::try_from(budget.used()).unwrap_or(i64::MAX));
        self.whole_refused
            .set(i64::try_from(budget.refused()).unwrap_or(i64::MAX));
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
        let mut text = String::new();
        encode(&mut text, &self.registry.lock()).expect("invariant: writing to a string does not fail");
        text
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

/// OpenMetrics as the older text format, for whoever does not ask for the newer: there a counter is named with its
/// `_total`, and nothing marks the end.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if line.starts_with("# HELP ") {
            // Its metric's type comes in the next line.
            help = Some(line);
            continue;
        }
        if let Some((metric, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take().and_then(|line| line["# HELP ".len()..].split_once(' ')) {
                out.push_str(&format!("# HELP {metric}{suffix} {help}\n"));
            }
            out.push_str(&format!("# TYPE {metric}{suffix} {kind}\n"));
            continue;
        }
        if !line.starts_with("# ") {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_writes_are_counted_under_both_names() {
        let metrics = Metrics::new(AuditMetrics::default());
        metrics.count_objects("apps", "deployments", 3);
        metrics.count_objects("", "pods", 2);
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

    #[test]
    fn the_older_format_names_counters_in_full() {
        let text =
            "# HELP a_b Some.\n# TYPE a_b counter\na_b_total{x=\"1\"} 1\n# HELP c C.\n# TYPE c gauge\nc 2\n# EOF\n";
        let expect = "# HELP a_b_total Some.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 1\n# HELP c C.\n# TYPE c gauge\nc 2\n";
        assert_eq!(plain(text), expect);
    }
}
