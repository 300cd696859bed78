//! Who runs the writer, and the queue in front of it.
//!
//! Invariant: every request that the queue took is answered, or its answer's channel is dropped, which the asker sees as
//! "unknown outcome"; the latter only when the writer itself died.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use base::Random;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot, watch as latest};
use tokio::time::Instant;

use super::answers::{Answering, Asker};
use super::snapshot::{SnapshotError, SnapshotFile, SnapshotJob, Step};
use super::writer::Writer;
use super::{Driver, EmbeddedOptions, Shared};
use crate::engine::{EngineError, Revision};
use crate::transaction::{CommitError, Transaction};

/// Transactions that wait at most. At a slow disk's 5,000 a second this is three seconds of waiting.
const QUEUED_MAX: usize = 16_384;
/// Bytes of transactions that wait at most.
const QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Transactions in one batch at most: one for each microsecond that a sync takes, between these. Checking and publishing one
/// costs some microseconds, so that a batch's processor time is a few times its sync's; more in a batch would only let
/// those who asked and the writer wait for each other in turns.
const BATCH_TRANSACTIONS: RangeInclusive<usize> = 256..=4096;
/// The part of a sync's time that a batch waits for more, and the longest such wait.
const GATHER_SHARE: u32 = 8;
const GATHER_MAX: Duration = Duration::from_millis(1);
/// The longest that a snapshot leaves the disk to commits after a part of it was synced.
const MAKE_WAY_MAX: Duration = Duration::from_millis(50);
/// How long nothing is to do before the log's end is marked: a mark beside each write would cost the next sync much more
/// than itself, as it changes the length of another file.
const MARK_AFTER: Duration = Duration::from_millis(50);
/// The longest pause of a simulated writer.
const PAUSE_MICROSECONDS_MAX: u64 = 2000;

/// A transaction that waits, and who waits for it.
pub(super) struct Request {
    pub(super) transaction: Transaction,
    pub(super) asker: Asker,
}

/// What the writer is told beside transactions.
pub(super) enum Control {
    SnapshotDone(Result<SnapshotFile, SnapshotError>),
    Compact(Revision, oneshot::Sender<Result<(), EngineError>>),
    /// Some of the history became too old while nothing was written.
    Trim,
}

/// The next thing for the writer to do.
pub(super) enum Work {
    Batch(Vec<Request>),
    Control(Control),
    /// Nothing was to do for a while.
    Idle,
    Stop,
}

/// What the writer can take now.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    /// Not while the log is too far ahead of a running snapshot.
    pub(super) batches: bool,
    /// Not while a snapshot runs.
    pub(super) stop: bool,
    pub(super) batch_bytes_max: usize,
    pub(super) batch_transactions_max: usize,
}

/// How many transactions a batch has at most when a sync takes so long.
pub(super) fn batch_transactions_max(sync: Duration) -> usize {
    let (least, most) = BATCH_TRANSACTIONS.into_inner();
    usize::try_from(sync.as_micros()).unwrap_or(most).clamp(least, most)
}

/// Clients that write one thing after the other come back right after their answer. Without a moment's patience they would
/// fall into two groups that wait for each other's syncs; with it, one sync serves them all.
#[derive(Clone, Copy, Default)]
struct Gather {
    /// As many as the last batch answered and as waited then.
    expected: usize,
    patience: Duration,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    thread: Condvar,
    task: Notify,
    /// Wakes a snapshot that makes way.
    snapshot: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    bytes: usize,
    controls: VecDeque<Control>,
    closed: bool,
    /// The log waits for the running snapshot.
    hurry: bool,
    /// The writer gathers a batch and need not be woken for fewer requests.
    gathers: usize,
}

impl Queue {
    pub(super) fn request(&self, request: Request) {
        self.requests(std::iter::once(request));
    }

    /// Takes requests in order, and answers those that it has no place for.
    pub(super) fn requests(&self, requests: impl Iterator<Item = Request>) {
        let mut refused = Vec::new();
        let mut waiting = self.waiting.lock();
        for request in requests {
            let size = request.transaction.size();
            if waiting.closed {
                refused.push((request, CommitError::Unavailable("the store is closed".into())));
            } else if waiting.requests.len() >= QUEUED_MAX || waiting.bytes + size > QUEUED_BYTES_MAX {
                refused.push((request, CommitError::Overloaded));
            } else {
                waiting.bytes += size;
                waiting.requests.push_back(request);
            }
        }
        let enough = waiting.requests.len() >= waiting.gathers;
        drop(waiting);
        if enough {
            self.wake();
        }
        let mut answering = Answering::default();
        for (request, error) in refused {
            answering.answer(request.asker, Err(error));
        }
    }

