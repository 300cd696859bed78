//! What is read: persistent tables of built values above any engine, and rings of recent events to watch.
//!
//! One task applies the engine's stream. For each batch it appends to the rings, then publishes the new roots of all
//! tables at once, then wakes watchers. Invariants:
//! - the published revision never goes back, and all tables of one [`ReplicaSnapshot`] are of exactly its revision;
//! - a watcher is never ahead of what a reader sees: it delivers only events up to the published revision;
//! - no reader waits for a writer: reading takes an `Arc`, watching a short lock of one ring.

mod age;
mod applied;
mod apply;
mod ring;
mod roots;
mod table;
mod watch;

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base::Clock;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

pub use ring::RingLimits;
pub use table::{Snapshot, Table};
pub use watch::{Cursor, Interest, WatchBatch, WatchError};

use crate::engine::{Engine, EngineError, Record, Revision};
use crate::map::{Item, Map};
use crate::mutation::{Mutation, mutated};
use crate::transaction::{CommitError, Operation, Transaction};
use age::Age;
use applied::Applied;
use apply::Applier;
use ring::Ring;
use roots::Roots;

/// What a replica holds for each key beside its bytes: built once for each write, shared by all readers.
pub trait Value: Send + Sync + 'static {
    /// A text that watchers can ask for with [`Interest::Trigger`], such as the node a pod is bound to.
    fn trigger(&self) -> Option<&str> {
        None
    }
}

impl Value for () {}

/// A key's record and the value built from it. Immutable; readers share it.
#[derive(Debug)]
pub struct Entry<V> {
    /// The stored bytes, their revisions and stamp. Shared with the embedded engine, so it is in memory once.
    pub record: Arc<Record>,
    /// What the builder made of it.
    pub value: V,
}

impl<V> Entry<V> {
    /// The key.
    pub fn key(&self) -> &Bytes {
        &self.record.key
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.record.value
    }

    /// The revision that created the key.
    pub fn create_revision(&self) -> Revision {
        self.record.create_revision
    }

    /// The revision that wrote this value.
    pub fn mod_revision(&self) -> Revision {
        self.record.mod_revision
    }
}

impl<V> Item for Arc<Entry<V>> {
    type Key = [u8];
    fn key(&self) -> &[u8] {
        &self.record.key
    }
    fn bytes(key: &[u8]) -> &[u8] {
        key
    }
}

/// One key's change at a revision. At least one of before and after is there.
#[derive(Debug)]
pub struct Event<V> {
    /// The revision.
    pub revision: Revision,
    /// Wall time of the commit in milliseconds since the epoch.
    pub time_ms: i64,
    /// What the key had; absent: it was created.
    pub before: Option<Arc<Entry<V>>>,
    /// What it has now; absent: it was deleted.
    pub after: Option<Arc<Entry<V>>>,
}

impl<V> Event<V> {
    /// The key.
    pub fn key(&self) -> &Bytes {
        let entry = self.after.as_ref().or(self.before.as_ref());
        &entry.expect("invariant: an event has a before or an after").record.key
    }
}

/// Makes a value of a record. Must not panic, and must not block for longer than a bounded wait for a key that is seen for
/// the first time: one bad object is a value that says so.
pub type Build<V> = dyn Fn(&Record) -> V + Send + Sync;

/// A readable, watchable copy of an engine's state. Cheap to clone; ends with its last clone, table and cursor.
pub struct Replica<V> {
    handle: Arc<Handle<V>>,
}

impl<V> Clone for Replica<V> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
        }
    }
}

/// Why a replica cannot do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The engine could not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Two tables would both hold some keys.
    #[error("the table prefix {0:?} is empty or overlaps another")]
    Overlap(String),
    /// The replica has ended.
    #[error("the replica is closed")]
    Closed,
}

/// What a commit did, seen through the replica.
#[derive(Debug)]
pub struct Written<V> {
    /// The revision of the transaction, or of the state it found nothing to change in.
    pub revision: Revision,
    /// Whether it changed anything.
    pub changed: bool,
    /// One for each operation, in order.
    pub entries: Vec<WrittenEntry<V>>,
}

