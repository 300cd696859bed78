//! One command a file.

mod backup;
mod demo;
mod down;
mod history;
mod image;
mod kubeconfig;
mod migrate;
pub mod node;
mod reset;
mod restore;
mod server;
mod status;
mod store;
mod store_place;
mod up;
mod version;

use crate::cli::Command;
use crate::errors::{CliError, Context as _, Result};
use crate::layout::Layout;

/// Runs a command.
pub async fn run(command: Command, layout: &Layout, quiet: bool, is_root: bool) -> Result {
    match command {
        Command::Up(arguments) => up::run(arguments, layout, quiet, is_root).await,
        Command::Down => down::run(layout, quiet).await,
        Command::Reset(arguments) => reset::run(arguments, layout, quiet).await,
        Command::Status(arguments) => status::run(arguments, layout).await,
        Command::Image(command) => image::run(command, layout, quiet).await,
        Command::Backup(arguments) => backup::run(arguments, layout, quiet).await,
        Command::Restore(arguments) => restore::run(arguments, layout, quiet).await,
        Command::Migrate(arguments) => migrate::run(arguments, layout, quiet).await,
        Command::History(arguments) => history::run(arguments, layout).await,
        Command::Node(arguments) => node::run(arguments, layout).await,
        Command::NodeHold => Err(CliError::internal("this command runs before any thread")),
        Command::KeepNode(arguments) => node::keep(&arguments, layout).await,
        Command::KeepServer(arguments) => server::keep(&arguments, layout).await,
        Command::Kubeconfig(arguments) => kubeconfig::run(arguments, layout),
        Command::Server(arguments) => server::run(arguments, layout).await,
        Command::Store(arguments) => store::run(arguments, layout).await,
        Command::Version(arguments) => version::run(arguments),
    }
}

/// The name of the process that holds a node's namespaces.
pub fn holder_name(node: &str) -> String {
    format!("node-{node}")
}

/// What asks a daemon to end: a signal, or the end of its supervisor.
pub struct Ends {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Standard input, for as long as a supervisor holds its other end.
    supervisor: Option<tokio::net::unix::pipe::Receiver>,
}

// === impl Ends ===

impl Ends {
    /// Listens from now on.
    pub fn listen() -> Result<Ends> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).doing("listening for signals");
        Ok(Ends {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            supervisor: None,
        })
    }

    /// The same, and the end of standard input.
    pub fn listen_supervised() -> Result<Ends> {
        let input = rustix::io::dup(std::io::stdin()).doing("opening the supervisor's pipe")?;
        let input = tokio::net::unix::pipe::Receiver::from_owned_fd(input).doing("opening the supervisor's pipe")?;
        Ok(Ends {
            supervisor: Some(input),
            ..Ends::listen()?
        })
    }

    /// The first of them.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "terminated",
            _ = self.interrupt.recv() => "interrupted",
            () = ended(self.supervisor.as_mut()) => "the supervisor is gone",
        }
    }
}

async fn ended(pipe: Option<&mut tokio::net::unix::pipe::Receiver>) {
    use tokio::io::AsyncReadExt as _;
    match pipe {
        // Nothing is ever written into it.
        Some(pipe) => drop(pipe.read_u8().await),
        None => std::future::pending().await,
    }
}
