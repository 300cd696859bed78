//! From the flags of authentication to what the API server is told.
//!
//! Source of the rules and their words: `pkg/kubeapiserver/options/authentication.go` and
//! `k8s.io/apiserver/pkg/server/options/authentication.go`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::authentication::{
    AuthenticationConfiguration, Expressions, FrontProxyConfig, JwtIssuer, Prefixed, ProxyHeaders, TOKEN_TTL,
    TokenFile, TokenReviewVersion, WebhookTokens,
};
use apiserver::hook::{self, Hook, RETRY_PAUSE, Target};
use apiserver::pipeline::Anonymous;
use apiserver::tokens::TokenSettings;
use base::Random;

use super::authorization_flags::files;
use super::{anchor, trusted};
use crate::cli::AuthenticationFlags;
use crate::errors::{CliError, Kind, Result, words};

/// Where machines keep the roots that everybody trusts; the first that is there counts.
/// Source: `crypto/x509/root_linux.go` of Go.
const MACHINE_ROOTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The algorithms of `--oidc-signing-algs`.
const ALGORITHMS: [&str; 9] = [
    "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
];

/// What the flags say, their files read.
#[derive(Default)]
pub struct AuthenticationSettings {
    /// Which requests without credentials are let in.
    pub anonymous: Anonymous,
    /// Whether bootstrap tokens are tokens.
    pub bootstrap_tokens: bool,
    /// Whose word counts for others.
    pub front_proxy: Option<FrontProxyConfig>,
    /// Whose tokens are taken, when any are or may be later.
    pub tokens: Option<Tokens>,
    /// Tokens of a file.
    pub token_file: Option<TokenFile>,
    /// The service that knows further tokens.
    pub webhook: Option<Arc<WebhookTokens>>,
}

/// Issuers of tokens.
#[derive(Debug, Default)]
pub struct Tokens {
    /// What is configured.
    pub configuration: AuthenticationConfiguration,
    /// Whom the machine trusts, as PEM.
    pub machine_roots_pem: Option<String>,
    /// The file that it is from, which may change, and its text.
    pub file: Option<(PathBuf, String)>,
}

// === impl AuthenticationFlags ===

impl AuthenticationFlags {
    /// Whether they say anything.
    pub fn are_given(&self) -> bool {
        *self != AuthenticationFlags::default()
    }

    /// The same, wherever they are read: the names of files do not depend on a working directory. A name of nothing is
    /// none: that is how a file is taken back.
    pub fn anchored(&self) -> Result<AuthenticationFlags> {
        Ok(AuthenticationFlags {
            requestheader_client_ca_file: anchor(self.requestheader_client_ca_file.as_deref())?,
            authentication_config: anchor(self.authentication_config.as_deref())?,
            oidc_ca_file: anchor(self.oidc_ca_file.as_deref())?,
            token_auth_file: anchor(self.token_auth_file.as_deref())?,
            authentication_token_webhook_config_file: anchor(self.authentication_token_webhook_config_file.as_deref())?,
            ..self.clone()
        })
    }

    /// Reads what they name.
    ///
    /// # Errors
    /// They contradict each other, or a file cannot be used. `client_ca_pem` is who signs certificates of clients, and
    /// `own_names` what service accounts' tokens say of us.
    pub fn read(&self, client_ca_pem: &str, own_names: &TokenSettings) -> Result<AuthenticationSettings> {
        let tokens = self.tokens(&own_names.issuers)?;
        let of_file = tokens
            .as_ref()
            .and_then(|tokens| tokens.configuration.anonymous.clone());
        Ok(AuthenticationSettings {
            anonymous: match (of_file, self.anonymous_auth) {
                (Some(_), Some(_)) => {
                    return Err(wrong(
                        "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in \
                         authentication configuration file",
                    ));
                }
                (Some(anonymous), None) => anonymous,
                (None, Some(false)) => Anonymous::Nowhere,
                (None, _) => Anonymous::Everywhere,
            },
            tokens,
            bootstrap_tokens: self.enable_bootstrap_token_auth == Some(true),
            front_proxy: self.front_proxy(client_ca_pem)?,
            token_file: self.token_file()?,
            webhook: self.webhook(own_names)?.map(Arc::new),
        })
    }

    fn token_file(&self) -> Result<Option<TokenFile>> {
        let Some(file) = &self.token_auth_file else {
            return Ok(None);
        };
        let text = read("--token-auth-file", file)?;
        let tokens = TokenFile::read(&text, &file.display().to_string());
        tokens
            .map(Some)
            .map_err(|why| wrong(format!("--token-auth-file: {why}")))
    }

