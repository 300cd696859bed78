//! The etcd front under the etcd engine: what an API server of several servers asks of an etcd, asked of ours. And under a
//! client of plain messages: what a kube-apiserver sends.

mod foreign;
mod watch;

use std::sync::Arc;

use base::{Clock, Random};
use bytes::Bytes;
use store::testing::workload::Text;
use store::{
    CommitError, Embedded, EmbeddedOptions, Engine, Etcd, EtcdOptions, Front, FrontOptions, Guard, Interest, Operation,
    Put, Replica, Stamp, Transaction,
};
use tokio::net::TcpListener;

use crate::support::{World, dump, put};

/// A front over a store, on loopback and without TLS.
async fn served() -> (Arc<Embedded>, Etcd) {
    let world = World::new(1);
    // As `trireme store` does: an empty etcd is at revision 1.
    let opened = Embedded::open(EmbeddedOptions {
        raise_revisions_by: 1,
        ..world.options()
    });
    let engine = Arc::new(opened.await.unwrap());
    let options = FrontOptions {
        read_only: Vec::new(),
        advertised: Vec::new(),
        clock: Clock::real(),
        random: Random::seeded(2),
    };
    let front = Front::new(engine.clone(), options).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let front = front.clone();
            tokio::spawn(async move { front.serve(stream).await });
        }
    });
    let options = EtcdOptions {
        prefix: "/kube".into(),
        root: String::new(),
        ..EtcdOptions::new([format!("http://{address}")])
    };
    (engine, Etcd::open(options).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_etcd_engine_works_on_it() {
    let (_below, engine) = served().await;
    let engine = Arc::new(engine);
    let tables = [Bytes::from_static(b"/a/"), Bytes::from_static(b"/b/")];
    let replica = Replica::open(engine.clone(), Clock::real(), tables, Text::build)
        .await
        .unwrap();
    let table = replica.table(b"/a/").unwrap();
    let mut watch = table.watch_from(table.snapshot().revision(), Interest::All).unwrap();

    let created = replica.commit(Transaction::create("/a/1", "one")).await.unwrap();
    let Err(CommitError::GuardFailed { current, .. }) = replica.commit(Transaction::create("/a/1", "two")).await else {
        panic!("it was created twice");
    };
    assert_eq!(current.unwrap().mod_revision, created.revision);
    let updated = replica
        .commit(Transaction::update("/a/1", created.revision, "two"))
        .await
        .unwrap();
    let stale = replica
        .commit(Transaction::update("/a/1", created.revision, "three"))
        .await;
    assert!(matches!(stale, Err(CommitError::GuardFailed { .. })));
    let both = Transaction::delete("/a/1", updated.revision)
        .guard(Guard::Absent("/b/1".into()))
        .put("/b/1", "x");
    let both = replica.commit(both).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let batch = watch.next().await.unwrap();
        seen.extend(
            batch
                .events
                .iter()
                .map(|event| (event.revision, event.after.as_ref().map(|it| it.value.0.clone()))),
        );
    }
    let expect = [
        (created.revision, Some("one".to_owned())),
        (updated.revision, Some("two".to_owned())),
        (both.revision, None),
    ];
    assert_eq!(seen, expect);
    assert_eq!(dump(&*engine).await, [("/b/1".to_owned(), "x".to_owned())]);
    // Reads that are as new as anything acknowledged.
    for index in 0..20 {
        let revision = put(&*engine, &format!("/a/{index}"), "v").await;
        assert!(replica.consistent().await.unwrap() >= revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_goes_with_its_lease() {
    let (_below, engine) = served().await;
    let begin = engine.progress().await.unwrap().revision;
    let mut stream = engine.stream(begin).await.unwrap();
    let short = Put {
        key: "/a/short".into(),
        value: "v".into(),
        expires_at_ms: Some(Clock::real().now_ms() + 1000),
        stamp: Stamp::default(),
    };
    engine
        .commit(Transaction::new().operation(Operation::Put(short)))
        .await
        .unwrap();
    let mut deleted = false;
    while !deleted {
        let batch = stream.next().await.unwrap();
        let changes = batch.commits.iter().flat_map(|commit| &commit.changes);
        deleted = changes
            .into_iter()
            .any(|change| change.key == "/a/short" && change.after.is_none());
    }
    assert!(dump(&engine).await.is_empty());
}
