//! The flags of authentication: kube-apiserver's.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

use crate::server::file_or_nothing;

/// How clients prove who they are, besides the cluster's own certificates and service accounts.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "Authentication: more ways to prove who asks")]
pub struct AuthenticationFlags {
    /// Whether requests without credentials are let in, as system:anonymous [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub anonymous_auth: Option<bool>,
    /// Whether Secrets of the type bootstrap.kubernetes.io/token in kube-system are tokens [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_bootstrap_token_auth: Option<bool>,
    /// Who signs certificates of proxies that say in headers for whom they speak
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// The common names that proxies may have; none given: any
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// The headers in which proxies name the user, such as X-Remote-User
    #[arg(long, value_name = "HEADER,...", value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// The headers in which they tell the user's uid, such as X-Remote-Uid
    #[arg(long, value_name = "HEADER,...", value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// The headers in which they tell the user's groups, such as X-Remote-Group
    #[arg(long, value_name = "HEADER,...", value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// What the headers with further facts begin with, such as X-Remote-Extra-
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Tokens of a file, a line each: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub token_auth_file: Option<PathBuf>,
    /// A service that is asked about tokens that nobody else knows: a file in kubeconfig format
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// The version of TokenReview that it is asked in: v1 or v1beta1 [default: v1beta1]
    #[arg(long, value_name = "VERSION")]
    pub authentication_token_webhook_version: Option<String>,
    /// How long its answers are remembered [default: 2m0s]
    #[arg(long, value_name = "DURATION")]
    pub authentication_token_webhook_cache_ttl: Option<String>,
    /// Issuers of tokens, and which anonymous requests are let in: an AuthenticationConfiguration of
    /// apiserver.config.k8s.io/v1, read again when it changes
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub authentication_config: Option<PathBuf>,
    /// The URL of an OpenID issuer whose tokens are taken; only https
    #[arg(long, value_name = "URL")]
    pub oidc_issuer_url: Option<String>,
    /// The audience that its tokens must have
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// Who may have signed the issuer's certificate [default: whom the machine trusts]
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim that is the user's name [default: sub]
    #[arg(long, value_name = "CLAIM")]
    pub oidc_username_claim: Option<String>,
    /// What goes before it; - is nothing [default: the issuer's URL and #, but nothing before an email]
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,
    /// The claim that is the user's groups [default: none]
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What goes before each of them
    #[arg(long, value_name = "PREFIX")]
    pub oidc_groups_prefix: Option<String>,
    /// A claim that must have a value; may be given several times
    #[arg(long, value_name = "CLAIM=VALUE")]
    pub oidc_required_claim: Vec<String>,
    /// The algorithms of signatures that are taken [default: RS256]
    #[arg(long, value_name = "ALGORITHM,...", value_delimiter = ',')]
    pub oidc_signing_algs: Vec<String>,
}
