//! Defects that can be put back on purpose, so that the tests that guard against them are seen to fail.
//!
//! One for each class of the correctness bugs in the track record of etcd's robustness tests
//! (etcd-io/etcd `tests/robustness/README.md`), and for what this store could do wrong by itself. A mutation is put into
//! one thread, so that simulations beside each other do not share it; without the feature `testing` none exists.

/// A defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A snapshot of the newest state says it is of an older revision (etcd #13766: the state and its revision disagree
    /// after a crash under load).
    SnapshotOfAnotherRevision,
    /// Writes are acknowledged without a sync (#14370: a single node loses a write in a crash).
    SyncLeftOut,
    /// What is replayed depends on more than the log: what has expired by now is left out (#14571: members that apply the
    /// same log come to different states).
    ReplayByTheClock,
    /// Old files go before the new snapshot has its name for good (#14685: a crash while space is freed).
    OldFilesGoFirst,
    /// A watch claims progress past events that it has yet to deliver (#15220).
    ProgressBeforeEvents,
    /// A stream that broke goes on too early, and what is known is applied again (#15271: a watch travels back in time).
    StreamGoesBack,
    /// A transaction of several operations makes its first event twice (#17247).
    EventTwice,
    /// A slow watcher goes on behind what it lost (#17529).
    SlowWatchSkips,
    /// After a crash the revision is the newest one of a live key (#17780: it falls when deletes were compacted).
    RevisionOfLiveKeys,
    /// Compacting next to a delete loses the delete's event (#18089).
    CompactionDropsDelete,
    /// A snapshot begins while one is being written (#18055: two snapshots in a short time).
    SnapshotsOverlap,
    /// A transaction that is refused leaves its first operation (#18667: half a transaction happens).
    RefusedInPart,
    /// A stream may start one revision before what is still known (#19179: a delete at the compacted revision is missing).
    StreamFromForgotten,
    /// A watch of the future is told of progress that is not there (#20221).
    FutureWatchNotified,
    /// A watch of the future sees what happens before it (#20221).
    FutureWatchSeesThePast,
    /// A segment goes although the newest snapshot does not cover it (#20271: space in use is used again).
    SegmentGoesTooEarly,
    /// A consistent read does not wait until it sees what was committed (#20418: stale reads after a pause).
    StaleConsistentRead,
    /// The directory is not synced after a rename.
    DirectorySyncLeftOut,
    /// The last batch, seen in the page cache only, counts as durable when opening.
    TailNotRewritten,
    /// A segment is written on after its sync failed.
    FailedSyncRepeated,
    /// A refusal is answered before the write that it saw is durable.
    RefusedTooEarly,
    /// A forgotten segment is written over while a crash can bring its name back.
    OldNameComesBack,
}

#[cfg(feature = "testing")]
thread_local! {
    static MUTATION: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Puts a mutation into this thread while it lives.
#[cfg(feature = "testing")]
pub struct Mutated(Option<Mutation>);

#[cfg(feature = "testing")]
impl Mutated {
    /// Puts `mutation`, or none, in the place of what is there.
    pub fn with(mutation: Option<Mutation>) -> Self {
        Self(MUTATION.replace(mutation))
    }
}

#[cfg(feature = "testing")]
impl Drop for Mutated {
    fn drop(&mut self) {
        MUTATION.set(self.0);
    }
}

/// Whether this thread has a mutation.
#[cfg(feature = "testing")]
pub(crate) fn mutated(mutation: Mutation) -> bool {
    MUTATION.get() == Some(mutation)
}

/// There are none.
#[cfg(not(feature = "testing"))]
pub(crate) const fn mutated(_: Mutation) -> bool {
    false
}
