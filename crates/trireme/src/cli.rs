//! The flags of every command. Help is here and nowhere else.

mod aggregation;
mod api_server;
mod audit;
mod authentication;
#[cfg(test)]
mod page;
mod service_accounts;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

pub use self::aggregation::AggregationFlags;
pub use self::api_server::{AdmissionFlags, ApiServerFlags, AuthorizationFlags, EncryptionFlags};
pub use self::audit::{AuditFlags, AuditFormat, AuditMode, AuditWebhookFlags};
pub use self::authentication::AuthenticationFlags;
pub use self::service_accounts::ServiceAccountFlags;
pub use self::tls::TlsFlags;

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
    /// Saves the state of the running cluster
    Backup(Backup),
    /// Makes the cluster's state that of a backup
    Restore(Restore),
    /// Moves the cluster's state into an etcd, or from there into the embedded store
    Migrate(Migrate),
    /// Tells what happened to an object: its revisions that are still held, who changed what, and when
    History(History),
    /// Prints the administrator's kubeconfig
    Kubeconfig(Kubeconfig),
    /// Runs the control plane in the foreground, for service managers
    Server(Server),
    /// Runs the store alone in the foreground, as an etcd for others
    Store(Store),
    /// Runs the control plane apart from whoever starts it, and again when it dies
    #[command(hide = true)]
    KeepServer(KeepServer),
    /// Runs the node's daemon inside of its namespaces
    #[command(hide = true)]
    Node(Node),
    /// Makes the node's namespaces
    #[command(hide = true)]
    NodeHold,
    /// Runs the node's daemon inside of its namespaces, and again when it dies
    #[command(hide = true)]
    KeepNode(KeepNode),
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
    /// Serves etcd's API over the cluster's store on this address from the next start on: for clients with a certificate
    /// of the directory pki/etcd
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub etcd_listen: Option<SocketAddr>,
    /// The store of several servers; `down` and the next `up` keep it
    #[command(flatten)]
    pub etcd: EtcdFlags,
    /// How long certificates live; they are renewed while the cluster runs [default: a year]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(10..))]
    pub certificate_lifetime: Option<u32>,
    /// The API server; `down` and the next `up` keep what was said of each of its parts
    #[command(flatten)]
    pub api_server: ApiServerFlags,
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

/// `trireme backup`
#[derive(Args, Debug)]
pub struct Backup {
    /// A file, a directory (the file gets a name with the time), or - for standard output
    #[arg(value_name = "TARGET")]
    pub target: PathBuf,
    /// Goes on and takes another one after each such time (90s, 30m, 6h, 1d)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub every: Option<Duration>,
    /// Keeps only the newest so many in the directory
    #[arg(long, value_name = "COUNT")]
    pub keep: Option<usize>,
    /// As whom and where, in place of the administrator of this machine's cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// `trireme restore`
#[derive(Args, Debug)]
pub struct Restore {
    /// The backup, or - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// An earlier revision that the backup has
    #[arg(long)]
    pub revision: Option<u64>,
    /// Takes the place of the store that is there, which is kept aside
    #[arg(long)]
    pub replace: bool,
    /// Only reads the backup to its end and tells what is in it
    #[arg(long, conflicts_with_all = ["revision", "replace"])]
    pub check: bool,
}

/// `trireme migrate`
#[derive(Args, Debug)]
pub struct Migrate {
    /// Where the state goes; the etcd, in either direction, is the one of --etcd-servers
    #[arg(long, value_enum)]
    pub to: MigrateTo,
    /// The etcd
    #[command(flatten)]
    pub etcd: EtcdFlags,
    /// With --to embedded: takes the place of the store that is there, which is kept aside
    #[arg(long)]
    pub replace: bool,
}

/// An engine of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrateTo {
    /// An etcd that is empty below its prefix
    Etcd,
    /// The store inside this program
    Embedded,
}

