//! The guarantees over three real members while one is killed, one is paused and one is cut off, with two servers at work.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::Random;
use bytes::Bytes;
use parking_lot::Mutex;
use store::testing::history::{Found, History, Outcome, Read, Seen, Through, Watch, Write};
use store::testing::workload::Text;
use store::{CommitError, Engine, Etcd, Guard, Interest, Operation, Replica, Transaction, WatchError};
use tokio::sync::watch;

use super::cluster::Cluster;
use crate::support::sweep_times;

/// Clients of each server.
const CLIENTS: usize = 4;
/// Writes that must be acknowledged during each fault, and after it: the service goes on.
const DURING: u64 = 60;
/// How long that may take: requests wait for the deadline of a member that is silent, and members on a busy machine for
/// each other. Only whether the service goes on matters.
const GOES_ON: Duration = Duration::from_secs(300);

struct Run {
    history: Mutex<History>,
    values: AtomicU64,
    acknowledged: watch::Sender<u64>,
    over: AtomicBool,
}

struct Client {
    run: Arc<Run>,
    replica: Replica<Text>,
    random: Random,
}

impl Client {
    async fn work(self) {
        while !self.run.over.load(Ordering::Relaxed) {
            match self.random.range(0..10) {
                0..3 => self.read().await,
                _ => self.write(self.transaction()).await,
            }
        }
    }

    fn key(&self) -> Bytes {
        format!("/{}/{}", ["a", "b"][self.random.index(2)], self.random.index(4)).into()
    }

    fn value(&self) -> Bytes {
        self.run.values.fetch_add(1, Ordering::Relaxed).to_string().into()
    }

    fn transaction(&self) -> Transaction {
        let key = self.key();
        let entry = self.replica.table(&key[..3]).unwrap().get(&key);
        let Some(current) = entry.map(|entry| entry.mod_revision()) else {
            return Transaction::create(key, self.value());
        };
        let other = self.key();
        match self.random.range(0..8) {
            0 => Transaction::delete(key, current),
            1 => Transaction::new().operation(Operation::Delete(key)),
            2 => Transaction::new().put(key, self.value()),
            3 => Transaction::create(key, self.value()),
            4 if other != key => Transaction::update(key, current, self.value())
                .guard(Guard::Exists(other.clone()))
                .put(other, self.value()),
            _ => Transaction::update(key, current, self.value()),
        }
    }

    async fn read(&self) {
        let invoked = self.run.history.lock().moment();
        if self.replica.consistent().await.is_err() {
            return;
        }
        let prefix = Bytes::from_static([&b"/a/"[..], b"/b/"][self.random.index(2)]);
        let snapshot = self.replica.table(&prefix).unwrap().snapshot();
        let one = |entry: &Arc<store::Entry<Text>>| (entry.key().clone(), Found::from(&*entry.record));
        let content = Some(snapshot.iter().map(one).collect());
        let mut history = self.run.history.lock();
        let returned = history.moment();
        history.reads.push(Read {
            prefix,
            revision: snapshot.revision(),
            content,
            invoked,
            returned,
            through: Some(Through::Engine),
        });
    }

    async fn write(&self, transaction: Transaction) {
        let invoked = self.run.history.lock().moment();
        let outcome = match self.replica.commit(transaction.clone()).await {
            Ok(written) => {
                self.run.acknowledged.send_modify(|count| *count += 1);
                Outcome::Committed {
                    revision: written.revision,
                    changed: written.changed,
                }
            }
            Err(CommitError::GuardFailed { key, current, revision }) => {
                let current = current.as_deref().map(Found::from);
                Outcome::GuardFailed { key, current, revision }
            }
            Err(CommitError::UnknownOutcome(_)) => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        };
        let mut history = self.run.history.lock();
        let returned = history.moment();
        history.writes.push(Write {
            transaction,
            invoked,
            returned,
            through: Through::Replica,
            outcome,
        });
    }
}

/// Watches a table and records what it sees, until the run is over.
async fn watch_table(run: Arc<Run>, replica: Replica<Text>, prefix: &'static [u8]) {
    let table = replica.table(prefix).unwrap();
    'restart: loop {
        let start = table.snapshot().revision();
        let mut watch = Watch {
            prefix: Bytes::from_static(prefix),
            interest: Interest::All,
            start,
            end: start,
            knows_before: true,
            batches: Vec::new(),
        };
        let Ok(mut cursor) = table.watch_from(start, Interest::All) else {
            continue;
        };
        loop {
            let batch = match tokio::time::timeout(Duration::from_millis(200), cursor.next()).await {
                Err(_) if run.over.load(Ordering::Relaxed) => {
                    run.history.lock().watches.push(watch);
                    return;
                }
                Err(_) => continue,
                Ok(Ok(batch)) => batch,
                Ok(Err(WatchError::Expired { .. })) => {
                    run.history.lock().watches.push(watch);
                    continue 'restart;
                }
                Ok(Err(WatchError::Closed)) => panic!("the replica ended"),
            };
            let value = |entry: &Option<Arc<store::Entry<Text>>>| entry.as_ref().map(|entry| entry.bytes().clone());
            let seen = |event: &Arc<store::Event<Text>>| Seen {
                revision: event.revision,
                key: event.key().clone(),
                before: value(&event.before),
                after: value(&event.after),
            };
            watch.batches.push(batch.events.iter().map(seen).collect());
            watch.end = batch.revision;
            let mut history = run.history.lock();
            let now = history.moment();
            history.deliveries.push((now, batch.revision));
        }
    }
}

