//! What the files take, whatever is written: less than three times the live data above a floor; and disks that are full.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::disk::{Disk, Faults, RealDisk};
use futures::future::join_all;
use store::{CommitError, Embedded, EmbeddedOptions, Engine, KeyRange, Operation, Transaction, Tuning};

use crate::support::{World, dump, put, small, sweep_times};

/// How keys and values follow one another.
#[derive(Clone, Copy, Debug)]
enum Churn {
    /// Some keys, again and again.
    Overwrite,
    /// One key only.
    OneKey,
    /// Created and deleted soon after.
    CreateDelete,
    /// Values of very different sizes.
    Sizes,
    /// Many keys, then nearly all of them deleted, then many again.
    Waves,
}

impl Churn {
    fn transaction(self, step: usize) -> Transaction {
        let put = |key: usize, bytes: usize| Transaction::new().put(format!("k{key:04}"), vec![b'x'; bytes]);
        let delete = |key: usize| Transaction::new().operation(Operation::Delete(format!("k{key:04}").into()));
        match self {
            Churn::Overwrite => put(step % 100, 200),
            Churn::OneKey => put(0, 300),
            Churn::CreateDelete if step.is_multiple_of(2) => put(step / 2 % 50, 250),
            Churn::CreateDelete => delete((step / 2 + 30) % 50),
            Churn::Sizes => put(step * 7 % 60, [1, 10, 100, 3000][step % 4]),
            Churn::Waves => match step % 1000 {
                in_wave @ 0..500 => put(in_wave, 200),
                in_wave => delete((in_wave * 3) % 500),
            },
        }
    }
}

#[tokio::test(start_paused = true)]
async fn files_stay_below_three_times_the_live_data() {
    for churn in [
        Churn::Overwrite,
        Churn::OneKey,
        Churn::CreateDelete,
        Churn::Sizes,
        Churn::Waves,
    ] {
        let world = World::new(1);
        let engine = world.open().await.unwrap();
        let floor = 3 * small().log_floor_bytes;
        let mut live_before = 0;
        for step in 0..4000 {
            engine.commit(churn.transaction(step)).await.unwrap();
            let (used, live) = (world.disk.used_bytes(), engine.live_bytes());
            // What was deleted just now goes with the snapshot that this causes.
            let counted = match churn {
                Churn::Waves => live.max(live_before),
                _ => live,
            };
            assert!(
                used <= 3 * counted + floor,
                "{churn:?} {step}: {used} bytes for {live} live ones"
            );
            if step % 500 == 0 {
                live_before = live;
            }
            live_before = live_before.max(live);
        }
        // Afterwards it is there without grace.
        tokio::time::sleep(Duration::from_secs(1)).await;
        put(&*engine, "last", "1").await;
        let (used, live) = (world.disk.used_bytes(), engine.live_bytes());
        assert!(
            used <= 3 * live + floor,
            "{churn:?}: {used} bytes for {live} live ones at the end"
        );
        let content = dump(&*engine).await;
        engine.close().await;
        assert_eq!(dump(&*world.open().await.unwrap()).await, content, "{churn:?}");
    }
}

/// Steps after which space that a delete freed is used again at the latest: some snapshots' time at this size.
const GRACE_STEPS: usize = 400;

/// Any churn: phases of random keys, sizes and shares of deletes, with restarts between them.
#[tokio::test(start_paused = true)]
async fn files_stay_below_three_times_the_live_data_under_any_churn() {
    for seed in 0..10 * sweep_times() {
        let world = World::new(seed);
        let random = &world.random;
        let floor = 3 * small().log_floor_bytes;
        let mut engine = world.open().await.unwrap();
        let mut lives = VecDeque::new();
        for phase in 0..6 {
            let (keys, bytes_max, deletes) = (
                random.range(1..400),
                [20, 300, 3000][random.index(3)],
                [0.0, 0.2, 0.5, 0.9][random.index(4)],
            );
            for step in 0..random.range(50..400) {
                let key = format!("k{:04}", random.range(0..keys));
                let transaction = if random.chance(deletes) {
                    Transaction::new().operation(Operation::Delete(key.into()))
                } else {
                    Transaction::new().put(key, vec![b'x'; random.range(0..bytes_max) as usize])
                };
                engine.commit(transaction).await.unwrap();
                let (used, live) = (world.disk.used_bytes(), engine.live_bytes());
                lives.push_back(live);
                if lives.len() > GRACE_STEPS {
                    lives.pop_front();
                }
                let counted = lives.iter().copied().max().unwrap_or(live);
                assert!(
                    used <= 3 * counted + floor,
                    "seed {seed}, phase {phase}, step {step}: {used} bytes for {live} live ones, {counted} a while ago"
                );
            }
            if random.chance(0.3) {
                let content = dump(&*engine).await;
                engine.close().await;
                engine = world.open().await.unwrap();
                assert_eq!(dump(&*engine).await, content, "seed {seed}");
            }
        }
        engine.close().await;
    }
}

