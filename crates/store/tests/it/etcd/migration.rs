//! A state that is moved into a real etcd and back.

use std::sync::Arc;

use base::Clock;
use bytes::Bytes;
use store::testing::workload::Text;
use store::{
    Begun, Contents, Embedded, EmbeddedOptions, Engine, EngineError, Etcd, EtcdOptions, MigrateError, OpenEtcdError,
    Operation, Put, Replica, Stamp, ToEtcd, Transaction, revision_after, to_embedded,
};

use super::cluster::Cluster;
use crate::support::{dump, put};

/// More than one transaction of etcd takes, and one value that needs one of its own.
const KEYS: usize = 300;
const LARGE: usize = 1024 * 1024 + 7;

fn options(cluster: &Cluster) -> EtcdOptions {
    EtcdOptions {
        root: "/registry".into(),
        prefix: "/elsewhere".into(),
        ..cluster.options()
    }
}

async fn source(directory: &std::path::Path) -> Embedded {
    let engine = Embedded::open(EmbeddedOptions::new(directory)).await.unwrap();
    for part in 0..3 {
        let puts = (0..KEYS / 3).fold(Transaction::new(), |batch, index| {
            batch.put(format!("/registry/a/{part}-{index:03}"), format!("value {index}"))
        });
        engine.commit(puts).await.unwrap();
    }
    let stamped = |key: &str, value: Bytes, expires_in_ms: Option<i64>| {
        Operation::Put(Put {
            key: key.to_owned().into(),
            value,
            expires_at_ms: expires_in_ms.map(|ms| Clock::real().now_ms() + ms),
            stamp: Stamp {
                sealing_key: 7,
                schema_epoch: 3,
            },
        })
    };
    let sealed = Transaction::new()
        .operation(stamped("/registry/b/sealed", "\0\u{1}sealed".into(), None))
        .operation(stamped("/registry/b/expires", "soon".into(), Some(3_600_000)))
        .operation(stamped("/registry/b/large", vec![b'x'; LARGE].into(), None));
    engine.commit(sealed).await.unwrap();
    // The API server's own, which is of no use in an etcd.
    put(&engine, "/trireme/born", "1").await;
    engine
}

async fn begin(cluster: &Cluster, source: &Embedded) -> Result<Begun, MigrateError> {
    let contents = Contents::read(source, "/registry").await.unwrap();
    assert_eq!(contents.outside(), ["/trireme/born"]);
    let above = revision_after(contents.revision, Clock::real().now_ms());
    ToEtcd::begin(options(cluster), source.store_id(), contents, above, false).await
}

async fn open(cluster: &Cluster, source: &Embedded) -> ToEtcd {
    match begin(cluster, source).await.unwrap() {
        Begun::Open(moving) => moving,
        Begun::Done(revision) => panic!("it was done at {revision}"),
    }
}

