//! The one task that changes a replica: it applies the engine's stream and adds and removes tables between batches.
//!
//! When the stream breaks because its history is gone, the tables are read anew and all watches expire: a watcher is never
//! shown a gap. The published revision does not go back even then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::ring::Ring;
use super::roots::Roots;
use super::{Command, Entry, Event, History, ReplicaError, Root, Shared, State, TableCore, Value, Watches};
use crate::engine::{Committed, CommittedStream, EngineError, KeyRange, Record, Revision, StreamBatch};
use crate::map::Map;
use crate::mutation::{Mutation, mutated};

/// First and longest wait before an engine that did not answer is asked again.
const RETRY_INITIAL: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// So many records and more are built by all processors: below, starting threads costs what they save.
const BUILT_TOGETHER_MIN: usize = 256;

pub(super) struct Applier<V: Value> {
    shared: Arc<Shared<V>>,
    next_slot: u32,
}

/// However the task ends, even by a builder's panic: those who watch learn it.
impl<V: Value> Drop for Applier<V> {
    fn drop(&mut self) {
        self.shared.applied.close();
        let mut wake = Vec::new();
        for table in self.shared.tables.read().values() {
            table.ring.lock().close(&mut wake);
        }
        wake.iter().for_each(|notify| notify.notify_waiters());
    }
}

/// Tables being changed, by slot.
type Dirty<V> = BTreeMap<u32, Working<V>>;

struct Working<V> {
    core: Arc<TableCore<V>>,
    map: Map<Arc<Entry<V>>>,
    events: Vec<Arc<Event<V>>>,
}

impl<V> Working<V> {
    fn empty(core: &Arc<TableCore<V>>) -> Self {
        Self {
            core: core.clone(),
            map: Map::new(),
            events: Vec::new(),
        }
    }
}

impl<V: Value> Applier<V> {
    pub(super) fn new(shared: Arc<Shared<V>>) -> Self {
        Self { shared, next_slot: 0 }
    }

    /// Loads the first tables.
    pub(super) async fn open(&mut self, prefixes: Vec<Bytes>) -> Result<(), ReplicaError> {
        for prefix in prefixes {
            self.register(prefix)?;
        }
        let revision = self.shared.engine.progress().await?.revision;
        let mut dirty = self.empty();
        self.load(&[KeyRange::all()], History::Kept, revision, &mut dirty)
            .await?;
        self.publish(revision, dirty, None);
        Ok(())
    }

