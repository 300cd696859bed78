//! One command a file.

mod down;
mod kubeconfig;
mod reset;
mod server;
mod status;
mod up;
mod version;

use crate::cli::Command;
use crate::errors::Result;
use crate::layout::Layout;

/// Runs a command.
pub async fn run(command: Command, layout: &Layout, quiet: bool, is_root: bool) -> Result {
    match command {
        Command::Up(arguments) => up::run(arguments, layout, quiet, is_root).await,
        Command::Down => down::run(layout, quiet).await,
        Command::Reset(arguments) => reset::run(arguments, layout, quiet).await,
        Command::Status(arguments) => status::run(arguments, layout).await,
        Command::Kubeconfig(arguments) => kubeconfig::run(arguments, layout),
        Command::Server(arguments) => server::run(arguments, layout).await,
        Command::Version(arguments) => version::run(arguments),
    }
}
