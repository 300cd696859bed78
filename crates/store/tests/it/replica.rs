//! The replica above the embedded engine: reads, writes, watches, old revisions, tables that come and go.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use store::{
    CommitError, Cursor, Engine, Event, History, Interest, KeyRange, Operation, Replica, ReplicaError, RingLimits,
    Table, Transaction, WatchError, Watches,
};

use store::testing::workload::Text;

use crate::support::{World, put};

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn shown(event: &Event<Text>) -> String {
    let side =
        |entry: &Option<Arc<store::Entry<Text>>>| entry.as_ref().map_or("-".to_owned(), |entry| entry.value.0.clone());
    let name = String::from_utf8_lossy(event.key()).into_owned();
    format!(
        "{} {name} {}>{}",
        event.revision,
        side(&event.before),
        side(&event.after)
    )
}

fn drain(cursor: &mut Cursor<Text>) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(batch) = cursor.try_next().unwrap() {
        seen.extend(batch.events.iter().map(|event| shown(event)));
    }
    seen
}

async fn write(replica: &Replica<Text>, name: &str, value: &str) -> u64 {
    replica
        .commit(Transaction::new().put(key(name), value.to_owned()))
        .await
        .unwrap()
        .revision
}

async fn delete(replica: &Replica<Text>, name: &str) -> u64 {
    replica
        .commit(Transaction::new().operation(Operation::Delete(key(name))))
        .await
        .unwrap()
        .revision
}

