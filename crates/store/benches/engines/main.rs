//! The same client program over several stores, side by side: `cargo xtask bench etcd`, which makes a table of it.
//!
//! - the embedded engine by itself, a function call away;
//! - the etcd front over the embedded engine, a process of its own, over gRPC on loopback;
//! - Debian's `etcd`, started here on loopback with its data beside ours, over gRPC;
//! - as a floor, a gRPC server of the front's libraries that answers puts without doing anything.
//!
//! The client of the servers ([`wire`]) is one thread that sends and reads bytes. Processor time is told apart, the server's
//! and the client's.
//!
//! Options: `--seconds N`: how long each rate is measured (3); `--keys N`: keys of the stores whose start and memory are
//! measured (1,000,000; 0: none); `--only NAME`: one of `engine`, `floor`, `front`, `etcd`.
//!
//! Every write waits until it is durable. No TLS on either side. Prints `beside ROW|COLUMN|VALUE|CONDITIONS`.

mod floor;
mod wire;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rpc::etcd::etcdserverpb::watch_request::RequestUnion;
use rpc::etcd::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use store::{
    Embedded, EmbeddedOptions, Engine, Etcd, EtcdOptions, Front, FrontOptions, ImportedState, KeyRange, Record, Stamp,
    Transaction,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::{Said, Wire};

/// As in the daemons.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The words by which this program is a server that it measures.
const SERVE: &str = "--serve";
const FLOOR: &str = "--floor";
/// How long a server may take to answer, and between two looks whether it does: nobody tells.
const START_MAX: Duration = Duration::from_secs(60);
const START_PAUSE: Duration = Duration::from_millis(5);
/// Keys that the clients of a rate write to.
const KEYS: u64 = 10_000;
/// Keys in the range that is read.
const RANGE_KEYS: u64 = 1000;
const WATCHERS: usize = 1000;
/// Writes that all watchers see, and how many of them are under way at a time.
const WATCHED_WRITES: u64 = 3000;
const WATCHED_AT_ONCE: u64 = 300;
/// What a client of a loaded key-value store has at most: etcd's own limit is 128.
const LOAD_OPERATIONS: u64 = 100;

struct Options {
    only: Option<String>,
    seconds: u64,
    keys: u64,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            only: None,
            seconds: 3,
            keys: 1_000_000,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value after the option");
            match word.as_str() {
                "--only" => options.only = Some(value()),
                "--seconds" => options.seconds = value().parse().expect("seconds"),
                "--keys" => options.keys = value().parse().expect("a number of keys"),
                // What `cargo bench` adds.
                "--bench" => {}
                other => panic!("no such option: {other}"),
            }
        }
        options
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(SERVE) => {
            let directory = words.next().expect("a directory");
            return runtime.block_on(serve(Path::new(&directory)));
        }
        Some(FLOOR) => return runtime.block_on(serve_floor()),
        _ => {}
    }
    let options = Options::read();
    // On the disk of the build directory: /tmp is often memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    runtime.block_on(async {
        if options.wants("engine") {
            let store = EmbeddedOptions::new(directory.path().join("store"));
            let engine = Arc::new(Embedded::open(store).await.expect("a store"));
            measure("engine", engine.clone(), &options).await;
            engine.close().await;
            if options.keys > 0 {
                large(directory.path(), options.keys).await;
            }
        }
        if options.wants("floor") {
            let server = Server::own(&[FLOOR]);
            puts_of_server("floor", &server, &options);
        }
        for (name, start) in [("front", Server::front as fn(&Path) -> Server), ("etcd", Server::etcd)] {
            if !options.wants(name) {
                continue;
            }
            let server = start(&directory.path().join(name));
            // Until it answers.
            drop(connect(&server.url).await);
            measure_server(name, &server, &options);
            drop(server);
            if options.keys > 0 {
                large_over(
                    name,
                    start,
                    &directory.path().join(format!("large-{name}")),
                    options.keys,
                )
                .await;
            }
        }
    });
}