/// What one operation did.
#[derive(Debug)]
pub struct WrittenEntry<V> {
    /// What the key had. Also absent when the ring that knew it has already moved on.
    pub before: Option<Arc<Entry<V>>>,
    /// What was written; absent for a delete.
    pub after: Option<Arc<Entry<V>>>,
}

/// All tables at one revision.
pub struct ReplicaSnapshot<V> {
    state: Arc<State<V>>,
}

/// The published state.
pub(crate) struct State<V> {
    revision: Revision,
    tables: Map<Arc<Root<V>>>,
}

/// A table's content in a state.
struct Root<V> {
    slot: u32,
    map: Map<Arc<Entry<V>>>,
}

impl<V> Item for Arc<Root<V>> {
    type Key = u32;
    fn key(&self) -> &u32 {
        &self.slot
    }
}

/// A table's identity, events and kept roots.
pub(crate) struct TableCore<V> {
    /// Unique in the replica's life, so that a table that is removed and added again is another one.
    slot: u32,
    prefix: Bytes,
    ring: Mutex<Ring<V>>,
    roots: Mutex<Roots<V>>,
}

/// What readers and the applying task share.
pub(crate) struct Shared<V> {
    engine: Arc<dyn Engine>,
    build: Box<Build<V>>,
    clock: Clock,
    limits: RingLimits,
    state: ArcSwap<State<V>>,
    age: Mutex<Age>,
    /// Who waits for which revision; closed when the applying task ends.
    applied: Applied,
    /// By prefix; prefixes do not overlap.
    tables: RwLock<BTreeMap<Bytes, Arc<TableCore<V>>>>,
}

/// Keeps the applying task alive.
pub(crate) struct Handle<V> {
    shared: Arc<Shared<V>>,
    commands: mpsc::Sender<Command<V>>,
    task: tokio::task::AbortHandle,
}

impl<V> Drop for Handle<V> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the applying task is asked between batches.
enum Command<V> {
    Add(
        Vec<Bytes>,
        History,
        oneshot::Sender<Result<Vec<Arc<TableCore<V>>>, ReplicaError>>,
    ),
    Remove(Bytes, oneshot::Sender<bool>),
    Rebuild(Bytes, Watches, oneshot::Sender<Result<bool, ReplicaError>>),
}

/// From where the watches of a table that is added can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// As far back as the engine knows: clients that watched before a restart go on. All of it is read.
    Kept,
    /// From now on: nobody can have watched it before.
    FromNow,
}

/// What becomes of the watches of a table whose values are built again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watches {
    /// They expire: what they would be told next is lost.
    Expire,
    /// They end, as if their time were over. Whoever begins one again where it was learns that it has expired.
    End,
}

/// Table changes that wait. They are rare and their callers wait for them.
const COMMANDS_MAX: usize = 64;

impl<V: Value> Replica<V> {
    /// Loads the tables with these prefixes from an engine, their recent history included, and follows it from then on.
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Overlapping prefixes; an engine that does not answer.
    pub async fn open(
        engine: Arc<dyn Engine>,
        clock: Clock,
        tables: impl IntoIterator<Item = Bytes>,
        build: impl Fn(&Record) -> V + Send + Sync + 'static,
    ) -> Result<Self, ReplicaError> {
        Self::open_with(engine, clock, RingLimits::default(), tables, build).await
    }

    /// As [`Replica::open`], with other limits of the event rings.
    ///
    /// # Errors
    /// As [`Replica::open`].
    pub async fn open_with(
        engine: Arc<dyn Engine>,
        clock: Clock,
        limits: RingLimits,
        tables: impl IntoIterator<Item = Bytes>,
        build: impl Fn(&Record) -> V + Send + Sync + 'static,
    ) -> Result<Self, ReplicaError> {
        let shared = Arc::new(Shared {
            engine,
            build: Box::new(build),
            clock,
            limits,
            age: Mutex::new(Age::new(limits.window_ms)),
            state: ArcSwap::from_pointee(State {
                revision: 0,
                tables: Map::new(),
            }),
            applied: Applied::default(),
            tables: RwLock::default(),
        });
        let mut applier = Applier::new(shared.clone());
        applier.open(tables.into_iter().collect()).await?;
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let task = tokio::spawn(applier.run(receiver)).abort_handle();
        Ok(Self {
            handle: Arc::new(Handle { shared, commands, task }),
        })
    }

