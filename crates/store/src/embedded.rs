//! The engine inside the program: a log on one disk, everything else in memory.
//!
//! One writer takes all transactions: it checks a batch of them against the state *including what is queued before each*,
//! appends their records, syncs once, then publishes and answers; meanwhile the next batch gathers in the queue. Invariants:
//! - memory ([`memory`]) has only what is durable; a refusal is answered after the batch whose state it saw;
//! - a sync that failed is never repeated: its batch ends as "unknown outcome", its segment is not written any more, and a
//!   new one begins where the durable part ended;
//! - the files take at most three times the live data, beyond a floor that [`Tuning`] names.
//!
//! `FORMAT.md` beside this describes the files and what is assumed of the medium.

mod answers;
mod backup;
mod driver;
#[cfg(test)]
mod examples;
mod expiry;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod import;
mod log;
mod marks;
mod memory;
mod recovery;
mod reuse;
mod snapshot;
mod tail;
mod tip;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use base::disk::{Disk, RealDisk};
use base::{Clock, Random};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot, watch as latest};

use crate::engine::{
    CommittedStream, Engine, EngineError, KeyRange, Progress, RangeAnswer, Record, Revision, StreamBatch,
};
use crate::map::Map;
use crate::state::StateReader;
use crate::transaction::{Commit, CommitError, Transaction};
pub(crate) use answers::Answers;
use answers::{Answering, Asker, Gathered};
pub use backup::{
    Backup, BackupCheck, BackupError, BackupHeader, BackupSummary, RestoreError, RestoreOptions, Restored, restore,
    revision_after,
};
use driver::{Control, Queue, Request};
pub use import::{ImportError, ImportedState};
use memory::Memory;
pub use recovery::OpenError;

/// The embedded engine. Dropping it lets what is queued finish; [`Embedded::close`] also waits for that.
pub struct Embedded {
    shared: Arc<Shared>,
    expiry: tokio::task::AbortHandle,
    finished: latest::Receiver<()>,
    directory: PathBuf,
    revision_offset: u64,
    store: [u8; 16],
}

/// How to open an embedded engine.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Where its files are; created when absent.
    pub directory: PathBuf,
    /// The disk they are on.
    pub disk: Arc<dyn Disk>,
    /// Wall time of commits and expiry.
    pub clock: Clock,
    /// The store's id, and a simulated writer's pauses.
    pub random: Random,
    /// Who does the writing.
    pub driver: Driver,
    /// Sizes and ages.
    pub tuning: Tuning,
    /// Raises all revisions by this, once and for good: after a restore or a migration the API's resource versions must be
    /// above all that were ever handed out. With it, a directory that holds only a snapshot (a backup) is opened, too.
    pub raise_revisions_by: u64,
}

/// Who runs the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A thread of its own, which may block: the real thing.
    Thread,
    /// A task of the runtime. The disk must not block: for tests that want a store in memory.
    Task,
    /// A task that pauses at random between its steps, for simulations in one thread.
    PausingTask,
}

/// Sizes and ages that decide when the engine rolls, snapshots and forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// A segment is ended beyond this, and beyond a sixteenth of the live data.
    pub segment_bytes: u64,
    /// A log below this never causes a snapshot; half of it is always there for history.
    pub log_floor_bytes: u64,
    /// History is forgotten at this age (etcd's compaction interval in Kubernetes).
    pub history_window_ms: i64,
    /// With less free space on the disk, only transactions without puts are taken.
    pub reserve_bytes: u64,
    /// Bytes of a batch, beyond which it takes no more transactions: what one sync makes durable.
    pub batch_bytes_max: usize,
    /// Bytes of a snapshot written at once.
    pub snapshot_block_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            segment_bytes: 4 * 1024 * 1024,
            log_floor_bytes: 32 * 1024 * 1024,
            history_window_ms: 5 * 60 * 1000,
            reserve_bytes: 64 * 1024 * 1024,
            batch_bytes_max: 8 * 1024 * 1024,
            snapshot_block_bytes: 256 * 1024,
        }
    }
}

impl EmbeddedOptions {
    fn log_files(&self) -> recovery::LogFiles {
        if self.raise_revisions_by > 0 {
            recovery::LogFiles::MayBeMissing
        } else {
            recovery::LogFiles::Required
        }
    }

    /// A store in a directory of the real disk.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            disk: Arc::new(RealDisk),
            clock: Clock::real(),
            random: Random::real(),
            driver: Driver::Thread,
            tuning: Tuning::default(),
            raise_revisions_by: 0,
        }
    }

    /// A store on a simulated (or any other non-blocking) disk, written by a task, under a seed.
    pub fn simulated(disk: Arc<dyn Disk>, clock: Clock, random: Random) -> Self {
        Self {
            disk,
            clock,
            random,
            driver: Driver::PausingTask,
            ..Self::new("/store")
        }
    }
}

