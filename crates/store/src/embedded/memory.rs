//! The committed state in memory: the newest root, and the recent history by which older ones are made of it.
//!
//! Invariants: everything here is durable; `root` less the history is the state at `base_revision`; the history has every
//! revision after that, in order; `expiries` has exactly the records of `root` that expire.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::Tuning;
use crate::engine::{Change, Committed, EngineError, KeyRange, Progress, RangeAnswer, Record, Revision, StreamBatch};
use crate::map::{Item, Map};
use crate::mutation::{Mutation, mutated};
use crate::transaction::{Operation, Put};

/// What a key costs in a snapshot beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 52;
/// What a revision costs in the log beside its operations.
const REVISION_OVERHEAD_BYTES: usize = 36;
/// Bytes of history that a slow stream can hold on to: some batches of the largest size.
const STREAM_BEHIND_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Revisions forgotten at once, some milliseconds of work.
const FORGET_MAX: usize = 4096;
/// Revisions a stream hands over at once.
const STREAM_COMMITS_MAX: usize = 1024;
/// Changes taken into the root in place, some hundred microseconds for which readers wait. More are made in a copy, which
/// costs more and keeps nobody waiting.
const CHANGES_IN_PLACE_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Memory {
    pub(super) revision: Revision,
    pub(super) root: Map<Arc<Record>>,
    /// The oldest revision that can be read.
    pub(super) base_revision: Revision,
    history: VecDeque<Arc<Committed>>,
    history_bytes: u64,
    /// Bytes of a snapshot of `root`.
    pub(super) live_bytes: u64,
    /// Bytes of a snapshot of the state at `base_revision`.
    pub(super) base_bytes: u64,
    pub(super) expiries: BTreeSet<(i64, Bytes)>,
}

fn cost(record: &Record) -> u64 {
    (ENTRY_OVERHEAD_BYTES + record.key.len() + record.value.len()) as u64
}

/// What a revision costs the log, and the memory that its old values pin.
fn history_cost(commit: &Committed) -> u64 {
    let side = |record: &Option<Arc<Record>>| record.as_deref().map_or(0, cost);
    let changes = commit
        .changes
        .iter()
        .map(|change| side(&change.before) + side(&change.after));
    REVISION_OVERHEAD_BYTES as u64 + changes.sum::<u64>()
}

/// What a put makes of what its key had.
pub(super) fn written(put: &Put, before: Option<&Arc<Record>>, revision: Revision) -> Arc<Record> {
    Arc::new(Record {
        create_revision: before.map_or(revision, |before| before.create_revision),
        mod_revision: revision,
        version: before.map_or(1, |before| before.version + 1),
        stamp: put.stamp,
        expires_at_ms: put.expires_at_ms,
        ..Record::tight(&put.key, &put.value)
    })
}

/// What a revision's operations make of the state before it; the state is changed. Deletes of absent keys are nothing.
pub(super) fn evolve(root: &mut Map<Arc<Record>>, revision: Revision, operations: &[Operation]) -> Vec<Change> {
    let mut changes = Vec::with_capacity(operations.len());
    for operation in operations {
        let (key, before, after) = match operation {
            Operation::Put(put) => {
                let mut made = None;
                let before = root.upsert(&put.key, |before| {
                    let record = written(put, before, revision);
                    made = Some(record.clone());
                    record
                });
                let key = made
                    .as_ref()
                    .map_or_else(Bytes::new, |record: &Arc<Record>| record.key.clone());
                (key, before, made)
            }
            Operation::Delete(key) => {
                let before = root.remove(key);
                let key = before.as_ref().map_or_else(Bytes::new, |before| before.key.clone());
                (key, before, None)
            }
        };
        if before.is_some() || after.is_some() {
            changes.push(Change { key, before, after });
        }
    }
    changes
}

impl Memory {
    /// The state of a snapshot.
    pub(super) fn new(revision: Revision, root: Map<Arc<Record>>) -> Self {
        let mut memory = Self {
            revision,
            base_revision: revision,
            ..Self::default()
        };
        for record in root.iter() {
            memory.count(None, Some(record));
        }
        memory.base_bytes = memory.live_bytes;
        memory.root = root;
        memory
    }

