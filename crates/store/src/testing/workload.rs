//! Clients and watchers that put an engine to work and record what they are told, for [`History::check`].
//!
//! They run against any [`Engine`] with a [`Replica`] above it, through the death of either: a workload lives on, its
//! clients are made anew. Under a seed and paused time everything here repeats itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, Random};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::history::{Found, History, Outcome, Read, Seen, Through, Watch, Write, trigger_of};
use crate::engine::{Committed, CommittedStream, Engine, EngineError, KeyRange, Record, Revision};
use crate::replica::{Cursor, Entry, Event, Interest, Replica, Table, Value, WatchBatch, WatchError, Written};
use crate::transaction::{Commit, CommitError, Guard, Operation, Put, Stamp, Transaction};

/// The prefixes of the two tables that a workload writes to.
pub const TABLES: [&str; 2] = ["/a/", "/b/"];

/// A value that is its bytes; its trigger is what follows an `@`.
#[derive(Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl Text {
    /// The builder for a replica.
    pub fn build(record: &Record) -> Self {
        Self(String::from_utf8_lossy(&record.value).into_owned())
    }
}

impl Value for Text {
    fn trigger(&self) -> Option<&str> {
        trigger_of(self.0.as_bytes())
    }
}

/// What clients do beside reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// Some values expire within this many milliseconds; none: never.
    pub expiry_ms_max: Option<u64>,
    /// The history is compacted now and then.
    pub compaction: bool,
    /// Clients also talk to the engine itself, as those of another server do.
    pub engine: bool,
    /// The engine's changes say what there was before.
    pub knows_before: bool,
    /// The longest pause between what a client does, in microseconds.
    pub pause_us_max: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            expiry_ms_max: Some(40),
            compaction: true,
            engine: true,
            knows_before: true,
            pause_us_max: 4000,
        }
    }
}

/// A watch that goes on over deaths; none until it has begun.
type Slot = Arc<Mutex<Option<Watch>>>;

/// Whether the clients should stop: the engine below them is dead.
pub type IsOver = Arc<dyn Fn() -> bool + Send + Sync>;

/// A run: its history, and who makes it.
pub struct Workload {
    /// What was recorded so far.
    pub history: Arc<Mutex<History>>,
    /// Names values.
    writes: Arc<AtomicU64>,
    tables: Vec<Slot>,
    streams: Vec<Slot>,
    random: Random,
    clock: Clock,
    habits: Habits,
}

