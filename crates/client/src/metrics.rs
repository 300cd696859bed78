//! What this process asks of API servers and works off in queues, counted under upstream's names.
//!
//! Sources: `k8s.io/component-base/metrics/prometheus/{restclient,workqueue,clientgo/leaderelection}`. As there, the figures
//! are the process's, whoever in it sends the requests: [`of_process`] is the one set that clients and queues count in.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Metric;

/// Upstream's buckets of requests, in seconds.
const REQUEST_SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// Upstream's buckets of requests and answers, in bytes.
const BYTES: [f64; 11] = [
    64.0,
    256.0,
    512.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
];
/// What is counted of by method; others are counted as the last.
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Where metrics get the names under which they are served.
pub trait Names {
    /// Serves a metric. Counters are named without their `_total`.
    fn add(&mut self, name: &str, help: &str, metric: impl Metric);
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    code: String,
    method: &'static str,
    host: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RetryLabels {
    code: String,
    verb: &'static str,
    host: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
    host: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NameLabels {
    name: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All of it. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<CodeLabels, Counter>,
    retries: Family<RetryLabels, Counter>,
    request_seconds: Histograms<VerbLabels>,
    request_bytes: Histograms<VerbLabels>,
    response_bytes: Histograms<VerbLabels>,
    queue_depth: Family<NameLabels, Gauge>,
    queue_adds: Family<NameLabels, Counter>,
    queue_retries: Family<NameLabels, Counter>,
    queue_seconds: Histograms<NameLabels>,
    work_seconds: Histograms<NameLabels>,
    unfinished_seconds: Family<NameLabels, Gauge<f64, AtomicU64>>,
    longest_seconds: Family<NameLabels, Gauge<f64, AtomicU64>>,
    queues: Arc<Mutex<Vec<Followed>>>,
    leaders: Family<NameLabels, Gauge>,
}

/// A queue by its name.
type Followed = (String, Weak<dyn Unfinished>);

/// Tells how long work goes on that is not done.
pub(crate) trait Unfinished: Send + Sync {
    /// For each key that is worked on.
    fn unfinished(&self) -> Vec<Duration>;
}

fn request_seconds() -> Histogram {
    Histogram::new(REQUEST_SECONDS)
}

fn bytes() -> Histogram {
    Histogram::new(BYTES)
}

fn queue_seconds() -> Histogram {
    // From ten nanoseconds to ten seconds, as upstream.
    Histogram::new(exponential_buckets(1e-8, 10.0, 10))
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            requests: Family::default(),
            retries: Family::default(),
            request_seconds: Family::new_with_constructor(request_seconds),
            request_bytes: Family::new_with_constructor(bytes),
            response_bytes: Family::new_with_constructor(bytes),
            queue_depth: Family::default(),
            queue_adds: Family::default(),
            queue_retries: Family::default(),
            queue_seconds: Family::new_with_constructor(queue_seconds),
            work_seconds: Family::new_with_constructor(queue_seconds),
            unfinished_seconds: Family::default(),
            longest_seconds: Family::default(),
            queues: Arc::default(),
            leaders: Family::default(),
        }
    }
}

/// The one set of this process.
pub fn of_process() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);
    &METRICS
}