    /// Applies until the engine is closed.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command<V>>) {
        let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
        let mut stream = None;
        loop {
            let Some(source) = &mut stream else {
                match self.connect().await {
                    Ok(connected) => {
                        backoff.reset();
                        stream = Some(connected);
                    }
                    Err(EngineError::Closed) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the store's stream could not be opened");
                        tokio::time::sleep(backoff.next_delay()).await;
                    }
                }
                continue;
            };
            tokio::select! {
                // In this order, so that a simulation repeats itself; tables change rarely.
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => break,
                },
                batch = source.next() => match batch {
                    Ok(batch) => self.apply(batch),
                    Err(EngineError::Closed) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the store's stream broke");
                        stream = None;
                    }
                },
            }
        }
    }

    /// Opens the stream where the replica is; reads everything anew when that is no longer possible.
    async fn connect(&mut self) -> Result<Box<dyn CommittedStream>, EngineError> {
        let applied = self.shared.state.load().revision;
        let back = if mutated(Mutation::StreamGoesBack) { 2 } else { 0 };
        match self.shared.engine.stream(applied.saturating_sub(back)).await {
            Err(EngineError::Compacted { oldest }) => {
                tracing::warn!(
                    applied,
                    oldest,
                    "the store's history is gone; reading it anew, watches expire"
                );
            }
            other => return other,
        }
        let progress = self.shared.engine.progress().await?;
        if progress.revision < applied {
            return Err(EngineError::Unavailable(
                "the store is older than what was read from it".into(),
            ));
        }
        let mut dirty = self.empty();
        let answer = self
            .shared
            .engine
            .range(KeyRange::all(), Some(progress.revision))
            .await?;
        self.fill(answer.records, &mut dirty);
        self.publish(progress.revision, dirty, Some(Watches::Expire));
        self.shared.engine.stream(progress.revision).await
    }

    fn apply(&mut self, batch: StreamBatch) {
        let state = self.shared.state.load_full();
        let mut dirty = Dirty::new();
        let mut revision = state.revision.max(batch.progress);
        for commit in &batch.commits {
            // A stream that was reopened may begin with what is known.
            if commit.revision > state.revision || mutated(Mutation::StreamGoesBack) {
                self.change(commit, Some(&state), &mut dirty, &mut |record| self.entry(record));
                revision = revision.max(commit.revision);
            }
        }
        if revision > state.revision || mutated(Mutation::StreamGoesBack) {
            self.publish(revision, dirty, None);
        }
    }

    /// Applies one revision to the tables it touches. Those not yet in `dirty` are taken from `state`. `entry` is asked for each
    /// record of such a table, in order.
    fn change(
        &self,
        commit: &Committed,
        state: Option<&State<V>>,
        dirty: &mut Dirty<V>,
        entry: &mut dyn FnMut(&Arc<Record>) -> Arc<Entry<V>>,
    ) {
        for change in &commit.changes {
            let Some(core) = self.shared.route(&change.key) else {
                continue;
            };
            let working = match (dirty.contains_key(&core.slot), state) {
                (true, _) => dirty.get_mut(&core.slot),
                (false, Some(state)) => {
                    let map = state
                        .tables
                        .get(&core.slot)
                        .map(|root| root.map.clone())
                        .unwrap_or_default();
                    Some(dirty.entry(core.slot).or_insert(Working {
                        core,
                        map,
                        events: Vec::new(),
                    }))
                }
                (false, None) => None,
            };
            let Some(working) = working else { continue };
            tracing::trace!(target: "walk", key = %change.key.escape_ascii(), "published to readers");
            let after = change.after.as_ref().map(&mut *entry);
            let before = match &after {
                Some(entry) => working.map.insert(entry.clone()),
                None => working.map.remove(&change.key),
            };
            if before.is_some() || after.is_some() {
                let event = Event {
                    revision: commit.revision,
                    time_ms: commit.time_ms,
                    before,
                    after,
                };
                let event = Arc::new(event);
                if mutated(Mutation::EventTwice) && commit.changes.len() > 1 && working.events.is_empty() {
                    working.events.push(event.clone());
                }
                working.events.push(event);
            }
        }
    }

    fn entry(&self, record: &Arc<Record>) -> Arc<Entry<V>> {
        Arc::new(Entry {
            record: record.clone(),
            value: (self.shared.build)(record),
        })
    }

    /// Builds many records, which takes most of the time that reading a store takes.
    fn entries(&self, records: &[Arc<Record>]) -> Vec<Arc<Entry<V>>> {
        let build = |records: &[Arc<Record>]| -> Vec<_> { records.iter().map(|record| self.entry(record)).collect() };
        if records.len() < BUILT_TOGETHER_MIN {
            return build(records);
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let (first, others) = records.split_at(records.len().div_ceil(processors));
            let spawn = |part| std::thread::Builder::new().spawn_scoped(scope, move || build(part));
            let others: Vec<_> = others.chunks(first.len()).map(|part| (part, spawn(part))).collect();
            let mut entries = build(first);
            for (part, built) in others {
                entries.extend(match built {
                    Ok(built) => built.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    // There may be no more threads (a limit of processes): it takes longer.
                    Err(_) => build(part),
                });
            }
            entries
        })
    }

    /// Makes changed tables visible: rings, then roots, then the word that they are. `lost` says what becomes of watches when
    /// the history is lost.
    fn publish(&mut self, revision: Revision, dirty: Dirty<V>, lost: Option<Watches>) {
        let shared = &self.shared;
        let mut tables = shared.state.load().tables.clone();
        let mut wake = Vec::new();
        let now_ms = shared.clock.now_ms();
        for (slot, working) in dirty {
            let mut ring = working.core.ring.lock();
            if let Some(watches) = lost {
                ring.reset(revision, watches, &mut wake);
            }
            ring.append(working.events, now_ms, &mut wake);
            let total_bytes = ring.total_bytes();
            drop(ring);
            let mut roots = working.core.roots.lock();
            if lost.is_some() {
                roots.clear();
            } else if !roots.is_empty() {
                roots.evict(now_ms, total_bytes);
            }
            drop(roots);
            tables.insert(Arc::new(Root { slot, map: working.map }));
        }
        shared.age.lock().reached(revision, now_ms);
        shared.state.store(Arc::new(State { revision, tables }));
        shared.applied.publish(revision);
        wake.iter().for_each(|notify| notify.notify_waiters());
    }

    async fn command(&mut self, command: Command<V>) {
        // Whoever asked may have gone away; the table is there or gone all the same.
        match command {
            Command::Add(prefixes, history, answer) => {
                let _ = answer.send(self.add(prefixes, history).await);
            }
            Command::Remove(prefix, answer) => {
                let _ = answer.send(self.remove(&prefix));
            }
            Command::Rebuild(prefix, watches, answer) => {
                let _ = answer.send(self.rebuild(&prefix, watches).await);
            }
        }
    }

    async fn add(&mut self, prefixes: Vec<Bytes>, history: History) -> Result<Vec<Arc<TableCore<V>>>, ReplicaError> {
        let mut cores: Vec<Arc<TableCore<V>>> = Vec::with_capacity(prefixes.len());
        let added = self.load_new(&prefixes, history, &mut cores).await;
        if let Err(error) = added {
            let mut tables = self.shared.tables.write();
            cores.iter().for_each(|core| drop(tables.remove(&core.prefix)));
            return Err(error);
        }
        Ok(cores)
    }

    /// Enters tables and reads what is in them. After an error `cores` has those that were entered.
    async fn load_new(
        &mut self,
        prefixes: &[Bytes],
        history: History,
        cores: &mut Vec<Arc<TableCore<V>>>,
    ) -> Result<(), ReplicaError> {
        for prefix in prefixes {
            cores.push(self.register(prefix.clone())?);
        }
        let revision = self.shared.state.load().revision;
        let mut dirty: Dirty<V> = cores.iter().map(|core| (core.slot, Working::empty(core))).collect();
        let ranges: Vec<KeyRange> = prefixes.iter().map(|prefix| KeyRange::prefix(prefix)).collect();
        self.load(&ranges, history, revision, &mut dirty).await?;
        self.publish(revision, dirty, None);
        Ok(())
    }

    /// Builds a table's values again. Their history was built as before, so it is lost.
    async fn rebuild(&mut self, prefix: &Bytes, watches: Watches) -> Result<bool, ReplicaError> {
        let Some(core) = self.shared.tables.read().get(prefix).cloned() else {
            return Ok(false);
        };
        let revision = self.shared.state.load().revision;
        let range = self.shared.engine.range(KeyRange::prefix(prefix), Some(revision));
        let records = range.await?.records;
        let slot = core.slot;
        let working = Working {
            core,
            map: Map::from_sorted(self.entries(&records)),
            events: Vec::new(),
        };
        self.publish(revision, Dirty::from([(slot, working)]), Some(watches));
        Ok(true)
    }

    fn remove(&mut self, prefix: &Bytes) -> bool {
        let Some(core) = self.shared.tables.write().remove(prefix) else {
            return false;
        };
        let state = self.shared.state.load_full();
        let mut tables = state.tables.clone();
        tables.remove(&core.slot);
        self.shared.state.store(Arc::new(State {
            revision: state.revision,
            tables,
        }));
        let mut wake = Vec::new();
        core.ring.lock().close(&mut wake);
        core.roots.lock().clear();
        wake.iter().for_each(|notify| notify.notify_waiters());
        true
    }

    /// Enters a table without content. Prefixes must not overlap: a key has one table.
    fn register(&mut self, prefix: Bytes) -> Result<Arc<TableCore<V>>, ReplicaError> {
        let mut tables = self.shared.tables.write();
        let overlaps = |other: &Bytes| other.starts_with(&prefix) || prefix.starts_with(other);
        if prefix.is_empty() || tables.keys().any(overlaps) {
            return Err(ReplicaError::Overlap(String::from_utf8_lossy(&prefix).into_owned()));
        }
        let limits = self.shared.limits;
        let core = Arc::new(TableCore {
            slot: self.next_slot,
            prefix: prefix.clone(),
            ring: Ring::new(limits, 0).into(),
            roots: Roots::new(limits).into(),
        });
        self.next_slot += 1;
        tables.insert(prefix, core.clone());
        Ok(core)
    }

    /// All tables, empty.
    fn empty(&self) -> Dirty<V> {
        let tables = self.shared.tables.read();
        tables.values().map(|core| (core.slot, Working::empty(core))).collect()
    }

    /// Fills empty tables with the records, in key order, that belong to them.
    fn fill(&self, records: Vec<Arc<Record>>, dirty: &mut Dirty<V>) {
        let mut rest = records.as_slice();
        while let Some(first) = rest.first() {
            // The keys of a table follow one another.
            let core = self.shared.route(&first.key);
            let same = |record: &Arc<Record>| match &core {
                Some(core) => record.key.starts_with(&core.prefix),
                None => record.key == first.key,
            };
            let (records, others) = rest.split_at(rest.partition_point(same));
            if let Some(working) = core.and_then(|core| dirty.get_mut(&core.slot)) {
                working.map = Map::from_sorted(self.entries(records));
            }
            rest = others;
        }
    }

    /// Reads tables as of `revision` into `dirty`, and as much of the history before it as is wanted and the engine has, so
    /// that watches that began before a restart go on.
    async fn load(
        &self,
        ranges: &[KeyRange],
        history: History,
        revision: Revision,
        dirty: &mut Dirty<V>,
    ) -> Result<(), EngineError> {
        let mut oldest = match history {
            History::Kept => self.shared.engine.progress().await?.oldest.min(revision),
            History::FromNow => revision,
        };
        let mut left = ranges;
        while let [range, others @ ..] = left {
            match self.shared.engine.range(range.clone(), Some(oldest)).await {
                // Somebody has compacted since the engine looked: all begin where that left off.
                Err(EngineError::Compacted { oldest: later }) if later > oldest && later <= revision => {
                    dirty.values_mut().for_each(|working| working.map = Map::new());
                    (oldest, left) = (later, ranges);
                }
                answer => {
                    self.fill(answer?.records, dirty);
                    left = others;
                }
            }
        }
        for working in dirty.values() {
            *working.core.ring.lock() = Ring::new(self.shared.limits, oldest);
        }
        if oldest == revision {
            return Ok(());
        }
        let mut stream = self.shared.engine.stream(oldest).await?;
        let mut done = oldest;
        while done < revision {
            let batch = stream.next().await?;
            done = done.max(batch.progress);
            let wanted = || batch.commits.iter().filter(|commit| commit.revision <= revision);
            let records = wanted().flat_map(|commit| &commit.changes).filter_map(|change| {
                let core = self.shared.route(&change.key)?;
                change.after.clone().filter(|_| dirty.contains_key(&core.slot))
            });
            let records: Vec<_> = records.collect();
            let mut built = self.entries(&records).into_iter();
            for commit in wanted() {
                let mut next = |_: &Arc<Record>| built.next().expect("invariant: the same records are asked for");
                self.change(commit, None, dirty, &mut next);
            }
            done = batch
                .commits
                .iter()
                .fold(done, |done, commit| done.max(commit.revision));
        }
        Ok(())
    }
}
