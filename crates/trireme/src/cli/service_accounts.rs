//! The flags of service accounts' tokens: kube-apiserver's.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

use crate::server::file_or_nothing;

/// Who issues service accounts' tokens, for whom, and whose count. Files are read at the start.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "Service accounts: their tokens")]
pub struct ServiceAccountFlags {
    /// Who issues tokens: the first is told in new ones, and those of all others are taken, too; may be given several times
    /// [default: https://kubernetes.default.svc.cluster.local]
    #[arg(long, value_name = "URL")]
    pub service_account_issuer: Vec<String>,
    /// Keys, private or public, of RSA or of the curves P-256 and P-384, whose tokens are taken; may be given several times
    /// [default: the cluster's own, in pki/sa.key]
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub service_account_key_file: Vec<PathBuf>,
    /// The private key that signs new tokens; --service-account-key-file names the keys that verify them
    /// [default: the cluster's own, in pki/sa.key, which verifies them, too]
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// The socket of a program that signs tokens and says which keys verify them (gRPC, externaljwt v1), in place of the key
    /// files; @NAME is a socket without a file
    #[arg(long, value_name = "SOCKET")]
    pub service_account_signing_endpoint: Option<String>,
    /// The longest life of a token that is asked for; longer ones are shortened [default: 2^32 seconds, or what signs]
    #[arg(long, value_name = "DURATION")]
    pub service_account_max_token_expiration: Option<String>,
    /// Whether the tokens of pods are good for a year, for programs that read them once [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub service_account_extend_token_expiration: Option<bool>,
    /// Whether a token that a controller of another cluster put into a Secret must be what the Secret holds [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub service_account_lookup: Option<bool>,
    /// Where others find the keys, when that is not here: only https
    #[arg(long, value_name = "URL")]
    pub service_account_jwks_uri: Option<String>,
    /// The names of the API: a token must be for one of them [default: the issuers]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub api_audiences: Vec<String>,
}
