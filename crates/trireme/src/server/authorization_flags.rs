//! From the flags of authorization to its authorizers, and to others when their file changes.
//!
//! Source: `pkg/kubeapiserver/options/authorization.go`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::authorization::config::{
    self, AuthorizerConfiguration, Connection, ReviewVersion, WebhookConfiguration,
};
use apiserver::authorization::{Abac, Configured, Prepared};
use apiserver::hook::{self, ReadFile};
use base::Random;

use crate::cli::AuthorizationFlags;
use crate::errors::{CliError, Kind, Result, words};
use crate::watched::{Follow, Refusal, Watched};

/// The webhook of the flags has no name of its own: upstream's.
const FLAGS_WEBHOOK: &str = "default";
const MODES: &str = "Node, RBAC, ABAC, Webhook, AlwaysAllow and AlwaysDeny, separated by commas, each once";

/// The authorizers of a server that is about to start.
pub struct AuthorizationPlan {
    /// The authorizers.
    pub prepared: Prepared,
    /// Where they were read.
    file: Option<ReadFrom>,
}

/// A file of authorizers that the server began with.
struct ReadFrom {
    path: PathBuf,
    content: Vec<u8>,
    authorizers: Vec<AuthorizerConfiguration>,
    /// What ABAC decides by: its file is read once.
    policies: Option<Abac>,
}

/// Files as they are on this machine.
pub fn files() -> ReadFile {
    Arc::new(|path: &Path| std::fs::read(path))
}

// === impl AuthorizationPlan ===

impl Default for AuthorizationPlan {
    fn default() -> AuthorizationPlan {
        AuthorizationPlan {
            prepared: Prepared::usual(),
            file: None,
        }
    }
}

impl AuthorizationPlan {
    /// Follows the file, if there is one: a version of it that can be used takes the place of the one before.
    pub fn follow(self, authorizers: Arc<Configured>, random: Random, follow: &Follow) {
        let Some(begun) = self.file else {
            return;
        };
        let (paths, contents) = (vec![begun.path], vec![begun.content]);
        let (begun, policies) = (begun.authorizers, begun.policies);
        follow.start("authorization", Watched::since(paths, contents), move |contents| {
            let files = files();
            let read = config::parse_again(&contents.concat(), &files, &begun);
            let prepared = read.and_then(|config| Prepared::new(&config, policies.as_ref(), &files, &random));
            let taken = prepared.map(|prepared| authorizers.replace(&prepared));
            std::future::ready(taken.map_err(Refusal::Wrong))
        });
    }
}

// === impl AuthorizationFlags ===

impl AuthorizationFlags {
    /// Whether they say anything; what says that there is no file says something, too.
    pub fn are_given(&self) -> bool {
        let files = [&self.authorization_config, &self.authorization_webhook_config_file];
        let files = files.into_iter().chain([&self.authorization_policy_file]);
        !self.authorization_mode.is_empty() || files.into_iter().any(Option::is_some)
    }

    /// The same, wherever they are read: the names of files do not depend on a working directory. A name of nothing is
    /// none: that is how they are taken back.
    pub fn anchored(&self) -> Result<AuthorizationFlags> {
        let mut flags = AuthorizationFlags {
            authorization_webhook_config_file: super::anchor(self.authorization_webhook_config_file.as_deref())?,
            authorization_policy_file: super::anchor(self.authorization_policy_file.as_deref())?,
            authorization_config: super::anchor(self.authorization_config.as_deref())?,
            ..self.clone()
        };
        flags.authorization_mode.retain(|mode| !mode.is_empty());
        Ok(flags)
    }