    /// Takes in durable revisions. What [`Memory::ahead`] made of them, if anything, is the state after them.
    pub(super) fn apply(&mut self, commits: &[Arc<Committed>], ahead: Option<Map<Arc<Record>>>) {
        match ahead {
            Some(root) => self.root = root,
            // Copies only those nodes that a reader holds now.
            None => take_in(&mut self.root, commits),
        }
        for commit in commits {
            self.note(commit.clone());
        }
    }

    /// The state after `commits`, beside this one: when there are so many that readers should not wait for it.
    pub(super) fn ahead(root: &Map<Arc<Record>>, commits: &[Arc<Committed>]) -> Option<Map<Arc<Record>>> {
        let changes: usize = commits.iter().map(|commit| commit.changes.len()).sum();
        (changes > CHANGES_IN_PLACE_MAX).then(|| {
            let mut root = root.clone();
            take_in(&mut root, commits);
            root
        })
    }

    /// Takes in a revision without its root, which must be set before anything is read.
    pub(super) fn note(&mut self, commit: Arc<Committed>) {
        for change in &commit.changes {
            self.count(change.before.as_ref(), change.after.as_ref());
        }
        self.history_bytes += history_cost(&commit);
        self.revision = commit.revision;
        self.history.push_back(commit);
    }

    fn count(&mut self, before: Option<&Arc<Record>>, after: Option<&Arc<Record>>) {
        if let Some(before) = before {
            self.live_bytes -= cost(before);
            if let Some(expiry) = before.expires_at_ms {
                self.expiries.remove(&(expiry, before.key.clone()));
            }
        }
        if let Some(after) = after {
            self.live_bytes += cost(after);
            if let Some(expiry) = after.expires_at_ms {
                self.expiries.insert((expiry, after.key.clone()));
            }
        }
    }

    /// Forgets history that is too old or too much; not what a stream has yet to deliver (all after `needed`), unless that
    /// stream is hopelessly behind: its reader would have to start anew.
    ///
    /// Readers wait meanwhile, so it is done in parts: at most [`FORGET_MAX`] revisions a call, unless there is twice the
    /// budget. True: there is more to forget.
    pub(super) fn trim(&mut self, now_ms: i64, tuning: &Tuning, needed: Option<Revision>) -> bool {
        let budget = history_budget(tuning, self.live_bytes);
        let oldest_ms = now_ms.saturating_sub(tuning.history_window_ms);
        let mut forgotten = 0;
        while let Some(oldest) = self.history.front() {
            let wanted = needed.is_some_and(|needed| oldest.revision > needed);
            if self.history_bytes <= budget && oldest.time_ms >= oldest_ms
                || wanted && self.history_bytes <= budget.max(STREAM_BEHIND_BYTES_MAX)
            {
                return false;
            }
            if forgotten >= FORGET_MAX && self.history_bytes <= budget.saturating_mul(2) {
                return true;
            }
            self.forget();
            forgotten += 1;
        }
        false
    }

