//! The same client program over several engines, side by side: `cargo bench -p store --bench engines -- [OPTION...]`.
//!
//! - `--etcd`: also Debian's `etcd`, started here on loopback with its data beside ours;
//! - `--endpoint NAME=URL`: also whatever speaks etcd's API there (`trireme server --etcd-listen`, `trireme store`);
//! - `--without-engine`: not the embedded engine by itself;
//! - `--seconds N`: how long each rate is measured (3);
//! - `--keys N`: keys of the store whose start and memory are measured (1,000,000; 0: none).
//!
//! Every write waits until it is durable. What is reached over a network or not differs: the embedded engine alone is a
//! function call, everything else gRPC over loopback. Prints `figure NAME VALUE CONDITIONS`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use store::{
    Embedded, EmbeddedOptions, Engine, Etcd, EtcdOptions, ImportedState, KeyRange, Record, Stamp, Transaction,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Keys that the clients of a rate write to.
const KEYS: u64 = 10_000;
/// Keys in the range that is read.
const RANGE_KEYS: u64 = 1000;
const WATCHERS: usize = 1000;
/// Writes that all watchers see.
const WATCHED_WRITES: u64 = 300;
/// What a client of a loaded key-value store has at most: etcd's own limit is 128.
const LOAD_OPERATIONS: u64 = 100;

struct Options {
    etcd: bool,
    engine: bool,
    endpoints: Vec<(String, String)>,
    seconds: u64,
    keys: u64,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            etcd: false,
            engine: true,
            endpoints: Vec::new(),
            seconds: 3,
            keys: 1_000_000,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value after the option");
            match word.as_str() {
                "--etcd" => options.etcd = true,
                "--without-engine" => options.engine = false,
                "--endpoint" => {
                    let value = value();
                    let (name, url) = value.split_once('=').expect("NAME=URL");
                    options.endpoints.push((name.to_owned(), url.to_owned()));
                }
                "--seconds" => options.seconds = value().parse().expect("seconds"),
                "--keys" => options.keys = value().parse().expect("a number of keys"),
                // What `cargo bench` adds.
                "--bench" => {}
                other => panic!("no such option: {other}"),
            }
        }
        options
    }
}

fn main() {
    let options = Options::read();
    // On the disk of the build directory: /tmp is often memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if options.engine {
            let store = EmbeddedOptions::new(directory.path().join("store"));
            let engine = Arc::new(Embedded::open(store).await.expect("a store"));
            measure("engine", engine.clone(), &options).await;
            engine.close().await;
            if options.keys > 0 {
                large(directory.path(), options.keys).await;
            }
        }
        if options.etcd {
            let etcd = Member::start(directory.path());
            over("etcd", &etcd.url, &options).await;
            if options.keys > 0 {
                load("etcd", &etcd.url, options.keys).await;
                figure(
                    "etcd memory",
                    f64::from(resident_kb(etcd.process.id())) / 1024.0,
                    "MiB resident",
                );
            }
        }
        for (name, url) in &options.endpoints {
            over(name, url, &options).await;
        }
    });
}

fn figure(name: &str, value: f64, conditions: &str) {
    println!("figure {} {value:.1} {conditions}", name.replace(' ', "_"));
}

async fn connect(url: &str) -> Arc<Etcd> {
    let begun = Instant::now();
    loop {
        let options = EtcdOptions {
            compaction_interval: None,
            ..EtcdOptions::new([url])
        };
        match Etcd::open(options).await {
            Ok(engine) => return Arc::new(engine),
            // It has just been started.
            Err(_) if begun.elapsed() < Duration::from_secs(20) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{url}: {error}"),
        }
    }
}

async fn over(name: &str, url: &str, options: &Options) {
    measure(name, connect(url).await, options).await;
}

async fn measure(name: &str, engine: Arc<dyn Engine>, options: &Options) {
    for bytes in [256, 2048] {
        for clients in [1, 64, 1000] {
            puts(name, &engine, clients, bytes, options.seconds).await;
        }
    }
    ranges(name, &engine, options.seconds).await;
    watches(name, &engine).await;
}

fn key(number: u64) -> String {
    format!("/registry/bench/{number:08}")
}

