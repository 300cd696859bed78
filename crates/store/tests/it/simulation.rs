//! A store's life under a seed: clients and watchers at work, the disk failing, the machine losing power, again and again;
//! then the history is checked. Defects that are put back on purpose must turn the check red (`mutations.rs`).
//!
//! Taken out by hand, too, each of which turned it red within seconds: waiting for the published revision before
//! delivering an event; remembering what a ring's index lost; cutting a segment at its successor's base.
//!
//! | found by tests here | what it was |
//! |---|---|
//! | one large transaction ended all watches with 410 | history was forgotten before the replica had streamed it |
//! | a bookmark of a revision that had not happened | a watch that begins in the future said it had progressed there |

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::disk::{Disk, Faults, OpenMode, SimDisk, read_all};
use bytes::Bytes;
use parking_lot::Mutex;
use store::testing::history::{History, Outcome};
use store::testing::workload::{Habits, IsOver, TABLES, Text, Workload};
use store::testing::{EngineFaults, FaultyEngine, Mutated, Mutation};
use store::{Driver, Embedded, Engine, Replica, RingLimits, Tuning};
use tokio::task::JoinSet;

use crate::support::{World, small, sweep_times};

/// Where the store is on its disk.
const ROOT: &str = "/store";

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub lives: u64,
    pub clients: u64,
    pub operations: u64,
    /// Dies within this many changes of the disk, in most lives; 0: never.
    pub crash_within: u64,
    /// Dies at exactly this one of each life, opening included.
    pub crash_at: Option<u64>,
    pub disk_faults: bool,
    pub engine_faults: bool,
    pub syncs_lie: bool,
    /// Segments and batches of many sectors: what is torn in them has more shapes.
    pub large: bool,
    /// A defect that is put back.
    pub mutation: Option<Mutation>,
    pub habits: Habits,
    /// On threads and in real time: other interleavings than a seed has, not repeatable.
    pub threads: bool,
}

pub const CRASHING: Plan = Plan {
    lives: 4,
    clients: 4,
    operations: 14,
    crash_within: 120,
    crash_at: None,
    disk_faults: true,
    engine_faults: false,
    syncs_lie: false,
    large: false,
    mutation: None,
    habits: Habits {
        expiry_ms_max: Some(40),
        compaction: true,
        engine: true,
        knows_before: true,
        pause_us_max: 4000,
    },
    threads: false,
};

struct Run {
    world: World,
    plan: Plan,
    workload: Workload,
    /// Segments in files that were used again, after each life.
    reused: AtomicU64,
}

pub fn simulate(seed: u64, plan: Plan) -> Vec<String> {
    run(seed, plan).0.check()
}

/// What a run leaves behind.
#[derive(PartialEq, Eq)]
struct Left {
    /// Names of files.
    names: Vec<String>,
    /// Segments in files that were used again, after each life.
    reused: u64,
}

/// Segments in files that are used again.
fn reused(disk: &SimDisk) -> u64 {
    let names = disk.list(Path::new(ROOT)).unwrap_or_default();
    let is_reused = |name: &&String| {
        let file = disk.open(&Path::new(ROOT).join(name), OpenMode::Read);
        // The header's flag.
        let header = file.and_then(|file| read_all(&*file)).unwrap_or_default();
        name.ends_with(".log") && header.get(12).is_some_and(|flags| flags & 0x20 != 0)
    };
    names.iter().filter(is_reused).count() as u64
}

/// Runs a seed; its history, and the files at its end.
fn run(seed: u64, plan: Plan) -> (History, Left) {
    let _mutated = Mutated::with(plan.mutation);
    let runtime = if plan.threads {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap()
    } else {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    };
    runtime.block_on(async {
        let world = World::new(seed);
        let workload = Workload::new(0, world.clock.clone(), world.random.fork(), plan.habits);
        let reused = AtomicU64::new(0);
        let run = Run {
            world,
            plan,
            workload,
            reused,
        };
        let limit = Duration::from_secs(300);
        if tokio::time::timeout(limit, run.lives()).await.is_err() {
            run.workload.history.lock().violation("it hangs".to_owned());
        }
        let names = run.world.disk.list(Path::new(ROOT)).unwrap_or_default();
        let reused = run.reused.into_inner();
        let left = Left { names, reused };
        (run.workload.into_history(), left)
    })
}

impl Run {
    async fn lives(&self) {
        for _ in 0..self.plan.lives {
            self.life().await;
        }
        self.last_life().await;
    }

