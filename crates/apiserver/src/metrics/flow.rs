//! What flow control counts, under upstream's names. Source: `k8s.io/apiserver/pkg/util/flowcontrol/metrics`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::names::{Names, name};
use super::timing::Timing;

/// Upstream's `requestDurationSecondsBuckets`.
const SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
/// Upstream's `queueLengthBuckets`.
const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
/// Upstream's buckets of `work_estimated_seats`.
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

/// Upstream's buckets of what is in use, as a part of its limit: of seats, of requests of a level, and of those that read and
/// those that write; and of what is wanted.
const SEATS_USED: [f64; 13] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const REQUESTS_USED: [f64; 10] = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
const KINDS_USED: [f64; 15] = [
    0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0,
];
const WANTED: [f64; 12] = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];

/// The phases of a request, in upstream's words.
const PHASES: [&str; 2] = ["waiting", "executing"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
    priority_level: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindPhaseLabels {
    phase: &'static str,
    request_kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

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
type Timings<L> = Family<L, Timing, fn() -> Timing>;

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
    seats_used: Timings<PhaseLabels>,
    requests_used: Timings<PhaseLabels>,
    wanted: Timings<LevelLabels>,
    kinds_used: Timings<KindPhaseLabels>,
    kinds_waiting: Family<KindLabels, Gauge>,
    /// Of requests that read, and of those that write.
    kinds: Arc<[KindUse; 2]>,
}

/// Requests that read, or that write, of all levels.
struct KindUse {
    waiting: Gauge,
    /// Those that wait, and those that are served.
    counts: Mutex<[(usize, Timing); 2]>,
}

/// How full a level is, as parts of its limits.
#[derive(Clone, Debug)]
pub struct LevelUse {
    /// Seats.
    pub seats: Timing,
    /// Requests that are served.
    pub executing: Timing,
    /// Requests that wait.
    pub waiting: Timing,
    /// Seats that are wanted.
    pub wanted: Timing,
}

/// Counts a request in its phase until it is dropped.
pub struct InPhase {
    kinds: Arc<[KindUse; 2]>,
    /// Of the kinds, and of the phases.
    at: (usize, usize),
    limit: usize,
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
        let kinds_waiting: Family<KindLabels, Gauge> = Family::default();
        let kinds_used: Timings<KindPhaseLabels> = Family::new_with_constructor(|| Timing::new(&KINDS_USED));
        let kinds = ["readOnly", "mutating"].map(|request_kind| KindUse {
            waiting: kinds_waiting.get_or_create(&KindLabels { request_kind }).clone(),
            counts: Mutex::new(PHASES.map(|phase| {
                let labels = KindPhaseLabels { phase, request_kind };
                (0, kinds_used.get_or_create(&labels).clone())
            })),
        });
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
            seats_used: Family::new_with_constructor(|| Timing::new(&SEATS_USED)),
            requests_used: Family::new_with_constructor(|| Timing::new(&REQUESTS_USED)),
            wanted: Family::new_with_constructor(|| Timing::new(&WANTED)),
            kinds_used,
            kinds_waiting,
            kinds: Arc::new(kinds),
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
        metric!(
            "priority_level_seat_utilization",
            "How many of its seats a priority level uses, by nanoseconds",
            &self.seats_used
        );
        metric!(
            "priority_level_request_utilization",
            "How many requests wait or are served, as a part of what may, by nanoseconds",
            &self.requests_used
        );
        metric!(
            "demand_seats",
            "How many seats are wanted, as a part of those that there are, by nanoseconds",
            &self.wanted
        );
        metric!(
            "read_vs_write_current_requests",
            "How many requests that read or write wait or are served, as a part of what may, by nanoseconds",
            &self.kinds_used
        );
        let help = "Requests that wait for their seats, by kind";
        name(r, "apiserver_current_inqueue_requests", help, &self.kinds_waiting);
    }

    /// A request waits or is served; `limit` is how many may at once.
    pub fn in_phase(&self, waits: bool, reads: bool, limit: usize) -> InPhase {
        let phase = InPhase {
            kinds: self.kinds.clone(),
            at: (usize::from(!reads), usize::from(!waits)),
            limit,
        };
        phase.count(1);
        phase
    }

    /// How full that level is.
    pub fn level_use(&self, level: &str) -> LevelUse {
        let phase = |phase| PhaseLabels {
            phase,
            priority_level: level.into(),
        };
        let labels = LevelLabels {
            priority_level: level.into(),
        };
        // A family is locked as long as the statement lasts that looks something up in it.
        let find = |family: &Timings<PhaseLabels>, at: usize| family.get_or_create(&phase(PHASES[at])).clone();
        LevelUse {
            seats: find(&self.seats_used, 1),
            waiting: find(&self.requests_used, 0),
            executing: find(&self.requests_used, 1),
            wanted: self.wanted.get_or_create(&labels).clone(),
        }
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

impl InPhase {
    fn count(&self, more: isize) {
        let (kind, phase) = self.at;
        let kind = &self.kinds[kind];
        let mut counts = kind.counts.lock();
        let (count, timing) = &mut counts[phase];
        *count = count.saturating_add_signed(more);
        timing.set(*count as f64 / self.limit.max(1) as f64, Instant::now());
        if phase == 0 {
            kind.waiting.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
}

impl Drop for InPhase {
    fn drop(&mut self) {
        self.count(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_in_their_phases() {
        let metrics = FlowMetrics::default();
        let mut names = Names::default();
        metrics.register(&mut names);
        let line = |count: u32| format!("apiserver_current_inqueue_requests{{request_kind=\"mutating\"}} {count}");
        let waits = [(); 2].map(|()| metrics.in_phase(true, false, 10));
        let _served = metrics.in_phase(false, true, 4);
        assert!(names.text().contains(&line(2)));
        drop(waits);
        let text = names.text();
        assert!(text.contains(&line(0)), "{text}");
        let level = metrics.level_use("global-default");
        level.seats.set(0.95, Instant::now());
        let text = names.text();
        for name in [
            "priority_level_seat_utilization_count{phase=\"executing\",priority_level=\"global-default\"}",
            "priority_level_request_utilization_count{phase=\"waiting\",priority_level=\"global-default\"}",
            "demand_seats_count{priority_level=\"global-default\"}",
            "read_vs_write_current_requests_count{phase=\"executing\",request_kind=\"readOnly\"}",
        ] {
            assert!(
                text.contains(&format!("apiserver_flowcontrol_{name}")),
                "{name}\n{text}"
            );
        }
    }
}