fn table(replica: &Replica<Text>) -> Table<Text> {
    replica.table(b"/a/").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_visible_when_it_returns() {
    let world = World::new(1);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    let table = table(&replica);
    for index in 0..100 {
        let name = format!("/a/n/{index}");
        let written = replica.commit(Transaction::create(key(&name), "v")).await.unwrap();
        assert!(written.changed && written.entries[0].before.is_none());
        let entry = table.get(name.as_bytes()).unwrap();
        assert_eq!(entry.mod_revision(), written.revision);
        assert!(Arc::ptr_eq(written.entries[0].after.as_ref().unwrap(), &entry));
    }
    let deleted = replica.commit(Transaction::delete(key("/a/n/7"), 8)).await.unwrap();
    assert_eq!(deleted.entries[0].before.as_ref().unwrap().value.0, "v");
    assert!(deleted.entries[0].after.is_none() && table.get(b"/a/n/7").is_none());
    match replica.commit(Transaction::create(key("/a/n/8"), "v")).await {
        Err(CommitError::GuardFailed { current, .. }) => assert_eq!(current.unwrap().mod_revision, 9),
        other => panic!("{other:?}"),
    }
    // A key of no table is written all the same.
    let other = replica.commit(Transaction::create(key("/other"), "v")).await.unwrap();
    assert_eq!(other.entries[0].after.as_ref().unwrap().mod_revision(), other.revision);
    assert_eq!(replica.revision(), other.revision);
}

#[tokio::test(start_paused = true)]
async fn snapshots_do_not_change_and_agree() {
    let world = World::new(2);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    let (a, b) = (table(&replica), replica.table(b"/b/").unwrap());
    for index in 0..10 {
        let both = Transaction::new()
            .put(key("/a/x"), format!("{index}"))
            .put(key("/b/x"), format!("{index}"));
        replica.commit(both).await.unwrap();
    }
    let snapshot = replica.snapshot();
    write(&replica, "/a/x", "later").await;
    write(&replica, "/a/y", "later").await;
    let (in_a, in_b) = (snapshot.table(&a).unwrap(), snapshot.table(&b).unwrap());
    assert_eq!((in_a.revision(), in_a.len()), (10, 1));
    assert_eq!(in_a.get(b"/a/x").unwrap().value, in_b.get(b"/b/x").unwrap().value);
    let now = a.snapshot();
    assert_eq!((now.revision(), now.len()), (12, 2));
    assert_eq!(now.prefix(b"/a/x").count(), 1);
    for (range, expect, first) in [
        (KeyRange::all(), 0..2, Some("/a/x")),
        (KeyRange::prefix(b"/a/y"), 1..2, Some("/a/y")),
        (KeyRange::prefix(b"/a/z"), 2..2, None),
    ] {
        let places = now.places(&range);
        assert_eq!(places, expect);
        assert_eq!(now.at(places).next().map(|entry| entry.key().clone()), first.map(key));
    }
}

#[tokio::test(start_paused = true)]
async fn old_revisions_are_rebuilt_or_kept() {
    let world = World::new(3);
    let engine = world.open().await.unwrap();
    let limits = RingLimits {
        events_max: 40,
        ..RingLimits::default()
    };
    let replica = Replica::open_with(engine, world.clock.clone(), limits, [key("/a/")], Text::build)
        .await
        .unwrap();
    let table = table(&replica);
    let mut states = vec![Vec::new()];
    for index in 0u64..100 {
        let name = format!("/a/{}", index % 7);
        if index % 5 == 4 {
            replica
                .commit(Transaction::new().operation(Operation::Delete(key(&name))))
                .await
                .unwrap();
        } else {
            write(&replica, &name, &format!("{index}")).await;
        }
        let revision = replica.revision() as usize;
        let state: Vec<_> = table
            .snapshot()
            .iter()
            .map(|entry| (entry.key().clone(), entry.value.0.clone()))
            .collect();
        if states.len() == revision {
            states.push(state);
        }
        if revision == 50 {
            table.keep(&table.snapshot());
        }
    }
    let last = replica.revision();
    assert_eq!(states.len() as u64, last + 1);
    let mut reached = 0;
    for revision in (0..=last + 1).rev() {
        let Some(snapshot) = table.snapshot_at(revision) else {
            continue;
        };
        let state: Vec<_> = snapshot
            .iter()
            .map(|entry| (entry.key().clone(), entry.value.0.clone()))
            .collect();
        assert_eq!(
            (snapshot.revision(), &state),
            (revision, &states[revision as usize]),
            "revision {revision}"
        );
        reached += 1;
    }
    // What the ring holds, its start, and the kept one.
    assert_eq!(reached, 40 + 1 + 1);
    assert!(table.snapshot_at(last + 1).is_none());
}

#[tokio::test(start_paused = true)]
async fn old_revisions_expire_though_their_table_is_quiet() {
    let world = World::new(8);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    let table = table(&replica);
    write(&replica, "/a/x", "1").await;
    let listed = table.snapshot();
    table.keep(&listed);
    let window = Duration::from_millis(RingLimits::default().window_ms.unsigned_abs());
    // What others write tells the time.
    tokio::time::sleep(window / 10).await;
    write(&replica, "/b/x", "2").await;
    tokio::time::sleep(window - window / 10).await;
    assert!(
        table.snapshot_at(listed.revision()).is_some(),
        "still the newest a window ago"
    );
    tokio::time::sleep(window / 10).await;
    assert!(table.snapshot_at(listed.revision()).is_none());
    assert_eq!(table.snapshot_at(replica.revision()).unwrap().iter().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_watch_sees_what_it_asked_for() {
    let world = World::new(4);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    let table = table(&replica);
    let watch = |interest| table.watch_from(0, interest).unwrap();
    let mut all = watch(Interest::All);
    let mut one = watch(Interest::Key(key("/a/n1/x")));
    let mut space = watch(Interest::Namespace(key("/a/n1/")));
    let mut trigger = watch(Interest::Trigger("node".to_owned()));
    write(&replica, "/a/n1/x", "1").await;
    write(&replica, "/a/n2/x", "2").await;
    write(&replica, "/b/n1/x", "3").await;
    write(&replica, "/a/n2/x", "4@node").await;
    write(&replica, "/a/n1/y", "5@node").await;
    write(&replica, "/a/n2/x", "6").await;
    delete(&replica, "/a/n1/x").await;
    assert_eq!(drain(&mut one), ["1 /a/n1/x ->1", "7 /a/n1/x 1>-"]);
    assert_eq!(
        drain(&mut space),
        ["1 /a/n1/x ->1", "5 /a/n1/y ->5@node", "7 /a/n1/x 1>-"]
    );
    let on_node = ["4 /a/n2/x 2>4@node", "5 /a/n1/y ->5@node", "6 /a/n2/x 4@node>6"];
    assert_eq!(drain(&mut trigger), on_node);
    assert_eq!(drain(&mut all).len(), 6);
    // One that comes later sees the same, from where it starts.
    assert_eq!(drain(&mut watch(Interest::Trigger("node".to_owned()))), on_node);
    assert_eq!(
        drain(&mut table.watch_from(4, Interest::Trigger("node".to_owned())).unwrap()),
        on_node[1..]
    );
    assert_eq!(one.revision(), 7);
    // Idle, but not behind: the revision advances in another table.
    write(&replica, "/b/z", "1").await;
    assert_eq!((one.progress(), all.progress()), (Ok(Some(8)), Ok(Some(8))));
    write(&replica, "/a/n1/x", "9").await;
    assert_eq!(
        (one.progress(), space.progress(), trigger.progress()),
        (Ok(None), Ok(None), Ok(Some(9)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_watch_is_woken_only_by_its_own() {
    let world = World::new(5);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    let mut cursor = table(&replica).watch_from(0, Interest::Key(key("/a/n/mine"))).unwrap();
    let polls = Arc::new(AtomicU64::new(0));
    let waiting = tokio::spawn({
        let polls = polls.clone();
        async move {
            let mut next = Box::pin(cursor.next());
            let counted = std::future::poll_fn(|context| {
                polls.fetch_add(1, Ordering::Relaxed);
                next.as_mut().poll(context)
            });
            counted.await.map(|batch| (shown(&batch.events[0]), batch.revision))
        }
    });
    for _ in 0..20 {
        write(&replica, "/a/n/other", "x").await;
    }
    // Once to begin with: what happened to others did not concern it.
    assert_eq!(polls.load(Ordering::Relaxed), 1);
    write(&replica, "/a/n/mine", "y").await;
    assert_eq!(waiting.await.unwrap(), Ok(("21 /a/n/mine ->y".to_owned(), 21)));
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_delivered_whole_and_a_future_start_waits() {
    let world = World::new(6);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    let table = table(&replica);
    let mut all = table.watch_from(0, Interest::All).unwrap();
    let mut future = table.watch_from(1, Interest::All).unwrap();
    let many = (0..700).fold(Transaction::new(), |many, index| {
        many.put(key(&format!("/a/{index:03}")), "v")
    });
    replica.commit(many).await.unwrap();
    write(&replica, "/a/x", "1").await;
    let batch = all.try_next().unwrap().unwrap();
    assert_eq!((batch.events.len(), batch.revision), (700, 1));
    assert_eq!(all.try_next().unwrap().unwrap().events.len(), 1);
    assert_eq!(drain(&mut future), ["2 /a/x ->1"]);
}

#[tokio::test(start_paused = true)]
async fn the_slow_fall_off_and_the_idle_do_not() {
    let world = World::new(7);
    let engine = world.open().await.unwrap();
    let limits = RingLimits {
        events_max: 10,
        ..RingLimits::default()
    };
    let replica = Replica::open_with(engine, world.clock.clone(), limits, [key("/a/")], Text::build)
        .await
        .unwrap();
    let table = table(&replica);
    write(&replica, "/a/n/mine", "1").await;
    let mut slow = table.watch_from(0, Interest::All).unwrap();
    let mut slow_one = table.watch_from(0, Interest::Key(key("/a/n/mine"))).unwrap();
    let mut idle = table.watch_from(1, Interest::Key(key("/a/n/mine"))).unwrap();
    for index in 0..30 {
        write(&replica, "/a/n/other", &format!("{index}")).await;
    }
    assert_eq!(slow.try_next().unwrap_err(), WatchError::Expired { oldest: 21 });
    assert_eq!(slow_one.next().await.unwrap_err(), WatchError::Expired { oldest: 21 });
    assert!(idle.try_next().unwrap().is_none());
    assert_eq!(idle.progress(), Ok(Some(31)));
    write(&replica, "/a/n/mine", "2").await;
    assert_eq!(drain(&mut idle), ["32 /a/n/mine 1>2"]);
    assert_eq!(table.oldest_revision(), 22);
    assert_eq!(
        table.watch_from(21, Interest::All).err(),
        Some(WatchError::Expired { oldest: 22 })
    );
    assert_eq!(drain(&mut table.watch_from(22, Interest::All).unwrap()).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn old_events_are_forgotten_after_the_window() {
    let world = World::new(8);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    write(&replica, "/a/x", "1").await;
    tokio::time::advance(Duration::from_secs(301)).await;
    write(&replica, "/a/x", "2").await;
    assert_eq!(table(&replica).oldest_revision(), 1);
}

#[tokio::test(start_paused = true)]
async fn watches_resume_over_a_restart() {
    let world = World::new(9);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    for index in 0..5 {
        write(&replica, "/a/x", &format!("{index}")).await;
    }
    drop(replica);
    engine.close().await;
    drop(engine);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    let mut cursor = table(&replica).watch_from(3, Interest::All).unwrap();
    assert_eq!(drain(&mut cursor), ["4 /a/x 2>3", "5 /a/x 3>4"]);
    assert_eq!(
        table(&replica).snapshot_at(2).unwrap().get(b"/a/x").unwrap().value.0,
        "1"
    );
}

#[tokio::test(start_paused = true)]
async fn tables_come_and_go_while_running() {
    let world = World::new(10);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    for index in 0..3 {
        put(&*engine, "/c/x", &format!("{index}")).await;
    }
    assert!(replica.table(b"/c/").is_none());
    for prefix in ["/a/", "/a/b/", "/", ""] {
        assert!(
            matches!(replica.add_table(prefix).await, Err(ReplicaError::Overlap(_))),
            "{prefix}"
        );
    }
    let added = replica.add_table("/c/").await.unwrap();
    assert_eq!(added.get(b"/c/x").unwrap().value.0, "2");
    assert_eq!(
        drain(&mut added.watch_from(1, Interest::All).unwrap()),
        ["2 /c/x 0>1", "3 /c/x 1>2"]
    );
    assert_eq!(replica.prefixes().len(), 3);
    let mut cursor = added.watch_from(3, Interest::All).unwrap();
    let mut behind = added.watch_from(1, Interest::All).unwrap();
    let waiting = tokio::spawn(async move { cursor.next().await.err() });
    tokio::task::yield_now().await;
    assert!(replica.remove_table(b"/c/").await.unwrap());
    assert!(!replica.remove_table(b"/c/").await.unwrap());
    assert_eq!(waiting.await.unwrap(), Some(WatchError::Closed));
    assert!(added.get(b"/c/x").is_none() && replica.table(b"/c/").is_none());
    // Whoever was behind is told what happened before the end.
    let rest = behind.next().await.unwrap();
    assert_eq!(
        rest.events.iter().map(|event| shown(event)).collect::<Vec<_>>(),
        ["2 /c/x 0>1", "3 /c/x 1>2"]
    );
    assert_eq!(behind.try_next().err(), Some(WatchError::Closed));
    // Added again, it is a table of its own.
    let again = replica.add_table("/c/").await.unwrap();
    assert_eq!(again.snapshot().len(), 1);
    assert!(added.snapshot().is_empty());
    // Several at once; when one of them cannot be, none is. Without history a watch begins now.
    let prefixes = |list: &[&'static str]| list.iter().map(|prefix| key(prefix)).collect::<Vec<_>>();
    let overlapping = replica.add_tables(prefixes(&["/d/", "/c/x/"]), History::Kept).await;
    assert!(matches!(overlapping, Err(ReplicaError::Overlap(_))));
    put(&*engine, "/e/x", "1").await;
    let revision = replica.consistent().await.unwrap();
    let both = replica
        .add_tables(prefixes(&["/d/", "/e/"]), History::FromNow)
        .await
        .unwrap();
    assert_eq!((both[0].snapshot().len(), both[1].snapshot().len()), (0, 1));
    assert_eq!(both[1].oldest_revision(), revision);
    assert!(both[1].watch_from(revision, Interest::All).is_ok());
}

#[tokio::test(start_paused = true)]
async fn watches_that_are_ended_begin_again_where_they_were() {
    let world = World::new(13);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    let table = table(&replica);
    write(&replica, "/a/x", "1").await;
    let begun = replica.revision();
    let (mut one, mut other) = (
        table.watch_from(begun, Interest::All).unwrap(),
        table.watch_from(begun, Interest::Key(key("/a/x"))).unwrap(),
    );
    let waiting = tokio::spawn(async move { one.next().await.err() });
    tokio::task::yield_now().await;
    table.end_watches();
    assert_eq!(waiting.await.unwrap(), Some(WatchError::Closed));
    write(&replica, "/a/x", "2").await;
    assert_eq!(other.try_next().err(), Some(WatchError::Closed));
    let mut again = table.watch_from(begun, Interest::All).unwrap();
    assert_eq!(drain(&mut again).len(), 1);
    // Built again, there is nothing to begin from.
    assert!(replica.rebuild_table(b"/a/", Watches::End).await.unwrap());
    assert_eq!(again.try_next().err(), Some(WatchError::Closed));
    let refused = table.watch_from(begun, Interest::All).err();
    assert!(matches!(refused, Some(WatchError::Expired { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_built_again_has_new_values_and_no_history() {
    let world = World::new(12);
    let engine = world.open().await.unwrap();
    put(&*engine, "/a/x", "1").await;
    let (built, clock) = (Arc::new(AtomicU64::new(0)), world.clock.clone());
    let build = move |_: &store::Record| Text(built.fetch_add(1, Ordering::SeqCst).to_string());
    let replica = Replica::open(engine, clock, [key("/a/"), key("/b/")], build)
        .await
        .unwrap();
    let table = table(&replica);
    let value = || table.get(b"/a/x").unwrap().value.0.clone();
    let before = value();
    let mut cursor = table.watch_from(1, Interest::All).unwrap();
    assert!(replica.rebuild_table(b"/a/", Watches::Expire).await.unwrap());
    assert!(
        !replica.rebuild_table(b"/c/", Watches::End).await.unwrap(),
        "there is none"
    );
    assert_ne!(value(), before);
    assert!(matches!(cursor.try_next(), Err(WatchError::Expired { .. })));
    // Whoever begins again goes on from there.
    let mut cursor = table.watch_from(1, Interest::All).unwrap();
    write(&replica, "/a/x", "2").await;
    assert_eq!(drain(&mut cursor).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_revision_and_for_the_end() {
    let world = World::new(11);
    let engine = world.open().await.unwrap();
    let replica = world.replica(&engine).await;
    let waiting = tokio::spawn({
        let replica = replica.clone();
        async move { replica.wait_for(3).await.unwrap() }
    });
    for index in 0..3 {
        write(&replica, "/a/x", &format!("{index}")).await;
    }
    assert_eq!(waiting.await.unwrap(), 3);
    let revision = put(&*engine, "/a/x", "behind the replica's back").await;
    assert!(replica.consistent().await.unwrap() >= revision);
    let mut cursor = table(&replica).watch_from(replica.revision(), Interest::All).unwrap();
    assert!(!replica.is_closed());
    engine.close().await;
    replica.closed().await;
    assert!(replica.is_closed());
    assert_eq!(cursor.next().await.err(), Some(WatchError::Closed));
    assert!(matches!(replica.wait_for(100).await, Err(ReplicaError::Closed)));
    let dyn_engine: Arc<dyn Engine> = engine;
    assert!(dyn_engine.progress().await.is_err());
}
