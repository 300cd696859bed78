//! The flags of TLS: kube-apiserver's.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::server::file_or_nothing;

/// What the API server shows, and whom it takes. All files are read again when they change.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "TLS: certificates of the server and of its clients")]
pub struct TlsFlags {
    /// The certificate that clients see, and those between it and its authority [default: one of the cluster's own]
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub tls_private_key_file: Option<PathBuf>,
    /// A certificate, its key, and the names that it is for, such as *.example.com; without names those in the certificate;
    /// may be given several times
    #[arg(long, value_name = "CERTIFICATE,KEY[:NAME,...]")]
    pub tls_sni_cert_key: Vec<String>,
    /// Who signs certificates of clients, besides the cluster's own authority
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub client_ca_file: Option<PathBuf>,
}