    /// When the oldest revision of the history is too old.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.history.front().map(|oldest| oldest.time_ms)
    }

    /// Forgets the history before a revision.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), EngineError> {
        if revision > self.revision {
            return Err(EngineError::Future { newest: self.revision });
        }
        while self.base_revision < revision {
            self.forget();
        }
        let is_delete = |commit: &Arc<Committed>| commit.changes.iter().all(|change| change.after.is_none());
        if mutated(Mutation::CompactionDropsDelete) && self.history.front().is_some_and(is_delete) {
            let kept = self.base_revision;
            self.forget();
            self.base_revision = kept;
        }
        Ok(())
    }

    fn forget(&mut self) {
        let Some(commit) = self.history.pop_front() else { return };
        self.history_bytes -= history_cost(&commit);
        for change in &commit.changes {
            self.base_bytes += change.after.as_deref().map_or(0, cost);
            self.base_bytes -= change.before.as_deref().map_or(0, cost);
        }
        self.base_revision = commit.revision;
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            revision: self.revision,
            oldest: self.base_revision,
        }
    }

    fn reachable(&self, revision: Revision) -> Result<(), EngineError> {
        if revision < self.base_revision {
            return Err(EngineError::Compacted {
                oldest: self.base_revision,
            });
        }
        if revision > self.revision {
            return Err(EngineError::Future { newest: self.revision });
        }
        Ok(())
    }

    /// What was committed after a revision, at most [`STREAM_COMMITS_MAX`] revisions of it.
    pub(super) fn after(&self, revision: Revision) -> Result<StreamBatch, EngineError> {
        if !mutated(Mutation::StreamFromForgotten) || revision + 1 != self.base_revision {
            self.reachable(revision)?;
        }
        let start = self.history.partition_point(|commit| commit.revision <= revision);
        let commits: Vec<_> = self.history.range(start..).take(STREAM_COMMITS_MAX).cloned().collect();
        let whole = start + commits.len() == self.history.len();
        let last = commits.last().map_or(revision, |commit| commit.revision);
        Ok(StreamBatch {
            commits,
            progress: if whole { self.revision } else { last },
        })
    }

    /// The state at a revision, the newest one without it.
    pub(super) fn view(&self, revision: Option<Revision>) -> Result<View, EngineError> {
        let revision = revision.unwrap_or(self.revision);
        self.reachable(revision)?;
        let index = self.history.partition_point(|commit| commit.revision <= revision);
        Ok(View {
            revision,
            root: self.root.clone(),
            since: self.history.range(index..).cloned().collect(),
        })
    }
}

/// A state at a revision, that is still to be made of a newer one.
pub(super) struct View {
    revision: Revision,
    root: Map<Arc<Record>>,
    /// What came after it.
    since: Vec<Arc<Committed>>,
}

impl View {
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn root(mut self) -> Map<Arc<Record>> {
        for change in self.since.iter().rev().flat_map(|commit| commit.changes.iter().rev()) {
            set(&mut self.root, &change.key, change.before.as_ref());
        }
        self.root
    }
}

fn take_in(root: &mut Map<Arc<Record>>, commits: &[Arc<Committed>]) {
    for change in commits.iter().flat_map(|commit| &commit.changes) {
        set(root, &change.key, change.after.as_ref());
    }
}

/// Bytes of history kept at most; the log keeps as much of it.
fn history_budget(tuning: &Tuning, live_bytes: u64) -> u64 {
    (tuning.log_floor_bytes / 2).max(live_bytes / 8)
}

/// The records of a range of a state.
pub(super) fn select(root: &Map<Arc<Record>>, range: &KeyRange, revision: Revision) -> RangeAnswer {
    let (lower, upper) = range.bounds();
    RangeAnswer {
        revision,
        records: root.range(lower, upper).cloned().collect(),
    }
}

