//! What flow control counts, under upstream's names. Source: `k8s.io/apiserver/pkg/util/flowcontrol/metrics`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::names::{Names, name};

/// Upstream's `requestDurationSecondsBuckets`.
const SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
/// Upstream's `queueLengthBuckets`.
const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
/// Upstream's buckets of `work_estimated_seats`.
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

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

/// Upstream's buckets of `watch_count_samples`.
const WATCHERS: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TypeLabels {
    priority_level: String,
    flow_schema: String,
    /// `regular`, or `watch` until it begins.
    r#type: &'static str,
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
    lasted: Histograms<TypeLabels>,
    watchers: Histograms<SchemaLabels>,
    not_accommodated: Family<SchemaLabels, Counter>,
    queue_lengths: Histograms<SchemaLabels>,
    estimated_seats: Histograms<SchemaLabels>,
    /// Nominal, lower, upper and current limit.
    limits: [Family<LevelLabels, Gauge>; 4],
    /// The most, the average, the deviation, and these two smoothed.
    demands: [Family<LevelLabels, Gauge<f64, AtomicU64>>; 4],
    targets: Family<LevelLabels, Gauge<f64, AtomicU64>>,
}

/// What is told of a priority level every ten seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct LevelMetrics {
    /// Nominal, lower, upper and current limit, in seats.
    pub limits: [usize; 4],
    /// The most seats that were wanted at once, the average, its standard deviation, and both of these smoothed.
    pub demand: [f64; 4],
    /// The seats that it was to get.
    pub target: f64,
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
    /// How long watches were served until they began.
    pub watches_lasted: Histogram,
    /// How many watchers a write had.
    pub watchers: Histogram,
    /// Requests that had to wait for seats.
    pub not_accommodated: Counter,
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
            watchers: Family::new_with_constructor(|| Histogram::new(WATCHERS)),
            not_accommodated: Family::default(),
            limits: Default::default(),
            demands: Default::default(),
            targets: Family::default(),
        }
    }
}

impl FlowMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        let mut all = |suffix: &str, help: &str, metric: &dyn Fn(&mut Names, &str, &str)| {
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
            "request_execution_seconds",
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
        metric!("watch_count_samples", "How many watchers writes had", &self.watchers);
        metric!(
            "request_dispatch_no_accommodation",
            "Requests for which there were no seats when they came",
            &self.not_accommodated
        );
        metric!(
            "demand_seats_high_watermark",
            "The most seats that were wanted at once in the last period",
            &self.demands[0]
        );
        metric!(
            "demand_seats_average",
            "Seats wanted in the last period on average",
            &self.demands[1]
        );
        metric!(
            "demand_seats_stdev",
            "Standard deviation of the seats wanted in the last period",
            &self.demands[2]
        );
        metric!(
            "demand_seats_smoothed",
            "Average and deviation of the seats wanted, falling slowly",
            &self.demands[3]
        );
        metric!(
            "target_seats",
            "Seats that a priority level is to get for what it wants",
            &self.targets
        );
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
        let lasted = |kind| {
            let labels = TypeLabels {
                priority_level: level.into(),
                flow_schema: schema.into(),
                r#type: kind,
            };
            self.lasted.get_or_create(&labels).clone()
        };
        SchemaMetrics {
            dispatched: self.dispatched.get_or_create(&labels).clone(),
            waiting: self.waiting.get_or_create(&labels).clone(),
            executing: self.executing.get_or_create(&labels).clone(),
            seats: self.seats.get_or_create(&labels).clone(),
            waited: waited("true"),
            waited_in_vain: waited("false"),
            lasted: lasted("regular"),
            watches_lasted: lasted("watch"),
            watchers: self.watchers.get_or_create(&labels).clone(),
            not_accommodated: self.not_accommodated.get_or_create(&labels).clone(),
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

    /// What a level has and what it wants.
    pub fn level(&self, level: &str, told: LevelMetrics) {
        let labels = LevelLabels {
            priority_level: level.into(),
        };
        for (gauge, limit) in self.limits.iter().zip(told.limits) {
            gauge
                .get_or_create(&labels)
                .set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        for (gauge, demand) in self.demands.iter().zip(told.demand) {
            gauge.get_or_create(&labels).set(demand);
        }
        self.targets.get_or_create(&labels).set(told.target);
    }
}
