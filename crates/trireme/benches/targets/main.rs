//! The figures of the design's table of targets that need the whole program: `cargo xtask bench` runs this and judges them.
//!
//! `cargo bench -p trireme --bench targets [FILTER...]` runs the measurements whose name contains a filter. Each is a file
//! here and starts clusters of its own from the built program; the load comes from this process, whose processor time is
//! never counted. One figure is one line on stdout: `figure NAME VALUE CONDITIONS`.
//!
//! Invariant: nothing of a measurement outlives it, however it ends (see [`cluster::Cluster`]), and each has an end: a
//! span of time or a number of requests, under [`MEASUREMENT_LIMIT`].

mod binary;
mod change;
mod cluster;
mod connection;
mod create;
mod custom;
mod events;
mod get;
mod idle;
mod large;
mod list;
mod load;
mod machine;
mod pods;
mod start;
mod usage;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use rustix::process::Resource;

/// Far more than any of them takes: what hangs is an error, not a bench that never ends.
const MEASUREMENT_LIMIT: Duration = Duration::from_secs(180);

type Measurement = fn() -> BoxFuture<'static, anyhow::Result<()>>;

/// All of them, in the order in which they run: the machine's own limits come first.
const MEASUREMENTS: &[(&str, Measurement)] = &[
    ("machine", || Box::pin(machine::measure())),
    ("binary", || Box::pin(binary::measure())),
    ("start", || Box::pin(start::measure())),
    ("idle", || Box::pin(idle::measure())),
    ("pods", || Box::pin(pods::measure())),
    ("create", || Box::pin(create::measure())),
    ("change", || Box::pin(change::measure())),
    ("get", || Box::pin(get::measure())),
    ("list", || Box::pin(list::measure())),
    ("watch", || Box::pin(watch::measure(&watch::THOUSAND))),
    ("fanout", || Box::pin(watch::measure(&watch::TEN_THOUSAND))),
    ("large", || Box::pin(large::measure())),
    ("custom", || Box::pin(custom::measure())),
];

fn main() -> ExitCode {
    // Cargo adds a flag of its own.
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("invariant: nobody installed a provider before us");
    // Each watcher is an open file, and a shell's soft limit allows a thousand.
    let mut files = rustix::process::getrlimit(Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(Resource::Nofile, files).expect("a soft limit can be raised to the hard one");
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let mut failed = false;
    for (name, measurement) in MEASUREMENTS.iter().filter(|(name, _)| wanted(name)) {
        eprintln!("measuring {name}");
        let limited = async { tokio::time::timeout(MEASUREMENT_LIMIT, measurement()).await };
        let outcome = runtime
            .block_on(limited)
            .with_context(|| format!("it took more than {MEASUREMENT_LIMIT:?}"))
            .and_then(|outcome| outcome);
        if let Err(error) = outcome {
            eprintln!("error: {name}: {error:#}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A number of objects or watchers, divided by what `TRIREME_BENCH_SHARE` says: to see that a measurement runs, not what it
/// measures.
fn sized(count: u64) -> u64 {
    let share = std::env::var("TRIREME_BENCH_SHARE").ok();
    let share = share.and_then(|share| share.parse().ok()).unwrap_or(1);
    count.div_ceil(u64::max(share, 1))
}

/// Tells one figure. The name is the one in xtask's table of targets.
fn figure(name: &str, value: f64, conditions: &str) {
    println!("figure {name} {value:.6} {conditions}");
}
