//! For tests of stores and of whatever stands on one: an engine that lags, repeats old progress and fails at will, a store
//! in memory under a seed, clients and watchers that record what they are told ([`workload`]), the check of that record
//! ([`history`]), and defects to put back so that the check is seen to fail ([`Mutation`]).
//!
//! [`FaultyEngine`] keeps the contract of [`Engine`](crate::Engine) and no more than that: what works on the embedded
//! engine by luck (an answer that comes after the stream, progress that is always new, questions that always have an
//! answer) fails here.

pub mod history;
pub mod workload;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::disk::SimDisk;
use base::{Clock, Random};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::embedded::{Driver, Embedded, EmbeddedOptions};
use crate::engine::{CommittedStream, Engine, EngineError, KeyRange, Progress, RangeAnswer, Revision, StreamBatch};
pub use crate::mutation::{Mutated, Mutation};
use crate::state::StateReader;
use crate::transaction::{Commit, CommitError, Transaction};

/// An embedded engine on a simulated disk, for tests that need a store and not its durability.
///
/// # Panics
/// When the simulated disk does what no one told it to.
pub async fn engine_in_memory(clock: Clock, random: Random) -> Arc<Embedded> {
    let disk = Arc::new(SimDisk::new(random.fork()));
    let simulated = EmbeddedOptions::simulated(disk, clock, random);
    let opened = Embedded::open(EmbeddedOptions {
        driver: Driver::Task,
        ..simulated
    })
    .await;
    Arc::new(opened.expect("invariant: an empty simulated disk has no faults"))
}

/// What goes wrong, each with its probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineFaults {
    /// A commit that happens is answered "unknown outcome".
    pub answer_lost: f64,
    /// A commit that does not happen is answered "unknown outcome".
    pub request_lost: f64,
    /// A commit is refused as "unavailable".
    pub commit_unavailable: f64,
    /// A range, progress or stream is refused as "unavailable".
    pub question_unavailable: f64,
    /// A stream breaks at a batch.
    pub stream_broken: f64,
    /// A stream is refused because its history is gone, though it is not.
    pub stream_compacted: f64,
    /// A batch claims less progress than it made, even less than the one before it did.
    pub progress_held: f64,
    /// Batches and answers come later by up to this.
    pub lag_max: Duration,
}

impl EngineFaults {
    /// Everything now and then.
    pub fn some() -> Self {
        Self {
            answer_lost: 0.05,
            request_lost: 0.05,
            commit_unavailable: 0.05,
            question_unavailable: 0.1,
            stream_broken: 0.05,
            stream_compacted: 0.05,
            progress_held: 0.3,
            lag_max: Duration::from_millis(20),
        }
    }
}

/// An engine that does everything the contract allows, to those who rely on more. Cheap to clone.
#[derive(Clone)]
pub struct FaultyEngine {
    inner: Arc<dyn Engine>,
    random: Random,
    faults: Arc<Mutex<EngineFaults>>,
    other_writers: bool,
}

impl FaultyEngine {
    /// Puts faults in front of an engine.
    pub fn new(inner: Arc<dyn Engine>, random: Random, faults: EngineFaults) -> Self {
        Self {
            inner,
            random,
            faults: Arc::new(Mutex::new(faults)),
            other_writers: false,
        }
    }

    /// Says that others write to the same engine, so that several servers can stand on it.
    pub fn with_other_writers(mut self) -> Self {
        self.other_writers = true;
        self
    }

    /// Changes the faults from now on.
    pub fn set_faults(&self, faults: EngineFaults) {
        *self.faults.lock() = faults;
    }

    fn faults(&self) -> EngineFaults {
        *self.faults.lock()
    }

    fn lag(&self) -> Duration {
        let most = self.faults().lag_max.as_micros();
        Duration::from_micros(self.random.range(0..u64::try_from(most).unwrap_or(u64::MAX)))
    }

    fn question(&self) -> Result<(), EngineError> {
        if self.random.chance(self.faults().question_unavailable) {
            Err(unavailable())
        } else {
            Ok(())
        }
    }
}

fn unavailable() -> EngineError {
    EngineError::Unavailable("simulated".into())
}

