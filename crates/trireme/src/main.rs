//! `trireme`: the one program. This crate puts the others together and is the only one that reads flags, files and the
//! environment at start.
//!
//! Commands are in `commands/`, one file each; the two daemons are composed in `server/` and `node/`.

mod access;
mod cli;
mod commands;
mod errors;
mod etcd_front;
mod kubeconfig;
mod layout;
mod log;
mod node;
mod process;
mod progress;
mod renewal;
mod server;
mod settings;
mod spans;
mod state_home;
mod store_errors;
mod supervisor;
mod tls;
mod watched;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::{Cli, Command, LoggingFormat};
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::Layout;

/// Requests are made of many small pieces of many sizes, on many threads: glibc's allocator took a fifth of their time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads of a daemon: the API server and the node of a small machine; more cores take more.
const WORKERS_MIN: usize = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            // A closed pipe is no reason for a panic.
            let _ = error.print();
            return if wrong { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result {
    let is_root = rustix::process::geteuid().is_root();
    let layout = Layout::find(cli.dir.as_deref(), is_root, |name| {
        std::env::var_os(name).map(Into::into)
    })?;
    match &cli.command {
        Command::NodeHold => return commands::node::hold(),
        // Before any thread is started: a process of several cannot enter namespaces.
        Command::Node(arguments) => commands::node::enter(arguments.holder)?,
        _ => {}
    }
    let mut spans = None;
    if cli.command.logs() {
        let log = cli.command.log_name().map(|name| layout.log(name));
        spans = start_log(log, &cli.command)?;
    }
    if cli.command.is_daemon() {
        rustls::crypto::ring::default_provider()
            .install_default()
            .map_err(|_| CliError::internal("a cryptography provider was installed twice"))?;
        let cores = std::thread::available_parallelism().map_or(WORKERS_MIN, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores.max(WORKERS_MIN))
            .enable_all()
            .build()
            .doing("starting threads")?;
        let outcome = runtime.block_on(commands::run(cli.command, &layout, cli.quiet, is_root));
        // What is left of spans is sent.
        drop(spans);
        return outcome;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing("starting")?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime.block_on(commands::run(cli.command, &layout, cli.quiet, is_root))
}

/// The daemon's log: what `TRIREME_LOG` lets through (as `info` or `warn,walk=trace`), as lines of text, or of JSON with
/// `TRIREME_LOG_FORMAT=json` or a flag. `path`: the file that `up` starts it with. Spans go to a collector if the command
/// says so.
fn start_log(path: Option<PathBuf>, command: &Command) -> Result<Option<spans::Exporter>> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TRIREME_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let format = tracing_subscriber::fmt::layer()
        .with_writer(log::writer(path))
        .with_ansi(false);
    let by_environment = || std::env::var_os("TRIREME_LOG_FORMAT").is_some_and(|format| format == "json");
    let is_json = match command {
        Command::Server(server) => server.logging_format.map(|format| format == LoggingFormat::Json),
        _ => None,
    };
    let format = match is_json.unwrap_or_else(by_environment) {
        true => format.json().with_file(true).with_line_number(true).boxed(),
        false => format.boxed(),
    };
    let log = tracing_subscriber::registry().with(format.with_filter(filter));
    let Some(config) = command.tracing_config_file() else {
        log.init();
        return Ok(None);
    };
    let (layer, exporter) = spans::start(config)?;
    log.with(layer).init();
    Ok(Some(exporter))
}

/// A command of the daemon is only for `up` and service managers; everything else is for people.
impl Command {
    fn is_daemon(&self) -> bool {
        matches!(self, Command::Server(_) | Command::Store(_) | Command::Node(_))
    }

    /// Whether what it has to say goes into a log.
    fn logs(&self) -> bool {
        self.is_daemon() || matches!(self, Command::KeepServer(_) | Command::KeepNode(_))
    }

    /// The configuration of spans that it is given.
    fn tracing_config_file(&self) -> Option<&Path> {
        match self {
            Command::Server(server) => server.tracing.tracing_config_file.as_deref(),
            _ => None,
        }
    }

    /// The log that it shares with its supervisor or its daemon.
    fn log_name(&self) -> Option<&'static str> {
        match self {
            Command::Server(_) | Command::KeepServer(_) => Some("server"),
            Command::Node(_) | Command::KeepNode(_) => Some("node"),
            _ => None,
        }
    }
}

/// The error of a command that needs a cluster where none is.
pub fn no_cluster(layout: &Layout) -> CliError {
    let what = format!("no cluster is running from {}", layout.data().display());
    let start = layout.command("up");
    let is_root = rustix::process::geteuid().is_root();
    let of_root = Layout::find(None, true, |_| None).is_ok_and(|system| !is_root && system.run().exists());
    let hint = match of_root {
        true => format!("start one: {start} --no-node; or look at root's: sudo trireme status"),
        false if is_root => format!("start one: {start}"),
        false => format!("start one: sudo {start}; or without a node: {start} --no-node"),
    };
    CliError::new(Kind::Missing, "NO_CLUSTER", what).hint(hint)
}