fn same(one: &Contents, other: &Contents) {
    let of = |contents: &Contents| {
        let records = contents.records().iter();
        let of = |record: &Arc<store::Record>| {
            (
                record.key.clone(),
                record.value.clone(),
                record.stamp,
                record.expires_at_ms,
            )
        };
        records.map(of).collect::<Vec<_>>()
    };
    assert!(of(one) == of(other), "the two are not the same");
    assert_eq!(one.digest(), other.digest());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_moved_and_moved_back() {
    let cluster = Cluster::start(1, &[]).await;
    // As soon as it answers; what lies elsewhere in it is nobody's hindrance.
    let other = cluster.open().await;
    put(&*other, "/x", "y").await;
    let directory = tempfile::tempdir().unwrap();
    let source = source(&directory.path().join("source")).await;

    // What is to be finished only is not begun.
    let contents = Contents::read(&source, "/registry").await.unwrap();
    let refused = ToEtcd::begin(options(&cluster), source.store_id(), contents, 1, true).await;
    assert!(matches!(refused, Err(MigrateError::NotThere)));

    // Interrupted after all was written: nobody takes it for a store, and nobody else's state goes there.
    let first = open(&cluster, &source).await;
    assert_eq!(first.copy().await.unwrap(), KEYS + 3);
    let refused = Etcd::open(options(&cluster)).await;
    assert!(matches!(refused, Err(OpenEtcdError::Unfinished)));
    let stranger = self::source(&directory.path().join("stranger")).await;
    let refused = begin(&cluster, &stranger).await;
    assert!(matches!(refused, Err(MigrateError::AnotherStore)));

    // The source went on meanwhile. The next attempt writes what is different, and the first one nothing any more.
    put(&source, "/registry/a/0-000", "changed").await;
    let delete = Transaction::new().operation(Operation::Delete("/registry/a/1-001".into()));
    source.commit(delete).await.unwrap();
    let second = open(&cluster, &source).await;
    assert!(matches!(second.verify().await, Err(MigrateError::Different(_))));
    assert_eq!(second.copy().await.unwrap(), 2);
    assert!(matches!(first.copy().await, Err(MigrateError::TakenOver)));
    assert!(matches!(first.finish().await, Err(MigrateError::TakenOver)));
    let before = Contents::read(&source, "/registry").await.unwrap();
    assert_eq!(second.verify().await.unwrap(), before.digest());
    let revision = second.finish().await.unwrap();
    assert!(revision > before.revision);
    assert!(matches!(begin(&cluster, &source).await, Ok(Begun::Done(done)) if done >= revision));
    assert!(matches!(
        begin(&cluster, &stranger).await,
        Err(MigrateError::NotEmpty(_))
    ));

    // Servers find everything there, above all that clients have seen.
    let moved = Arc::new(Etcd::open(options(&cluster)).await.unwrap());
    let after = Contents::read(&*moved, "/registry").await.unwrap();
    same(&before, &after);
    assert!(
        after
            .records()
            .iter()
            .all(|record| record.mod_revision > before.revision)
    );
    let past = moved.stream(before.revision).await;
    assert!(matches!(past, Err(EngineError::Compacted { .. })));
    let tables = [Bytes::from_static(b"/registry/a/")];
    let replica = Replica::open(moved.clone(), Clock::real(), tables, Text::build).await;
    let replica = replica.unwrap();
    let written = replica
        .commit(Transaction::create("/registry/a/new", "1"))
        .await
        .unwrap();
    assert!(written.revision > revision);
    drop(replica);

    // And back.
    let target = EmbeddedOptions::new(directory.path().join("back"));
    let there = Contents::read(&*moved, "/registry").await.unwrap();
    let back = to_embedded(&there, target.clone(), 0).await.unwrap();
    assert!(back.new_revision > written.revision && back.revision >= written.revision);
    let opened = Embedded::open(target).await.unwrap();
    let here = Contents::read(&opened, "/registry").await.unwrap();
    same(&there, &here);
    assert_eq!(here.records().len(), before.records().len() + 1);
    assert!(
        here.records()
            .iter()
            .all(|record| record.mod_revision > written.revision - 1)
    );
    assert!(opened.stream(written.revision).await.is_err());
    let newer = put(&opened, "/registry/a/newer", "1").await;
    assert!(newer > back.new_revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_writes_to_the_source_is_noticed() {
    let cluster = Cluster::start(1, &[]).await;
    let engine = cluster.open_with(|options| options.root = "/registry".into()).await;
    put(&*engine, "/registry/a/0", "v").await;
    let directory = tempfile::tempdir().unwrap();
    let contents = Contents::read(&*engine, "/registry").await.unwrap();
    let target = EmbeddedOptions::new(directory.path().join("store"));
    to_embedded(&contents, target, 0).await.unwrap();
    contents.check_unchanged(&*engine).await.unwrap();
    put(&*engine, "/registry/a/1", "v").await;
    match contents.check_unchanged(&*engine).await {
        Err(MigrateError::Written(key)) => assert_eq!(key, "/registry/a/1"),
        other => panic!("it was not noticed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_does_not_take_is_told_and_taken_up_again() {
    let directory = tempfile::tempdir().unwrap();
    let source = source(&directory.path().join("source")).await;
    let cluster = Cluster::start(1, &["--max-request-bytes", "600000"]).await;
    drop(cluster.open().await);
    let moving = open(&cluster, &source).await;
    match moving.copy().await {
        Err(MigrateError::TooLarge { key, bytes }) => {
            assert_eq!((key.as_str(), bytes), ("/registry/b/large", LARGE + key.len()));
        }
        other => panic!("it was taken: {other:?}"),
    }
    let smaller = Transaction::new().put("/registry/b/large", "small");
    source.commit(smaller).await.unwrap();
    let again = open(&cluster, &source).await;
    again.copy().await.unwrap();
    again.verify().await.unwrap();
    again.finish().await.unwrap();
    let moved = Etcd::open(options(&cluster)).await.unwrap();
    assert_eq!(dump(&moved).await.len(), KEYS + 3);
}