    fn webhook(&self, own_names: &TokenSettings) -> Result<Option<WebhookTokens>> {
        let Some(file) = &self.authentication_token_webhook_config_file else {
            return Ok(None);
        };
        let version = match self.authentication_token_webhook_version.as_deref() {
            None | Some("v1beta1") => TokenReviewVersion::V1Beta1,
            Some("v1") => TokenReviewVersion::V1,
            Some(other) => {
                return Err(wrong(format!(
                    "unsupported authentication webhook version {other:?}, supported versions are \"v1\", \"v1beta1\""
                )));
            }
        };
        let ttl = match &self.authentication_token_webhook_cache_ttl {
            None => TOKEN_TTL,
            Some(text) => api::duration::parse(text).ok_or_else(|| {
                wrong(format!(
                    "--authentication-token-webhook-cache-ttl {text:?} is no duration such as 2m0s"
                ))
            })?,
        };
        let random = Random::real();
        let target = Target::from_kubeconfig(file, &files());
        let hook = target.and_then(|target| Hook::new(target, hook::TIMEOUT, RETRY_PAUSE, random.fork()));
        let hook = hook.map_err(|why| wrong(format!("--authentication-token-webhook-config-file: {why}")))?;
        let audiences = own_names.audiences.clone();
        Ok(Some(WebhookTokens::new(hook, version, ttl, audiences, &random)))
    }

    /// Whether one of `--oidc-*` is given.
    fn oidc_is_given(&self) -> bool {
        let texts = [
            &self.oidc_issuer_url,
            &self.oidc_client_id,
            &self.oidc_username_claim,
            &self.oidc_username_prefix,
            &self.oidc_groups_claim,
            &self.oidc_groups_prefix,
        ];
        let lists = [&self.oidc_required_claim, &self.oidc_signing_algs];
        self.oidc_ca_file.is_some()
            || texts.iter().any(|text| text.is_some())
            || lists.iter().any(|list| !list.is_empty())
    }

    fn tokens(&self, own_issuers: &[String]) -> Result<Option<Tokens>> {
        let machine_roots_pem = || MACHINE_ROOTS.iter().find_map(|file| std::fs::read_to_string(file).ok());
        let Some(file) = &self.authentication_config else {
            if !self.oidc_is_given() {
                return Ok(None);
            }
            let configuration = AuthenticationConfiguration::of_flags(self.oidc()?, own_issuers);
            return Ok(Some(Tokens {
                configuration: configuration.map_err(|error| wrong(error.to_string()))?,
                machine_roots_pem: machine_roots_pem(),
                file: None,
            }));
        };
        if self.oidc_is_given() {
            return Err(wrong(
                "authentication-config file and oidc-* flags are mutually exclusive",
            ));
        }
        let text = read("--authentication-config", file)?;
        let configuration = AuthenticationConfiguration::from_text(&text, own_issuers).map_err(|error| {
            let file = file.display().to_string();
            wrong(format!(
                "failed to load authentication configuration from file {file:?}: {error}"
            ))
        })?;
        Ok(Some(Tokens {
            configuration,
            machine_roots_pem: machine_roots_pem(),
            file: Some((file.clone(), text)),
        }))
    }

