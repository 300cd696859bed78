//! The flags of the API server: kube-apiserver's, the same for `trireme server` and `trireme up`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Deserializer, Serialize};

use super::{AggregationFlags, AuditFlags, AuditWebhookFlags, AuthenticationFlags, ServiceAccountFlags, TlsFlags};
use crate::errors::{CliError, Kind, Result};
use crate::server::file_or_nothing;

/// Upstream's defaults.
const READS_DEFAULT: u32 = 400;
const WRITES_DEFAULT: u32 = 200;

/// How the API server behaves, by its parts.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServerFlags {
    /// Its certificates, and whose certificates of clients are taken
    #[command(flatten)]
    pub tls: TlsFlags,
    /// Encryption at rest
    #[command(flatten)]
    #[serde(deserialize_with = "or_nothing")]
    pub encryption: EncryptionFlags,
    /// The audit log
    #[command(flatten)]
    #[serde(deserialize_with = "or_nothing")]
    pub audit: AuditFlags,
    /// The audit log's webhook
    #[command(flatten)]
    pub audit_webhook: AuditWebhookFlags,
    /// Authentication
    #[command(flatten)]
    #[serde(deserialize_with = "or_nothing")]
    pub authentication: AuthenticationFlags,
    /// Service accounts' tokens
    #[command(flatten)]
    pub service_accounts: ServiceAccountFlags,
    /// Who may do what
    #[command(flatten)]
    pub authorization: AuthorizationFlags,
    /// What happens to objects before they are stored
    #[command(flatten)]
    pub admission: AdmissionFlags,
    /// How much is served at once
    #[command(flatten)]
    pub in_flight: InFlightFlags,
    /// How it reaches servers that answer for other group versions
    #[command(flatten)]
    pub aggregation: AggregationFlags,
}

/// Earlier versions kept `null` for what nobody had said.
fn or_nothing<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

// === impl ApiServerFlags ===

impl ApiServerFlags {
    /// The same over what was said before: of each part the newest words count, and the names of files do not depend on a
    /// working directory. Words that take a part back leave nothing of it.
    pub fn over(&self, before: &ApiServerFlags) -> Result<ApiServerFlags> {
        macro_rules! newest {
            ($($part:ident),*) => {
                ApiServerFlags {
                    $($part: match self.$part.are_given() {
                        true => {
                            let anchored = self.$part.anchored()?;
                            if anchored.are_given() { anchored } else { Default::default() }
                        }
                        false => before.$part.clone(),
                    },)*
                }
            };
        }
        Ok(newest!(
            tls,
            encryption,
            audit,
            audit_webhook,
            authentication,
            service_accounts,
            authorization,
            admission,
            in_flight,
            aggregation
        ))
    }
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
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "Authorization: who may do what")]
pub struct AuthorizationFlags {
    /// Who decides, in this order: Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny [default: Node,RBAC]
    #[arg(long, value_name = "MODE,...", value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// The service that mode Webhook asks: a file in kubeconfig format
    #[arg(long, value_name = "FILE", requires = "authorization_mode", value_parser = file_or_nothing)]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// What ABAC reads, as a mode or in --authorization-config: a policy a line, each a Policy of
    /// abac.authorization.kubernetes.io/v1beta1
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub authorization_policy_file: Option<PathBuf>,
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["authorization_mode", "authorization_webhook_config_file", "authorization_webhook_version", "authorization_webhook_cache_authorized_ttl", "authorization_webhook_cache_unauthorized_ttl"], value_parser = file_or_nothing)]
    pub authorization_config: Option<PathBuf>,
}

impl Default for AuthorizationFlags {
    fn default() -> AuthorizationFlags {
        super::defaults()
    }
}

/// What happens to objects before they are stored: kube-apiserver's flags.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "Admission: what happens to objects before they are stored")]
pub struct AdmissionFlags {
    /// Plug-ins that run beside those that are on by default; docs/admission.md lists both
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Plug-ins that do not run
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// What plug-ins are told: an AdmissionConfiguration of apiserver.config.k8s.io/v1
    #[arg(long, value_name = "FILE", value_parser = file_or_nothing)]
    pub admission_control_config_file: Option<PathBuf>,
}