fn figure(row: &str, column: &str, value: f64, conditions: &str) {
    println!("beside {row}|{column}|{value:.1}|{conditions}");
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
            Err(_) if begun.elapsed() < START_MAX => tokio::time::sleep(START_PAUSE).await,
            Err(error) => panic!("{url}: {error}"),
        }
    }
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

fn measure_server(name: &str, server: &Server, options: &Options) {
    puts_of_server(name, server, options);
    ranges_of_server(name, server, options.seconds);
    watches_of_server(name, server);
}

fn puts_of_server(name: &str, server: &Server, options: &Options) {
    for bytes in [256, 2048] {
        for clients in [1, 64, 1000] {
            let mut wire = Wire::connect(&server.url, "/etcdserverpb.KV/Put");
            let value = Bytes::from(vec![b'x'; bytes]);
            let mut number = 0;
            let next = || {
                number += 7919;
                PutRequest {
                    key: key(number % KEYS).into(),
                    value: value.clone(),
                    ..PutRequest::default()
                }
            };
            let (begun, before) = (Instant::now(), [cpu_of(server.process.id()), cpu()]);
            let span = Duration::from_secs(options.seconds);
            let mut latencies = wire::keep_calling(&mut wire, clients, span, next, |_| ());
            let elapsed = begun.elapsed();
            let after = [cpu_of(server.process.id()), cpu()];
            let each = |side: usize| (after[side] - before[side]) / latencies.len() as f64 * 1e6;
            let conditions = format!("{:.1} us CPU each, the client's {:.1} us", each(0), each(1));
            tell_puts(name, clients, bytes, &mut latencies, elapsed, &conditions);
        }
    }
}

fn tell_puts(name: &str, clients: u64, bytes: usize, took: &mut [Duration], elapsed: Duration, conditions: &str) {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let conditions = format!("p50 {:.2} ms, p99 {:.2} ms, {conditions}", at(0.5), at(0.99));
    let row = format!("puts/s, {clients} clients, {bytes} B");
    figure(&row, name, took.len() as f64 / elapsed.as_secs_f64(), &conditions);
}

const RANGES_ROW: &str = "records/s of ranges of 1,000";

fn ranges_of_server(name: &str, server: &Server, seconds: u64) {
    let mut wire = Wire::connect(&server.url, "/etcdserverpb.KV/Range");
    let request = RangeRequest {
        key: key(0).into(),
        range_end: key(RANGE_KEYS).into(),
        ..RangeRequest::default()
    };
    // The second field of an answer are its records.
    wire.count(2);
    let (begun, before) = (Instant::now(), [cpu_of(server.process.id()), cpu()]);
    let span = Duration::from_secs(seconds);
    wire::keep_calling(&mut wire, 1, span, || request.clone(), |_| ());
    let records = wire.counted() as f64;
    let rate = records / begun.elapsed().as_secs_f64();
    let after = [cpu_of(server.process.id()), cpu()];
    let each = |side: usize| (after[side] - before[side]) / records * 1e6;
    let conditions = format!("one client, {:.2} us CPU each, the client's {:.2} us", each(0), each(1));
    figure(RANGES_ROW, name, rate, &conditions);
}

fn watches_row() -> String {
    format!("deliveries/s to {WATCHERS} watchers")
}