    /// The table with this prefix.
    pub fn table(&self, prefix: &[u8]) -> Option<Table<V>> {
        let core = self.handle.shared.tables.read().get(prefix).cloned()?;
        // One that is still being loaded is not there yet.
        self.handle.shared.state.load().tables.get(&core.slot)?;
        Some(Table::new(self.handle.clone(), core))
    }

    /// The prefixes of all tables, in order.
    pub fn prefixes(&self) -> Vec<Bytes> {
        self.handle.shared.tables.read().keys().cloned().collect()
    }

    /// Adds a table while running; its keys and the engine's history of them are loaded first.
    ///
    /// # Errors
    /// As [`Replica::add_tables`].
    pub async fn add_table(&self, prefix: impl Into<Bytes>) -> Result<Table<V>, ReplicaError> {
        let mut tables = self.add_tables(vec![prefix.into()], History::Kept).await?;
        tables.pop().ok_or(ReplicaError::Closed)
    }

    /// Adds tables while running, all or none of them; their keys are loaded first. The answer has the same order.
    ///
    /// # Errors
    /// A prefix that overlaps another table's; an engine that does not answer; `Closed`.
    pub async fn add_tables(&self, prefixes: Vec<Bytes>, history: History) -> Result<Vec<Table<V>>, ReplicaError> {
        let (answer, receiver) = oneshot::channel();
        let command = Command::Add(prefixes, history, answer);
        self.handle
            .commands
            .send(command)
            .await
            .map_err(|_| ReplicaError::Closed)?;
        let cores = receiver.await.map_err(|_| ReplicaError::Closed)??;
        let table = |core| Table::new(self.handle.clone(), core);
        Ok(cores.into_iter().map(table).collect())
    }

