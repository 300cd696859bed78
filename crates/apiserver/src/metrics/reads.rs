//! Lists and watches: what is read from memory and what is sent to watchers, under upstream's names.
//!
//! Sources: `k8s.io/apiserver/pkg/storage/cacher/metrics` and `pkg/endpoints/metrics`. Here the state in memory is the
//! store's own (design D5): what upstream counts of its watch cache is counted of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{GroupResource, GroupVersionResource};
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::names::{Names, name};
use super::{ResourceLabels, VersionLabels};

/// Upstream's buckets of events, in bytes.
const EVENT_BYTES: [u64; 8] = [1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072];
/// Upstream shows no more digits of a version: as many as a float holds.
const VERSION_DIGITS: u64 = 1_000_000_000_000_000;

/// Upstream's buckets of waits for a version, in seconds.
const WAIT_SECONDS: [f64; 13] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];
/// Upstream's buckets of watches that tell first what is there, in seconds.
const WATCH_LIST_SECONDS: [f64; 17] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WatchListLabels {
    group: String,
    version: String,
    resource: String,
    scope: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct IndexLabels {
    group: String,
    resource: String,
    /// Lists are walked in the order of their keys: no index, as upstream says it.
    index: &'static str,
}

/// Sizes of events. Ten thousand watchers add to them: no lock, and whole bytes only.
#[derive(Clone, Debug, Default)]
pub struct Sizes(Arc<SizeCounts>);

#[derive(Debug, Default)]
struct SizeCounts {
    bytes: AtomicU64,
    /// One for each of [`EVENT_BYTES`], and one for what is larger.
    counts: [AtomicU64; EVENT_BYTES.len() + 1],
}

impl Sizes {
    fn add(&self, told: &Told) {
        for (count, more) in self.0.counts.iter().zip(told.counts) {
            if more > 0 {
                count.fetch_add(more, Ordering::Relaxed);
            }
        }
        self.0.bytes.fetch_add(told.bytes, Ordering::Relaxed);
    }
}

impl TypedMetric for Sizes {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Sizes {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let counts = self.0.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let bounds = EVENT_BYTES.iter().map(|bytes| *bytes as f64).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let bytes = self.0.bytes.load(Ordering::Relaxed) as f64;
        encoder.encode_histogram::<NoLabelSet>(bytes, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// What one watch counts under, found once. It counts for itself first and adds that up now and then: watchers of a kind
/// run on all processors at once, and the numbers that they share would travel between those for each event.
pub struct WatchMetrics {
    events: Counter,
    sizes: Sizes,
    initial: Counter,
    /// Watches that fell behind what is kept.
    pub terminated: Counter,
    told: Told,
}

/// What was sent since the last [`WatchMetrics::publish`].
#[derive(Default)]
struct Told {
    events: u64,
    /// Of them, those that told what was there when the watch began.
    initial: u64,
    bytes: u64,
    /// By size, as [`SizeCounts`].
    counts: [u64; EVENT_BYTES.len() + 1],
}

impl WatchMetrics {
    /// An event of so many bytes goes out.
    pub fn sent(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        let bucket = EVENT_BYTES.partition_point(|most| *most < bytes);
        self.told.events += 1;
        self.told.bytes += bytes;
        self.told.counts[bucket] += 1;
    }

    /// The next event tells what was there when the watch began.
    pub fn sends_initial(&mut self) {
        self.told.initial += 1;
    }

    /// Shows what was counted.
    pub fn publish(&mut self) {
        let told = std::mem::take(&mut self.told);
        if told.initial > 0 {
            self.initial.inc_by(told.initial);
        }
        if told.events > 0 {
            self.events.inc_by(told.events);
            self.sizes.add(&told);
        }
    }
}

/// The metrics of lists and watches.
pub struct Reads {
    events: Family<VersionLabels, Counter>,
    sizes: Family<VersionLabels, Sizes>,
    initial: Family<ResourceLabels, Counter>,
    terminated: Family<ResourceLabels, Counter>,
    lists: Family<IndexLabels, Counter>,
    fetched: Family<IndexLabels, Counter>,
    returned: Family<ResourceLabels, Counter>,
    versions: Family<ResourceLabels, Gauge>,
    received: Family<ResourceLabels, Counter>,
    waits: Family<ResourceLabels, Histogram, fn() -> Histogram>,
    watch_lists: Family<WatchListLabels, Histogram, fn() -> Histogram>,
}

impl Default for Reads {
    fn default() -> Reads {
        Reads {
            events: Family::default(),
            sizes: Family::default(),
            initial: Family::default(),
            terminated: Family::default(),
            lists: Family::default(),
            fetched: Family::default(),
            returned: Family::default(),
            versions: Family::default(),
            received: Family::default(),
            waits: Family::new_with_constructor(|| Histogram::new(WAIT_SECONDS)),
            watch_lists: Family::new_with_constructor(|| Histogram::new(WATCH_LIST_SECONDS)),
        }
    }
}

impl Reads {
    pub(super) fn register(&self, r: &mut Names) {
        name(r, "apiserver_watch_events", "Events sent to watchers", &self.events);
        name(r, "apiserver_watch_events_sizes", "Their sizes, in bytes", &self.sizes);
        let help = "Events that told watchers what was there when they began";
        name(r, "apiserver_init_events", help, &self.initial);
        let help = "Watches that ended because they fell behind what is kept";
        name(r, "apiserver_terminated_watchers", help, &self.terminated);
        name(r, "apiserver_cache_list", "Lists, all of them from memory", &self.lists);
        let help = "Objects that lists went through";
        name(r, "apiserver_cache_list_fetched_objects", help, &self.fetched);
        let help = "Objects that lists answered with";
        name(r, "apiserver_cache_list_returned_objects", help, &self.returned);
        let help = "The newest version in memory, its last 15 digits";
        name(r, "apiserver_watch_cache_resource_version", help, &self.versions);
        // Upstream counts what etcd tells and what reaches its cache; here that is one thing.
        let help = "Changes that the store told of";
        name(r, "apiserver_storage_events_received", help, &self.received);
        name(r, "apiserver_watch_cache_events_received", help, &self.received);
        name(r, "apiserver_watch_cache_events_dispatched", help, &self.received);
        let help = "How long reads waited until a version was in memory, in seconds";
        name(r, "apiserver_watch_cache_read_wait_seconds", help, &self.waits);
        let help = "How long watches took to tell what was there when they began, in seconds";
        name(r, "apiserver_watch_list_duration_seconds", help, &self.watch_lists);
    }

    /// How long a watch takes to tell what is there; `scope` is `resource`, `namespace` or `cluster`.
    pub fn watch_list(&self, gvr: &GroupVersionResource, scope: &'static str) -> Histogram {
        let labels = WatchListLabels {
            group: gvr.group.clone(),
            version: gvr.version.clone(),
            resource: gvr.resource.clone(),
            scope,
        };
        self.watch_lists.get_or_create(&labels).clone()
    }

    /// A read waited so long until a version was in memory.
    pub fn waited(&self, resource: &GroupResource, took: Duration) {
        let labels = ResourceLabels {
            group: resource.group.clone(),
            resource: resource.resource.clone(),
        };
        self.waits.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Notes how many changes of a resource there were since its table is open.
    pub(super) fn received(&self, labels: &ResourceLabels, events: u64) {
        let counter = self.received.get_or_create(labels);
        counter.inc_by(events.saturating_sub(counter.get()));
    }

    /// What a watch counts under.
    pub fn watch(&self, group: &str, version: &str, resource: &str) -> WatchMetrics {
        let labels = VersionLabels {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
        };
        let stored = ResourceLabels {
            group: group.to_owned(),
            resource: resource.to_owned(),
        };
        WatchMetrics {
            events: self.events.get_or_create(&labels).clone(),
            sizes: self.sizes.get_or_create(&labels).clone(),
            initial: self.initial.get_or_create(&stored).clone(),
            terminated: self.terminated.get_or_create(&stored).clone(),
            told: Told::default(),
        }
    }

    /// A list went through so many objects and answered with so many.
    pub fn listed(&self, group: &str, resource: &str, fetched: usize, returned: usize) {
        let labels = IndexLabels {
            group: group.to_owned(),
            resource: resource.to_owned(),
            index: "",
        };
        self.lists.get_or_create(&labels).inc();
        self.fetched.get_or_create(&labels).inc_by(fetched as u64);
        let labels = ResourceLabels {
            group: labels.group,
            resource: labels.resource,
        };
        self.returned.get_or_create(&labels).inc_by(returned as u64);
    }

    /// Notes the newest version of a resource.
    pub(super) fn version(&self, labels: &ResourceLabels, revision: u64) {
        let shown = i64::try_from(revision % VERSION_DIGITS).expect("invariant: fewer digits than an i64 has");
        self.versions.get_or_create(labels).set(shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_size() {
        let reads = Reads::default();
        let mut watch = reads.watch("apps", "v1", "deployments");
        watch.sends_initial();
        for bytes in [1, 1024, 1025, 200_000] {
            watch.sent(bytes);
        }
        watch.publish();
        watch.publish();
        reads.listed("", "pods", 10, 3);
        reads.listed("", "pods", 10, 0);
        let labels = ResourceLabels {
            group: String::new(),
            resource: "pods".into(),
        };
        reads.version(&labels, 7 + VERSION_DIGITS);
        reads.received(&labels, 5);
        reads.received(&labels, 9);
        let gvr = GroupVersionResource::new("apps", "v1", "deployments");
        reads.watch_list(&gvr, "namespace").observe(0.07);
        let mut names = Names::default();
        reads.register(&mut names);
        let text = names.text();
        let of = r#"group="apps",version="v1",resource="deployments""#;
        for line in [
            format!("apiserver_watch_events_total{{{of}}} 4"),
            format!("apiserver_watch_events_sizes_sum{{{of}}} 202050.0"),
            format!("apiserver_watch_events_sizes_count{{{of}}} 4"),
            format!(r#"apiserver_watch_events_sizes_bucket{{le="1024.0",{of}}} 2"#),
            format!(r#"apiserver_watch_events_sizes_bucket{{le="2048.0",{of}}} 3"#),
            format!(r#"apiserver_watch_events_sizes_bucket{{le="+Inf",{of}}} 4"#),
            r#"apiserver_init_events_total{group="apps",resource="deployments"} 1"#.to_owned(),
            r#"apiserver_cache_list_total{group="",resource="pods",index=""} 2"#.to_owned(),
            r#"apiserver_cache_list_fetched_objects_total{group="",resource="pods",index=""} 20"#.to_owned(),
            r#"apiserver_cache_list_returned_objects_total{group="",resource="pods"} 3"#.to_owned(),
            r#"apiserver_watch_cache_resource_version{group="",resource="pods"} 7"#.to_owned(),
            r#"apiserver_storage_events_received_total{group="",resource="pods"} 9"#.to_owned(),
            r#"apiserver_watch_cache_events_received_total{group="",resource="pods"} 9"#.to_owned(),
            format!(r#"apiserver_watch_list_duration_seconds_bucket{{le="0.1",{of},scope="namespace"}} 1"#),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}