async fn puts(name: &str, engine: &Arc<dyn Engine>, clients: u64, bytes: usize, seconds: u64) {
    let span = Duration::from_secs(seconds);
    let (count, cpu_before, begun) = (Arc::new(AtomicU64::new(0)), cpu(), Instant::now());
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (engine, count) = (engine.clone(), count.clone());
        tasks.spawn(async move {
            let value = Bytes::from(vec![b'x'; bytes]);
            let mut latencies = Vec::new();
            let mut number = client * 7919;
            while begun.elapsed() < span {
                number += 1;
                let started = Instant::now();
                let transaction = Transaction::new().put(key(number % KEYS), value.clone());
                engine.commit(transaction).await.expect("a commit");
                latencies.push(started.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
            latencies
        });
    }
    let mut latencies: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    let (puts, elapsed) = (count.load(Ordering::Relaxed) as f64, begun.elapsed().as_secs_f64());
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let conditions = format!(
        "puts/s; p50 {:.2} ms, p99 {:.2} ms, {:.1} us CPU each here",
        at(0.5),
        at(0.99),
        (cpu() - cpu_before) / puts * 1e6
    );
    figure(
        &format!("{name} put {clients} clients {bytes} B"),
        puts / elapsed,
        &conditions,
    );
}

async fn ranges(name: &str, engine: &Arc<dyn Engine>, seconds: u64) {
    let range = KeyRange {
        lower: std::ops::Bound::Included(key(0).into()),
        upper: std::ops::Bound::Excluded(key(RANGE_KEYS).into()),
    };
    let (begun, mut records) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        records += engine.range(range.clone(), None).await.expect("a range").records.len();
    }
    let rate = records as f64 / begun.elapsed().as_secs_f64();
    figure(
        &format!("{name} range"),
        rate,
        "records/s, one client, up to 1000 at once",
    );
}

async fn watches(name: &str, engine: &Arc<dyn Engine>) {
    let after = engine.progress().await.expect("progress").revision;
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..WATCHERS {
        let mut stream = engine.stream(after).await.expect("a stream");
        tasks.spawn(async move {
            let mut seen = 0;
            while seen < WATCHED_WRITES {
                seen += stream.next().await.expect("a batch").commits.len() as u64;
            }
            seen
        });
    }
    let opened = begun.elapsed();
    let begun = Instant::now();
    let mut writes = JoinSet::new();
    for number in 0..WATCHED_WRITES {
        let engine = engine.clone();
        writes.spawn(async move {
            engine
                .commit(Transaction::new().put(key(number), vec![b'x'; 256]))
                .await
        });
    }
    for write in writes.join_all().await {
        write.expect("a commit");
    }
    let seen: u64 = tasks.join_all().await.into_iter().sum();
    let conditions = format!("deliveries/s to {WATCHERS} watchers, opened in {opened:.0?}");
    figure(
        &format!("{name} watch"),
        seen as f64 / begun.elapsed().as_secs_f64(),
        &conditions,
    );
}

/// A store of many keys: how long its start takes, and what it weighs.
async fn large(directory: &Path, keys: u64) {
    let options = EmbeddedOptions::new(directory.join("large"));
    let records = (1..=keys).map(|number| {
        Ok(Record {
            key: key(number).into(),
            value: vec![b'x'; 256].into(),
            create_revision: number,
            mod_revision: number,
            version: 1,
            stamp: Stamp::default(),
            expires_at_ms: None,
        })
    });
    let state = ImportedState {
        revision: keys,
        raise_by: 0,
    };
    let before = resident_kb(std::process::id());
    Embedded::import(options.clone(), state, records)
        .await
        .expect("an import");
    let (begun, used) = (Instant::now(), cpu());
    let engine = Embedded::open(options).await.expect("a store");
    let conditions = format!("ms, {keys} keys of 256 B, {:.2} s CPU", cpu() - used);
    figure("engine start", begun.elapsed().as_secs_f64() * 1e3, &conditions);
    let grown = f64::from(resident_kb(std::process::id()).saturating_sub(before)) / 1024.0;
    figure(
        "engine memory",
        grown,
        &format!("MiB resident more, {keys} keys of 256 B"),
    );
    engine.close().await;
}

/// As many keys into an engine, by its API.
async fn load(name: &str, url: &str, keys: u64) {
    let engine = connect(url).await;
    let (next, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let (engine, next) = (engine.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let first = next.fetch_add(LOAD_OPERATIONS, Ordering::Relaxed);
                if first >= keys {
                    return;
                }
                let puts = first..(first + LOAD_OPERATIONS).min(keys);
                let put = |transaction: Transaction, number| transaction.put(key(number), vec![b'x'; 256]);
                engine
                    .commit(puts.fold(Transaction::new(), put))
                    .await
                    .expect("a commit");
            }
        });
    }
    tasks.join_all().await;
    figure(
        &format!("{name} load"),
        begun.elapsed().as_secs_f64(),
        "s for all keys, 100 in a transaction",
    );
}

/// Debian's etcd, alone. Ends with this.
struct Member {
    process: Child,
    url: String,
}

impl Member {
    fn start(directory: &Path) -> Self {
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("an address").port()
        };
        let (url, peer) = (
            format!("http://127.0.0.1:{}", free()),
            format!("http://127.0.0.1:{}", free()),
        );
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(directory.join("etcd"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"]);
        command.args(["--quota-backend-bytes", "8589934592"]);
        let process = command
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd, of the package etcd-server");
        Self { process, url }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Kilobytes of memory of a process.
fn resident_kb(process: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Seconds of processor time of this process.
fn cpu() -> f64 {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = usage.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after_name.split(' ').filter_map(|field| field.parse().ok()).collect();
    // After the name: state is not a number, so user and system time are the 11th and 12th numbers, in ticks of 10 ms.
    let times = fields.get(10).zip(fields.get(11));
    times.map_or(0.0, |(user, system)| (user + system) / 100.0)
}
