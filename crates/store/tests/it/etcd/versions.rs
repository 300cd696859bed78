//! The paths that a test cannot have from Debian's etcd: progress answers of newer versions, true and false, lost answers,
//! and a cluster that is replaced.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::{CommitError, Engine, Etcd, EtcdOptions, Interest, Replica, Transaction, WatchError};
use tonic::Status;

use super::fake::{Fake, Progress, Trouble};
use store::testing::workload::Text;

use crate::support::put;

/// Long enough for anything that would happen by mistake.
const A_WHILE: Duration = Duration::from_millis(300);

async fn open(fake: &Fake, prefix: &str) -> Arc<Etcd> {
    let mut options = EtcdOptions::new([fake.address.clone()]);
    (options.root, options.prefix) = ("/".into(), prefix.into());
    options.compaction_interval = None;
    Arc::new(Etcd::open(options).await.unwrap())
}

async fn replica(engine: &Arc<Etcd>) -> Replica<Text> {
    let tables = [Bytes::from_static(b"/a/")];
    Replica::open(engine.clone(), base::Clock::real(), tables, Text::build)
        .await
        .unwrap()
}

fn is_fenced(fake: &Fake) -> bool {
    fake.set(|state| state.keys.keys().any(|key| key.ends_with(b"/.trireme/fence")))
}

/// A replica and its fake, after a revision of somebody else's.
async fn behind(version: &str, progress: Progress) -> (Fake, Replica<Text>, u64) {
    let fake = Fake::start(version).await;
    fake.set(|state| state.progress = progress);
    let engine = open(&fake, "/test").await;
    let replica = replica(&engine).await;
    replica.commit(Transaction::create("/a/1", "x")).await.unwrap();
    assert!(!is_fenced(&fake), "nothing was behind yet");
    let foreign = put(&*open(&fake, "/elsewhere").await, "/a/1", "x").await;
    (fake, replica, foreign)
}

#[tokio::test]
async fn a_foreign_revision_is_reached_by_asking_where_answers_are_true() {
    for (version, progress, asks, fences) in [
        ("3.4.31", Progress::True, true, false),
        ("3.5.13", Progress::True, true, false),
        ("3.6.1", Progress::True, true, false),
        // Too old to be believed: never asked.
        ("3.4.23", Progress::Early, false, true),
        ("3.5.12", Progress::Early, false, true),
        // New enough, but no help: a write of the engine's own gets there.
        ("3.6.1", Progress::Silent, true, true),
        ("3.6.1", Progress::Old, true, true),
    ] {
        let (fake, replica, foreign) = behind(version, progress).await;
        assert!(replica.consistent().await.unwrap() >= foreign, "{version}");
        let requests = fake.set(|state| state.progress_requests);
        assert_eq!(
            (requests > 0, is_fenced(&fake)),
            (asks, fences),
            "{version} {progress:?}"
        );
    }
}

#[tokio::test]
async fn no_read_is_ahead_of_the_watch() {
    for (version, progress) in [
        ("3.4.23", Progress::Early),
        ("3.5.12", Progress::Early),
        ("3.6.1", Progress::True),
    ] {
        let fake = Fake::start(version).await;
        fake.set(|state| state.progress = progress);
        let (one, two) = (open(&fake, "/test").await, open(&fake, "/test").await);
        let reader = replica(&two).await;
        reader.consistent().await.unwrap();
        fake.set(|state| state.held = true);
        let written = put(&*one, "/a/1", "x").await;
        let consistent = reader.consistent();
        tokio::pin!(consistent);
        assert!(
            tokio::time::timeout(A_WHILE, &mut consistent).await.is_err(),
            "{version}: it was told too early"
        );
        fake.set(|state| state.held = false);
        assert!(consistent.await.unwrap() >= written);
        let found = reader
            .table(b"/a/")
            .unwrap()
            .get(b"/a/1")
            .map(|entry| entry.mod_revision());
        assert_eq!(found, Some(written), "{version}");
    }
}

#[tokio::test]
async fn a_silent_watch_is_given_up_by_those_who_only_write() {
    for version in ["3.4.23", "3.6.1"] {
        let fake = Fake::start(version).await;
        let replica = replica(&open(&fake, "/test").await).await;
        replica.commit(Transaction::create("/a/1", "x")).await.unwrap();
        fake.silence_watches();
        // It is done when readers see it, for which this watch would wait for ever.
        replica.commit(Transaction::create("/a/2", "x")).await.unwrap();
        assert!(!is_fenced(&fake), "{version}: a write of its own needs no other");
    }
}

#[tokio::test]
async fn revisions_come_whole_and_once() {
    let fake = Fake::start("3.6.1").await;
    fake.set(|state| (state.fragmented, state.replays) = (true, true));
    let engine = open(&fake, "/test").await;
    let begin = engine.progress().await.unwrap().revision;
    let mut stream = engine.stream(begin).await.unwrap();
    let mut expect = Vec::new();
    for round in 0..3 {
        let three = (0..3).fold(Transaction::new(), |three, index| {
            three.put(format!("/a/{index}"), format!("{round}"))
        });
        expect.push((engine.commit(three).await.unwrap().revision, 3));
        // What resumes begins too early.
        fake.break_watches();
    }
    let mut seen = Vec::new();
    while seen.len() < expect.len() {
        let batch = stream.next().await.unwrap();
        seen.extend(
            batch
                .commits
                .iter()
                .map(|commit| (commit.revision, commit.changes.len())),
        );
    }
    assert_eq!(seen, expect);
}

