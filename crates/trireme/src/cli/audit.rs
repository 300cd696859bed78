//! The flags of the audit log: kube-apiserver's.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::server::file_or_nothing;

/// What is told of requests, and where: kube-apiserver's flags.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether files that were full are compressed, with gzip
    #[arg(long, requires = "audit_log_path")]
    pub audit_log_compress: bool,
    /// How an event is written
    #[arg(long, value_enum, default_value_t, requires = "audit_log_path")]
    pub audit_log_format: AuditFormat,
    /// When events are written
    #[arg(long, value_enum, default_value = "blocking", requires = "audit_log_path")]
    pub audit_log_mode: AuditMode,
    /// In batch mode, how many events wait at most; further ones are lost
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_log_batch_buffer_size: u32,
    /// In batch mode, how many events are written at once
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_log_batch_max_size: u32,
    /// In batch mode, how long an event waits for others
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub audit_log_batch_max_wait: String,
    /// In batch mode, whether the two below count
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub audit_log_batch_throttle_enable: bool,
    /// How many batches a second are written
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub audit_log_batch_throttle_qps: u32,
    /// How many of them at once after a pause
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub audit_log_batch_throttle_burst: u32,
    /// Whether the two below count
    #[arg(long)]
    pub audit_log_truncate_enabled: bool,
    /// How long what is written at once may be
    #[arg(long, value_name = "BYTES", default_value_t = 10 * 1024 * 1024)]
    pub audit_log_truncate_max_batch_size: usize,
    /// How long an event may be: a longer one is written without its objects, or not at all
    #[arg(long, value_name = "BYTES", default_value_t = 100 * 1024)]
    pub audit_log_truncate_max_event_size: usize,
    /// The version of the events; there is one
    #[arg(long, value_name = "VERSION", default_value = "audit.k8s.io/v1", value_parser = ["audit.k8s.io/v1"])]
    pub audit_log_version: String,
}

impl Default for AuditFlags {
    fn default() -> AuditFlags {
        super::defaults()
    }
}

/// A service that is told of requests: kube-apiserver's flags.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "The audit log's webhook: a service that is told, too")]
pub struct AuditWebhookFlags {
    /// The service: a file in kubeconfig format
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// When it is told
    #[arg(long, value_enum, default_value_t, requires = "audit_webhook_config_file")]
    pub audit_webhook_mode: AuditMode,
    /// The version of its events; there is one
    #[arg(long, value_name = "VERSION", default_value = "audit.k8s.io/v1", value_parser = ["audit.k8s.io/v1"])]
    pub audit_webhook_version: String,
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

impl Default for AuditWebhookFlags {
    fn default() -> AuditWebhookFlags {
        super::defaults()
    }
}

/// When events are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditMode {
    /// Many at a time, while requests go on
    #[default]
    Batch,
    /// One by one, and the request waits
    Blocking,
    /// Likewise, and a request of which nothing can be told is refused
    BlockingStrict,
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
