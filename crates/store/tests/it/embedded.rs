//! The embedded engine alone: commits, guards, restart, roll and snapshot, expiry, damage, full disks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::disk::{Disk, Faults, OpenMode, SimDisk, read_all};
use futures::future::join_all;
use store::{
    CommitError, Embedded, EmbeddedOptions, Engine, EngineError, Guard, KeyRange, OpenError, Operation, Put, Stamp,
    Transaction,
};

use crate::support::{World, dump, put, small};

const ROOT: &str = "/store";

fn files(disk: &SimDisk, suffix: &str) -> Vec<PathBuf> {
    let names = disk.list(Path::new(ROOT)).unwrap();
    names
        .into_iter()
        .filter(|name| name.ends_with(suffix))
        .map(|name| Path::new(ROOT).join(name))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn guards_revisions_and_versions() {
    let world = World::new(1);
    let engine = world.open().await.unwrap();
    let commit = |transaction| engine.commit(transaction);
    assert_eq!(commit(Transaction::create("k", "1")).await.unwrap().revision, 1);
    let Err(CommitError::GuardFailed { key, current, revision }) = commit(Transaction::create("k", "2")).await else {
        panic!("it exists");
    };
    assert_eq!(
        (key.as_ref(), current.unwrap().value.as_ref(), revision),
        (&b"k"[..], &b"1"[..], 1)
    );
    assert_eq!(commit(Transaction::update("k", 1, "2")).await.unwrap().revision, 2);
    assert!(matches!(
        commit(Transaction::update("k", 1, "3")).await,
        Err(CommitError::GuardFailed { .. })
    ));
    assert!(matches!(
        commit(Transaction::delete("k", 1)).await,
        Err(CommitError::GuardFailed { .. })
    ));
    // A guard on another key, several operations, one revision.
    let several = Transaction::new()
        .guard(Guard::Exists("k".into()))
        .put("a", "1")
        .put("b", "1");
    assert_eq!(commit(several).await.unwrap().revision, 3);
    let records = engine.range(KeyRange::all(), None).await.unwrap().records;
    let seen: Vec<_> = records
        .iter()
        .map(|r| (r.key.as_ref(), r.create_revision, r.mod_revision, r.version))
        .collect();
    assert_eq!(seen, [(&b"a"[..], 3, 3, 1), (b"b", 3, 3, 1), (b"k", 1, 2, 2)]);
    // Nothing to do is no revision.
    let nothing = commit(Transaction::new().operation(Operation::Delete("absent".into())))
        .await
        .unwrap();
    assert_eq!((nothing.revision, nothing.changed), (3, false));
    let check = commit(Transaction::new().guard(Guard::Absent("absent".into())))
        .await
        .unwrap();
    assert_eq!((check.revision, check.changed), (3, false));
    assert!(matches!(
        commit(Transaction::create("", "x")).await,
        Err(CommitError::Invalid(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn of_many_creators_one_wins_and_a_dropped_future_still_commits() {
    let world = World::new(2);
    let engine = world.open().await.unwrap();
    let answers = join_all((0..50).map(|index| engine.commit(Transaction::create("k", format!("{index}"))))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    drop(engine.commit(Transaction::create("dropped", "1")));
    put(&*engine, "after", "1").await;
    assert_eq!(dump(&*engine).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_state_history_and_stamps() {
    let world = World::new(3);
    let engine = world.open().await.unwrap();
    let stamped = Operation::Put(Put {
        key: "stamped".into(),
        value: "v".into(),
        expires_at_ms: Some(i64::MAX),
        stamp: Stamp {
            sealing_key: 7,
            schema_epoch: 9,
        },
    });
    engine.commit(Transaction::new().operation(stamped)).await.unwrap();
    for index in 0..5 {
        put(&*engine, "k", &format!("{index}")).await;
    }
    engine.commit(Transaction::delete("k", 6)).await.unwrap();
    let before = engine.range(KeyRange::all(), None).await.unwrap();
    let old = engine.range(KeyRange::all(), Some(4)).await.unwrap();
    assert!(matches!(world.open().await, Err(OpenError::Locked(_))));
    engine.close().await;
    assert!(matches!(
        engine.commit(Transaction::create("late", "")).await,
        Err(CommitError::Unavailable(_))
    ));
    assert_eq!(engine.progress().await, Err(EngineError::Closed));

    let engine = world.open().await.unwrap();
    let after = engine.range(KeyRange::all(), None).await.unwrap();
    assert_eq!((after.revision, &after.records), (7, &before.records));
    assert_eq!(
        after.records[0].stamp,
        Stamp {
            sealing_key: 7,
            schema_epoch: 9
        }
    );
    // The history, too: old revisions are read and streamed as before.
    assert_eq!(
        engine.range(KeyRange::all(), Some(4)).await.unwrap().records,
        old.records
    );
    let batch = engine.stream(2).await.unwrap().next().await.unwrap();
    let revisions: Vec<_> = batch.commits.iter().map(|commit| commit.revision).collect();
    assert_eq!((revisions, batch.progress), (vec![3, 4, 5, 6, 7], 7));
    assert!(batch.commits[4].changes[0].before.is_some() && batch.commits[4].changes[0].after.is_none());
    assert_eq!(put(&*engine, "k", "new").await, 8);
}

#[tokio::test(start_paused = true)]
async fn churn_is_snapshotted_and_space_is_used_again() {
    let world = World::new(4);
    let engine = world.open().await.unwrap();
    let value = "x".repeat(200);
    let mut largest = 0;
    for index in 0..2000 {
        let key = format!("k{:03}", index % 100);
        put(&*engine, &key, &format!("{value}{index}")).await;
        largest = largest.max(world.disk.used_bytes());
    }
    let live = engine.live_bytes();
    let floor = small().log_floor_bytes;
    assert!(
        largest <= 3 * live + 2 * floor,
        "{largest} bytes at most for {live} live ones"
    );
    assert_eq!(files(&world.disk, ".snapshot").len(), 1);
    let before = dump(&*engine).await;
    engine.close().await;
    let engine = world.open().await.unwrap();
    assert_eq!(dump(&*engine).await, before);
    assert_eq!(engine.live_bytes(), live);
    assert_eq!(engine.progress().await.unwrap().revision, 2000);
    assert!(matches!(
        engine.stream(1).await.err(),
        Some(EngineError::Compacted { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn expiry_is_an_ordinary_revision_at_its_time() {
    let world = World::new(5);
    let engine = world.open().await.unwrap();
    let now_ms = world.clock.now_ms();
    let expiring = |key: &str, after_ms: i64| {
        let (key, value) = (key.to_owned().into(), "v".into());
        let put = Put {
            key,
            value,
            expires_at_ms: Some(now_ms + after_ms),
            stamp: Stamp::default(),
        };
        engine.commit(Transaction::new().operation(Operation::Put(put)))
    };
    expiring("late", 3_600_000).await.unwrap();
    expiring("soon", 1_000).await.unwrap();
    expiring("renewed", 1_000).await.unwrap();
    expiring("renewed", 10_000).await.unwrap();
    let mut stream = engine.stream(4).await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(first.commits[0].changes[0].key.as_ref(), b"soon");
    assert!(world.clock.now_ms() >= now_ms + 1_000 && world.clock.now_ms() < now_ms + 2_000);
    assert_eq!(
        stream.next().await.unwrap().commits[0].changes[0].key.as_ref(),
        b"renewed"
    );
    engine.close().await;
    // A deadline survives a restart, and one that passed meanwhile is kept at once.
    tokio::time::advance(Duration::from_secs(7200)).await;
    let engine = world.open().await.unwrap();
    let batch = engine.stream(6).await.unwrap().next().await.unwrap();
    assert_eq!(
        (batch.commits[0].revision, batch.commits[0].changes[0].key.as_ref()),
        (7, &b"late"[..])
    );
    assert!(dump(&*engine).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn compaction_forgets() {
    let world = World::new(6);
    let engine = world.open().await.unwrap();
    for index in 0..10 {
        put(&*engine, "k", &format!("{index}")).await;
    }
    engine.compact(6).await.unwrap();
    assert_eq!(
        engine.range(KeyRange::all(), Some(5)).await.unwrap_err(),
        EngineError::Compacted { oldest: 6 }
    );
    assert_eq!(
        engine.range(KeyRange::all(), Some(6)).await.unwrap().records[0]
            .value
            .as_ref(),
        b"5"
    );
    assert_eq!(engine.compact(11).await, Err(EngineError::Future { newest: 10 }));
}

#[tokio::test(start_paused = true)]
async fn revisions_are_raised_for_good() {
    let world = World::new(7);
    let engine = world.open().await.unwrap();
    assert_eq!(put(&*engine, "k", "1").await, 1);
    engine.close().await;
    let raised = EmbeddedOptions {
        raise_revisions_by: 1000,
        ..world.options()
    };
    let engine = Embedded::open(raised).await.unwrap();
    assert_eq!(
        engine.range(KeyRange::all(), None).await.unwrap().records[0].mod_revision,
        1001
    );
    assert_eq!(put(&engine, "k", "2").await, 1002);
    engine.close().await;
    let engine = world.open().await.unwrap();
    assert_eq!(engine.revision_offset(), 1000);
    for index in 0..200 {
        put(&*engine, &format!("k{}", index % 10), &"x".repeat(100)).await;
    }
    engine.close().await;
    let engine = world.open().await.unwrap();
    let records = engine.range(KeyRange::all(), None).await.unwrap();
    assert_eq!((records.revision, records.records[0].create_revision), (1202, 1001));
    // Watches from before the raise find no history.
    assert!(engine.stream(1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn another_format_version_is_refused() {
    let world = World::new(9);
    world.open().await.unwrap().close().await;
    let path = files(&world.disk, ".log").remove(0);
    let file = world.disk.open(&path, OpenMode::Read).unwrap();
    let mut bytes = read_all(file.as_ref()).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    world.disk.remove(&path).unwrap();
    world
        .disk
        .open(&path, OpenMode::CreateNew)
        .unwrap()
        .append(&bytes)
        .unwrap();
    match world.open().await {
        Err(OpenError::UnsupportedVersion {
            found: 2, supported: 1, ..
        }) => {}
        other => panic!("{:?}", other.err()),
    }
}

/// A record whose checksum is right and whose content is not known is no torn end: the program that wrote it is named.
#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_program_is_refused_by_its_name() {
    let world = World::new(9);
    let engine = world.open().await.unwrap();
    put(&*engine, "k", "v").await;
    engine.close().await;
    let path = files(&world.disk, ".log").remove(0);
    let file = world.disk.open(&path, OpenMode::Read).unwrap();
    let mut bytes = read_all(file.as_ref()).unwrap();
    // Written by 9.8.7; the operation of its first record is one that nobody knows.
    bytes[56..60].copy_from_slice(&(9_u32 << 20 | 8 << 10 | 7).to_le_bytes());
    let header = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&header.to_le_bytes());
    let end = 72 + u32::from_le_bytes(bytes[64..68].try_into().unwrap()) as usize;
    bytes[72 + 28] = 9;
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(header, &bytes[64..68]), &bytes[72..end]);
    bytes[68..72].copy_from_slice(&crc.to_le_bytes());
    world.disk.remove(&path).unwrap();
    let mut file = world.disk.open(&path, OpenMode::CreateNew).unwrap();
    file.append(&bytes).unwrap();
    let error = world.open().await.map(drop).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, OpenError::UnsupportedVersion { .. })
            && text.contains("written by version 9.8.7 of trireme: use that or a newer one"),
        "{text}"
    );
    assert_eq!(
        read_all(&*world.disk.open(&path, OpenMode::Read).unwrap()).unwrap(),
        bytes
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_puts_and_takes_deletes() {
    let world = World::new(10);
    let mut options = world.options();
    options.tuning.reserve_bytes = 10_000;
    let engine = Embedded::open(options.clone()).await.unwrap();
    for index in 0..10 {
        put(&engine, &format!("k{index}"), "v").await;
    }
    world.disk.set_faults(Faults {
        capacity_bytes: Some(world.disk.used_bytes() + 5_000),
        ..Faults::default()
    });
    assert!(matches!(
        engine.commit(Transaction::create("more", "v")).await,
        Err(CommitError::Full)
    ));
    engine.commit(Transaction::delete("k3", 4)).await.unwrap();
    world.disk.set_faults(Faults::default());
    put(&engine, "more", "v").await;
    // Without a reserve a write fails that there is no room for, and leaves nothing.
    world.disk.set_faults(Faults {
        no_space: 1.0,
        ..Faults::default()
    });
    put(&engine, "small", "v").await;
    let large = "v".repeat(options.tuning.segment_bytes as usize);
    assert!(matches!(
        engine.commit(Transaction::create("x", large)).await,
        Err(CommitError::Full)
    ));
    put(&engine, "small", "w").await;
    world.disk.set_faults(Faults::default());
    let content = dump(&engine).await;
    world.disk.crash();
    engine.close().await;
    world.disk.power_loss();
    assert_eq!(dump(&*world.open().await.unwrap()).await, content);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_or_sync_is_an_unknown_outcome_and_the_log_goes_on_elsewhere() {
    let faults = [(1.0, 0.0), (0.0, 1.0)].map(|(sync_error, write_error)| Faults {
        sync_error,
        write_error,
        ..Faults::default()
    });
    for seed in 0..100 {
        let world = World::new(seed);
        let engine = world.open().await.unwrap();
        put(&*engine, "k", "1").await;
        world.disk.set_faults(faults[seed as usize % 2].clone());
        let failed = engine.commit(Transaction::create("lost", "1"));
        let refused = engine.commit(Transaction::create("lost", "2"));
        assert!(matches!(failed.await, Err(CommitError::UnknownOutcome(_))));
        // Refused because of the write whose outcome is unknown: that is no reason any more.
        assert!(matches!(refused.await, Err(CommitError::Unavailable(_))));
        assert!(matches!(
            engine.commit(Transaction::create("x", "")).await,
            Err(CommitError::Unavailable(_))
        ));
        world.disk.set_faults(Faults::default());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(put(&*engine, "k", "2").await, 2);
        let content = dump(&*engine).await;
        assert_eq!(content, [("k".to_owned(), "2".to_owned())]);
        world.disk.crash();
        engine.close().await;
        world.disk.power_loss();
        assert_eq!(dump(&*world.open().await.unwrap()).await, content, "seed {seed}");
    }
}

#[tokio::test]
async fn a_store_in_memory() {
    let world = World::new(12);
    let engine = store::testing::engine_in_memory(world.clock, world.random).await;
    for index in 0..100 {
        put(&*engine, &format!("{}", index % 10), "v").await;
    }
    assert_eq!(
        (dump(&*engine).await.len(), engine.progress().await.unwrap().revision),
        (10, 100)
    );
}

#[tokio::test]
async fn the_real_thing_on_the_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        tuning: small(),
        ..EmbeddedOptions::new(directory.path().join("store"))
    };
    let engine = Arc::new(Embedded::open(options.clone()).await.unwrap());
    let write = |client: usize| {
        let engine = engine.clone();
        async move {
            for index in 0..50 {
                put(
                    &*engine,
                    &format!("{client}/{}", index % 7),
                    &format!("{client}-{index}"),
                )
                .await;
            }
        }
    };
    join_all((0..16).map(|client| tokio::spawn(write(client)))).await;
    let content = dump(&*engine).await;
    assert_eq!(content.len(), 16 * 7);
    engine.close().await;
    let engine = Embedded::open(options).await.unwrap();
    assert_eq!(dump(&engine).await, content);
    assert_eq!(engine.progress().await.unwrap().revision, 800);
    engine.close().await;
}