/// The watches of a workload: a table each, and what they ask for there.
fn interests() -> [(&'static str, Interest); 7] {
    [
        (TABLES[0], Interest::All),
        (TABLES[0], Interest::Namespace(Bytes::from_static(b"/a/n1/"))),
        (TABLES[0], Interest::Key(Bytes::from_static(b"/a/n1/0"))),
        (TABLES[0], Interest::Trigger("node1".to_owned())),
        (TABLES[1], Interest::All),
        (TABLES[1], Interest::Trigger("node0".to_owned())),
        (TABLES[0], Interest::All),
    ]
}

/// Streams of the engine that are followed beside the one that records.
const STREAMS: usize = 2;

impl Workload {
    /// A workload on an engine that is empty at revision `start`.
    pub fn new(start: Revision, clock: Clock, random: Random, habits: Habits) -> Self {
        let history = History {
            start,
            ..History::default()
        };
        Self {
            history: Arc::new(Mutex::new(history)),
            writes: Arc::default(),
            tables: interests().iter().map(|_| Slot::default()).collect(),
            streams: (0..STREAMS).map(|_| Slot::default()).collect(),
            random,
            clock,
            habits,
        }
    }

    /// Records what an engine commits, from where the record ends. What it tells at once is recorded before this returns.
    pub async fn record(&self, engine: &Arc<dyn Engine>, tasks: &mut JoinSet<()>) {
        let after = self.history.lock().newest();
        let mut stream = match engine.stream(after).await {
            Ok(stream) => stream,
            Err(error) => {
                if error != EngineError::Closed {
                    let what = format!("after {after} was durable: {error}");
                    self.history.lock().violation(what);
                }
                return;
            }
        };
        let history = self.history.clone();
        let (ready, waiting) = tokio::sync::oneshot::channel::<()>();
        let newest = engine.progress().await.map_or(after, |progress| progress.revision);
        tasks.spawn(async move {
            let mut ready = Some(ready);
            if newest <= after {
                ready = None;
            }
            while let Ok(batch) = stream.next().await {
                let mut history = history.lock();
                batch.commits.iter().for_each(|commit| history.commit(commit));
                if history.newest() >= newest {
                    ready = None;
                }
            }
            drop(ready);
        });
        // Its end, however it comes, is what is waited for.
        let _ = waiting.await;
    }

    /// Starts the watchers.
    pub fn watch(&self, engine: &Arc<dyn Engine>, replica: &Replica<Text>, tasks: &mut JoinSet<()>) {
        for (slot, (prefix, interest)) in self.tables.iter().zip(interests()) {
            let Some(table) = replica.table(prefix.as_bytes()) else {
                continue;
            };
            let watcher = Watcher {
                table,
                prefix: Bytes::from_static(prefix.as_bytes()),
                interest,
                random: self.random.fork(),
                history: self.history.clone(),
                slot: slot.clone(),
            };
            tasks.spawn(watcher.run());
        }
        for slot in &self.streams {
            let follower = Follower {
                engine: engine.clone(),
                random: self.random.fork(),
                history: self.history.clone(),
                slot: slot.clone(),
                knows_before: self.habits.knows_before,
            };
            tasks.spawn(follower.run());
        }
    }

    /// A client that does so many things, or fewer when it is over before.
    pub fn client(&self, engine: &Arc<dyn Engine>, replica: &Replica<Text>, operations: u64, over: IsOver) -> Client {
        Client {
            engine: engine.clone(),
            replica: replica.clone(),
            random: self.random.fork(),
            clock: self.clock.clone(),
            history: self.history.clone(),
            writes: self.writes.clone(),
            habits: self.habits,
            operations,
            over,
        }
    }

    /// Whether every watch and the record are at a revision.
    pub fn has_arrived(&self, revision: Revision) -> bool {
        let arrived = |slot: &Slot| slot.lock().as_ref().is_some_and(|watch| watch.end >= revision);
        self.tables.iter().chain(&self.streams).all(arrived) && self.history.lock().newest() >= revision
    }

    /// The whole history, with the watches that go on.
    pub fn into_history(self) -> History {
        let mut history = std::mem::take(&mut *self.history.lock());
        let slots = self.tables.iter().chain(&self.streams);
        history.watches.extend(slots.filter_map(|slot| slot.lock().take()));
        history
    }
}

/// One who reads and writes.
pub struct Client {
    engine: Arc<dyn Engine>,
    replica: Replica<Text>,
    random: Random,
    clock: Clock,
    history: Arc<Mutex<History>>,
    writes: Arc<AtomicU64>,
    habits: Habits,
    operations: u64,
    over: IsOver,
}

impl Client {
    /// Does what it is there for.
    pub async fn run(self) {
        for _ in 0..self.operations {
            if (self.over)() {
                return;
            }
            match self.random.range(0..24) {
                0..3 => self.read_replica(false).await,
                3 => self.read_replica(true).await,
                4 if self.habits.engine => self.read_engine(None).await,
                5 if self.habits.engine => self.read_the_past().await,
                6 if self.habits.compaction => self.compact().await,
                _ => self.write(self.transaction()).await,
            }
            match self.random.range(0..3) {
                0 => {}
                1 => tokio::task::yield_now().await,
                _ => tokio::time::sleep(Duration::from_micros(self.random.range(1..self.habits.pause_us_max))).await,
            }
        }
    }

    fn key(&self) -> Bytes {
        let table = ["a", "a", "b"][self.random.index(3)];
        Bytes::from(format!("/{table}/n{}/{}", self.random.index(2), self.random.index(3)))
    }

    fn value(&self) -> Bytes {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let padding = "x".repeat(self.random.index(200));
        match self.random.index(3) {
            node @ 0..2 => format!("{number}{padding}@node{node}").into(),
            _ => format!("{number}{padding}").into(),
        }
    }

    fn current(&self, key: &Bytes) -> Option<Revision> {
        let table = self.replica.table(&key[..3])?;
        Some(table.get(key)?.mod_revision())
    }

    fn transaction(&self) -> Transaction {
        let key = self.key();
        let current = self.current(&key).unwrap_or(0);
        match (self.random.range(0..12), self.habits.expiry_ms_max) {
            (0..3, _) => Transaction::create(key, self.value()),
            (3..6, _) => Transaction::update(key, current, self.value()),
            (6, _) => Transaction::new().put(key, self.value()),
            (7, _) => Transaction::delete(key, current),
            (8, _) => Transaction::new().operation(Operation::Delete(key)),
            (9, Some(most)) => {
                let expires_at_ms = Some(self.clock.now_ms() + self.random.range(0..most) as i64);
                let put = Put {
                    key,
                    value: self.value(),
                    expires_at_ms,
                    stamp: Stamp::default(),
                };
                Transaction::new().operation(Operation::Put(put))
            }
            _ => self.several(key),
        }
    }

    /// Puts and deletes of several keys under guards on any.
    fn several(&self, key: Bytes) -> Transaction {
        let mut transaction = Transaction::new().put(key.clone(), self.value());
        let mut keys = BTreeSet::from([key]);
        for _ in 0..self.random.range(1..4) {
            let other = self.key();
            if keys.insert(other.clone()) {
                transaction = match self.random.range(0..3) {
                    0 => transaction.operation(Operation::Delete(other)),
                    _ => transaction.put(other, self.value()),
                };
            }
        }
        let guard = self.key();
        match self.random.range(0..4) {
            0 => transaction.guard(Guard::Exists(guard)),
            1 => transaction.guard(Guard::Absent(guard)),
            2 => {
                let current = self.current(&guard).unwrap_or(0);
                transaction.guard(Guard::ModRevision(guard, current))
            }
            _ => transaction,
        }
    }

    async fn read_replica(&self, consistent: bool) {
        // Not under one lock: with threads, others are at work between the three.
        let invoked = self.history.lock().moment();
        let prefix = TABLES[self.random.index(TABLES.len())];
        if consistent && self.replica.consistent().await.is_err() {
            return;
        }
        let Some(table) = self.replica.table(prefix.as_bytes()) else {
            return;
        };
        let snapshot = table.snapshot();
        let one = |entry: &Arc<Entry<Text>>| (entry.key().clone(), Found::from(&*entry.record));
        let content = Some(snapshot.iter().map(one).collect());
        self.read(Read {
            prefix: Bytes::from_static(prefix.as_bytes()),
            revision: snapshot.revision(),
            content,
            invoked,
            returned: 0,
            through: Some(if consistent { Through::Engine } else { Through::Replica }),
        });
    }

    async fn read_engine(&self, revision: Option<Revision>) {
        let invoked = self.history.lock().moment();
        let prefix = Bytes::from_static(TABLES[self.random.index(TABLES.len())].as_bytes());
        // A refusal is no answer; what is asked for may be compacted.
        let Ok(answer) = self.engine.range(KeyRange::prefix(&prefix), revision).await else {
            return;
        };
        let one = |record: &Arc<Record>| (record.key.clone(), Found::from(&**record));
        self.read(Read {
            prefix,
            revision: answer.revision,
            content: Some(answer.records.iter().map(one).collect()),
            invoked,
            returned: 0,
            through: revision.is_none().then_some(Through::Engine),
        });
    }

    async fn read_the_past(&self) {
        let invoked = self.history.lock().moment();
        let Ok(progress) = self.engine.progress().await else {
            return;
        };
        self.read(Read {
            prefix: Bytes::new(),
            revision: progress.revision,
            content: None,
            invoked,
            returned: 0,
            through: Some(Through::Engine),
        });
        let past = self.random.range(progress.oldest..progress.revision + 1);
        self.read_engine(Some(past)).await;
    }

    fn read(&self, read: Read) {
        let mut history = self.history.lock();
        let returned = history.moment();
        history.reads.push(Read { returned, ..read });
    }

    /// Forgets most of the history.
    async fn compact(&self) {
        let Ok(progress) = self.engine.progress().await else {
            return;
        };
        let keep = self.random.range(0..12);
        // Not what is still to be recorded.
        let most = progress.revision.min(self.history.lock().newest());
        // Somebody else may have compacted further.
        let _ = self.engine.compact(most.saturating_sub(keep)).await;
    }

    async fn write(&self, transaction: Transaction) {
        let through = if self.habits.engine && self.random.chance(0.2) {
            Through::Engine
        } else {
            Through::Replica
        };
        let index = {
            let mut history = self.history.lock();
            let invoked = history.moment();
            history.writes.push(Write {
                transaction: transaction.clone(),
                invoked,
                returned: u64::MAX,
                through,
                outcome: Outcome::Unknown,
            });
            history.writes.len() - 1
        };
        let abandoned = self.random.chance(0.05);
        let answer = match through {
            Through::Engine => {
                let answer = self.engine.commit(transaction);
                if abandoned {
                    // Nobody waits; it is submitted all the same.
                    return;
                }
                answer.await
            }
            Through::Replica => {
                let answer = self.replica.commit(transaction);
                if abandoned {
                    return;
                }
                let commit = |written: Written<Text>| Commit {
                    revision: written.revision,
                    changed: written.changed,
                };
                answer.await.map(commit)
            }
        };
        let outcome = match answer {
            Ok(Commit { revision, changed }) => Outcome::Committed { revision, changed },
            Err(CommitError::GuardFailed { key, current, revision }) => Outcome::GuardFailed {
                key,
                current: current.as_deref().map(Found::from),
                revision,
            },
            Err(CommitError::UnknownOutcome(_)) => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        };
        let mut history = self.history.lock();
        let returned = history.moment();
        let write = &mut history.writes[index];
        (write.returned, write.outcome) = (returned, outcome);
    }
}

/// One who watches a table.
struct Watcher {
    table: Table<Text>,
    prefix: Bytes,
    interest: Interest,
    random: Random,
    history: Arc<Mutex<History>>,
    slot: Slot,
}

impl Watcher {
    async fn run(self) {
        loop {
            let Some(mut cursor) = self.resume() else { return };
            // Watches are dropped and resumed, too.
            for _ in 0..self.random.range(1..10) {
                tokio::time::sleep(Duration::from_micros(self.random.range(0..8000))).await;
                if self.random.chance(0.3) {
                    // A bookmark while events may be waiting.
                    match cursor.progress() {
                        Ok(Some(revision)) => self.note(revision),
                        Ok(None) => {}
                        Err(WatchError::Expired { .. }) => break,
                        Err(WatchError::Closed) => return,
                    }
                }
                let waiting = tokio::time::timeout(Duration::from_millis(10), cursor.next());
                let result = match waiting.await {
                    Ok(Ok(batch)) => {
                        self.deliver(&batch);
                        continue;
                    }
                    Ok(Err(error)) => Err(error),
                    Err(_) => cursor.progress(),
                };
                match result {
                    Ok(Some(revision)) => self.note(revision),
                    Ok(None) => {}
                    Err(WatchError::Expired { .. }) => break,
                    Err(WatchError::Closed) => return,
                }
            }
        }
    }

    /// Goes on where the last watch ended, or, when that is too long ago, begins a new one at a list or in the future.
    fn resume(&self) -> Option<Cursor<Text>> {
        let mut slot = self.slot.lock();
        if let Some(known) = &*slot {
            match self.table.watch_from(known.end, self.interest.clone()) {
                Ok(cursor) => return Some(cursor),
                Err(WatchError::Closed) => return None,
                Err(WatchError::Expired { .. }) => self.history.lock().watches.extend(slot.take()),
            }
        }
        let ahead = if self.random.chance(0.3) {
            self.random.range(1..4)
        } else {
            0
        };
        let start = self.table.snapshot().revision() + ahead;
        *slot = Some(Watch {
            prefix: self.prefix.clone(),
            interest: self.interest.clone(),
            start,
            end: start,
            knows_before: true,
            batches: Vec::new(),
        });
        self.table.watch_from(start, self.interest.clone()).ok()
    }

    fn deliver(&self, batch: &WatchBatch<Text>) {
        let value = |entry: &Option<Arc<Entry<Text>>>| entry.as_ref().map(|entry| entry.bytes().clone());
        let seen = |event: &Arc<Event<Text>>| Seen {
            revision: event.revision,
            key: event.key().clone(),
            before: value(&event.before),
            after: value(&event.after),
        };
        let seen: Vec<Seen> = batch.events.iter().map(seen).collect();
        if let Some(watch) = &mut *self.slot.lock() {
            self.history.lock().delivery(watch, seen);
        }
        self.note(batch.revision);
    }

    fn note(&self, revision: Revision) {
        let mut slot = self.slot.lock();
        let Some(watch) = &mut *slot else { return };
        let visible = self.table.snapshot().revision();
        let mut history = self.history.lock();
        if revision < watch.end {
            history.violation(format!("a watch went back from {} to {revision}", watch.end));
        }
        if revision > visible {
            history.violation(format!("a watch was told of {revision} when {visible} was the newest"));
        }
        watch.end = revision;
        let moment = history.moment();
        history.deliveries.push((moment, revision));
    }
}

/// One who follows the engine's own stream.
struct Follower {
    engine: Arc<dyn Engine>,
    random: Random,
    history: Arc<Mutex<History>>,
    slot: Slot,
    knows_before: bool,
}

impl Follower {
    async fn run(self) {
        while let Some(mut stream) = self.resume().await {
            for _ in 0..self.random.range(1..8) {
                tokio::time::sleep(Duration::from_micros(self.random.range(0..8000))).await;
                match tokio::time::timeout(Duration::from_millis(10), stream.next()).await {
                    Ok(Ok(batch)) => self.deliver(&batch.commits, batch.progress),
                    Ok(Err(EngineError::Closed)) => return,
                    Ok(Err(_)) => break,
                    Err(_) => {}
                }
            }
        }
    }

    /// Goes on where it was, or begins somewhere in the history.
    async fn resume(&self) -> Option<Box<dyn CommittedStream>> {
        loop {
            let known = self.slot.lock().as_ref().map(|watch| watch.end);
            let after = match known {
                Some(end) => end,
                None => self.begin().await?,
            };
            match self.engine.stream(after).await {
                Ok(stream) => return Some(stream),
                Err(EngineError::Closed) => return None,
                Err(EngineError::Compacted { .. } | EngineError::Future { .. }) => {
                    let ended = self.slot.lock().take();
                    self.history.lock().watches.extend(ended);
                }
                Err(EngineError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn begin(&self) -> Option<Revision> {
        let progress = loop {
            match self.engine.progress().await {
                Ok(progress) => break progress,
                Err(EngineError::Closed) => return None,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        // Now and then just before what is known: that must be refused.
        let start = match self.random.range(0..4) {
            0 => progress.oldest.saturating_sub(1).max(self.history.lock().start),
            1 => progress.revision,
            _ => self.random.range(progress.oldest..progress.revision + 1),
        };
        *self.slot.lock() = Some(Watch {
            prefix: Bytes::new(),
            interest: Interest::All,
            start,
            end: start,
            knows_before: self.knows_before,
            batches: Vec::new(),
        });
        Some(start)
    }

    fn deliver(&self, commits: &[Arc<Committed>], progress: Revision) {
        let mut slot = self.slot.lock();
        let Some(watch) = &mut *slot else { return };
        for commit in commits {
            let seen = |change: &crate::engine::Change| Seen {
                revision: commit.revision,
                key: change.key.clone(),
                before: change
                    .before
                    .as_ref()
                    .filter(|_| self.knows_before)
                    .map(|before| before.value.clone()),
                after: change.after.as_ref().map(|after| after.value.clone()),
            };
            let seen = commit.changes.iter().map(seen).collect();
            self.history.lock().delivery(watch, seen);
            watch.end = watch.end.max(commit.revision);
        }
        watch.end = watch.end.max(progress);
    }
}