    fn oidc(&self) -> Result<JwtIssuer> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (url, client) = (text(&self.oidc_issuer_url), text(&self.oidc_client_id));
        if url.is_empty() || client.is_empty() {
            return Err(wrong(
                "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set",
            ));
        }
        let claim = self.oidc_username_claim.clone().unwrap_or_else(|| "sub".into());
        let prefix = match &*text(&self.oidc_username_prefix) {
            "-" => String::new(),
            "" if claim != "email" => format!("{url}#"),
            prefix => prefix.to_owned(),
        };
        let groups = self.oidc_groups_claim.clone().filter(|claim| !claim.is_empty());
        let mut algorithms = self.oidc_signing_algs.clone();
        if algorithms.is_empty() {
            algorithms.push("RS256".into());
        }
        if let Some(other) = algorithms.iter().find(|own| !ALGORITHMS.contains(&own.as_str())) {
            return Err(wrong(format!("oidc: unsupported signing alg: {other:?}")));
        }
        let required = self.oidc_required_claim.iter().map(|pair| {
            let parts = pair.split_once('=');
            let parts = parts.map(|(claim, value)| (claim.trim().to_owned(), value.trim().to_owned()));
            parts.ok_or_else(|| {
                wrong(format!(
                    "--oidc-required-claim {pair}: malformed pair, expect string=string"
                ))
            })
        });
        let authority = self.oidc_ca_file.as_deref().map(|file| read("--oidc-ca-file", file));
        Ok(JwtIssuer {
            url,
            discovery_url: None,
            certificate_authority: authority.transpose()?.unwrap_or_default(),
            audiences: vec![client],
            algorithms,
            username: Prefixed { claim, prefix },
            groups: groups.map(|claim| Prefixed {
                claim,
                prefix: text(&self.oidc_groups_prefix),
            }),
            uid_claim: None,
            required_claims: required.collect::<Result<_>>()?,
            expressions: Expressions::default(),
        })
    }

    fn front_proxy(&self, client_ca_pem: &str) -> Result<Option<FrontProxyConfig>> {
        let headers = ProxyHeaders {
            username: trimmed("requestheader-username-headers", &self.requestheader_username_headers)?,
            uid: trimmed("requestheader-uid-headers", &self.requestheader_uid_headers)?,
            group: trimmed("requestheader-group-headers", &self.requestheader_group_headers)?,
            extra_prefix: trimmed(
                "requestheader-extra-headers-prefix",
                &self.requestheader_extra_headers_prefix,
            )?,
        };
        trimmed("requestheader-allowed-names", &self.requestheader_allowed_names)?;
        let lacks = |names: &[String], standard: &str| {
            !names.is_empty() && !names.iter().any(|name| name.eq_ignore_ascii_case(standard))
        };
        if lacks(&headers.uid, "X-Remote-Uid") {
            return Err(wrong(
                "--requestheader-uid-headers is set without specifying the standard X-Remote-Uid header - API aggregation \
                 will not work",
            ));
        }
        let Some(file) = &self.requestheader_client_ca_file else {
            return Ok(None);
        };
        let authorities_pem = read("--requestheader-client-ca-file", file)?;
        let config = FrontProxyConfig {
            authorities_pem,
            allowed_names: self.requestheader_allowed_names.clone(),
            headers,
        };
        trusted::check(Some(&config), client_ca_pem).map_err(wrong)?;
        Ok(Some(config))
    }
}

fn wrong(what: impl Into<String>) -> CliError {
    CliError::new(Kind::Usage, "AUTHENTICATION", what)
        .hint("the flags are in docs/authentication.md, and upstream's words on them in https://kubernetes.io/docs/reference/access-authn-authz/authentication/")
}

fn read(flag: &str, file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|error| wrong(format!("{flag} {}: {}", file.display(), words(&error))))
}

