//! The flags of aggregation: kube-apiserver's.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

use crate::server::file_or_nothing;

/// How the API server shows itself to servers that answer for other group versions.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "Aggregation: servers that answer for other group versions")]
pub struct AggregationFlags {
    /// The certificate that the API server shows to servers that answer for other group versions, read again when it changes
    /// [default: one of an authority of its own, unless --requestheader-client-ca-file names another]
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub proxy_client_key_file: Option<PathBuf>,
    /// Whether redirects of such servers are errors in place of answers [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub aggregator_reject_forwarding_redirect: Option<bool>,
}
