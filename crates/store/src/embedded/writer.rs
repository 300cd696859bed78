//! The one writer: checks transactions, writes batches, publishes and answers.
//!
//! Steps of a batch: `begin` (check, assign revisions, encode), `append`, `sync`, `finish` (publish, answer). Only a thread
//! or task drives them, one batch at a time. Invariant: between batches, what the writer checks against is what is durable.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Clock};
use tokio::sync::watch as latest;

use super::answers::{Answering, Asker};
use super::driver::{Control, Ready, Request, batch_transactions_max};
use super::format::encode_record;
use super::log::{AppendError, Log};
use super::marks::Marks;
use super::memory::Memory;
use super::snapshot::{SnapshotError, SnapshotFile, SnapshotJob, snapshot_path};
use super::tip::Tip;
use super::{EmbeddedOptions, Shared, Tuning};
use crate::engine::{Committed, Revision};
use crate::mutation::{Mutation, mutated};
use crate::transaction::{Commit, CommitError, Guard, Operation};

/// Waits before a snapshot that failed, as on a full disk, is tried again.
const SNAPSHOT_RETRY_INITIAL: Duration = Duration::from_secs(1);
const SNAPSHOT_RETRY_MAX: Duration = Duration::from_secs(60);
/// Waits before a disk that failed is tried again.
const REPAIR_INITIAL: Duration = Duration::from_millis(100);
const REPAIR_MAX: Duration = Duration::from_secs(10);

/// What is kept of a batch's buffer for the next one: most are smaller, and new memory of this size costs page faults.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    tuning: Tuning,
    clock: Clock,
    publish: latest::Sender<Revision>,
    marks: Marks,
    /// Of the last batch, for the next one.
    buffer: Vec<u8>,
    snapshot: Option<SnapshotFile>,
    /// Bytes that the snapshot being written will have.
    snapshot_running: Option<u64>,
    snapshot_retry: Backoff,
    snapshot_not_before_ms: i64,
    repair: Backoff,
    repair_not_before_ms: i64,
}

/// A batch on its way to the disk.
pub(super) struct Batch {
    pending: Vec<Pending>,
    commits: Vec<Arc<Committed>>,
    /// The state that it leaves.
    tip: Tip,
    buffer: Vec<u8>,
    /// The disk has room to spare.
    roomy: bool,
    failed: Option<CommitError>,
}