    pub(super) fn control(&self, control: Control) {
        self.waiting.lock().controls.push_back(control);
        self.wake();
    }

    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.wake();
    }

    fn wake(&self) {
        self.thread.notify_one();
        self.task.notify_one();
    }

    /// Leaves the disk to the commits for a while; not when they wait for the snapshot.
    fn make_way(&self, time: Duration) {
        let mut waiting = self.waiting.lock();
        if !waiting.hurry {
            self.snapshot.wait_for(&mut waiting, time);
        }
    }

    /// No transaction waits.
    fn is_idle(&self) -> bool {
        self.waiting.lock().requests.is_empty()
    }

    /// Transactions that wait.
    fn len(&self) -> usize {
        self.waiting.lock().requests.len()
    }

    fn take_blocking(&self, ready: Ready, gather: Gather, marked: bool) -> Work {
        let mut waiting = self.waiting.lock();
        let mut until = None;
        loop {
            let open = !waiting.closed && waiting.controls.is_empty() && ready.batches;
            let enough = gather.expected.min(ready.batch_transactions_max);
            if open && !waiting.requests.is_empty() && waiting.requests.len() < enough {
                let until = *until.get_or_insert_with(|| Instant::now() + gather.patience);
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    // Being woken for each one would cost more than what is gained.
                    waiting.gathers = enough;
                    self.thread.wait_for(&mut waiting, left);
                    waiting.gathers = 0;
                    continue;
                }
            }
            match waiting.take(ready) {
                Some(work) => return work,
                None => {
                    if !ready.batches && !waiting.hurry {
                        waiting.hurry = true;
                        self.snapshot.notify_all();
                    }
                    if marked {
                        self.thread.wait(&mut waiting);
                    } else if self.thread.wait_for(&mut waiting, MARK_AFTER).timed_out() && waiting.requests.is_empty()
                    {
                        return waiting.take(ready).unwrap_or(Work::Idle);
                    }
                }
            }
        }
    }

    async fn take(&self, ready: Ready) -> Work {
        loop {
            let woken = self.task.notified();
            if let Some(work) = self.waiting.lock().take(ready) {
                return work;
            }
            woken.await;
        }
    }
}

impl Waiting {
    fn take(&mut self, ready: Ready) -> Option<Work> {
        if let Some(control) = self.controls.pop_front() {
            self.hurry = false;
            return Some(Work::Control(control));
        }
        if ready.batches && !self.requests.is_empty() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(request) = self.requests.front() {
                let size = request.transaction.size();
                let full = batch.len() >= ready.batch_transactions_max || bytes + size > ready.batch_bytes_max;
                if full && !batch.is_empty() {
                    break;
                }
                bytes += size;
                batch.extend(self.requests.pop_front());
            }
            self.bytes -= bytes;
            return Some(Work::Batch(batch));
        }
        (self.closed && ready.stop && self.requests.is_empty()).then_some(Work::Stop)
    }
}

/// However the writer ends: nothing more is taken, and whoever waits learns it.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut waiting = self.0.queue.waiting.lock();
        waiting.closed = true;
        waiting.bytes = 0;
        let abandoned = (
            std::mem::take(&mut waiting.requests),
            std::mem::take(&mut waiting.controls),
        );
        drop(waiting);
        drop(abandoned);
    }
}

/// Starts the writer. `finish` is dropped when it has ended and let go of the directory.
pub(super) fn start(
    writer: Writer,
    shared: Arc<Shared>,
    options: &EmbeddedOptions,
    finish: latest::Sender<()>,
) -> io::Result<()> {
    match options.driver {
        Driver::Thread => {
            let run = move || {
                let ending = Ending(shared.clone());
                run_thread(writer, &shared);
                drop(ending);
                drop(finish);
            };
            std::thread::Builder::new().name("store-writer".into()).spawn(run)?;
        }
        Driver::Task | Driver::PausingTask => {
            let random = (options.driver == Driver::PausingTask).then(|| options.random.fork());
            tokio::spawn(async move {
                let ending = Ending(shared.clone());
                run_task(writer, shared, random).await;
                drop(ending);
                drop(finish);
            });
        }
    }
    Ok(())
}