    /// Opens, through crashes while opening.
    async fn open(&self, may_crash: bool) -> Option<Arc<Embedded>> {
        let disk = &self.world.disk;
        if may_crash && self.plan.crash_within > 0 && self.world.random.chance(0.2) {
            disk.crash_at(disk.operations() + self.world.random.range(1..12));
        }
        for _ in 0..100 {
            let mut options = self.world.options();
            options.tuning = Tuning {
                log_floor_bytes: 3072,
                segment_bytes: 1024,
                batch_bytes_max: 1024,
                ..small()
            };
            if self.plan.large {
                options.tuning = Tuning {
                    log_floor_bytes: 12 * 1024,
                    segment_bytes: 6 * 1024,
                    batch_bytes_max: 4 * 1024,
                    ..small()
                };
            }
            if self.plan.threads {
                options.driver = Driver::Thread;
            }
            match Embedded::open(options).await {
                Ok(engine) => return Some(Arc::new(engine)),
                Err(_) if disk.is_crashed() => self.power(),
                Err(error @ store::OpenError::Corrupt { .. }) => {
                    let what = format!("nothing rots here: {error}");
                    self.workload.history.lock().violation(what);
                    return None;
                }
                // A fault of the disk: it is tried again.
                Err(_) => {}
            }
        }
        self.workload.history.lock().violation("it cannot be opened".to_owned());
        None
    }

    /// A dead process starts again, on a machine that lost power or not.
    fn power(&self) {
        if self.plan.mutation == Some(Mutation::SyncLeftOut) || self.world.random.chance(0.7) {
            self.world.disk.power_loss();
        } else {
            self.world.disk.process_restart();
        }
    }

    async fn life(&self) {
        let (disk, random, plan) = (&self.world.disk, &self.world.random, self.plan);
        if plan.disk_faults && random.chance(0.4) {
            disk.set_faults(Faults {
                sync_error: 0.03,
                no_space: 0.03,
                write_error: 0.01,
                ..Faults::default()
            });
        }
        if plan.syncs_lie {
            disk.set_faults(Faults {
                syncs_lie: true,
                ..Faults::default()
            });
        }
        if let Some(operation) = plan.crash_at {
            disk.crash_at(disk.operations() + operation);
        }
        let Some(engine) = self.open(plan.crash_at.is_none()).await else {
            return;
        };
        if plan.crash_at.is_none() && plan.crash_within > 0 && random.chance(0.8) {
            disk.crash_at(disk.operations() + random.range(1..plan.crash_within));
        }
        let mut background = JoinSet::new();
        let shared: Arc<dyn Engine> = engine.clone();
        self.workload.record(&shared, &mut background).await;
        let (faulty, replica) = self.replica(&engine).await;
        let mut clients = JoinSet::new();
        for _ in 0..plan.clients {
            clients.spawn(
                self.workload
                    .client(&shared, &replica, plan.operations, self.over())
                    .run(),
            );
        }
        self.workload.watch(&shared, &replica, &mut background);
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
        background.abort_all();
        while background.join_next().await.is_some() {}
        drop((replica, faulty));
        disk.crash();
        engine.close().await;
        disk.set_faults(Faults::default());
        self.power();
        self.reused.fetch_add(reused(disk), Ordering::Relaxed);
    }

