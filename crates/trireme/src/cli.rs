//! The flags of every command. Help is here and nowhere else.

mod authentication;
#[cfg(test)]
mod page;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

pub use self::authentication::AuthenticationFlags;
use crate::server::file_or_nothing;

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
    /// Encryption at rest; `down` and the next `up` keep it
    #[command(flatten)]
    pub encryption: EncryptionFlags,
    /// The audit log; `down` and the next `up` keep it
    #[command(flatten)]
    pub audit: AuditFlags,
    /// Authentication; `down` and the next `up` keep it
    #[command(flatten)]
    pub authentication: AuthenticationFlags,
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
    /// Encryption at rest
    #[command(flatten)]
    pub encryption: EncryptionFlags,
    /// The audit log
    #[command(flatten)]
    pub audit: AuditFlags,
    /// Authentication
    #[command(flatten)]
    pub authentication: AuthenticationFlags,
    /// The audit log's webhook
    #[command(flatten)]
    pub audit_webhook: AuditWebhookFlags,
    /// Who may do what
    #[command(flatten)]
    pub authorization: AuthorizationFlags,
    /// What happens to objects before they are stored
    #[command(flatten)]
    pub admission: AdmissionFlags,
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

/// What seals stored values beside the local keys: kube-apiserver's flags.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "Encryption at rest: which resources, and with which keys")]
pub struct EncryptionFlags {
    /// What seals which resources: an EncryptionConfiguration of apiserver.config.k8s.io/v1; without it Secrets, with the keys
    /// in pki/sealing.keys
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub encryption_provider_config: Option<PathBuf>,
    /// Takes the file again whenever it changes
    #[arg(long, requires = "encryption_provider_config")]
    pub encryption_provider_config_automatic_reload: bool,
}

/// Who may do what: kube-apiserver's flags.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Authorization: who may do what")]
pub struct AuthorizationFlags {
    /// Who decides, in this order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny [default: Node,RBAC]
    #[arg(long, value_name = "MODE,...", value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// The service that mode Webhook asks: a file in kubeconfig format
    #[arg(long, value_name = "FILE", requires = "authorization_mode")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// The version of SubjectAccessReview that it is asked in
    #[arg(long, value_name = "VERSION", default_value = "v1beta1")]
    pub authorization_webhook_version: String,
    /// How long it is remembered that it said yes
    #[arg(long, value_name = "DURATION", default_value = "5m0s")]
    pub authorization_webhook_cache_authorized_ttl: String,
    /// How long it is remembered that it did not
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub authorization_webhook_cache_unauthorized_ttl: String,
    /// Who decides, in more words: an AuthorizationConfiguration of apiserver.config.k8s.io, read again when it changes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["authorization_mode", "authorization_webhook_config_file"])]
    pub authorization_config: Option<PathBuf>,
}

/// What happens to objects before they are stored: kube-apiserver's flags.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Admission: what happens to objects before they are stored")]
pub struct AdmissionFlags {
    /// Plug-ins that run beside those that are on by default; docs/admission.md lists both
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Plug-ins that do not run
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// What plug-ins are told: an AdmissionConfiguration of apiserver.config.k8s.io/v1
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
}

/// What is told of requests, and where: kube-apiserver's flags.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "The audit log: who asked for what, and what came of it")]
pub struct AuditFlags {
    /// Which requests are told of, and how much of each: a Policy of audit.k8s.io/v1
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub audit_policy_file: Option<PathBuf>,
    /// Where: a line for each event; - is the standard output of `trireme server`
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub audit_log_path: Option<PathBuf>,
    /// How many days files are kept that were full; 0: for ever
    #[arg(long, value_name = "DAYS", default_value_t = 0, requires = "audit_log_path")]
    pub audit_log_maxage: u32,
    /// How many of them are kept; 0: all
    #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "audit_log_path")]
    pub audit_log_maxbackup: u32,
    /// How long the file may get before it is put aside; 0: 100
    #[arg(long, value_name = "MEGABYTES", default_value_t = 0, requires = "audit_log_path")]
    pub audit_log_maxsize: u32,
    /// How an event is written
    #[arg(long, value_enum, default_value_t, requires = "audit_log_path")]
    pub audit_log_format: AuditFormat,
}

/// A service that is told of requests: kube-apiserver's flags.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "The audit log's webhook: a service that is told, too")]
pub struct AuditWebhookFlags {
    /// The service: a file in kubeconfig format
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// How it is told: many events at a time, while requests go on
    #[arg(long, value_enum, default_value_t, requires = "audit_webhook_config_file")]
    pub audit_webhook_mode: AuditWebhookMode,
    /// The first pause before it is told again what it did not take
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub audit_webhook_initial_backoff: String,
    /// How many events wait at most; further ones are lost
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_webhook_batch_buffer_size: u32,
    /// How many events are sent at once
    #[arg(long, value_name = "COUNT", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_webhook_batch_max_size: u32,
    /// How long an event waits for others
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub audit_webhook_batch_max_wait: String,
    /// Whether the two below count
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub audit_webhook_batch_throttle_enable: bool,
    /// How many batches a second are sent
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_webhook_batch_throttle_qps: u32,
    /// How many of them at once after a pause
    #[arg(long, value_name = "COUNT", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_webhook_batch_throttle_burst: u32,
    /// Whether the two below count
    #[arg(long)]
    pub audit_webhook_truncate_enabled: bool,
    /// How long a batch may be
    #[arg(long, value_name = "BYTES", default_value_t = 10 * 1024 * 1024)]
    pub audit_webhook_truncate_max_batch_size: usize,
    /// How long an event may be: a longer one is sent without its objects, or not at all
    #[arg(long, value_name = "BYTES", default_value_t = 100 * 1024)]
    pub audit_webhook_truncate_max_event_size: usize,
}

/// A way of telling the audit log's webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AuditWebhookMode {
    /// Many events at a time, while requests go on
    #[default]
    Batch,
}

/// A form of the audit log's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditFormat {
    /// An object
    #[default]
    Json,
    /// A few fields as text
    Legacy,
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