    /// The authorizers that the flags name.
    ///
    /// # Errors
    /// The flags or their files cannot be used.
    pub fn plan(&self, random: &Random) -> Result<AuthorizationPlan> {
        let unusable = |what: String, hint: String| CliError::new(Kind::Usage, "AUTHORIZATION", what).hint(hint);
        let Some(path) = &self.authorization_config else {
            let about_modes = |what| unusable(what, format!("the modes are {MODES}"));
            let modes = self.modes().map_err(about_modes)?;
            let policies = self.policies(&modes).map_err(about_modes)?;
            let prepared = Prepared::new(&modes, policies.as_ref(), &files(), random);
            let hint = "look at what --authorization-webhook-config-file names";
            return Ok(AuthorizationPlan {
                prepared: prepared.map_err(|what| unusable(what, hint.into()))?,
                file: None,
            });
        };
        let hint = "correct the file; the form is in \
                    https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/#apiserver-config-k8s-io-v1-AuthorizationConfiguration";
        let failed = |what: String| unusable(what, hint.to_owned());
        let path = std::path::absolute(path).map_err(CliError::internal)?;
        let content = std::fs::read(&path).map_err(|error| failed(format!("open {}: {error}", path.display())))?;
        let authorizers = config::parse(&content, &files()).map_err(failed)?;
        let policies = self.policies(&authorizers).map_err(failed)?;
        Ok(AuthorizationPlan {
            prepared: Prepared::new(&authorizers, policies.as_ref(), &files(), random).map_err(failed)?,
            file: Some(ReadFrom {
                path,
                content,
                authorizers,
                policies,
            }),
        })
    }

    /// The configuration that says the same as the flags.
    fn modes(&self) -> Result<Vec<AuthorizerConfiguration>, String> {
        let modes = &self.authorization_mode;
        let webhook = &self.authorization_webhook_config_file;
        if webhook.is_some() && !modes.iter().any(|mode| mode == "Webhook") {
            return Err("cannot specify --authorization-webhook-config-file without mode Webhook".into());
        }
        if self.authorization_policy_file.is_some() && !modes.iter().any(|mode| mode == "ABAC") {
            return Err("cannot specify --authorization-policy-file without mode ABAC".into());
        }
        if modes.is_empty() {
            return Ok(vec![AuthorizerConfiguration::Node, AuthorizerConfiguration::Rbac]);
        }
        let mut all = Vec::new();
        for mode in modes {
            let one = match mode.as_str() {
                "Node" => AuthorizerConfiguration::Node,
                "RBAC" => AuthorizerConfiguration::Rbac,
                "ABAC" if self.authorization_policy_file.is_none() => {
                    return Err("authorization-mode ABAC's authorization policy file not passed".into());
                }
                "ABAC" => AuthorizerConfiguration::Abac,
                "AlwaysAllow" => AuthorizerConfiguration::AlwaysAllow,
                "AlwaysDeny" => AuthorizerConfiguration::AlwaysDeny,
                "Webhook" => match webhook {
                    Some(file) => AuthorizerConfiguration::Webhook(self.webhook(file)?),
                    None => return Err("authorization-mode Webhook's authorization config file not passed".into()),
                },
                _ => return Err(format!("authorization-mode {mode:?} is not a valid mode")),
            };
            if all.contains(&one) {
                return Err(format!(
                    "authorization-mode {modes:?} has mode specified more than once"
                ));
            }
            all.push(one);
        }
        Ok(all)
    }