struct Pending {
    asker: Asker,
    guards: Vec<Guard>,
    result: Result<Commit, CommitError>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        log: Log,
        snapshot: Option<SnapshotFile>,
        publish: latest::Sender<Revision>,
        options: &EmbeddedOptions,
    ) -> Self {
        // Opening has made everything durable that it found.
        let raw = shared.memory.read().revision - log.revision_offset();
        let marks = Marks::begin(log.place(), raw);
        Self {
            shared,
            log,
            tuning: options.tuning,
            clock: options.clock.clone(),
            publish,
            marks,
            buffer: Vec::new(),
            snapshot,
            snapshot_running: None,
            snapshot_retry: Backoff::new(SNAPSHOT_RETRY_INITIAL, SNAPSHOT_RETRY_MAX),
            snapshot_not_before_ms: i64::MIN,
            repair: Backoff::new(REPAIR_INITIAL, REPAIR_MAX),
            repair_not_before_ms: i64::MIN,
        }
    }

    /// What it can take now, after a sync that took so long. A log that outgrows the live data waits for the snapshot that
    /// will free it.
    pub(super) fn ready(&self, last_sync: Duration) -> Ready {
        let far_ahead = self
            .snapshot_running
            .is_some_and(|bytes| self.log.bytes() > self.log_bytes_max(bytes));
        Ready {
            batches: !far_ahead,
            stop: self.snapshot_running.is_none(),
            batch_bytes_max: self.tuning.batch_bytes_max,
            batch_transactions_max: batch_transactions_max(last_sync),
        }
    }

    /// What the log takes at most, with the files that it keeps for new segments, beside live data of so many bytes.
    fn log_bytes_max(&self, live_bytes: u64) -> u64 {
        (live_bytes / 4 * 3).max(2 * self.tuning.log_floor_bytes)
    }

    /// Notes how far the log is durable, for the case that its end is damaged later.
    pub(super) fn mark(&mut self) {
        let revision = self.shared.memory.read().revision;
        self.marks.mark(revision - self.log.revision_offset());
    }

    /// The last thing it does.
    pub(super) fn close(&mut self) {
        self.log.close();
        self.mark();
        self.marks.seal();
    }

    /// Checks requests in order, each against the state that those before it leave, and encodes those that change it.
    pub(super) fn begin(&mut self, requests: Vec<Request>) -> Batch {
        let (root, revision) = {
            let memory = self.shared.memory.read();
            (memory.root.clone(), memory.revision)
        };
        let mut batch = Batch {
            pending: Vec::new(),
            commits: Vec::new(),
            tip: Tip::new(root),
            buffer: std::mem::take(&mut self.buffer),
            roomy: false,
            failed: None,
        };
        let writable = self.prepare_segment(revision);
        let free = self.log.place().disk.free_bytes(&self.log.place().directory);
        let low = free.as_ref().is_ok_and(|free| *free < self.tuning.reserve_bytes);
        batch.roomy = free.is_ok_and(|free| free / 2 > self.tuning.reserve_bytes);
        if low {
            self.log.keep_spares(0);
        }
        let mut tip = revision;
        for Request { transaction, asker } in requests {
            let mut result = check(&batch.tip, tip, &transaction.guards);
            let operations = &transaction.operations;
            let changes = operations.iter().any(|operation| batch.tip.is_changed_by(operation));
            if result.is_ok() && changes {
                let puts = operations
                    .iter()
                    .any(|operation| matches!(operation, Operation::Put(_)));
                result = match &writable {
                    Err(error) => Err(error.clone()),
                    Ok(_) if low && puts => Err(CommitError::Full),
                    Ok((start, seed)) => {
                        tip += 1;
                        self.take(&mut batch, tip, *start, *seed, &transaction.operations);
                        Ok(Commit {
                            revision: tip,
                            changed: true,
                        })
                    }
                };
            }
            if mutated(Mutation::RefusedInPart)
                && let (Err(_), Ok((start, seed)), [first, _, ..]) = (&result, &writable, &*transaction.operations)
                && batch.tip.is_changed_by(first)
            {
                tip += 1;
                self.take(&mut batch, tip, *start, *seed, std::slice::from_ref(first));
            }
            if mutated(Mutation::RefusedTooEarly) && matches!(result, Err(CommitError::GuardFailed { .. })) {
                Answering::default().answer(asker, result);
                continue;
            }
            batch.pending.push(Pending {
                asker,
                guards: transaction.guards,
                result,
            });
        }
        batch
    }

    fn take(&self, batch: &mut Batch, revision: Revision, start: u64, seed: u32, operations: &[Operation]) {
        let time_ms = self.clock.now_ms();
        let raw = revision - self.log.revision_offset();
        let real: Vec<_> = operations
            .iter()
            .filter(|operation| batch.tip.is_changed_by(operation))
            .collect();
        encode_record(raw, start, time_ms, real.into_iter(), seed, &mut batch.buffer);
        let changes = batch.tip.evolve(revision, operations);
        for change in &changes {
            tracing::trace!(target: "walk", key = %change.key.escape_ascii(), "taken into a batch");
        }
        batch.commits.push(Arc::new(Committed {
            revision,
            time_ms,
            changes,
        }));
    }

    /// Sees to a segment that can be written; where it ends, and its seed.
    fn prepare_segment(&mut self, revision: Revision) -> Result<(u64, u32), CommitError> {
        let base = revision - self.log.revision_offset();
        let live_bytes = self.shared.memory.read().live_bytes;
        self.log.keep_spares(self.log_bytes_max(live_bytes));
        if self.log.is_full(live_bytes)
            && let Err(failed) = self.log.start_segment(base, &mut [])
        {
            // Without a name it changes nothing: the old segment goes on growing.
            let error = &failed.error;
            tracing::warn!(%error, named = failed.named, "a new segment of the log could not be begun");
        }
        if let Some(position) = self.log.position() {
            return Ok(position);
        }
        let now_ms = self.clock.now_ms();
        let mut full = false;
        if now_ms >= self.repair_not_before_ms {
            let repaired = self
                .log
                .verify()
                .and_then(|()| self.log.start_segment(base, &mut []).map_err(|failed| failed.error));
            match repaired {
                Ok(()) => {
                    self.repair.reset();
                    tracing::info!("the log was verified and goes on in a new segment");
                }
                Err(error) => {
                    let delay = i64::try_from(self.repair.next_delay().as_millis()).unwrap_or(i64::MAX);
                    self.repair_not_before_ms = now_ms.saturating_add(delay);
                    tracing::error!(%error, "the log cannot be written");
                    full = is_full(&error);
                }
            }
        }
        let unavailable = || CommitError::Unavailable("the log cannot be written".into());
        let refusal = || if full { CommitError::Full } else { unavailable() };
        self.log.position().ok_or_else(refusal)
    }

    pub(super) fn append(&mut self, batch: &mut Batch) {
        if batch.commits.is_empty() {
            return;
        }
        let Err(AppendError { error, begun }) = self.log.append(&mut batch.buffer, batch.roomy) else {
            return;
        };
        tracing::error!(%error, begun, "writing the log failed");
        let what = || format!("writing the log failed: {error}").into();
        batch.failed = Some(match begun {
            true => CommitError::UnknownOutcome(what()),
            false if is_full(&error) => CommitError::Full,
            false => CommitError::Unavailable(what()),
        });
    }

    pub(super) fn sync(&mut self, batch: &mut Batch) {
        if batch.commits.is_empty() || batch.failed.is_some() {
            return;
        }
        if let Err(error) = self.log.sync() {
            tracing::error!(%error, "syncing the log failed");
            batch.failed = Some(CommitError::UnknownOutcome(
                format!("syncing the log failed: {error}").into(),
            ));
        }
    }

    /// Publishes what is durable, then answers.
    pub(super) fn finish(&mut self, batch: Batch) {
        match batch.failed {
            None if batch.commits.is_empty() => {}
            None => {
                for change in batch.commits.iter().flat_map(|commit| &commit.changes) {
                    tracing::trace!(target: "walk", key = %change.key.escape_ascii(), "durable");
                }
                // Nothing of the state is shared with us any more, so that it can change in place.
                drop(batch.tip);
                let root = self.shared.memory.read().root.clone();
                let ahead = Memory::ahead(&root, &batch.commits);
                drop(root);
                let mut memory = self.shared.memory.write();
                let begins = memory.oldest_ms().is_none();
                memory.apply(&batch.commits, ahead);
                let revision = memory.revision;
                drop(memory);
                self.publish.send_replace(revision);
                let records = batch
                    .commits
                    .iter()
                    .flat_map(|commit| &commit.changes)
                    .filter_map(|change| change.after.as_ref());
                if begins || records.into_iter().any(|record| record.expires_at_ms.is_some()) {
                    self.shared.expiring.notify_one();
                }
            }
            Some(error) => return self.fail(batch.pending, &error),
        }
        // Whoever asked may be gone; it happened all the same.
        let mut answering = Answering::default();
        for pending in batch.pending {
            answering.answer(pending.asker, pending.result);
        }
        drop(answering);
        self.buffer = batch.buffer;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        // Last: giving memory back takes longer than anything else here, and nobody waits for it.
        if !batch.commits.is_empty() {
            let mut memory = self.shared.memory.write();
            memory.trim(self.clock.now_ms(), &self.tuning, self.shared.needed());
        }
    }

    /// Answers a batch that did not become durable. What was decided on top of it is decided again without it.
    fn fail(&self, pending: Vec<Pending>, error: &CommitError) {
        let (durable, revision) = {
            let memory = self.shared.memory.read();
            (Tip::new(memory.root.clone()), memory.revision)
        };
        let mut answering = Answering::default();
        for Pending { asker, guards, result } in pending {
            let result = match result {
                Ok(Commit { changed: true, .. }) => Err(error.clone()),
                Ok(_) | Err(CommitError::GuardFailed { .. }) => match check(&durable, revision, &guards) {
                    Err(refused) => Err(refused),
                    Ok(_) => Err(CommitError::Unavailable(
                        "a write that this one depended on failed".into(),
                    )),
                },
                Err(other) => Err(other),
            };
            answering.answer(asker, result);
        }
    }

    pub(super) fn control(&mut self, control: Control) {
        match control {
            Control::SnapshotDone(done) => self.snapshot_done(done),
            Control::Compact(revision, answer) => {
                let _ = answer.send(self.shared.memory.write().compact(revision));
            }
            Control::Trim => {
                // Little is written: no file need be kept for it.
                self.log.keep_spares(0);
                // In parts, so that readers come in between.
                let mut more = true;
                while more {
                    let needed = self.shared.needed();
                    more = self
                        .shared
                        .memory
                        .write()
                        .trim(self.clock.now_ms(), &self.tuning, needed);
                }
            }
        }
    }

    /// A snapshot to write, when the files are long and it would free a good part of them.
    ///
    /// With history for an eighth of the live data, a log of half of it is long: each snapshot frees at least a quarter of
    /// what it costs, so churn costs some five times its bytes; and while one is written there are the old one, the new
    /// one and at most three quarters of log: less than three times the live data.
    pub(super) fn snapshot_due(&mut self) -> Option<SnapshotJob> {
        let running = self.snapshot_running.is_some() && !mutated(Mutation::SnapshotsOverlap);
        if running || self.clock.now_ms() < self.snapshot_not_before_ms {
            return None;
        }
        let memory = self.shared.memory.read();
        let newest = self.snapshot.map_or(0, |snapshot| snapshot.revision);
        let old = self.snapshot.map_or(0, |snapshot| snapshot.bytes);
        let revision = memory.base_revision - self.log.revision_offset();
        let (floor, log) = (self.tuning.log_floor_bytes, self.log.bytes());
        let long = log > floor.max(memory.live_bytes / 2) || log + old > memory.live_bytes / 2 * 5 + 2 * floor;
        let freed = (self.log.bytes_before(revision) + old).saturating_sub(memory.base_bytes);
        if revision <= newest || !long || freed < (memory.base_bytes / 4).max(floor / 8) {
            return None;
        }
        let place = self.log.place().clone();
        let of = if mutated(Mutation::SnapshotOfAnotherRevision) {
            memory.revision
        } else {
            memory.base_revision
        };
        let view = memory.view(Some(of)).ok()?;
        self.snapshot_running = Some(memory.base_bytes);
        drop(memory);
        if mutated(Mutation::OldFilesGoFirst) {
            let old = self.snapshot.map(|old| snapshot_path(&place.directory, old.revision));
            let removed = old.map_or(Ok(()), |path| place.disk.remove(&path));
            let _ = removed.and_then(|()| self.log.forget_before(revision, 0));
        }
        Some(SnapshotJob::new(
            place,
            revision,
            view,
            self.tuning.snapshot_block_bytes,
        ))
    }

    fn snapshot_done(&mut self, done: Result<SnapshotFile, SnapshotError>) {
        self.snapshot_running = None;
        let file = match done {
            Ok(file) => file,
            Err(error) => {
                let delay = self.snapshot_retry.next_delay();
                let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                self.snapshot_not_before_ms = self.clock.now_ms().saturating_add(delay_ms);
                tracing::warn!(%error, ?delay, "a snapshot failed; trying again later");
                // Maybe for lack of space.
                self.log.keep_spares(0);
                return;
            }
        };
        self.snapshot_retry.reset();
        let (newest, live_bytes) = {
            let memory = self.shared.memory.read();
            (memory.revision - self.log.revision_offset(), memory.live_bytes)
        };
        let covered = if mutated(Mutation::SegmentGoesTooEarly) {
            newest
        } else {
            file.revision
        };
        let bytes_max = self.log_bytes_max(live_bytes);
        let place = self.log.place();
        let old = self.snapshot.replace(file).filter(|old| old.revision != file.revision);
        let removed = old.map_or(Ok(()), |old| {
            place.disk.remove(&snapshot_path(&place.directory, old.revision))
        });
        if let Err(error) = removed.and_then(|()| self.log.forget_before(covered, bytes_max)) {
            tracing::warn!(%error, "old files of the store could not be removed");
        }
    }
}

/// Whether a disk refused for lack of space, its own or the user's share.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether all guards hold at a state.
fn check(tip: &Tip, revision: Revision, guards: &[Guard]) -> Result<Commit, CommitError> {
    for guard in guards {
        let current = tip.get(guard.key());
        if !guard.holds(current.map(Arc::as_ref)) {
            return Err(CommitError::GuardFailed {
                key: guard.key().clone(),
                current: current.cloned(),
                revision,
            });
        }
    }
    Ok(Commit {
        revision,
        changed: false,
    })
}