fn set<T: Item>(map: &mut Map<T>, key: &T::Key, item: Option<&T>) {
    match item {
        Some(item) => map.upsert(key, |_| item.clone()),
        None => map.remove(key),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::Transaction;

    fn memory(tuning: &Tuning, upto: Revision) -> Memory {
        let mut memory = Memory::default();
        for revision in 1..=upto {
            let key = format!("k{}", revision % 3);
            let transaction = match revision % 4 {
                0 => Transaction::new().operation(Operation::Delete(key.into())),
                _ => Transaction::new().put(key, format!("v{revision}")),
            };
            let changes = evolve(&mut memory.root.clone(), revision, &transaction.operations);
            let commit = [Arc::new(Committed {
                revision,
                time_ms: revision as i64,
                changes,
            })];
            memory.apply(&commit, None);
            memory.trim(revision as i64, tuning, None);
        }
        memory
    }

    impl Memory {
        fn range(&self, range: &KeyRange, revision: Option<Revision>) -> Result<RangeAnswer, EngineError> {
            self.view(revision).map(|view| {
                let revision = view.revision();
                select(&view.root(), range, revision)
            })
        }
    }

    fn values(answer: RangeAnswer) -> Vec<(String, Revision, u64)> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let one = |record: &Arc<Record>| {
            (
                text(&record.key) + "=" + &text(&record.value),
                record.create_revision,
                record.version,
            )
        };
        answer.records.iter().map(one).collect()
    }

    #[test]
    fn every_revision_of_the_history_can_be_read() {
        let full = memory(&Tuning::default(), 40);
        for revision in 0..=40 {
            let then = memory(&Tuning::default(), revision);
            let expect = values(then.range(&KeyRange::all(), None).unwrap());
            assert_eq!(
                values(full.range(&KeyRange::all(), Some(revision)).unwrap()),
                expect,
                "revision {revision}"
            );
        }
        assert_eq!(
            full.range(&KeyRange::all(), Some(41)).unwrap_err(),
            EngineError::Future { newest: 40 }
        );
        let one = values(full.range(&KeyRange::prefix(b"k1"), Some(2)).unwrap());
        assert_eq!(one, [("k1=v1".to_owned(), 1, 1)]);
    }

    #[test]
    fn history_is_bounded_and_its_base_follows() {
        let tuning = Tuning {
            history_window_ms: 5,
            ..Tuning::default()
        };
        let mut memory = memory(&tuning, 40);
        memory.trim(45, &tuning, Some(34));
        assert_eq!(memory.progress().oldest, 34, "a stream needs what follows");
        assert_eq!(
            memory.progress(),
            Progress {
                revision: 40,
                oldest: 34
            }
        );
        assert_eq!(memory.after(33).unwrap_err(), EngineError::Compacted { oldest: 34 });
        let batch = memory.after(36).unwrap();
        let revisions: Vec<_> = batch.commits.iter().map(|commit| commit.revision).collect();
        assert_eq!((revisions, batch.progress), (vec![37, 38, 39, 40], 40));
        let at_38 = values(memory.range(&KeyRange::all(), Some(38)).unwrap());
        memory.compact(38).unwrap();
        assert_eq!(values(memory.range(&KeyRange::all(), Some(38)).unwrap()), at_38);
        assert!(memory.range(&KeyRange::all(), Some(37)).is_err());
        assert_eq!(memory.compact(41), Err(EngineError::Future { newest: 40 }));
        memory.compact(40).unwrap();
        assert!(memory.history.is_empty() && memory.history_bytes == 0);
        assert_eq!(memory.base_bytes, memory.live_bytes);
    }

    #[test]
    fn many_changes_are_made_beside_the_readers() {
        let few = memory(&Tuning::default(), 40);
        let commits: Vec<_> = few.history.iter().cloned().collect();
        assert!(Memory::ahead(&Map::new(), &commits).is_none());
        let changes: Vec<Change> = std::iter::repeat_with(|| commits.iter().flat_map(|commit| &commit.changes))
            .take(CHANGES_IN_PLACE_MAX)
            .flatten()
            .cloned()
            .collect();
        let many = Committed {
            revision: 1,
            time_ms: 1,
            changes,
        };
        let root = Memory::ahead(&Map::new(), &[Arc::new(many)]).expect("made beside");
        assert!(root.iter().eq(few.root.iter()));
    }

    #[test]
    fn live_bytes_and_expiries_follow_the_state() {
        let mut memory = Memory::default();
        let mut revision = 0;
        let mut write = |memory: &mut Memory, operation| {
            revision += 1;
            let changes = evolve(&mut memory.root.clone(), revision, &[operation]);
            let commit = [Arc::new(Committed {
                revision,
                time_ms: 0,
                changes,
            })];
            memory.apply(&commit, None);
        };
        let put = |expires_at_ms| {
            let Operation::Put(put) = &Transaction::new().put("k", "12345").operations[0] else {
                unreachable!()
            };
            Operation::Put(crate::Put {
                expires_at_ms,
                ..put.clone()
            })
        };
        write(&mut memory, put(Some(10)));
        write(&mut memory, put(Some(20)));
        assert_eq!(memory.expiries, BTreeSet::from([(20, Bytes::from("k"))]));
        assert_eq!(memory.live_bytes, (ENTRY_OVERHEAD_BYTES + 6) as u64);
        write(&mut memory, Operation::Delete("k".into()));
        assert!(memory.expiries.is_empty() && memory.live_bytes == 0);
    }
}