impl Engine for FaultyEngine {
    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, CommitError>> {
        let faults = self.faults();
        let unknown = || Err(CommitError::UnknownOutcome("simulated".into()));
        if self.random.chance(faults.commit_unavailable) {
            return std::future::ready(Err(CommitError::Unavailable("simulated".into()))).boxed();
        }
        if self.random.chance(faults.request_lost) {
            return std::future::ready(unknown()).boxed();
        }
        let answer = self.inner.commit(transaction);
        let (lost, lag) = (self.random.chance(faults.answer_lost), self.lag());
        async move {
            let answer = answer.await;
            tokio::time::sleep(lag).await;
            if lost { unknown() } else { answer }
        }
        .boxed()
    }

    fn range(
        &self,
        range: KeyRange,
        revision: Option<Revision>,
    ) -> BoxFuture<'static, Result<RangeAnswer, EngineError>> {
        let (refused, lag, answer) = (self.question(), self.lag(), self.inner.range(range, revision));
        async move {
            tokio::time::sleep(lag).await;
            refused?;
            answer.await
        }
        .boxed()
    }

    fn stream(&self, after: Revision) -> BoxFuture<'static, Result<Box<dyn CommittedStream>, EngineError>> {
        let refused = self.question();
        let compacted = self.random.chance(self.faults().stream_compacted);
        let (engine, progress, stream) = (self.clone(), self.inner.progress(), self.inner.stream(after));
        async move {
            refused?;
            if compacted {
                return Err(EngineError::Compacted {
                    oldest: progress.await?.revision,
                });
            }
            let inner = stream.await?;
            let faulty = FaultyStream {
                engine,
                inner,
                ready: VecDeque::new(),
                not_before: None,
                told: after,
                known: after,
                broken: false,
            };
            let faulty: Box<dyn CommittedStream> = Box::new(faulty);
            Ok(faulty)
        }
        .boxed()
    }

    fn progress(&self) -> BoxFuture<'static, Result<Progress, EngineError>> {
        let (refused, answer) = (self.question(), self.inner.progress());
        async move {
            refused?;
            answer.await
        }
        .boxed()
    }

    fn state(&self, revision: Option<Revision>) -> BoxFuture<'static, Result<Box<dyn StateReader>, EngineError>> {
        let (refused, answer) = (self.question(), self.inner.state(revision));
        async move {
            refused?;
            answer.await
        }
        .boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), EngineError>> {
        self.inner.compact(revision)
    }

    fn has_other_writers(&self) -> bool {
        self.other_writers || self.inner.has_other_writers()
    }
}

struct FaultyStream {
    engine: FaultyEngine,
    inner: Box<dyn CommittedStream>,
    /// Batches taken from the inner stream, cut small.
    ready: VecDeque<StreamBatch>,
    /// When the first of them may be delivered.
    not_before: Option<Instant>,
    /// The highest progress that was told, and the one that was made.
    told: Revision,
    known: Revision,
    broken: bool,
}

impl FaultyStream {
    fn take(&mut self, batch: StreamBatch) {
        let mut delivered = self.known;
        for commit in batch.commits {
            delivered = commit.revision;
            self.ready.push_back(StreamBatch {
                commits: vec![commit],
                progress: delivered,
            });
        }
        if batch.progress > delivered {
            self.ready.push_back(StreamBatch {
                commits: Vec::new(),
                progress: batch.progress,
            });
        }
        self.known = batch.progress;
    }

    fn deliver(&mut self) -> Option<StreamBatch> {
        let mut batch = self.ready.pop_front()?;
        self.not_before = None;
        if self.engine.random.chance(self.engine.faults().progress_held) {
            batch.progress = self.engine.random.range(0..batch.progress + 1);
        }
        self.told = self.told.max(batch.progress);
        Some(batch)
    }
}

impl CommittedStream for FaultyStream {
    fn next(&mut self) -> BoxFuture<'_, Result<StreamBatch, EngineError>> {
        async move {
            loop {
                if self.broken || self.engine.random.chance(self.engine.faults().stream_broken) {
                    self.broken = true;
                    return Err(unavailable());
                }
                let lag = self.engine.lag();
                let not_before = *self.not_before.get_or_insert_with(|| Instant::now() + lag);
                if !self.ready.is_empty() {
                    tokio::time::sleep_until(not_before).await;
                    if let Some(batch) = self.deliver() {
                        return Ok(batch);
                    }
                }
                let owes = self.told < self.known;
                tokio::select! {
                    biased;
                    batch = self.inner.next() => self.take(batch?),
                    () = tokio::time::sleep_until(not_before), if owes => {
                        self.not_before = None;
                        self.told = self.known;
                        return Ok(StreamBatch { commits: Vec::new(), progress: self.known });
                    }
                }
            }
        }
        .boxed()
    }
}
