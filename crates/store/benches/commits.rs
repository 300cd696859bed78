//! Durable writes a second, beside what the disk itself can do: `cargo bench -p store`.
//!
//! 64 clients write 2 kB values, each waiting for its answer; through the engine alone, then through a replica. The anchor
//! is one thread that appends 2 kB and syncs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::Clock;
use base::disk::{Disk, DiskFile, OpenMode, RealDisk};
use bytes::Bytes;
use store::{Embedded, EmbeddedOptions, Engine, Interest, Replica, Transaction};
use tokio::time::Instant;

const CLIENTS: u64 = 64;
const VALUE_BYTES: usize = 2048;
const KEYS: u64 = 20_000;
const SPAN: Duration = Duration::from_secs(4);
/// The measurement whose figures go into the table of `cargo xtask bench`.
const ENGINE: &str = "engine";

fn main() {
    // On the disk of the build directory: /tmp is often memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = directory.path().to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!("fdatasync of {VALUE_BYTES} bytes, one thread: {:.0}/s", syncs(&path));
    runtime.block_on(async {
        let engine = Arc::new(
            Embedded::open(EmbeddedOptions::new(path.join("store")))
                .await
                .expect("a store"),
        );
        let commit = |engine: Arc<Embedded>, transaction| async move { engine.commit(transaction).await.map(drop) };
        measure(ENGINE, engine.clone(), commit).await;
        let tables = [Bytes::from_static(b"/bench/")];
        let replica = Replica::open(engine.clone(), Clock::real(), tables, |_| ())
            .await
            .expect("a replica");
        let commit = |replica: Replica<()>, transaction| async move { replica.commit(transaction).await.map(drop) };
        measure("replica", replica.clone(), commit).await;
        let table = replica.table(b"/bench/").expect("a table");
        let watchers: Vec<_> = (0..1000)
            .map(|_| {
                let mut cursor = table.watch_from(replica.revision(), Interest::All).expect("a watch");
                tokio::spawn(async move {
                    let mut seen = 0;
                    while let Ok(batch) = cursor.next().await {
                        seen += batch.events.len();
                    }
                    seen
                })
            })
            .collect();
        measure("replica with 1000 watchers of everything", replica.clone(), commit).await;
        let started = Instant::now();
        let bytes: usize = table.snapshot().iter().map(|entry| entry.bytes().len()).sum();
        println!(
            "walk of {} entries, {bytes} bytes: {:?}",
            table.snapshot().len(),
            started.elapsed()
        );
        let files: u64 = std::fs::read_dir(engine.directory())
            .expect("a directory")
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|metadata| metadata.len())
            .sum();
        println!(
            "live {} bytes, files {files} bytes: {:.2} x",
            engine.live_bytes(),
            files as f64 / engine.live_bytes() as f64
        );
        println!("resident: {}", resident());
        watchers.iter().for_each(|watcher| watcher.abort());
        drop((replica, table));
        engine.close().await;
        let (started, used) = (Instant::now(), cpu());
        let engine = Embedded::open(EmbeddedOptions::new(path.join("store")))
            .await
            .expect("a store");
        println!("opened again in {:?}, {:.2} s CPU", started.elapsed(), cpu() - used);
        let tables = [Bytes::from_static(b"/bench/")];
        let engine = Arc::new(engine);
        let (started, used) = (Instant::now(), cpu());
        let replica = Replica::open(engine.clone(), Clock::real(), tables, |_| ())
            .await
            .expect("a replica");
        println!(
            "replica in {:?}, {:.2} s CPU, revision {}",
            started.elapsed(),
            cpu() - used,
            replica.revision()
        );
        engine.close().await;
    });
}

fn syncs(directory: &Path) -> f64 {
    let mut file = RealDisk
        .open(&directory.join("anchor"), OpenMode::CreateNew)
        .expect("a file");
    let started = std::time::Duration::from_secs(2);
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < started {
        append_and_sync(&mut *file);
        count += 1;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

fn append_and_sync(file: &mut dyn DiskFile) {
    file.append(&[7; VALUE_BYTES]).expect("an append");
    file.sync_data().expect("a sync");
}

async fn measure<S, F, E>(name: &str, subject: S, commit: impl Fn(S, Transaction) -> F + Copy + Send + 'static)
where
    S: Clone + Send + 'static,
    F: Future<Output = Result<(), E>> + Send,
    E: std::fmt::Debug + Send,
{
    let count = Arc::new(AtomicU64::new(0));
    let (before, begin) = (cpu(), Instant::now());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (subject, count) = (subject.clone(), count.clone());
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                while begin.elapsed() < SPAN {
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    let key = format!("/bench/{client}/{:05}", number % KEYS);
                    let started = Instant::now();
                    let transaction = Transaction::new().put(key, vec![b'x'; VALUE_BYTES]);
                    commit(subject.clone(), transaction).await.expect("a commit");
                    slowest = slowest.max(started.elapsed());
                }
                slowest
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for client in clients {
        slowest = slowest.max(client.await.expect("a client"));
    }
    let (commits, seconds) = (count.load(Ordering::Relaxed) as f64, begin.elapsed().as_secs_f64());
    let each = (cpu() - before) / commits * 1e6;
    println!(
        "{name}: {:.0} commits/s, slowest {slowest:?}, {each:.1} us CPU each (clients included)",
        commits / seconds
    );
    if name == ENGINE {
        let conditions = format!("values of {VALUE_BYTES} bytes, {CLIENTS} clients in the process, their CPU included");
        println!("figure store.rate {:.0} {conditions}", commits / seconds);
        println!("figure store.cpu {each:.2} {conditions}");
    }
}

/// Kilobytes of memory of this process.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.unwrap_or_default().trim().to_owned()
}

/// Seconds of processor time of this process.
fn cpu() -> f64 {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = usage
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .filter_map(|field| field.parse().ok())
        .collect();
    // After the name: state is not a number, so user and system time are the 11th and 12th numbers, in ticks of 10 ms.
    fields
        .get(10)
        .zip(fields.get(11))
        .map_or(0.0, |(user, system)| (user + system) / 100.0)
}
