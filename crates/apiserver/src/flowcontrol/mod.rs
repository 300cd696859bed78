//! API Priority and Fairness: every request but exec and its kin takes seats of its priority level, or waits for them among
//! those of its flow.
//!
//! [`Plan`] is the configuration in force, [`queues::Queues`] who runs and who waits in one level. Deciding costs well under
//! two microseconds: a look through some twenty rules and two short locks. Source: `k8s.io/apiserver/pkg/util/flowcontrol`
//! and KEP-1040.

mod defaults;
mod demand;
mod dump;
mod maintain;
mod matching;
mod plan;
mod queues;
mod shares;
mod shuffle;
mod width;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use api::{GroupResource, Status, Value};
use arc_swap::ArcSwap;
use base::Shutdown;
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use maintain::maintain;
pub(crate) use maintain::{LEVELS, SCHEMAS};
pub use queues::Work;
pub use width::width;

use crate::cluster::{Changes, Cluster};
use crate::metrics::{FlowMetrics, InFlight, InPhase};
use crate::request::{Attributes, UserInfo};
use plan::{Distinguisher, Plan, Schema};
use queues::{Arrival, Queues, Running};

/// The group of both kinds.
pub(crate) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Says whether the server keeps an object's spec as it suggests it.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// How often levels lend and borrow. Source: `borrowingAdjustmentPeriod`.
const LENDING_PERIOD: Duration = Duration::from_secs(10);
/// How long a request waits for its seats: a quarter of the time it may take. Source: `requestWaitLimit`.
const WAIT_MAX: Duration = Duration::from_secs(15);
static SCHEMA_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static LEVEL_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The objects that a cluster begins with.
pub(crate) fn first_objects() -> impl Iterator<Item = Value> {
    defaults::mandatory().into_iter().chain(defaults::suggested())
}

/// The seats of the server.
pub struct FlowControl {
    plan: ArcSwap<Plan>,
    /// Seats in all.
    seats: usize,
    /// Makes the queues of a flow unguessable.
    salt: u64,
    metrics: FlowMetrics,
}

/// The schema that a request falls under.
#[derive(Clone)]
pub struct Flow(Arc<Schema>);

impl Flow {
    /// Tells the client where it was counted.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(&SCHEMA_HEADER, self.0.uid.clone());
        headers.insert(&LEVEL_HEADER, self.0.level.uid.clone());
    }

    /// Notes how many watchers a write has.
    pub fn watched_by(&self, watchers: usize) {
        self.0.metrics.watchers.observe(watchers as f64);
    }

    /// The most seats that a request of it may take.
    pub fn seats_max(&self) -> usize {
        self.0.level.request_seats_max()
    }
}

impl FlowControl {
    /// So many seats, and the mandatory objects only, until others are read.
    pub fn new(seats: usize, salt: u64, metrics: FlowMetrics) -> FlowControl {
        let plan = Plan::new(&Plan::default(), &[], &[], seats, &metrics);
        FlowControl {
            plan: ArcSwap::from_pointee(plan),
            seats,
            salt,
            metrics,
        }
    }

    /// Takes over the objects that are there.
    pub fn reload(&self, schemas: &[Value], levels: &[Value]) {
        let plan = Plan::new(&self.plan.load(), schemas, levels, self.seats, &self.metrics);
        self.plan.store(Arc::new(plan));
    }

    /// Lets levels lend and borrow.
    pub fn lend(&self) {
        self.plan.load().lend(&self.metrics);
    }