fn trimmed(flag: &str, names: &[String]) -> Result<Vec<String>> {
    let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
    match names.iter().any(String::is_empty) {
        true => Err(wrong(format!("empty value in \"{flag}\""))),
        false => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use apiserver::pki::Authority;
    use base::{Clock, Random};
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn flags(words: &[&str]) -> AuthenticationFlags {
        let line = ["trireme", "server"].iter().chain(words);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Server(server) => server.api_server.authentication,
            other => panic!("{other:?}"),
        }
    }

    fn authority() -> String {
        let authority = Authority::generate("ca", Clock::real().now(), Random::real()).unwrap();
        authority.pair().certificate_pem.clone()
    }

    #[test]
    fn flags_are_upstreams() {
        assert!(!flags(&[]).are_given());
        let none = flags(&[]).read("", &TokenSettings::default()).unwrap();
        assert!(none.anonymous == Anonymous::Everywhere && !none.bootstrap_tokens && none.front_proxy.is_none());
        let some = flags(&["--anonymous-auth=false", "--enable-bootstrap-token-auth"])
            .read("", &TokenSettings::default())
            .unwrap();
        assert!(some.anonymous == Anonymous::Nowhere && some.bootstrap_tokens);
        let off = flags(&["--enable-bootstrap-token-auth=false", "--anonymous-auth"]);
        let read = off.read("", &TokenSettings::default()).unwrap();
        assert!(read.anonymous == Anonymous::Everywhere && !read.bootstrap_tokens && off.are_given());
        let here = std::env::current_dir().unwrap();
        let anchored = flags(&["--requestheader-client-ca-file", "ca.pem"]).anchored().unwrap();
        assert_eq!(anchored.requestheader_client_ca_file, Some(here.join("ca.pem")));
        let empty = flags(&["--requestheader-client-ca-file="]).anchored().unwrap();
        assert_eq!(empty.requestheader_client_ca_file, None);
    }

    #[test]
    fn proxies_are_read_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (own, proxies) = (authority(), authority());
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (file, both) = (write("a.pem", &proxies), write("b.pem", &format!("{proxies}{own}")));
        let ca = "--requestheader-client-ca-file";
        let read = flags(&[
            ca,
            &file,
            "--requestheader-username-headers=X-Remote-User, X-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-allowed-names=front,other",
        ]);
        let config = read.read(&own, &TokenSettings::default()).unwrap().front_proxy.unwrap();
        assert_eq!(config.headers.username, ["X-Remote-User", "X-User"]);
        assert_eq!(config.allowed_names, ["front", "other"]);
        assert!(
            flags(&[ca, &both, "--requestheader-allowed-names=a"])
                .read(&own, &TokenSettings::default())
                .is_ok()
        );
        for (words, expect) in [
            (vec![ca, &both], "contain overlapping certificates"),
            (vec![ca, "/nowhere"], "/nowhere: No such file or directory"),
            (
                vec!["--requestheader-username-headers=a, "],
                "empty value in \"requestheader-username-headers\"",
            ),
            (
                vec!["--requestheader-uid-headers=X-Id"],
                "the standard X-Remote-Uid header",
            ),
        ] {
            let Err(error) = flags(&words).read(&own, &TokenSettings::default()) else {
                panic!("{words:?}: {expect}");
            };
            assert!(error.what.contains(expect), "{words:?}: {error:?}");
        }
    }

    #[test]
    fn issuers_are_read_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        std::fs::write(
            &file,
            format!("{head}anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}"),
        )
        .unwrap();
        let file = file.display().to_string();
        let config = ["--authentication-config", &*file];
        let settings = flags(&config).read("", &TokenSettings::default()).unwrap();
        assert!(settings.anonymous.allows("/livez") && !settings.anonymous.allows("/api"));
        let oidc = ["--oidc-issuer-url=https://a", "--oidc-client-id=k"];
        let issuer = |more: &[&str]| {
            let words: Vec<&str> = oidc.iter().chain(more).copied().collect();
            flags(&words)
                .read("", &TokenSettings::default())
                .unwrap()
                .tokens
                .unwrap()
                .configuration
                .issuers
                .remove(0)
        };
        let plain = issuer(&[]);
        assert_eq!((&*plain.username.claim, &*plain.username.prefix), ("sub", "https://a#"));
        assert_eq!(
            (&*plain.audiences, &*plain.algorithms),
            (&["k".to_owned()][..], &["RS256".to_owned()][..])
        );
        assert_eq!(issuer(&["--oidc-username-claim=email"]).username.prefix, "");
        assert_eq!(issuer(&["--oidc-username-prefix=-"]).username.prefix, "");
        let more = issuer(&[
            "--oidc-groups-claim=g",
            "--oidc-groups-prefix=p:",
            "--oidc-required-claim=a=b=c",
            "--oidc-signing-algs=ES256,PS384",
        ]);
        assert_eq!(more.groups.unwrap().prefix, "p:");
        assert_eq!(more.required_claims, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(more.algorithms, ["ES256", "PS384"]);
        for (words, expect) in [
            (
                vec![oidc[0]],
                "oidc-issuer-url and oidc-client-id must be specified together",
            ),
            (
                vec!["--oidc-groups-claim=g"],
                "must be specified together when any oidc-* flags are set",
            ),
            (vec![config[0], config[1], oidc[0]], "are mutually exclusive"),
            (
                vec![config[0], config[1], "--anonymous-auth=false"],
                "--anonymous-auth flag cannot be set when",
            ),
            (
                vec![oidc[0], oidc[1], "--oidc-signing-algs=HS256"],
                "unsupported signing alg: \"HS256\"",
            ),
            (vec![oidc[0], oidc[1], "--oidc-required-claim=a"], "malformed pair"),
            (vec!["--oidc-issuer-url=http://a", oidc[1]], "URL scheme must be https"),
            (vec!["--authentication-config=/nowhere"], "/nowhere: No such file"),
        ] {
            let Err(error) = flags(&words).read("", &TokenSettings::default()) else {
                panic!("{words:?}: {expect}");
            };
            assert!(error.what.contains(expect), "{words:?}: {error:?}");
        }
    }
}