impl Metrics {
    /// Gives every metric its name.
    pub fn register(&self, names: &mut impl Names) {
        let help = "Requests to API servers, by code";
        names.add("rest_client_requests", help, self.requests.clone());
        let help = "Requests that were sent once more, by the code that made it necessary";
        names.add("rest_client_request_retries", help, self.retries.clone());
        let help = "How long requests to API servers took, in seconds";
        names.add(
            "rest_client_request_duration_seconds",
            help,
            self.request_seconds.clone(),
        );
        let help = "Size of requests to API servers, in bytes";
        names.add("rest_client_request_size_bytes", help, self.request_bytes.clone());
        let help = "Size of API servers' answers, in bytes";
        names.add("rest_client_response_size_bytes", help, self.response_bytes.clone());
        names.add("workqueue_depth", "Keys that are ready", self.queue_depth.clone());
        let help = "Keys that somebody asked for work on";
        names.add("workqueue_adds", help, self.queue_adds.clone());
        let help = "Keys whose work failed and is tried again";
        names.add("workqueue_retries", help, self.queue_retries.clone());
        let help = "How long keys were ready before they were taken, in seconds";
        names.add("workqueue_queue_duration_seconds", help, self.queue_seconds.clone());
        let help = "How long keys were worked on, in seconds";
        names.add("workqueue_work_duration_seconds", help, self.work_seconds.clone());
        let help = "How long work goes on that is not done, together, in seconds";
        names.add(
            "workqueue_unfinished_work_seconds",
            help,
            self.unfinished_seconds.clone(),
        );
        let help = "How long the longest of it goes on, in seconds";
        names.add(
            "workqueue_longest_running_processor_seconds",
            help,
            self.longest_seconds.clone(),
        );
        let help = "Whether this process leads, by lease";
        names.add("leader_election_master_status", help, self.leaders.clone());
    }

    /// What a work queue counts under.
    pub(crate) fn queue(&self, name: &str) -> QueueMetrics {
        let labels = NameLabels { name: name.into() };
        QueueMetrics {
            depth: self.queue_depth.get_or_create(&labels).clone(),
            adds: self.queue_adds.get_or_create(&labels).clone(),
            retries: self.queue_retries.get_or_create(&labels).clone(),
            waited: self.queue_seconds.get_or_create(&labels).clone(),
            worked: self.work_seconds.get_or_create(&labels).clone(),
        }
    }

    /// Tells of a queue's unfinished work for as long as the queue is there.
    pub(crate) fn follow(&self, name: &str, queue: Weak<dyn Unfinished>) {
        let mut queues = self.queues.lock();
        queues.retain(|(_, queue)| queue.strong_count() > 0);
        queues.push((name.to_owned(), queue));
    }

    /// Brings up to date what changes with time alone.
    pub fn measure(&self) {
        let queues = self.queues.lock().clone();
        let mut all: BTreeMap<String, (Duration, Duration)> = BTreeMap::new();
        for (name, queue) in queues {
            let times = queue.upgrade().map(|queue| queue.unfinished()).unwrap_or_default();
            let (sum, longest) = all.entry(name).or_default();
            for time in times {
                *sum += time;
                *longest = time.max(*longest);
            }
        }
        for (name, (sum, longest)) in all {
            let labels = NameLabels { name };
            self.unfinished_seconds.get_or_create(&labels).set(sum.as_secs_f64());
            self.longest_seconds.get_or_create(&labels).set(longest.as_secs_f64());
        }
    }

    /// Notes whether this process holds a lease.
    pub(crate) fn leads(&self, lease: &str, leads: bool) {
        let labels = NameLabels { name: lease.into() };
        self.leaders.get_or_create(&labels).set(i64::from(leads));
    }
}

/// Those of one work queue, found once.
#[derive(Clone)]
pub(crate) struct QueueMetrics {
    pub(crate) depth: Gauge,
    pub(crate) adds: Counter,
    pub(crate) retries: Counter,
    pub(crate) waited: Histogram,
    pub(crate) worked: Histogram,
}

/// Those of one client, found once for each method.
pub(crate) struct RequestMetrics {
    metrics: Metrics,
    host: String,
    methods: [OnceLock<MethodMetrics>; METHODS.len()],
}