fn directory_bytes(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    // A file that goes meanwhile takes nothing.
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_stay_below_three_times_the_live_data_on_the_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let tuning = Tuning {
        segment_bytes: 64 * 1024,
        log_floor_bytes: 512 * 1024,
        reserve_bytes: 0,
        ..Tuning::default()
    };
    let options = EmbeddedOptions {
        tuning,
        ..EmbeddedOptions::new(directory.path().join("store"))
    };
    let engine = Arc::new(Embedded::open(options).await.unwrap());
    let mut most: f64 = 0.0;
    for round in 0..20 {
        let write = |client: usize| {
            let engine = engine.clone();
            async move {
                for step in 0..8 {
                    let key = format!("{client}/{}", (round + step) % 4);
                    put(&*engine, &key, &"x".repeat(2000)).await;
                }
            }
        };
        join_all((0..64).map(|client| tokio::spawn(write(client)))).await;
        let (used, live) = (directory_bytes(engine.directory()), engine.live_bytes());
        most = most.max(used as f64 / live as f64);
        assert!(
            used <= 3 * live + 3 * tuning.log_floor_bytes,
            "{used} bytes for {live} live ones"
        );
    }
    println!("at most {most:.2} times the live data");
    engine.close().await;
    assert!(
        RealDisk
            .list(engine.directory())
            .unwrap()
            .iter()
            .any(|name| name.ends_with(".snapshot"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_read_and_written_again_when_it_has_space() {
    let world = World::new(2);
    let engine = world.open().await.unwrap();
    for index in 0..60 {
        put(&*engine, &format!("k{index}"), &"x".repeat(100)).await;
    }
    world.disk.set_faults(Faults {
        capacity_bytes: Some(world.disk.used_bytes() + 3000),
        ..Faults::default()
    });
    let mut refused = None;
    for index in 0..60 {
        let answer = engine
            .commit(Transaction::new().put(format!("k{index}"), "y".repeat(100)))
            .await;
        match answer {
            Ok(_) if refused.is_none() => {}
            Err(CommitError::Full) => refused = Some(index),
            other => panic!("{other:?}"),
        }
    }
    let refused = refused.expect("the disk is full");
    // Reads go on, now and in the past, and so do checks of guards.
    assert_eq!(engine.range(KeyRange::all(), None).await.unwrap().records.len(), 60);
    let oldest = engine.progress().await.unwrap().oldest;
    assert!(engine.range(KeyRange::all(), Some(oldest)).await.is_ok());
    assert!(engine.commit(Transaction::create("k0", "")).await.is_err());
    let content = dump(&*engine).await;
    // An hour later there is space again: nobody has to do anything.
    tokio::time::advance(Duration::from_secs(3600)).await;
    world.disk.set_faults(Faults::default());
    put(&*engine, &format!("k{refused}"), "z").await;
    assert_ne!(dump(&*engine).await, content);
    for index in 0..200 {
        put(&*engine, &format!("k{}", index % 60), &"z".repeat(100)).await;
    }
    let names = world.disk.list(Path::new("/store")).unwrap();
    assert_eq!(names.iter().filter(|name| name.ends_with(".snapshot")).count(), 1);
    let content = dump(&*engine).await;
    engine.close().await;
    assert_eq!(dump(&*world.open().await.unwrap()).await, content);
}

#[tokio::test(start_paused = true)]
async fn history_is_as_old_as_its_window_also_when_nobody_writes() {
    let world = World::new(3);
    let engine = world.open().await.unwrap();
    for index in 0..10 {
        put(&*engine, "k", &format!("{index}")).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(engine.progress().await.unwrap().oldest, 0);
    engine.close().await;
    // A restart keeps it for as long.
    let engine = world.open().await.unwrap();
    assert_eq!(engine.progress().await.unwrap().oldest, 0);
    tokio::time::sleep(Duration::from_secs(200)).await;
    let oldest = engine.progress().await.unwrap().oldest;
    assert!((1..6).contains(&oldest), "{oldest}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(engine.progress().await.unwrap().oldest, 10);
    // By bytes, whatever its age; a restart does not bring it back.
    for _ in 0..200 {
        put(&*engine, "k", &"x".repeat(200)).await;
    }
    let oldest = engine.progress().await.unwrap().oldest;
    assert!(oldest > 180, "{oldest}");
    engine.close().await;
    let engine = world.open().await.unwrap();
    let again = engine.progress().await.unwrap().oldest;
    assert!(again > 150, "{again} after a restart, {oldest} before it");
    put(&*engine, "k", &"x".repeat(200)).await;
    assert!(engine.progress().await.unwrap().oldest >= oldest);
}