/// `trireme history`
#[derive(Args, Debug)]
pub struct History {
    /// The kind, as for kubectl: deployment, deploy, deployments.apps
    pub kind: String,
    /// The object's name
    pub name: String,
    /// The object's namespace
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
    /// As whom and where, in place of the administrator of this machine's cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

/// Flags that nobody gave. `serde` and `Default` know them, too: what is kept of an earlier version lacks later flags.
fn defaults<T: Args>() -> T {
    let command = T::augment_args(clap::Command::new("trireme"));
    let matches = command.try_get_matches_from(["trireme"]);
    let flags = matches.and_then(|matches| T::from_arg_matches(&matches));
    flags.expect("invariant: no flag of the API server is required")
}

/// A time with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, seconds) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 60 * 60),
        Some((at, 'd')) => (&text[..at], 24 * 60 * 60),
        _ => return Err("a time is a number with s, m, h or d".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a time is a whole number with s, m, h or d")?;
    match number.checked_mul(seconds) {
        None | Some(0) => Err("a time is more than none and not endless".into()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

/// `trireme node`
#[derive(Args, Debug)]
pub struct Node {
    /// The node's name
    #[arg(long)]
    pub name: String,
    /// The process that holds the namespaces
    #[arg(long)]
    pub holder: i32,
}

/// `trireme keep-node`
#[derive(Args, Debug)]
pub struct KeepNode {
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
    /// Edits the file that standard input names, as whoever runs this
    #[arg(long, hide = true, conflicts_with = "merge")]
    pub edit: bool,
}

/// `trireme server`
#[derive(Args, Debug)]
pub struct Server {
    /// The port of the API on loopback; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub api_port: u16,
    /// The store of several servers
    #[command(flatten)]
    pub etcd: EtcdFlags,
    /// Serves etcd's API on this address, too: for clients with a certificate of the directory pki/etcd
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub etcd_listen: Option<SocketAddr>,
    /// Ends with its standard input
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// The API server
    #[command(flatten)]
    pub api_server: ApiServerFlags,
    /// Spans for OpenTelemetry
    #[command(flatten)]
    pub tracing: TracingFlags,
    /// Serves /debug/api_priority_and_fairness to whoever may get it
    #[arg(long)]
    pub profiling: bool,
    /// The form of the log's lines [default: text, or what TRIREME_LOG_FORMAT says]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub logging_format: Option<LoggingFormat>,
}

/// The form of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoggingFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Spans for OpenTelemetry. The names are upstream's.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Spans: for a collector of OpenTelemetry")]
pub struct TracingFlags {
    /// Tells a collector of OpenTelemetry of requests and their stages, as this TracingConfiguration says
    #[arg(long, value_name = "FILE")]
    pub tracing_config_file: Option<PathBuf>,
}

/// `trireme keep-server`
#[derive(Args, Debug)]
pub struct KeepServer {
    /// The port of the API on loopback; 0 takes any free one
    #[arg(long)]
    pub api_port: u16,
}

/// `trireme store`
#[derive(Args, Debug)]
pub struct Store {
    /// Where etcd's API is served: for clients with a certificate of the directory pki/etcd
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2379")]
    pub listen: SocketAddr,
}

/// Where the state is, when not in this program: kube-apiserver's flags.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[command(next_help_heading = "An etcd in place of the embedded store")]
pub struct EtcdFlags {
    /// Keeps the state in this etcd, which other servers may use, too: its members, separated by commas
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// Who may have signed the certificates of etcd's members
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,
    /// The certificate with which etcd knows this server
    #[arg(long, value_name = "FILE", requires = "etcd_servers", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// The certificate's key
    #[arg(long, value_name = "FILE", requires = "etcd_servers", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// What all keys in etcd begin with
    #[arg(long, value_name = "PATH", default_value = "/registry")]
    pub etcd_prefix: String,
    /// How much history etcd keeps, such as 5m; 0 leaves compaction to etcd
    #[arg(long, value_name = "DURATION", default_value = "5m0s")]
    pub etcd_compaction_interval: String,
    /// A user of etcd's own authentication
    #[arg(
        long,
        value_name = "NAME",
        requires = "etcd_servers",
        requires = "etcd_password_file"
    )]
    pub etcd_user: Option<String>,
    /// The user's password
    #[arg(long, value_name = "FILE", requires = "etcd_user")]
    pub etcd_password_file: Option<PathBuf>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("30m", Some(1800)),
            ("6h", Some(21600)),
            ("1d", Some(86400)),
            ("0s", None),
            ("5", None),
            ("h", None),
            ("", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        }
    }
}