/// What the writer, its readers and the expiry share.
struct Shared {
    queue: Queue,
    memory: RwLock<Memory>,
    /// The newest durable revision; its sender ends with the writer.
    durable: latest::Receiver<Revision>,
    /// Told when something that expires was written.
    expiring: Notify,
    clock: Clock,
    /// Where the open streams are.
    streams: Mutex<Vec<Weak<AtomicU64>>>,
}

impl Embedded {
    /// Opens a store: reads its snapshot and log, makes their end durable, begins a new segment. Must be called on a tokio
    /// runtime.
    ///
    /// # Errors
    /// Another process has it open; files of another version or with rot; the disk.
    pub async fn open(options: EmbeddedOptions) -> Result<Self, OpenError> {
        let recovered = match options.driver {
            Driver::Task | Driver::PausingTask => recovery::recover(&options, options.log_files())?,
            Driver::Thread => {
                let options = options.clone();
                let recovering = tokio::task::spawn_blocking(move || recovery::recover(&options, options.log_files()));
                recovering
                    .await
                    .map_err(|error| OpenError::Panicked(error.to_string()))??
            }
        };
        let (revision_offset, store) = (recovered.log.revision_offset(), recovered.log.place().store);
        let (publish, durable) = latest::channel(recovered.memory.revision);
        let shared = Arc::new(Shared {
            queue: Queue::default(),
            memory: RwLock::new(recovered.memory),
            durable,
            expiring: Notify::new(),
            clock: options.clock.clone(),
            streams: Mutex::default(),
        });
        let writer = writer::Writer::new(shared.clone(), recovered.log, recovered.snapshot, publish, &options);
        let (finish, finished) = latest::channel(());
        driver::start(writer, shared.clone(), &options, finish).map_err(|error| OpenError::io(Path::new(""), error))?;
        let expiry = tokio::spawn(expiry::run(shared.clone(), options.tuning.history_window_ms)).abort_handle();
        Ok(Self {
            shared,
            expiry,
            finished,
            directory: options.directory,
            revision_offset,
            store,
        })
    }

    /// Makes a store of a state that came from elsewhere, whose records are in key order, and closes it; the revision that
    /// it begins at. For [`Embedded::open`] it is a store like any other, without history. Must be called on a tokio
    /// runtime.
    ///
    /// # Errors
    /// A directory that is not empty; records that are not of one state; the disk, and whatever reading the records says.
    pub async fn import(
        options: EmbeddedOptions,
        state: ImportedState,
        records: impl Iterator<Item = std::io::Result<Record>> + Send + 'static,
    ) -> Result<Revision, ImportError> {
        import::import(options, state, records).await
    }

    /// Takes no more transactions, finishes those it has, and returns when the directory is free for another opening.
    pub async fn close(&self) {
        self.expiry.abort();
        self.shared.queue.close();
        let mut finished = self.finished.clone();
        // An error is the end of the sender, which is what is waited for.
        while finished.changed().await.is_ok() {}
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What this store's revisions are above those in its files.
    pub fn revision_offset(&self) -> u64 {
        self.revision_offset
    }

    /// The store's id: random, the same for as long as the store lives, another one after a restore.
    pub fn store_id(&self) -> [u8; 16] {
        self.store
    }

    /// Every key at a revision, or at the newest durable one, without a copy: O(1) for the newest.
    ///
    /// # Errors
    /// As [`Engine::range`].
    pub fn view(&self, revision: Option<Revision>) -> Result<(Revision, Map<Arc<Record>>), EngineError> {
        self.shared.open()?;
        let view = self.shared.memory.read().view(revision)?;
        // Going back in history is done without the lock.
        let revision = view.revision();
        Ok((revision, view.root()))
    }

    /// Submits transactions in order, as [`Engine::commit`] does with one; the answers are put down where they are said to
    /// be gathered, under the transactions' numbers.
    pub(crate) fn commit_all(&self, transactions: impl Iterator<Item = (u64, Transaction)>, answers: &Arc<Answers>) {
        self.shared.commit_all(transactions, answers);
    }

    /// Bytes that a snapshot of the live data takes.
    pub fn live_bytes(&self) -> u64 {
        self.shared.memory.read().live_bytes
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.expiry.abort();
        self.shared.queue.close();
    }
}

impl Engine for Embedded {
    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, CommitError>> {
        self.shared.commit(transaction)
    }

    fn range(
        &self,
        range: KeyRange,
        revision: Option<Revision>,
    ) -> BoxFuture<'static, Result<RangeAnswer, EngineError>> {
        let answer = self.shared.open().and_then(|()| {
            let view = self.shared.memory.read().view(revision);
            // Going back in history, and the walk, are done without the lock.
            view.map(|view| {
                let revision = view.revision();
                memory::select(&view.root(), &range, revision)
            })
        });
        std::future::ready(answer).boxed()
    }