/// Waits until the service has acknowledged so many writes more.
async fn goes_on(run: &Run, what: &str) {
    let mut acknowledged = run.acknowledged.subscribe();
    let wanted = *acknowledged.borrow() + DURING;
    let waiting = acknowledged.wait_for(|count| *count >= wanted);
    let waited = tokio::time::timeout(GOES_ON, waiting).await.is_ok();
    assert!(
        waited,
        "no service {what}: {} of {wanted} writes",
        *run.acknowledged.borrow()
    );
}

/// Asks until there is an answer: members that elect a leader have none.
async fn patiently<T, E: Display, F: Future<Output = Result<T, E>>>(what: &str, ask: impl Fn() -> F) -> T {
    let answered = tokio::time::timeout(GOES_ON, async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => eprintln!("not yet {what}: {error}"),
            }
        }
    });
    answered.await.unwrap_or_else(|_| panic!("no {what} in time"))
}

/// The whole truth, from a stream of the engine's own.
async fn truth(engine: &Etcd, begin: u64, history: &mut History) {
    let end = patiently("progress", || engine.progress()).await.revision;
    let mut stream = patiently("a stream", || engine.stream(begin)).await;
    let mut at = begin;
    while at < end {
        let batch = stream.next().await.unwrap();
        for commit in &batch.commits {
            history.commit(commit);
        }
        at = at.max(batch.progress);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_die_stop_and_fall_silent() {
    for _ in 0..sweep_times() {
        members_fail().await;
    }
}

async fn members_fail() {
    let seed = Random::real().range(0..u64::MAX);
    println!("seed {seed}");
    let random = Random::seeded(seed);
    let mut cluster = Cluster::start(3, &[]).await;
    let servers = [cluster.open().await, cluster.open().await];
    let begin = patiently("progress", || servers[0].progress()).await.revision;
    let history = History {
        has_foreign_revisions: true,
        ..History::default()
    };
    let run = Arc::new(Run {
        history: Mutex::new(history),
        values: AtomicU64::new(0),
        acknowledged: watch::Sender::new(0),
        over: AtomicBool::new(false),
    });
    let mut tasks = Vec::new();
    for server in &servers {
        let tables = [Bytes::from_static(b"/a/"), Bytes::from_static(b"/b/")];
        let replica = patiently("a replica", || {
            Replica::open(server.clone(), base::Clock::real(), tables.clone(), Text::build)
        })
        .await;
        tasks.push(tokio::spawn(watch_table(run.clone(), replica.clone(), b"/a/")));
        tasks.push(tokio::spawn(watch_table(run.clone(), replica.clone(), b"/b/")));
        for _ in 0..CLIENTS {
            let client = Client {
                run: run.clone(),
                replica: replica.clone(),
                random: random.fork(),
            };
            tasks.push(tokio::spawn(client.work()));
        }
    }
    goes_on(&run, "at first").await;
    cluster.kill(0);
    goes_on(&run, "with a dead member").await;
    cluster.run(0);
    // Before the next one fails, each is a member again: else the two that are left are no majority.
    cluster.answers(0).await;
    goes_on(&run, "after a restart").await;
    cluster.pause(1, true);
    goes_on(&run, "with a stopped member").await;
    cluster.pause(1, false);
    cluster.answers(1).await;
    goes_on(&run, "after it went on").await;
    cluster.members[2].proxy.cut(true);
    goes_on(&run, "with a silent member").await;
    cluster.members[2].proxy.cut(false);
    goes_on(&run, "after it was heard again").await;
    run.over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let mut history = std::mem::take(&mut *run.history.lock());
    truth(&servers[0], begin, &mut history).await;
    let unknown = history
        .writes
        .iter()
        .filter(|write| matches!(write.outcome, Outcome::Unknown))
        .count();
    println!(
        "{} writes ({unknown} unknown), {} reads, {} watches",
        history.writes.len(),
        history.reads.len(),
        history.watches.len()
    );
    assert!(!history.reads.is_empty() && history.watches.iter().any(|watch| !watch.batches.is_empty()));
    let found = history.check();
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_promised() {
    let mut cluster = Cluster::start(3, &[]).await;
    let engine = cluster.open().await;
    let first = engine.commit(Transaction::create("/a/1", "x")).await.unwrap().revision;
    let mut stream = engine.stream(first).await.unwrap();
    cluster.kill(0);
    cluster.kill(1);
    // Neither is answered as if it had happened, and none waits for ever.
    let write = engine.commit(Transaction::update("/a/1", first, "y")).await;
    assert!(
        matches!(write, Err(CommitError::Unavailable(_) | CommitError::UnknownOutcome(_))),
        "{write:?}"
    );
    assert!(engine.progress().await.is_err());
    cluster.run(0);
    // The same write is still possible, or it has happened.
    let again = loop {
        match engine.commit(Transaction::update("/a/1", first, "z")).await {
            Ok(commit) => break commit.revision,
            Err(CommitError::GuardFailed { current, .. }) => break current.unwrap().mod_revision,
            Err(_) => {}
        }
    };
    let batch = stream.next().await.unwrap();
    assert_eq!(batch.commits[0].revision, again);
}
