//! Bugs that etcd had, and some of our own, put back one by one: each must be found, by the same runs that are clean
//! without it.
//!
//! The 17 of the track record of etcd's robustness tests (etcd-io/etcd `tests/robustness/README.md`, seen in August 2026)
//! are classes here, not the same lines: this store has no Raft, no page cache of its own and no users.

use store::testing::Mutation;

use crate::simulation::{CRASHING, Plan, simulate};

/// Seeds that are run at most until a defect is found.
const SEEDS: u64 = 400;

/// Fails when a defect that is put back goes unnoticed.
fn finds(mutation: Mutation, plan: Plan) {
    let mutated = Plan {
        mutation: Some(mutation),
        ..plan
    };
    let first = (0..SEEDS).find(|seed| !simulate(*seed, mutated).is_empty());
    let Some(seed) = first else {
        panic!("{mutation:?} goes unnoticed over {SEEDS} seeds");
    };
    println!("{mutation:?}: seed {seed}: {:?}", simulate(seed, mutated).first());
    // The very run that found it has nothing to find without it.
    assert_eq!(
        simulate(seed, plan),
        Vec::<String>::new(),
        "seed {seed} without {mutation:?}"
    );
}

/// Without faults of the disk, so that what is found is the defect's.
const CALM: Plan = Plan {
    disk_faults: false,
    ..CRASHING
};

/// An engine whose stream breaks.
const BREAKING: Plan = Plan {
    engine_faults: true,
    disk_faults: false,
    crash_within: 0,
    ..CRASHING
};

#[test]
fn etcd_13766_a_crash_leaves_state_and_revision_apart() {
    finds(Mutation::SnapshotOfAnotherRevision, CALM);
}

#[test]
fn etcd_14370_a_single_node_loses_a_write() {
    finds(Mutation::SyncLeftOut, CALM);
}

#[test]
fn etcd_14571_a_replay_depends_on_more_than_the_log() {
    finds(Mutation::ReplayByTheClock, CALM);
}

#[test]
fn etcd_14685_a_crash_while_space_is_freed() {
    finds(Mutation::OldFilesGoFirst, CALM);
}

#[test]
fn etcd_15220_progress_overtakes_events() {
    finds(Mutation::ProgressBeforeEvents, CALM);
}

#[test]
fn etcd_15271_a_watch_travels_back_in_time() {
    finds(Mutation::StreamGoesBack, BREAKING);
}

#[test]
fn etcd_17247_an_event_comes_twice() {
    finds(Mutation::EventTwice, CALM);
}

#[test]
fn etcd_17529_a_slow_watch_misses_events() {
    finds(Mutation::SlowWatchSkips, CALM);
}

#[test]
fn etcd_17780_the_revision_falls_in_a_crash_after_compaction() {
    finds(Mutation::RevisionOfLiveKeys, CALM);
}

#[test]
fn etcd_18089_compaction_drops_a_delete() {
    finds(Mutation::CompactionDropsDelete, CALM);
}

#[test]
fn etcd_18055_two_snapshots_in_a_short_time() {
    finds(Mutation::SnapshotsOverlap, CALM);
}

#[test]
fn etcd_18667_a_refused_transaction_happens_in_part() {
    finds(Mutation::RefusedInPart, CALM);
}

#[test]
fn etcd_19179_a_delete_at_the_compacted_revision_is_missing() {
    finds(Mutation::StreamFromForgotten, CALM);
}

#[test]
fn etcd_20221_a_watch_of_the_future_is_notified() {
    finds(Mutation::FutureWatchNotified, CALM);
}

#[test]
fn etcd_20221_a_watch_of_the_future_sees_the_past() {
    finds(Mutation::FutureWatchSeesThePast, CALM);
}

#[test]
fn etcd_20271_space_in_use_is_used_again() {
    finds(Mutation::SegmentGoesTooEarly, CALM);
}

#[test]
fn etcd_20418_a_consistent_read_is_stale() {
    finds(Mutation::StaleConsistentRead, BREAKING);
}

#[test]
fn a_name_is_not_synced() {
    finds(Mutation::DirectorySyncLeftOut, CALM);
}

#[test]
fn what_only_the_page_cache_had_counts_as_durable() {
    finds(Mutation::TailNotRewritten, CALM);
}

#[test]
fn a_failed_sync_is_repeated() {
    finds(Mutation::FailedSyncRepeated, CRASHING);
}

#[test]
fn a_refusal_comes_before_what_it_saw_is_durable() {
    finds(Mutation::RefusedTooEarly, CALM);
}

#[test]
fn a_forgotten_segment_comes_back_in_its_file() {
    finds(Mutation::OldNameComesBack, CALM);
}