/// How many requests are served at once: kube-apiserver's flags.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[command(next_help_heading = "Protection: how much is served at once")]
pub struct InFlightFlags {
    /// Seats of requests that read; those that write share them [default: 400]
    #[arg(long, value_name = "COUNT")]
    pub max_requests_inflight: Option<u32>,
    /// Seats of requests that write; those that read share them [default: 200]
    #[arg(long, value_name = "COUNT")]
    pub max_mutating_requests_inflight: Option<u32>,
}

// === impl InFlightFlags ===

impl InFlightFlags {
    /// Whether they say anything.
    pub fn are_given(&self) -> bool {
        *self != InFlightFlags::default()
    }

    /// The same: there are no files.
    ///
    /// # Errors
    /// None.
    pub fn anchored(&self) -> Result<InFlightFlags> {
        Ok(self.clone())
    }

    /// All seats together, which API Priority and Fairness gives out.
    ///
    /// # Errors
    /// There would be none.
    pub fn seats(&self) -> Result<usize> {
        let reads = self.max_requests_inflight.unwrap_or(READS_DEFAULT);
        let writes = self.max_mutating_requests_inflight.unwrap_or(WRITES_DEFAULT);
        match reads as usize + writes as usize {
            0 => {
                let what = "invalid configuration: MaxRequestsInFlight=0 and MaxMutatingRequestsInFlight=0; they must add up to \
                            something positive";
                Err(CliError::new(Kind::Usage, "SEATS", what)
                    .hint("leave at least one seat; 400 and 200 are the defaults"))
            }
            seats => Ok(seats),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn flags(words: &[&str]) -> ApiServerFlags {
        let line = ["trireme", "up"].iter().chain(words);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Up(up) => up.api_server,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_each_part_the_newest_words_count() {
        let first = flags(&[
            "--authorization-mode=Node,RBAC,AlwaysAllow",
            "--audit-policy-file=/p",
            "--audit-log-path=/l",
        ]);
        let kept = flags(&[])
            .over(&first.over(&ApiServerFlags::default()).unwrap())
            .unwrap();
        assert_eq!(kept.authorization.authorization_mode, ["Node", "RBAC", "AlwaysAllow"]);
        assert_eq!(kept.audit.audit_log_path, Some("/l".into()));
        let changed = flags(&[
            "--authorization-config=/a",
            "--enable-admission-plugins=AlwaysPullImages",
        ])
        .over(&kept)
        .unwrap();
        assert!(changed.authorization.authorization_mode.is_empty());
        assert_eq!(changed.authorization.authorization_config, Some("/a".into()));
        assert_eq!(changed.audit, kept.audit);
        let back = flags(&[
            "--authorization-config=",
            "--audit-policy-file=",
            "--enable-admission-plugins=",
        ])
        .over(&changed)
        .unwrap();
        assert_eq!(back.authorization, AuthorizationFlags::default());
        assert_eq!(
            (back.audit, back.admission),
            (AuditFlags::default(), AdmissionFlags::default())
        );
        let here = std::env::current_dir().unwrap();
        let relative = flags(&["--tls-sni-cert-key=a.crt,a.key:*.x,y", "--client-ca-file=ca"])
            .over(&ApiServerFlags::default())
            .unwrap();
        let pair = format!("{0}/a.crt,{0}/a.key:*.x,y", here.display());
        assert_eq!(relative.tls.tls_sni_cert_key, [pair]);
        assert_eq!(relative.tls.client_ca_file, Some(here.join("ca")));
    }

    #[test]
    fn reads_and_writes_share_their_seats() {
        for (words, expect) in [
            (vec![], Ok(600)),
            (vec!["--max-requests-inflight=3000"], Ok(3200)),
            (
                vec!["--max-requests-inflight=0", "--max-mutating-requests-inflight=7"],
                Ok(7),
            ),
            (
                vec!["--max-requests-inflight=0", "--max-mutating-requests-inflight=0"],
                Err("SEATS".to_owned()),
            ),
        ] {
            let seats = flags(&words).in_flight.seats().map_err(|error| error.id.into_owned());
            assert_eq!(seats, expect, "{words:?}");
        }
    }

    #[test]
    fn what_earlier_versions_kept_is_read() {
        let old = r#"{"encryption": null, "audit": {"auditLogPath": "/l"}, "authentication": null}"#;
        let read: ApiServerFlags = serde_json::from_str(old).unwrap();
        assert_eq!(read.audit.audit_log_path, Some("/l".into()));
        assert_eq!(read.encryption, EncryptionFlags::default());
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<ApiServerFlags>(&written).unwrap(), read);
    }
}
