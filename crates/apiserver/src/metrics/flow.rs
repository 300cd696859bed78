//! What flow control counts, under upstream's names. Source: `k8s.io/apiserver/pkg/util/flowcontrol/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::name;

/// Upstream's `requestDurationSecondsBuckets`.
const SECONDS: [f64; 14] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0,
];
/// Upstream's `queueLengthBuckets`.
const LENGTHS: [f64; 9] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0];
/// Upstream's buckets of `work_estimated_seats`.
const SEATS: [f64; 4] = [1.0, 2.0, 4.0, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SchemaLabels {
    priority_level: String,
    flow_schema: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LevelLabels {
    priority_level: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RejectLabels {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WaitLabels {
    priority_level: String,
    flow_schema: String,
    execute: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Flow control's metrics. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct FlowMetrics {
    rejected: Family<RejectLabels, Counter>,
    dispatched: Family<SchemaLabels, Counter>,
    waiting: Family<SchemaLabels, Gauge>,
    executing: Family<SchemaLabels, Gauge>,
    seats: Family<SchemaLabels, Gauge>,
    waited: Histograms<WaitLabels>,
    lasted: Histograms<SchemaLabels>,
    queue_lengths: Histograms<SchemaLabels>,
    estimated_seats: Histograms<SchemaLabels>,
    /// Nominal, lower, upper and current limit.
    limits: [Family<LevelLabels, Gauge>; 4],
}

/// Those of one FlowSchema, found once.
pub struct SchemaMetrics {
    /// Requests that got their seats.
    pub dispatched: Counter,
    /// Requests that wait.
    pub waiting: Gauge,
    /// Requests that are served.
    pub executing: Gauge,
    /// Their seats.
    pub seats: Gauge,
    /// How long those waited that were served, in seconds.
    pub waited: Histogram,
    /// And those that were not.
    pub waited_in_vain: Histogram,
    /// How long they were served.
    pub lasted: Histogram,
    /// How many waited in a queue when one more came.
    pub queue_length: Histogram,
    /// How many seats a request was thought to take.
    pub estimated_seats: Histogram,
}

impl Default for FlowMetrics {
    fn default() -> FlowMetrics {
        FlowMetrics {
            rejected: Family::default(),
            dispatched: Family::default(),
            waiting: Family::default(),
            executing: Family::default(),
            seats: Family::default(),
            waited: Family::new_with_constructor(seconds),
            lasted: Family::new_with_constructor(seconds),
            queue_lengths: Family::new_with_constructor(|| Histogram::new(LENGTHS)),
            estimated_seats: Family::new_with_constructor(|| Histogram::new(SEATS)),
            limits: Default::default(),
        }
    }
}

impl FlowMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        let mut all = |suffix: &str, help: &str, metric: &dyn Fn(&mut Registry, &str, &str)| {
            metric(r, &format!("apiserver_flowcontrol_{suffix}"), help);
        };
        macro_rules! metric {
            ($suffix:literal, $help:literal, $metric:expr) => {
                all($suffix, $help, &|r, full, help| name(r, full, help, $metric));
            };
        }
        metric!(
            "rejected_requests",
            "Requests that got no seat, by reason",
            &self.rejected
        );
        metric!("dispatched_requests", "Requests that got their seats", &self.dispatched);
        metric!("current_inqueue_requests", "Requests that wait", &self.waiting);
        metric!(
            "current_executing_requests",
            "Requests that are served",
            &self.executing
        );
        metric!(
            "current_executing_seats",
            "Seats of requests that are served",
            &self.seats
        );
        metric!(
            "request_wait_duration_seconds",
            "How long requests waited",
            &self.waited
        );
        metric!(
            "request_execution_duration_seconds",
            "How long requests were served",
            &self.lasted
        );
        metric!(
            "request_queue_length_after_enqueue",
            "How many requests are in a queue when one has come",
            &self.queue_lengths
        );
        metric!(
            "work_estimated_seats",
            "How many seats requests are thought to take",
            &self.estimated_seats
        );
        metric!(
            "nominal_limit_seats",
            "Seats of a priority level by its shares",
            &self.limits[0]
        );
        metric!(
            "lower_limit_seats",
            "Seats that a priority level never lends",
            &self.limits[1]
        );
        metric!(
            "upper_limit_seats",
            "Seats that a priority level has at most",
            &self.limits[2]
        );
        metric!("current_limit_seats", "Seats of a priority level now", &self.limits[3]);
    }

    /// The metrics of a schema.
    pub fn schema(&self, level: &str, schema: &str) -> SchemaMetrics {
        let labels = SchemaLabels {
            priority_level: level.into(),
            flow_schema: schema.into(),
        };
        let waited = |execute| {
            let labels = WaitLabels {
                priority_level: level.into(),
                flow_schema: schema.into(),
                execute,
            };
            self.waited.get_or_create(&labels).clone()
        };
        SchemaMetrics {
            dispatched: self.dispatched.get_or_create(&labels).clone(),
            waiting: self.waiting.get_or_create(&labels).clone(),
            executing: self.executing.get_or_create(&labels).clone(),
            seats: self.seats.get_or_create(&labels).clone(),
            waited: waited("true"),
            waited_in_vain: waited("false"),
            lasted: self.lasted.get_or_create(&labels).clone(),
            queue_length: self.queue_lengths.get_or_create(&labels).clone(),
            estimated_seats: self.estimated_seats.get_or_create(&labels).clone(),
        }
    }

    /// Counts a request that got no seat.
    pub fn rejected(&self, level: &str, schema: &str, reason: &'static str) {
        let labels = RejectLabels {
            priority_level: level.into(),
            flow_schema: schema.into(),
            reason,
        };
        self.rejected.get_or_create(&labels).inc();
    }

    /// Nominal, lower, upper and current limit of a level.
    pub fn level(&self, level: &str, limits: [usize; 4]) {
        let labels = LevelLabels {
            priority_level: level.into(),
        };
        for (gauge, limit) in self.limits.iter().zip(limits) {
            gauge
                .get_or_create(&labels)
                .set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }
}
