//! One real member: what every engine does, and what only this one has to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::testing::workload::Text;
use store::{
    CommitError, Engine, EngineError, Etcd, Guard, Interest, KeyRange, Operation, Put, Replica, Stamp, Transaction,
    WatchError,
};

use super::cluster::Cluster;
use crate::support::{dump, put};

/// How long what must come may take: only whether it comes matters.
const COMES: Duration = Duration::from_secs(300);

async fn replica(engine: &Arc<Etcd>) -> Replica<Text> {
    let tables = [Bytes::from_static(b"/a/"), Bytes::from_static(b"/b/")];
    Replica::open(engine.clone(), base::Clock::real(), tables, Text::build)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_ranges_and_streams() {
    let cluster = Cluster::start(1, &[]).await;
    let engine = cluster.open().await;
    let begin = engine.progress().await.unwrap().revision;

    let created = engine.commit(Transaction::create("/a/1", "one")).await.unwrap();
    assert!(created.changed && created.revision > begin);
    let Err(CommitError::GuardFailed { key, current, revision }) =
        engine.commit(Transaction::create("/a/1", "again")).await
    else {
        panic!("it was created twice");
    };
    assert_eq!((&key[..], revision), (&b"/a/1"[..], created.revision));
    assert_eq!(current.unwrap().mod_revision, created.revision);
    let updated = engine
        .commit(Transaction::update("/a/1", created.revision, "two"))
        .await
        .unwrap();
    let nothing = engine
        .commit(Transaction::new().operation(Operation::Delete("/a/0".into())))
        .await
        .unwrap();
    assert_eq!((nothing.revision, nothing.changed), (updated.revision, false));
    let checked = engine
        .commit(Transaction::new().guard(Guard::Exists("/a/1".into())))
        .await
        .unwrap();
    assert_eq!((checked.revision, checked.changed), (updated.revision, false));
    let both = Transaction::delete("/a/1", updated.revision)
        .guard(Guard::Absent("/b/1".into()))
        .put("/b/1", "three");
    let both = engine.commit(both).await.unwrap();

    let old = engine.range(KeyRange::all(), Some(created.revision)).await.unwrap();
    assert_eq!(old.records.len(), 1);
    assert_eq!(
        (old.revision, &old.records[0].value[..]),
        (created.revision, &b"one"[..])
    );
    let newest = both.revision;
    let future = engine.range(KeyRange::all(), Some(newest + 100)).await;
    assert_eq!(future.err(), Some(EngineError::Future { newest }));
    let mut stream = engine.stream(begin).await.unwrap();
    let mut seen: Vec<(u64, String, Option<String>)> = Vec::new();
    while seen.last().is_none_or(|(revision, ..)| *revision < both.revision) {
        let batch = stream.next().await.unwrap();
        for commit in &batch.commits {
            for change in &commit.changes {
                let after = change
                    .after
                    .as_ref()
                    .map(|after| String::from_utf8_lossy(&after.value).into_owned());
                seen.push((
                    commit.revision,
                    String::from_utf8_lossy(&change.key).into_owned(),
                    after,
                ));
            }
        }
    }
    let text = |text: &str| Some(text.to_owned());
    let expect = [
        (created.revision, "/a/1".to_owned(), text("one")),
        (updated.revision, "/a/1".to_owned(), text("two")),
        (both.revision, "/a/1".to_owned(), None),
        (both.revision, "/b/1".to_owned(), text("three")),
    ];
    assert_eq!(seen, expect);

    // More keys than a page has, all of one revision.
    let pages = (0..30).map(|page| {
        let many = (0..100).fold(Transaction::new(), |many, index| {
            many.put(format!("/a/{page:02}{index:02}"), "x")
        });
        engine.commit(many)
    });
    futures::future::try_join_all(pages).await.unwrap();
    let answer = engine.range(KeyRange::prefix(b"/a/"), None).await.unwrap();
    assert_eq!(answer.records.len(), 3000);
    assert!(answer.records.is_sorted_by(|one, two| one.key < two.key));

    // Refusals, each by its name.
    let large = engine.commit(Transaction::new().put("/a/x", vec![0; 2_000_000])).await;
    assert!(matches!(large, Err(CommitError::TooLarge { .. })), "{large:?}");
    let own = engine.commit(Transaction::new().put("/.trireme/fence", "")).await;
    assert!(matches!(own, Err(CommitError::Invalid(_))), "{own:?}");

    // What is compacted is gone, and says from where on it is there.
    engine.compact(both.revision).await.unwrap();
    assert!(matches!(
        engine.range(KeyRange::all(), Some(created.revision)).await,
        Err(EngineError::Compacted { oldest }) if oldest == both.revision
    ));
    let error = match engine.stream(begin).await {
        Ok(mut stream) => stream.next().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error, EngineError::Compacted { oldest: both.revision });
    // An engine that opens later finds that out by itself.
    let later = cluster.open().await;
    assert_eq!(later.progress().await.unwrap().oldest, both.revision);
    engine.close();
    assert_eq!(engine.progress().await, Err(EngineError::Closed));
    let end = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert_eq!(end, EngineError::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_see_each_other() {
    let cluster = Cluster::start(1, &[]).await;
    let (one, two) = (cluster.open().await, cluster.open().await);
    let (first, second) = (replica(&one).await, replica(&two).await);
    let start = second.consistent().await.unwrap();
    let mut watch = second.table(b"/a/").unwrap().watch_from(start, Interest::All).unwrap();
    // What one was answered, the other's next consistent read shows; its watch has it in the same order.
    let mut written = Vec::new();
    for index in 0..50 {
        let (writer, reader) = if index % 2 == 0 {
            (&first, &second)
        } else {
            (&second, &first)
        };
        let key = format!("/a/{index}");
        let commit = writer.commit(Transaction::create(key.clone(), "x")).await.unwrap();
        assert!(reader.consistent().await.unwrap() >= commit.revision);
        let entry = reader.table(b"/a/").unwrap().get(key.as_bytes()).expect("it is there");
        assert_eq!(entry.mod_revision(), commit.revision);
        written.push(commit.revision);
    }
    let mut seen = Vec::new();
    while seen.len() < written.len() {
        seen.extend(watch.next().await.unwrap().events.iter().map(|event| event.revision));
    }
    assert_eq!(seen, written);

    // A revision that is of no key of ours: the replica gets there all the same.
    let elsewhere = cluster.open_with(|options| options.prefix = "/elsewhere".into()).await;
    let foreign = put(&*elsewhere, "/a/1", "x").await;
    assert!(first.consistent().await.unwrap() >= foreign);
    assert_eq!(dump(&*elsewhere).await, [("/a/1".to_owned(), "x".to_owned())]);
    // The fence itself is nobody's key.
    assert_eq!(dump(&*one).await.len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_its_place_reads_everything_anew() {
    let cluster = Cluster::start(1, &[]).await;
    let engine = cluster.open().await;
    let replica = replica(&engine).await;
    let first = replica.commit(Transaction::create("/a/1", "x")).await.unwrap();
    let table = replica.table(b"/a/").unwrap();
    let mut watch = table.watch_from(first.revision, Interest::All).unwrap();
    // While this server hears nothing, others write and forget.
    cluster.members[0].proxy.cut(true);
    let direct = cluster.members[0].client.clone();
    let other = cluster.open_with(|options| options.endpoints = vec![direct]).await;
    put(&*other, "/a/1", "y").await;
    let last = put(&*other, "/a/2", "z").await;
    other.compact(last).await.unwrap();
    cluster.members[0].proxy.reset();
    cluster.members[0].proxy.cut(false);
    while replica.consistent().await.is_err() {}
    assert!(replica.revision() >= last);
    assert_eq!(table.get(b"/a/2").unwrap().value, Text("z".into()));
    let next = watch.next().await.map(|batch| batch.events);
    assert!(matches!(next, Err(WatchError::Expired { .. })), "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_goes_by_itself() {
    let cluster = Cluster::start(1, &[]).await;
    let engine = cluster.open().await;
    let replica = replica(&engine).await;
    let now_ms = base::Clock::real().now_ms();
    let stamp = Stamp {
        sealing_key: 3,
        schema_epoch: 4,
    };
    let expiring = |key: &str, after_ms: i64| {
        Operation::Put(Put {
            key: key.to_owned().into(),
            value: "x".into(),
            expires_at_ms: Some(now_ms + after_ms),
            stamp,
        })
    };
    let transaction = Transaction::new()
        .operation(expiring("/a/soon", 2_000))
        .operation(expiring("/a/later", 3_600_000))
        .put("/a/never", "x");
    let commit = replica.commit(transaction).await.unwrap();
    let table = replica.table(b"/a/").unwrap();
    let kept = table.get(b"/a/soon").unwrap();
    assert_eq!(
        (kept.record.stamp, kept.record.expires_at_ms),
        (stamp, Some(now_ms + 2_000))
    );
    let mut watch = table.watch_from(commit.revision, Interest::All).unwrap();
    let gone = tokio::time::timeout(COMES, watch.next()).await.unwrap().unwrap();
    assert_eq!(
        (&gone.events[0].key()[..], gone.events[0].after.is_none()),
        (&b"/a/soon"[..], true)
    );
    assert!(
        base::Clock::real().now_ms() >= now_ms + 2_000,
        "it went before its time"
    );
    assert!(gone.events[0].revision > commit.revision);
    // That revision came from etcd itself: a consistent read is not behind it.
    assert!(replica.consistent().await.unwrap() >= gone.events[0].revision);
    assert_eq!(table.snapshot().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_all_servers_compacts() {
    let cluster = Cluster::start(1, &[]).await;
    let interval = Duration::from_millis(300);
    let quick = |options: &mut store::EtcdOptions| options.compaction_interval = Some(interval);
    let (one, two) = (cluster.open_with(quick).await, cluster.open_with(quick).await);
    let first = put(&*one, "/a/1", "x").await;
    // Time passes by writes: each looks whether the first one's history is gone.
    let gone = tokio::time::timeout(COMES, async {
        loop {
            put(&*two, "/a/1", "y").await;
            if let Err(EngineError::Compacted { oldest }) = one.range(KeyRange::all(), Some(first)).await {
                return oldest;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(gone.await.expect("somebody compacts") > first);
    // What is newer than an interval stays. A busy machine may take longer than that for the question.
    loop {
        let begin = Instant::now();
        let now = put(&*two, "/a/1", "z").await;
        let found = one.range(KeyRange::all(), Some(now)).await;
        if begin.elapsed() < interval {
            found.unwrap();
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_says_so_and_recovers() {
    // The smallest quota that takes anything.
    let cluster = Cluster::start(1, &["--quota-backend-bytes", "200000"]).await;
    let engine = cluster.open().await;
    let mut index = 0;
    let refused = loop {
        index += 1;
        match engine
            .commit(Transaction::new().put(format!("/a/{index}"), vec![0; 50_000]))
            .await
        {
            Ok(_) if index < 100 => {}
            other => break other,
        }
    };
    assert!(matches!(refused, Err(CommitError::Full)), "{refused:?}");
    assert!(!dump(&*engine).await.is_empty(), "reads go on");
    engine
        .commit(Transaction::new().operation(Operation::Delete("/a/1".into())))
        .await
        .unwrap();
}