struct MethodMetrics {
    seconds: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl RequestMetrics {
    /// Those of requests to a host.
    pub(crate) fn new(metrics: &Metrics, host: &str) -> Arc<RequestMetrics> {
        Arc::new(RequestMetrics {
            metrics: metrics.clone(),
            host: host.to_owned(),
            methods: Default::default(),
        })
    }

    /// A request was answered, or not (`None`).
    pub(crate) fn answered(
        &self,
        method: &Method,
        code: Option<u16>,
        sent: usize,
        read: Option<usize>,
        took: Duration,
    ) {
        let (at, verb) = verb(method);
        let counted = self.methods[at].get_or_init(|| {
            let labels = VerbLabels {
                verb,
                host: self.host.clone(),
            };
            MethodMetrics {
                seconds: self.metrics.request_seconds.get_or_create(&labels).clone(),
                request_bytes: self.metrics.request_bytes.get_or_create(&labels).clone(),
                response_bytes: self.metrics.response_bytes.get_or_create(&labels).clone(),
            }
        });
        counted.seconds.observe(took.as_secs_f64());
        counted.request_bytes.observe(sent as f64);
        if let Some(read) = read {
            counted.response_bytes.observe(read as f64);
        }
        let labels = CodeLabels {
            // Upstream's word for an answer that never came.
            code: code.map_or_else(|| "<error>".to_owned(), |code| code.to_string()),
            method: verb,
            host: self.host.clone(),
        };
        self.metrics.requests.get_or_create(&labels).inc();
    }

    /// A request is sent once more.
    pub(crate) fn retried(&self, method: &Method, code: u16) {
        let labels = RetryLabels {
            code: code.to_string(),
            verb: verb(method).1,
            host: self.host.clone(),
        };
        self.metrics.retries.get_or_create(&labels).inc();
    }
}

fn verb(method: &Method) -> (usize, &'static str) {
    const WORDS: [&str; METHODS.len()] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let at = METHODS.iter().position(|known| known == method);
    let at = at.unwrap_or(METHODS.len() - 1);
    (at, WORDS[at])
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    struct Served(Registry);

    impl Names for Served {
        fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
            self.0.register(name, help, metric);
        }
    }

    #[test]
    fn requests_and_queues_are_counted() {
        let metrics = Metrics::default();
        let requests = RequestMetrics::new(&metrics, "127.0.0.1:6443");
        let took = Duration::from_millis(3);
        requests.answered(&Method::GET, Some(200), 0, Some(300), took);
        requests.answered(&Method::GET, None, 0, None, took);
        requests.retried(&Method::PUT, 429);
        let queue = metrics.queue("deployment");
        queue.adds.inc();
        queue.waited.observe(0.002);
        metrics.leads("kube-scheduler", true);
        struct Two;
        impl Unfinished for Two {
            fn unfinished(&self) -> Vec<Duration> {
                vec![Duration::from_secs(2), Duration::from_millis(500)]
            }
        }
        let (two, gone): (Arc<dyn Unfinished>, Arc<dyn Unfinished>) = (Arc::new(Two), Arc::new(Two));
        metrics.follow("deployment", Arc::downgrade(&two));
        metrics.follow("gone", Arc::downgrade(&gone));
        drop(gone);
        metrics.measure();
        let mut served = Served(Registry::default());
        metrics.register(&mut served);
        let mut text = String::new();
        encode(&mut text, &served.0).unwrap();
        for line in [
            r#"rest_client_requests_total{code="200",method="GET",host="127.0.0.1:6443"} 1"#,
            r#"rest_client_requests_total{code="<error>",method="GET",host="127.0.0.1:6443"} 1"#,
            r#"rest_client_request_retries_total{code="429",verb="PUT",host="127.0.0.1:6443"} 1"#,
            r#"rest_client_request_duration_seconds_bucket{le="0.005",verb="GET",host="127.0.0.1:6443"} 2"#,
            r#"rest_client_response_size_bytes_bucket{le="512.0",verb="GET",host="127.0.0.1:6443"} 1"#,
            r#"workqueue_adds_total{name="deployment"} 1"#,
            r#"workqueue_queue_duration_seconds_bucket{le="0.01",name="deployment"} 1"#,
            r#"workqueue_unfinished_work_seconds{name="deployment"} 2.5"#,
            r#"workqueue_longest_running_processor_seconds{name="deployment"} 2.0"#,
            r#"workqueue_unfinished_work_seconds{name="gone"} 0.0"#,
            r#"leader_election_master_status{name="kube-scheduler"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