    /// Removes a table; its watches end with [`WatchError::Closed`] after the last event. The keys stay in the engine. False when there was none.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn remove_table(&self, prefix: &[u8]) -> Result<bool, ReplicaError> {
        let (answer, receiver) = oneshot::channel();
        let command = Command::Remove(Bytes::copy_from_slice(prefix), answer);
        self.handle
            .commands
            .send(command)
            .await
            .map_err(|_| ReplicaError::Closed)?;
        receiver.await.map_err(|_| ReplicaError::Closed)
    }

    /// Builds every value of a table again, because what they are built with has changed; its history is lost. False when there
    /// is no such table.
    ///
    /// # Errors
    /// An engine that does not answer (the table stays as it was); `Closed`.
    pub async fn rebuild_table(&self, prefix: &[u8], watches: Watches) -> Result<bool, ReplicaError> {
        let (answer, receiver) = oneshot::channel();
        let command = Command::Rebuild(Bytes::copy_from_slice(prefix), watches, answer);
        self.handle
            .commands
            .send(command)
            .await
            .map_err(|_| ReplicaError::Closed)?;
        receiver.await.map_err(|_| ReplicaError::Closed)?
    }

    /// The revision that readers see.
    pub fn revision(&self) -> Revision {
        self.handle.shared.state.load().revision
    }

    /// All tables at one revision, in O(1).
    pub fn snapshot(&self) -> ReplicaSnapshot<V> {
        ReplicaSnapshot {
            state: self.handle.shared.state.load_full(),
        }
    }

    /// Returns when readers see `revision` or a newer one (resourceVersionMatch=NotOlderThan). The caller sets a deadline.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn wait_for(&self, revision: Revision) -> Result<Revision, ReplicaError> {
        self.handle.shared.wait_for(revision).await
    }

    /// Whether it has ended: it shows its last state, and nothing can be written any more.
    pub fn is_closed(&self) -> bool {
        self.handle.shared.applied.is_closed()
    }

    /// Returns when it has ended.
    pub async fn closed(&self) {
        // No revision is ever that high, so this ends with the replica.
        let _ = self.wait_for(Revision::MAX).await;
    }

    /// Asks the engine how far it is and waits until readers see that: what is read afterwards is as new as anything
    /// acknowledged before the call, by whichever server.
    ///
    /// # Errors
    /// An engine that does not answer; `Closed`.
    pub async fn consistent(&self) -> Result<Revision, ReplicaError> {
        let progress = self.handle.shared.engine.progress().await?;
        if mutated(Mutation::StaleConsistentRead) {
            return Ok(self.revision());
        }
        self.wait_for(progress.revision).await
    }

    /// The engine below.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.handle.shared.engine
    }

    /// Commits. The transaction is submitted by the call itself and does not depend on the returned future. When that is
    /// done, the write is durable and readers of this replica see it. A failed guard's answer, too, waits until readers see
    /// the state it was found in, so that a retry starts from there.
    pub fn commit(
        &self,
        transaction: Transaction,
    ) -> impl Future<Output = Result<Written<V>, CommitError>> + Send + use<V> {
        let handle = self.handle.clone();
        let operations = transaction.operations.clone();
        let submitted = handle.shared.engine.commit(transaction);
        async move {
            let shared = &handle.shared;
            let commit = match submitted.await {
                Ok(commit) => commit,
                Err(CommitError::GuardFailed { key, current, revision }) => {
                    // A replica that has ended changes nothing about the refusal.
                    let _ = shared.wait_for(revision).await;
                    return Err(CommitError::GuardFailed { key, current, revision });
                }
                Err(error) => return Err(error),
            };
            if shared.wait_for(commit.revision).await.is_err() {
                return Err(CommitError::UnknownOutcome("the replica was closed meanwhile".into()));
            }
            let written = |operation| shared.written(commit.revision, commit.changed, operation);
            let entries = operations.iter().map(written).collect();
            Ok(Written {
                revision: commit.revision,
                changed: commit.changed,
                entries,
            })
        }
    }
}

impl<V: Value> ReplicaSnapshot<V> {
    /// The revision of all tables here.
    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    /// A table's content; none when the table was added later or is gone.
    pub fn table(&self, table: &Table<V>) -> Option<Snapshot<V>> {
        table.of(&self.state)
    }
}

impl<V: Value> Shared<V> {
    pub(crate) async fn wait_for(&self, revision: Revision) -> Result<Revision, ReplicaError> {
        self.applied.wait_for(revision).await.ok_or(ReplicaError::Closed)
    }

    /// The table that a key belongs to.
    fn route(&self, key: &[u8]) -> Option<Arc<TableCore<V>>> {
        let tables = self.tables.read();
        let (prefix, table) = tables
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()?;
        key.starts_with(prefix).then(|| table.clone())
    }

    /// What an operation of a committed transaction did.
    fn written(&self, revision: Revision, changed: bool, operation: &Operation) -> WrittenEntry<V> {
        let table = self.route(operation.key());
        let event = table.and_then(|table| table.ring.lock().find(revision, operation.key()));
        if let Some(event) = event {
            return WrittenEntry {
                before: event.before.clone(),
                after: event.after.clone(),
            };
        }
        // The ring has moved on, or the key belongs to no table: make it again of what was handed in.
        let after = match operation {
            Operation::Put(put) if changed => {
                let record = Record {
                    key: put.key.clone(),
                    value: put.value.clone(),
                    create_revision: revision,
                    mod_revision: revision,
                    version: 1,
                    stamp: put.stamp,
                    expires_at_ms: put.expires_at_ms,
                };
                let value = (self.build)(&record);
                Some(Arc::new(Entry {
                    record: Arc::new(record),
                    value,
                }))
            }
            _ => None,
        };
        WrittenEntry { before: None, after }
    }
}