    /// No more faults: everything is delivered, then compared.
    async fn last_life(&self) {
        let Some(engine) = self.open(false).await else { return };
        let mut background = JoinSet::new();
        let shared: Arc<dyn Engine> = engine.clone();
        self.workload.record(&shared, &mut background).await;
        let (faulty, replica) = self.replica(&engine).await;
        faulty.set_faults(EngineFaults::default());
        self.workload.client(&shared, &replica, 5, self.over()).run().await;
        self.workload.watch(&shared, &replica, &mut background);
        let last = engine.progress().await.unwrap().revision;
        while !self.workload.has_arrived(last) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn over(&self) -> IsOver {
        let disk = self.world.disk.clone();
        Arc::new(move || disk.is_crashed())
    }

    async fn replica(&self, engine: &Arc<Embedded>) -> (FaultyEngine, Replica<Text>) {
        let faults = if self.plan.engine_faults {
            EngineFaults::some()
        } else {
            EngineFaults::default()
        };
        let faulty = FaultyEngine::new(engine.clone(), self.world.random.fork(), faults);
        loop {
            let shared: Arc<dyn Engine> = if self.plan.engine_faults {
                Arc::new(faulty.clone())
            } else {
                engine.clone()
            };
            let tables = TABLES.map(|table| Bytes::from_static(table.as_bytes()));
            // Rings that are too short for the slow in some lives.
            let events_max = if self.world.random.chance(0.3) { 6 } else { 1000 };
            let limits = RingLimits {
                events_max,
                ..RingLimits::default()
            };
            match Replica::open_with(shared, self.world.clock.clone(), limits, tables, Text::build).await {
                Ok(replica) => return (faulty, replica),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

/// Runs seeds on all cores; the first violations with their seeds.
pub fn sweep(seeds: std::ops::Range<u64>, plan: impl Fn(u64) -> Plan + Sync) -> Vec<String> {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(Vec::new());
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end || found.lock().len() > 10 {
            return;
        }
        for violation in simulate(seed, plan(seed)).into_iter().take(3) {
            found.lock().push(format!("seed {seed}: {violation}"));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    found.into_inner()
}

fn assert_clean(found: &[String]) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_thousand_seeds_of_crashes() {
    assert_clean(&sweep(0..1000 * sweep_times(), |_| CRASHING));
}

/// Changes of the disk (writes, syncs, renames, removals, syncs of directories) in a life, about: a crash at each of them.
const CHANGES: u64 = 300;

#[test]
fn a_crash_at_every_operation_of_the_disk() {
    let plan = |seed: u64| Plan {
        lives: 2,
        operations: 30,
        crash_at: Some(1 + seed % CHANGES),
        disk_faults: false,
        ..CRASHING
    };
    assert_clean(&sweep(0..CHANGES * sweep_times(), plan));
}

#[test]
fn crashes_in_larger_segments() {
    let plan = |seed: u64| Plan {
        lives: 3,
        clients: 8,
        operations: 60,
        crash_within: 600,
        disk_faults: seed.is_multiple_of(2),
        large: true,
        ..CRASHING
    };
    assert_clean(&sweep(0..60 * sweep_times(), plan));
    // It is about files that are used again.
    assert!((0..10).any(|seed| run(seed, plan(seed)).1.reused > 0));
}

#[test]
fn an_engine_that_lags_and_fails() {
    let plan = Plan {
        lives: 2,
        crash_within: 0,
        disk_faults: false,
        engine_faults: true,
        ..CRASHING
    };
    assert_clean(&sweep(0..200 * sweep_times(), |_| plan));
}

#[test]
fn on_threads_in_real_time() {
    let plan = Plan {
        lives: 2,
        operations: 60,
        threads: true,
        ..CRASHING
    };
    let faulty = |seed: u64| Plan {
        engine_faults: seed.is_multiple_of(4),
        ..plan
    };
    assert_clean(&sweep(0..24 * sweep_times(), faulty));
}

#[test]
fn a_disk_whose_syncs_lie_is_found_out() {
    let found = sweep(0..50, |_| Plan {
        disk_faults: false,
        syncs_lie: true,
        ..CRASHING
    });
    assert!(found.len() > 5, "{found:?}");
}

/// A simulation that no longer reaches its cases checks nothing. A seed repeats itself, so these are exact.
#[test]
fn the_runs_reach_what_they_are_for() {
    let mut counts = std::collections::BTreeMap::new();
    let mut count = |what: &'static str, times: usize| *counts.entry(what).or_insert(0) += times;
    for seed in 0..40 {
        let (history, left) = run(seed, CRASHING);
        for write in &history.writes {
            match write.outcome {
                Outcome::Committed { .. } => count("committed", 1),
                Outcome::GuardFailed { .. } => count("guard failed", 1),
                Outcome::Unknown => count("unknown", 1),
                Outcome::Refused => count("refused", 1),
            }
        }
        count(
            "reads of the past",
            history.reads.iter().filter(|read| read.through.is_none()).count(),
        );
        let began = |watch: &&store::testing::history::Watch| watch.start > 0;
        count("watches that began anew", history.watches.iter().filter(began).count());
        count("batches", history.watches.iter().map(|watch| watch.batches.len()).sum());
        count(
            "snapshots",
            left.names.iter().filter(|name| name.ends_with(".snapshot")).count(),
        );
        count("files that are used again", left.reused as usize);
        let deletes = |changes: &&Vec<(Bytes, Option<Bytes>)>| changes.iter().all(|(_, value)| value.is_none());
        count("deletes", history.truth.values().filter(deletes).count());
    }
    println!("{counts:?}");
    assert!(
        counts.len() == 10 && counts.values().all(|count| *count >= 20),
        "{counts:?}"
    );
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..10 {
        for engine_faults in [false, true] {
            let plan = Plan {
                engine_faults,
                ..CRASHING
            };
            let (first, again) = (run(seed, plan), run(seed, plan));
            assert!(first == again, "seed {seed}");
            assert!(!first.0.truth.is_empty());
        }
    }
}