#[tokio::test]
async fn a_replaced_cluster_is_read_anew_and_time_does_not_go_back() {
    let fake = Fake::start("3.6.1").await;
    let (one, two) = (open(&fake, "/test").await, open(&fake, "/test").await);
    let (first, second) = (replica(&one).await, replica(&two).await);
    for index in 0..20 {
        put(&*one, &format!("/a/{index}"), "old").await;
    }
    let before = second
        .consistent()
        .await
        .unwrap()
        .max(first.consistent().await.unwrap());
    let table = first.table(b"/a/").unwrap();
    let mut watch = table.watch_from(before, Interest::All).unwrap();
    fake.replace(2, 5, &[("/test/a/7", "new")]);
    for replica in [&first, &second] {
        let after = loop {
            match replica.consistent().await {
                Ok(revision) => break revision,
                Err(error) => eprintln!("not yet: {error}"),
            }
        };
        assert!(after > before, "{after} after {before}");
        let table = replica.table(b"/a/").unwrap();
        assert_eq!(table.snapshot().len(), 1);
        assert_eq!(table.get(b"/a/7").unwrap().value, Text("new".into()));
    }
    assert!(matches!(watch.next().await, Err(WatchError::Expired { .. })));
    // Both agree on what a revision is, and so does one that starts now.
    let written = first.commit(Transaction::create("/a/8", "x")).await.unwrap().revision;
    assert!(second.consistent().await.unwrap() >= written);
    assert_eq!(
        second.table(b"/a/").unwrap().get(b"/a/8").unwrap().mod_revision(),
        written
    );
    let late = replica(&open(&fake, "/test").await).await;
    assert_eq!(
        late.table(b"/a/").unwrap().get(b"/a/8").unwrap().mod_revision(),
        written
    );
    first.commit(Transaction::update("/a/8", written, "y")).await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_looked_after() {
    let fake = Fake::start("3.6.1").await;
    let engine = open(&fake, "/test").await;
    let lost = || Trouble::Lost(Status::unavailable("etcdserver: request timed out"));
    let refused = || Trouble::Refused(Status::unavailable("connection reset"));
    let start = put(&*engine, "/a/1", "first").await;
    let revision = || fake.set(|state| state.keys[&b"/test/a/1"[..]].mod_revision) as u64;

    // A pinned write is sent again, and whichever copy happened is found.
    fake.set(|state| state.trouble = vec![lost()]);
    let commit = engine
        .commit(Transaction::update("/a/1", start, "second"))
        .await
        .unwrap();
    assert_eq!((commit.revision, commit.changed), (revision(), true));
    fake.set(|state| state.trouble = vec![refused(), refused()]);
    let commit = engine
        .commit(Transaction::update("/a/1", commit.revision, "third"))
        .await
        .unwrap();
    assert_eq!(commit.revision, revision());

    // A creation is not sent again; it is found, or nothing is known.
    fake.set(|state| state.trouble = vec![lost()]);
    assert!(engine.commit(Transaction::create("/a/2", "x")).await.unwrap().changed);
    fake.set(|state| state.trouble = vec![refused()]);
    let unknown = engine.commit(Transaction::create("/a/3", "x")).await;
    assert!(matches!(unknown, Err(CommitError::UnknownOutcome(_))), "{unknown:?}");
    assert!(
        !fake.set(|state| state.keys.contains_key(&b"/test/a/3"[..])),
        "it was sent again"
    );

    // A deletion leaves no trace.
    fake.set(|state| state.trouble = vec![lost()]);
    let unknown = engine.commit(Transaction::delete("/a/1", commit.revision)).await;
    assert!(matches!(unknown, Err(CommitError::UnknownOutcome(_))), "{unknown:?}");
}

#[tokio::test]
async fn refusals_have_their_names() {
    let fake = Fake::start("3.6.1").await;
    let engine = open(&fake, "/test").await;
    type Check = fn(&CommitError) -> bool;
    let cases: [(Status, Check); 5] = [
        (
            Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
            |error| matches!(error, CommitError::Full),
        ),
        (Status::resource_exhausted("etcdserver: too many requests"), |error| {
            matches!(error, CommitError::Overloaded)
        }),
        (Status::invalid_argument("etcdserver: request is too large"), |error| {
            matches!(error, CommitError::TooLarge { .. })
        }),
        (Status::permission_denied("etcdserver: permission denied"), |error| {
            matches!(error, CommitError::Unavailable(_))
        }),
        (
            Status::invalid_argument("etcdserver: duplicate key given in txn request"),
            |error| matches!(error, CommitError::Invalid(_)),
        ),
    ];
    for (status, check) in cases {
        let message = status.message().to_owned();
        fake.set(|state| state.trouble = vec![Trouble::Refused(status)]);
        let error = engine.commit(Transaction::new().put("/a/1", "x")).await.unwrap_err();
        assert!(check(&error), "{message}: {error:?}");
    }
}