    /// Follows the objects in the store until the server ends.
    pub fn follow(self: &Arc<Self>, cluster: Arc<dyn Cluster>, shutdown: &Shutdown) {
        let resource = |plural: &str| GroupResource {
            group: GROUP.into(),
            resource: plural.into(),
        };
        let (schemas, levels) = (resource("flowschemas"), resource("prioritylevelconfigurations"));
        let (mut of_schemas, mut of_levels) = (cluster.changes(&schemas), cluster.changes(&levels));
        let (flow, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let drain = |changes: &mut Box<dyn Changes>| while changes.try_next().is_some() {};
            loop {
                let changed = tokio::select! {
                    () = stop.cancelled() => return,
                    change = of_schemas.next() => change.is_some(),
                    change = of_levels.next() => change.is_some(),
                    () = tokio::time::sleep(LENDING_PERIOD) => {
                        flow.lend();
                        continue;
                    }
                };
                if !changed {
                    return;
                }
                drain(&mut of_schemas);
                drain(&mut of_levels);
                let read = |resource: &GroupResource| -> Vec<Value> {
                    cluster
                        .list(resource, None)
                        .iter()
                        .map(|object| object.value())
                        .collect()
                };
                flow.reload(&read(&schemas), &read(&levels));
            }
        });
    }

    /// How the priority levels are, as a table for people.
    pub fn dump_priority_levels(&self) -> String {
        dump::priority_levels(&self.plan.load())
    }

    /// How their queues are.
    pub fn dump_queues(&self) -> String {
        dump::queues(&self.plan.load())
    }

    /// Where a request is counted.
    pub fn classify(&self, user: &UserInfo, request: &Attributes) -> Flow {
        Flow(self.plan.load().classify(user, request))
    }

    /// Seats for a request, now or when it is its turn; 429 when there is no place to wait, or it took too long.
    pub async fn enter(&self, flow: &Flow, work: Work, user: &UserInfo, request: &Attributes) -> Result<Seat, Status> {
        tracing::trace!(target: "walk", "a seat");
        let schema = &flow.0;
        let hash = self.hash(schema, user, request);
        let began = Instant::now();
        let queues = &schema.level.queues;
        let arrival = queues.lock().arrive(work, hash, began);
        schema.metrics.estimated_seats.observe(work.seats() as f64);
        let running = match arrival {
            Arrival::Start(running) => Ok(running),
            Arrival::Refuse(why) => Err(why),
            Arrival::Wait {
                queue,
                id,
                call,
                before,
            } => {
                schema.metrics.queue_length.observe((before + 1) as f64);
                schema.metrics.not_accommodated.inc();
                // Not only whoever is called leaves: clients go away.
                let _waits = (
                    InFlight::on(schema.metrics.waiting.clone()),
                    self.metrics
                        .in_phase(true, request.is_read_only(), self.plan.load().places()),
                );
                let mut place = Place {
                    queues,
                    queue,
                    id,
                    call: Some(call),
                    timed_out: false,
                };
                let called = tokio::time::timeout(WAIT_MAX, place.called()).await;
                place.timed_out = called.is_err();
                called.map_err(|_| "time-out")
            }
        };
        match running {
            Ok(running) => {
                schema.metrics.dispatched.inc();
                schema.metrics.waited.observe(began.elapsed().as_secs_f64());
                schema.metrics.executing.inc();
                schema
                    .metrics
                    .seats
                    .inc_by(i64::try_from(work.seats()).unwrap_or(i64::MAX));
                Ok(Seat {
                    schema: schema.clone(),
                    running: Some(running),
                    is_watch: request.verb == "watch",
                    _phase: self.metrics.in_phase(false, request.is_read_only(), self.seats),
                })
            }
            Err(why) => {
                self.metrics.rejected(&schema.level.name, &schema.name, why);
                schema.metrics.waited_in_vain.observe(began.elapsed().as_secs_f64());
                Err(Status::too_many_requests(
                    "Too many requests, please try again later.",
                    1,
                ))
            }
        }
    }

    /// The flow as a number: who or where, as the schema says.
    fn hash(&self, schema: &Schema, user: &UserInfo, request: &Attributes) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.salt.hash(&mut hasher);
        schema.name.hash(&mut hasher);
        match schema.distinguisher {
            Distinguisher::Nothing => {}
            Distinguisher::User => user.name.hash(&mut hasher),
            Distinguisher::Namespace => request.namespace.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// A place in a queue; left when dropped.
struct Place<'a> {
    queues: &'a Mutex<Queues>,
    queue: usize,
    id: u64,
    call: Option<tokio::sync::oneshot::Receiver<Running>>,
    timed_out: bool,
}

impl Place<'_> {
    async fn called(&mut self) -> Running {
        let call = self.call.as_mut().expect("invariant: a place is waited for once");
        let running = call.await.expect("invariant: a level outlives who waits in it");
        self.call = None;
        running
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(mut call) = self.call.take() else { return };
        let now = Instant::now();
        let mut queues = self.queues.lock();
        queues.lost(self.timed_out);
        // Called at the last moment: somebody else shall have the seats. Nothing was served, nothing lingers.
        if !queues.give_up(self.queue, self.id, now)
            && let Ok(mut running) = call.try_recv()
        {
            running.forget_rest();
            queues.finish(&running, now);
        }
    }
}

/// Seats that a request has, given back when dropped.
pub struct Seat {
    schema: Arc<Schema>,
    running: Option<Running>,
    is_watch: bool,
    _phase: InPhase,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        let metrics = &self.schema.metrics;
        metrics.executing.dec();
        metrics
            .seats
            .dec_by(i64::try_from(running.work.seats()).unwrap_or(i64::MAX));
        let now = Instant::now();
        let lasted = match self.is_watch {
            true => &metrics.watches_lasted,
            false => &metrics.lasted,
        };
        lasted.observe(now.saturating_duration_since(running.started).as_secs_f64());
        let queues = &self.schema.level.queues;
        queues.lock().finish(&running, now);
        let lingers = running.work.lingers;
        if lingers.is_zero() {
            return;
        }
        let queues = queues.clone();
        let release = move || queues.lock().release(&running, Instant::now());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(lingers).await;
                release();
            })),
            // The runtime ends, and everything with it.
            Err(_) => release(),
        }
    }
}

#[cfg(test)]
mod tests;