    /// What ABAC decides by, when it is among the authorizers.
    fn policies(&self, authorizers: &[AuthorizerConfiguration]) -> Result<Option<Abac>, String> {
        if !authorizers.contains(&AuthorizerConfiguration::Abac) {
            return Ok(None);
        }
        // Upstream opens what is not named, too.
        let file = self.authorization_policy_file.as_deref().unwrap_or(Path::new(""));
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| format!("open {name}: {}", words(&error)))?;
        Abac::read(&text, &name).map(Some)
    }

    fn webhook(&self, file: &Path) -> Result<WebhookConfiguration, String> {
        let time = |flag: &str, text: &str| -> Result<Duration, String> {
            api::duration::parse(text).ok_or_else(|| format!("{flag} {text:?} is no duration such as 5m0s"))
        };
        let absolute = std::path::absolute(file).map_err(|error| error.to_string())?;
        let authorized = &self.authorization_webhook_cache_authorized_ttl;
        let unauthorized = &self.authorization_webhook_cache_unauthorized_ttl;
        Ok(WebhookConfiguration {
            name: FLAGS_WEBHOOK.into(),
            authorized_ttl: time("--authorization-webhook-cache-authorized-ttl", authorized)?,
            unauthorized_ttl: time("--authorization-webhook-cache-unauthorized-ttl", unauthorized)?,
            timeout: hook::TIMEOUT,
            version: match self.authorization_webhook_version.as_str() {
                "v1" => ReviewVersion::V1,
                "v1beta1" => ReviewVersion::V1Beta1,
                other => {
                    return Err(format!(
                        "unsupported webhook authorizer version {other:?}, supported versions are \"v1\", \"v1beta1\""
                    ));
                }
            },
            denies_on_error: false,
            connection: Connection::KubeConfigFile(absolute),
            match_conditions: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn flags(words: &[&str]) -> AuthorizationFlags {
        let words = ["trireme", "server"].iter().chain(words);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Server(server) => server.api_server.authorization,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_name_authorizers_in_their_order() {
        use AuthorizerConfiguration::{AlwaysDeny, Node, Rbac};
        for (words, expect) in [
            (&[][..], Ok(vec![Node, Rbac])),
            (&["--authorization-mode", "RBAC,AlwaysDeny"], Ok(vec![Rbac, AlwaysDeny])),
            (
                &["--authorization-mode=abac"],
                Err("authorization-mode \"abac\" is not a valid mode"),
            ),
            (
                &["--authorization-mode=ABAC"],
                Err("authorization-mode ABAC's authorization policy file not passed"),
            ),
            (
                &["--authorization-mode=RBAC", "--authorization-policy-file=x"],
                Err("cannot specify --authorization-policy-file without mode ABAC"),
            ),
            (
                &["--authorization-mode", "RBAC,RBAC"],
                Err("authorization-mode [\"RBAC\", \"RBAC\"] has mode specified more than once"),
            ),
            (
                &["--authorization-mode", "Webhook"],
                Err("authorization-mode Webhook's authorization config file not passed"),
            ),
            (
                &["--authorization-mode=RBAC", "--authorization-webhook-config-file=x"],
                Err("cannot specify --authorization-webhook-config-file without mode Webhook"),
            ),
        ] {
            assert_eq!(flags(words).modes(), expect.map_err(str::to_owned), "{words:?}");
        }
        let webhook = [
            "--authorization-mode=Webhook",
            "--authorization-webhook-config-file=/hook",
        ];
        let modes = flags(&webhook).modes().unwrap();
        let [AuthorizerConfiguration::Webhook(webhook)] = &modes[..] else {
            panic!("{modes:?}");
        };
        assert_eq!(webhook.authorized_ttl, config::AUTHORIZED_TTL);
        assert_eq!(webhook.unauthorized_ttl, config::UNAUTHORIZED_TTL);
        assert_eq!(webhook.version, ReviewVersion::V1Beta1);
    }

    #[test]
    fn a_file_stands_in_place_of_the_modes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("authorization.yaml");
        let name = file.display().to_string();
        let flags = flags(&["--authorization-config", &name]);
        let plan = || {
            flags
                .plan(&Random::seeded(1))
                .map(|plan| plan.file.is_some())
                .map_err(|error| error.what)
        };
        let none = plan().unwrap_err();
        assert!(none.starts_with("open ") && none.contains("No such file"), "{none}");
        std::fs::write(&file, "kind: Pod").unwrap();
        let other = plan().unwrap_err();
        assert!(
            other.starts_with("failed to load AuthorizationConfiguration from file: no kind \"Pod\""),
            "{other}"
        );
        let kind = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
        std::fs::write(&file, kind).unwrap();
        let why = "authorizers: Required value: at least one authorization mode must be defined";
        assert_eq!(plan(), Err(why.into()));
        std::fs::write(&file, format!("{kind}authorizers: [{{type: ABAC, name: abac}}]")).unwrap();
        assert_eq!(plan(), Err("open : No such file or directory".into()));
        std::fs::write(&file, format!("{kind}authorizers: [{{type: RBAC, name: rbac}}]")).unwrap();
        assert_eq!(plan(), Ok(true));
        let both = [
            "trireme",
            "server",
            "--authorization-config",
            &name,
            "--authorization-mode=RBAC",
        ];
        assert!(Cli::try_parse_from(both).is_err());
        let policies = dir.path().join("policies");
        std::fs::write(&policies, "{\"user\": \"jane\"}\n").unwrap();
        let policies = policies.display().to_string();
        std::fs::write(&file, format!("{kind}authorizers: [{{type: ABAC, name: abac}}]")).unwrap();
        let words = [
            "--authorization-config",
            &name,
            "--authorization-policy-file",
            &policies,
        ];
        assert!(self::flags(&words).plan(&Random::seeded(1)).is_ok());
    }
}