fn watches_of_server(name: &str, server: &Server) {
    let mut wire = Wire::connect(&server.url, "/etcdserverpb.Watch/Watch");
    let create = WatchCreateRequest {
        key: key(0).into(),
        range_end: key(KEYS).into(),
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let begun = Instant::now();
    for _ in 0..WATCHERS {
        wire.call(&create, false);
    }
    let mut created = 0;
    while created < WATCHERS {
        wire.turn(|_| created += 1);
    }
    let opened = begun.elapsed();
    // The eleventh field of an answer are its events.
    wire.count(11);
    let (begun, before) = (Instant::now(), [cpu_of(server.process.id()), cpu()]);
    let url = server.url.clone();
    let writer = std::thread::spawn(move || {
        let mut wire = Wire::connect(&url, "/etcdserverpb.KV/Put");
        let mut left = WATCHED_WRITES;
        let put = |number| PutRequest {
            key: key(number % KEYS).into(),
            value: vec![b'x'; 256].into(),
            ..PutRequest::default()
        };
        let mut under_way = 0;
        while left > 0 || under_way > 0 {
            while left > 0 && under_way < WATCHED_AT_ONCE {
                left -= 1;
                under_way += 1;
                wire.call(&put(left), true);
            }
            wire.turn(|said| under_way -= u64::from(matches!(said, Said::End(_))));
        }
    });
    let wanted = WATCHED_WRITES * WATCHERS as u64;
    while wire.counted() < wanted {
        wire.turn(|_| ());
    }
    let seen = wire.counted();
    let rate = seen as f64 / begun.elapsed().as_secs_f64();
    writer.join().expect("the writer");
    let after = [cpu_of(server.process.id()), cpu()];
    let each = |side: usize| (after[side] - before[side]) / seen as f64 * 1e6;
    let conditions = format!(
        "opened in {opened:.0?}; {:.2} us CPU each, the client's {:.2} us, the writes' included",
        each(0),
        each(1)
    );
    figure(&watches_row(), name, rate, &conditions);
}

fn key(number: u64) -> String {
    format!("/registry/bench/{number:08}")
}

async fn puts(name: &str, engine: &Arc<dyn Engine>, clients: u64, bytes: usize, seconds: u64) {
    let span = Duration::from_secs(seconds);
    let (cpu_before, begun) = (cpu(), Instant::now());
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let engine = engine.clone();
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
            }
            latencies
        });
    }
    let mut latencies: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let elapsed = begun.elapsed();
    let each = (cpu() - cpu_before) / latencies.len() as f64 * 1e6;
    let conditions = format!("{each:.1} us CPU each, the clients' included");
    tell_puts(name, clients, bytes, &mut latencies, elapsed, &conditions);
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
    figure(RANGES_ROW, name, rate, "one client");
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
    let mut writers = JoinSet::new();
    for writer in 0..WATCHED_AT_ONCE {
        let engine = engine.clone();
        writers.spawn(async move {
            for number in 0..WATCHED_WRITES / WATCHED_AT_ONCE {
                let put = Transaction::new().put(key(writer + WATCHED_AT_ONCE * number), vec![b'x'; 256]);
                engine.commit(put).await.expect("a commit");
            }
        });
    }
    writers.join_all().await;
    let seen: u64 = tasks.join_all().await.into_iter().sum();
    let rate = seen as f64 / begun.elapsed().as_secs_f64();
    let conditions = format!("opened in {opened:.0?}");
    figure(&watches_row(), name, rate, &conditions);
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
    let before = anonymous_kb(std::process::id());
    Embedded::import(options.clone(), state, records)
        .await
        .expect("an import");
    let (begun, used) = (Instant::now(), cpu());
    let engine = Embedded::open(options).await.expect("a store");
    let (took, used) = (begun.elapsed(), cpu() - used);
    figure(
        &start_row(keys),
        "engine",
        took.as_secs_f64() * 1e3,
        &format!("{used:.2} s CPU"),
    );
    let grown = f64::from(anonymous_kb(std::process::id()).saturating_sub(before)) / 1024.0;
    figure(&memory_row(keys), "engine", grown, "what the process grew by");
    engine.close().await;
}

fn start_row(keys: u64) -> String {
    format!("restart until it answers, {keys} keys of 256 B, ms")
}

fn memory_row(keys: u64) -> String {
    format!("memory, {keys} keys of 256 B, MiB anonymous")
}

