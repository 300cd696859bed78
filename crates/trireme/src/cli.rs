//! The flags of every command. Help is here and nowhere else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Kubernetes, as one program.
#[derive(Parser, Debug)]
#[command(
    name = "trireme",
    version,
    max_term_width = 100,
    after_help = "Start a cluster: trireme up\nThen: kubectl get nodes"
)]
pub struct Cli {
    /// Keeps everything of the cluster below this directory, in place of the system's
    #[arg(long, global = true, value_name = "DIR", env = "TRIREME_DIR")]
    pub dir: Option<PathBuf>,
    /// Tells no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Starts the cluster of this machine, or brings a running one into the wanted shape
    Up(Up),
    /// Ends the cluster's processes and kernel state; keeps its data
    Down,
    /// Ends the cluster and removes all of it: data, keys and the kubeconfig context
    Reset(Reset),
    /// Tells what runs
    Status(Status),
    /// Shows and changes the images of the node
    #[command(subcommand)]
    Image(Image),
    /// Prints the administrator's kubeconfig
    Kubeconfig(Kubeconfig),
    /// Runs the control plane in the foreground, for service managers
    Server(Server),
    /// Runs the node's daemon inside of its namespaces
    #[command(hide = true)]
    Node(Node),
    /// Makes the node's namespaces
    #[command(hide = true)]
    NodeHold,
    /// Starts the node's daemon inside of its namespaces
    #[command(hide = true)]
    NodeEnter(NodeEnter),
    /// Tells the versions of this program and of the API it serves
    Version(Version),
}

/// `trireme up`
#[derive(Args, Debug)]
pub struct Up {
    /// Only the control plane: an API server with controllers, without a node; works without root
    #[arg(long)]
    pub no_node: bool,
    /// Runs the demo on it and tells what it looks like from the outside
    #[arg(long)]
    pub demo: bool,
    /// Gives pods no way out of the cluster (this version knows no other way)
    #[arg(long)]
    pub isolated: bool,
    /// The port of the API on loopback; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Leaves the user's own kubeconfig alone
    #[arg(long)]
    pub no_kubeconfig: bool,
}

/// `trireme reset`
#[derive(Args, Debug)]
pub struct Reset {
    /// Does not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `trireme status`
#[derive(Args, Debug)]
pub struct Status {
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

/// `trireme image`
#[derive(Subcommand, Debug)]
pub enum Image {
    /// Takes images from archives: `docker save`, or an OCI layout in a tar
    Import {
        /// The archives
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Lists the images
    Ls,
    /// Removes images
    Rm {
        /// Their names or ids
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// `trireme node`
#[derive(Args, Debug)]
pub struct Node {
    /// The node's name
    #[arg(long)]
    pub name: String,
}

/// `trireme node-enter`
#[derive(Args, Debug)]
pub struct NodeEnter {
    /// The process that holds the namespaces
    #[arg(long)]
    pub holder: i32,
    /// The node's name
    #[arg(long)]
    pub name: String,
}

/// `trireme kubeconfig`
#[derive(Args, Debug)]
pub struct Kubeconfig {
    /// Merges it into the user's own kubeconfig in place of printing it
    #[arg(long)]
    pub merge: bool,
}

/// `trireme server`
#[derive(Args, Debug)]
pub struct Server {
    /// The port of the API on loopback; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub api_port: u16,
    /// Leaves the session of whoever started it
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// `trireme version`
#[derive(Args, Debug)]
pub struct Version {
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

/// A form of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}