    fn stream(&self, after: Revision) -> BoxFuture<'static, Result<Box<dyn CommittedStream>, EngineError>> {
        // A position that cannot be read from is refused now, not at the first batch.
        let possible = self
            .shared
            .open()
            .and_then(|()| self.shared.memory.read().after(after).map(drop));
        let stream = possible.map(|()| -> Box<dyn CommittedStream> {
            let durable = self.shared.durable.clone();
            let position = Arc::new(AtomicU64::new(after));
            self.shared.streams.lock().push(Arc::downgrade(&position));
            Box::new(Stream {
                shared: self.shared.clone(),
                durable,
                position,
            })
        });
        std::future::ready(stream).boxed()
    }

    fn progress(&self) -> BoxFuture<'static, Result<Progress, EngineError>> {
        let progress = self.shared.open().map(|()| self.shared.memory.read().progress());
        std::future::ready(progress).boxed()
    }

    fn state(&self, revision: Option<Revision>) -> BoxFuture<'static, Result<Box<dyn StateReader>, EngineError>> {
        let view = self
            .shared
            .open()
            .and_then(|()| self.shared.memory.read().view(revision));
        let reader = view.map(|view| -> Box<dyn StateReader> {
            Box::new(State {
                revision: view.revision(),
                root: view.root(),
                after: None,
            })
        });
        std::future::ready(reader).boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), EngineError>> {
        let (answer, receiver) = oneshot::channel();
        let open = self.shared.open();
        self.shared.queue.control(Control::Compact(revision, answer));
        async move {
            open?;
            receiver.await.unwrap_or(Err(EngineError::Closed))
        }
        .boxed()
    }
}

impl Shared {
    fn open(&self) -> Result<(), EngineError> {
        if self.durable.has_changed().is_err() {
            Err(EngineError::Closed)
        } else {
            Ok(())
        }
    }

    /// The revision that the slowest open stream is at.
    fn needed(&self) -> Option<Revision> {
        let mut streams = self.streams.lock();
        streams.retain(|stream| stream.strong_count() > 0);
        streams
            .iter()
            .filter_map(Weak::upgrade)
            .map(|position| position.load(Ordering::Relaxed))
            .min()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, CommitError>> {
        let (answer, receiver) = oneshot::channel();
        let checked = transaction.check().map(|()| {
            let asker = Asker::Alone(answer);
            self.queue.request(Request { transaction, asker });
        });
        async move {
            checked?;
            let gone = || CommitError::UnknownOutcome("the store was closed before it answered".into());
            receiver.await.unwrap_or_else(|_| Err(gone()))
        }
        .boxed()
    }

    fn commit_all(&self, transactions: impl Iterator<Item = (u64, Transaction)>, answers: &Arc<Answers>) {
        let mut refused = Answering::default();
        let checked = transactions.filter_map(|(number, transaction)| {
            let asker = Asker::Gathered(Gathered::new(answers.clone(), number));
            match transaction.check() {
                Ok(()) => Some(Request { transaction, asker }),
                Err(error) => {
                    refused.answer(asker, Err(error));
                    None
                }
            }
        });
        // Checked before the queue is locked.
        let checked: Vec<Request> = checked.collect();
        self.queue.requests(checked.into_iter());
    }
}

/// A version of the state, and the last key that was read of it.
struct State {
    revision: Revision,
    root: Map<Arc<Record>>,
    after: Option<Bytes>,
}

impl StateReader for State {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn next(&mut self, bytes_min: usize) -> BoxFuture<'_, Result<Vec<Arc<Record>>, EngineError>> {
        let records = snapshot::block(&self.root, self.after.as_ref(), bytes_min);
        if let Some(last) = records.last() {
            self.after = Some(last.key.clone());
        }
        std::future::ready(Ok(records)).boxed()
    }
}

/// A position in the history.
struct Stream {
    shared: Arc<Shared>,
    durable: latest::Receiver<Revision>,
    /// Everything up to here was delivered; only this stream moves it.
    position: Arc<AtomicU64>,
}

impl CommittedStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<StreamBatch, EngineError>> {
        async move {
            loop {
                // Marked as seen before looking, so that nothing falls in between.
                self.durable.borrow_and_update();
                let position = self.position.load(Ordering::Relaxed);
                let batch = self.shared.memory.read().after(position)?;
                if batch.progress > position {
                    self.position.store(batch.progress, Ordering::Relaxed);
                    return Ok(batch);
                }
                self.durable.changed().await.map_err(|_| EngineError::Closed)?;
            }
        }
        .boxed()
    }
}