/// The same for a server: loaded by its API, its history forgotten.
async fn large_over(name: &str, start: fn(&Path) -> Server, directory: &Path, keys: u64) {
    let server = start(directory);
    let engine = connect(&server.url).await;
    load(name, &engine, keys).await;
    let newest = engine.progress().await.expect("progress").revision;
    engine.compact(newest).await.expect("a compaction");
    let id = server.process.id();
    let resident = resident_kb(id) / 1024;
    let conditions = format!("{resident} MiB resident, after the load and a compaction");
    figure(
        &memory_row(keys),
        name,
        f64::from(anonymous_kb(id)) / 1024.0,
        &conditions,
    );
    drop((engine, server));
    let begun = Instant::now();
    let server = start(directory);
    let engine = connect(&server.url).await;
    let first = KeyRange::prefix(key(0).as_bytes());
    let found = engine.range(first, None).await.expect("a range");
    assert_eq!(found.records.len(), 1);
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let anonymous = anonymous_kb(server.process.id()) / 1024;
    figure(&start_row(keys), name, took, &format!("then {anonymous} MiB anonymous"));
}

/// As many keys into an engine, by its API.
async fn load(name: &str, engine: &Arc<Etcd>, keys: u64) {
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
    let rate = keys as f64 / begun.elapsed().as_secs_f64();
    let row = format!("keys/s, 64 clients, {LOAD_OPERATIONS} of 256 B in a transaction");
    figure(&row, name, rate, "");
}

/// The front over a store, until standard input ends: the child process that is measured.
async fn serve(directory: &Path) {
    // As `trireme store` does: an empty etcd is at revision 1.
    let raise_revisions_by = u64::from(!directory.exists());
    let opened = Embedded::open(EmbeddedOptions {
        raise_revisions_by,
        ..EmbeddedOptions::new(directory)
    });
    let engine = Arc::new(opened.await.expect("a store"));
    let options = FrontOptions {
        read_only: Vec::new(),
        advertised: Vec::new(),
        clock: base::Clock::real(),
        random: base::Random::real(),
    };
    let front = Front::new(engine, options).expect("a front");
    accept(move |stream| {
        let front = front.clone();
        async move { drop(front.serve(stream).await) }
    })
    .await;
}

/// The floor, until standard input ends.
async fn serve_floor() {
    accept(|stream| async move { drop(floor::serve(stream).await) }).await;
}

/// Tells an address and serves the connections to it until standard input ends: its starter is gone.
async fn accept<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What a slow answer would be blamed on otherwise.
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream));
        }
    });
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    // Its starter is gone either way.
    let _ = ended.await;
}

/// A server of etcd's API in a process of its own. Ends with this.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// Ours.
    fn front(directory: &Path) -> Self {
        Self::own(&[SERVE, directory.to_str().expect("a name")])
    }

    /// This program once more.
    fn own(words: &[&str]) -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut process = Command::new(own)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program once more");
        let mut url = String::new();
        let told = process.stdout.as_mut().expect("a pipe");
        BufReader::new(told).read_line(&mut url).expect("an address");
        Self {
            process,
            url: url.trim().to_owned(),
        }
    }

    /// Debian's etcd, alone.
    fn etcd(directory: &Path) -> Self {
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("an address").port()
        };
        let (url, peer) = (
            format!("http://127.0.0.1:{}", free()),
            format!("http://127.0.0.1:{}", free()),
        );
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(directory);
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

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Kilobytes of memory of a process, pages of files included.
fn resident_kb(process: u32) -> u32 {
    status_kb(process, "VmRSS:")
}

/// Kilobytes of memory of a process that is nobody else's.
fn anonymous_kb(process: u32) -> u32 {
    status_kb(process, "RssAnon:")
}

fn status_kb(process: u32, name: &str) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Seconds of processor time of this process.
fn cpu() -> f64 {
    cpu_of(std::process::id())
}

/// Seconds of processor time of a process.
fn cpu_of(process: u32) -> f64 {
    let usage = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = usage.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after_name.split(' ').filter_map(|field| field.parse().ok()).collect();
    // After the name: state is not a number, so user and system time are the 11th and 12th numbers, in ticks of 10 ms.
    let times = fields.get(10).zip(fields.get(11));
    times.map_or(0.0, |(user, system)| (user + system) / 100.0)
}