fn run_thread(mut writer: Writer, shared: &Arc<Shared>) {
    let mut gather = Gather::default();
    let mut marked = true;
    // Until the first one says more.
    let mut last_sync = Duration::ZERO;
    loop {
        match shared.queue.take_blocking(writer.ready(last_sync), gather, marked) {
            Work::Batch(requests) => {
                let answered = requests.len();
                let mut batch = writer.begin(requests);
                let begun = Instant::now();
                writer.append(&mut batch);
                writer.sync(&mut batch);
                last_sync = begun.elapsed();
                // A share of what a sync costs: whoever comes too late loses little, whoever comes in time gains much.
                let patience = (last_sync / GATHER_SHARE).min(GATHER_MAX);
                gather = Gather {
                    expected: answered + shared.queue.len(),
                    patience,
                };
                writer.finish(batch);
                marked = false;
            }
            Work::Control(control) => writer.control(control),
            Work::Idle => {
                writer.mark();
                marked = true;
            }
            Work::Stop => return writer.close(),
        }
        if let Some(job) = writer.snapshot_due() {
            let shared = shared.clone();
            let run = move || {
                let mut running = RunningSnapshot::new(shared.clone());
                // Declared second, so that it has let go of the directory when the writer hears of its end.
                let mut job = job;
                let mut since = Instant::now();
                while let Some(step) = running.step(&mut job) {
                    if let Step::Busy = step {
                        shared.queue.make_way(since.elapsed().min(MAKE_WAY_MAX));
                        since = Instant::now();
                    }
                }
            };
            if let Err(error) = std::thread::Builder::new().name("store-snapshot".into()).spawn(run) {
                writer.control(Control::SnapshotDone(Err(error)));
            }
        }
    }
}

async fn run_task(mut writer: Writer, shared: Arc<Shared>, random: Option<Random>) {
    loop {
        match shared.queue.take(writer.ready(Duration::ZERO)).await {
            Work::Batch(requests) => {
                let mut batch = writer.begin(requests);
                pause(random.as_ref()).await;
                writer.append(&mut batch);
                pause(random.as_ref()).await;
                writer.sync(&mut batch);
                pause(random.as_ref()).await;
                writer.finish(batch);
                if shared.queue.is_idle() {
                    writer.mark();
                }
            }
            Work::Control(control) => writer.control(control),
            Work::Idle => writer.mark(),
            Work::Stop => return writer.close(),
        }
        if let Some(job) = writer.snapshot_due() {
            tokio::spawn(run_snapshot(job, shared.clone(), random.as_ref().map(Random::fork)));
        }
    }
}

async fn run_snapshot(job: SnapshotJob, shared: Arc<Shared>, random: Option<Random>) {
    let mut running = RunningSnapshot::new(shared);
    let mut job = job;
    while running.step(&mut job).is_some() {
        pause(random.as_ref()).await;
    }
}

/// However a snapshot ends, even by a panic: the writer hears of it, which may be waiting for that.
struct RunningSnapshot {
    shared: Arc<Shared>,
    done: Option<Result<SnapshotFile, SnapshotError>>,
}

impl RunningSnapshot {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, done: None }
    }

    /// None: that was the last step.
    fn step(&mut self, job: &mut SnapshotJob) -> Option<Step> {
        match job.step() {
            Ok(Step::Done(file)) => self.done = Some(Ok(file)),
            Err(error) => self.done = Some(Err(error)),
            Ok(more) => return Some(more),
        }
        None
    }
}

impl Drop for RunningSnapshot {
    fn drop(&mut self) {
        let done = self
            .done
            .take()
            .unwrap_or_else(|| Err(io::Error::other("the snapshot did not end")));
        self.shared.queue.control(Control::SnapshotDone(done));
    }
}

/// Lets others run; in a simulation at once, or after a while.
async fn pause(random: Option<&Random>) {
    match random.map(|random| (random, random.range(0..4))) {
        Some((_, 0)) => {}
        None | Some((_, 1)) => tokio::task::yield_now().await,
        Some((random, _)) => {
            tokio::time::sleep(Duration::from_micros(random.range(1..PAUSE_MICROSECONDS_MAX))).await;
        }
    }
}
