//! What the server counts: `/metrics` in the OpenMetrics text format, with upstream's names.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::call::is_long_running;
use crate::request::{Attributes, Query};

/// Upstream's buckets of `apiserver_request_duration_seconds`, thinned out.
const DURATION_BUCKETS: [f64; 14] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.25, 3.0, 6.0, 15.0, 60.0,
];

/// What a request is counted under.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: String,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InflightLabels {
    request_kind: &'static str,
}

/// A resource, for watch metrics.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ResourceLabels {
    /// The group.
    pub group: String,
    /// The plural.
    pub resource: String,
}

/// The server's metrics.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<CodeLabels, Counter>,
    durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    inflight: Family<InflightLabels, Gauge>,
    /// Watches that are open.
    pub watches: Family<ResourceLabels, Gauge>,
    /// Events sent to watchers.
    pub watch_events: Family<ResourceLabels, Counter>,
    /// Frames made for them; one that several watchers are sent counts once.
    pub watch_frames: Counter,
    /// The store's revision.
    pub store_revision: Gauge<i64>,
    /// Objects in memory.
    pub store_objects: Family<ResourceLabels, Gauge>,
    /// Writes that lost a race and ran again.
    pub write_retries: Counter<u64, AtomicU64>,
}

/// Counts a request as at work until it is dropped.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

impl Default for Metrics {
    fn default() -> Metrics {
        let metrics = Metrics {
            registry: Mutex::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(duration_histogram),
            inflight: Family::default(),
            watches: Family::default(),
            watch_events: Family::default(),
            watch_frames: Counter::default(),
            store_revision: Gauge::default(),
            store_objects: Family::default(),
            write_retries: Counter::default(),
        };
        metrics.register_all();
        metrics
    }
}

fn name(registry: &mut Registry, name: &str, help: &str, metric: &(impl Metric + Clone)) {
    registry.register(name, help, metric.clone());
}

impl Metrics {
    /// Gives every metric its name and its help.
    fn register_all(&self) {
        let r = &mut *self.registry.lock();
        name(
            r,
            "apiserver_request",
            "Requests, by verb, resource and code",
            &self.requests,
        );
        let help = "Latency of requests that are neither watches nor streams, in seconds";
        name(r, "apiserver_request_duration_seconds", help, &self.durations);
        let help = "Requests at work, by kind";
        name(r, "apiserver_current_inflight_requests", help, &self.inflight);
        name(
            r,
            "apiserver_longrunning_requests",
            "Open watches, by resource",
            &self.watches,
        );
        name(
            r,
            "apiserver_watch_events",
            "Events sent to watchers",
            &self.watch_events,
        );
        let help = "Frames made for watchers; one that several are sent counts once";
        name(r, "apiserver_watch_frames", help, &self.watch_frames);
        name(
            r,
            "apiserver_storage_revision",
            "The store's revision",
            &self.store_revision,
        );
        name(
            r,
            "apiserver_storage_objects",
            "Objects in memory, by resource",
            &self.store_objects,
        );
        let help = "Writes that lost a race and ran again";
        name(r, "apiserver_storage_write_retries", help, &self.write_retries);
    }

    /// What a request is counted under. Names of objects and unknown verbs are kept out: labels are a bounded set.
    pub fn request_labels(&self, attributes: &Attributes, query: &Query) -> RequestLabels {
        let scope = match (&*attributes.resource, &*attributes.name, &*attributes.namespace) {
            ("", _, _) => "",
            (_, "", "") => "cluster",
            (_, "", _) => "namespace",
            _ => "resource",
        };
        let verb = match &*attributes.verb {
            "get" | "list" | "watch" | "create" | "update" | "patch" | "delete" | "deletecollection" | "post"
            | "put" | "head" | "options" => attributes.verb.to_uppercase(),
            _ => "OTHER".into(),
        };
        let verb = if verb != "WATCH" && is_long_running(attributes, query) {
            "CONNECT".into()
        } else {
            verb
        };
        RequestLabels {
            verb,
            group: attributes.group.clone(),
            version: attributes.version.clone(),
            resource: attributes.resource.clone(),
            subresource: attributes.subresource.clone(),
            scope: scope.into(),
        }
    }

    /// Counts a request as at work.
    pub fn enter(&self, attributes: &Attributes, query: &Query) -> Option<InFlight> {
        if is_long_running(attributes, query) {
            return None;
        }
        let request_kind = if attributes.is_read_only() {
            "readOnly"
        } else {
            "mutating"
        };
        let gauge = self.inflight.get_or_create(&InflightLabels { request_kind }).clone();
        gauge.inc();
        Some(InFlight(gauge))
    }

    /// Counts an answer. What does not exist is counted without its names, so that a client cannot make labels up.
    pub fn answered(&self, labels: &RequestLabels, code: u16, took: Duration) {
        let mut labels = labels.clone();
        if matches!(code, 401 | 403 | 404) {
            labels = RequestLabels {
                group: String::new(),
                version: String::new(),
                resource: String::new(),
                subresource: String::new(),
                ..labels
            };
        }
        let RequestLabels {
            verb,
            group,
            version,
            resource,
            subresource,
            scope,
        } = labels.clone();
        let with_code = CodeLabels {
            verb,
            group,
            version,
            resource,
            subresource,
            scope,
            code,
        };
        self.requests.get_or_create(&with_code).inc();
        if !matches!(&*labels.verb, "WATCH" | "CONNECT") {
            self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock()).expect("invariant: writing to a string does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted() {
        let metrics = Metrics::default();
        let attributes = Attributes {
            verb: "get".into(),
            version: "v1".into(),
            resource: "pods".into(),
            name: "secret-name".into(),
            is_resource: true,
            ..Attributes::default()
        };
        let query = Query::default();
        let labels = metrics.request_labels(&attributes, &query);
        let seat = metrics.enter(&attributes, &query);
        assert!(
            metrics
                .text()
                .contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1")
        );
        drop(seat);
        metrics.answered(&labels, 200, Duration::from_millis(3));
        metrics.answered(&labels, 404, Duration::from_millis(3));
        let text = metrics.text();
        assert!(
            text.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("resource=\"pods\",subresource=\"\",scope=\"resource\",code=\"200\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("resource=\"\",subresource=\"\",scope=\"resource\",code=\"404\"} 1"),
            "{text}"
        );
        assert!(!text.contains("secret-name"));
    }
}
