//! From the flags of service accounts to who signs tokens and whose are taken.
//!
//! Source of the rules and their words: `pkg/kubeapiserver/options/authentication.go` and
//! `pkg/controlplane/apiserver/options` (`options.go`, `validation.go`). Different from upstream: what nobody says is not an
//! error, for the cluster has a key and a name of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apiserver::tokens::{
    EXTENDED_SECONDS, ExternalSigner, MAX_EXPIRATION_SECONDS, Signer, SigningKey, TokenSettings, VerifyingKey,
    WARN_ONLY_SECONDS, verifying_keys,
};
use base::{Random, Shutdown};

use super::anchor;
use crate::cli::ServiceAccountFlags;
use crate::errors::{CliError, Context as _, Kind, Result, words};

/// The shortest of the longest lives that may be set.
const MAX_EXPIRATION_SECONDS_MIN: u64 = 3600;

/// What the flags say, their files read.
pub struct TokenPlan {
    /// What tokens say, and which are taken.
    pub settings: TokenSettings,
    /// Whose signatures count, besides the cluster's own key as long as that signs.
    keys: Vec<VerifyingKey>,
    /// Who signs, when that is not the cluster's own key.
    signing: Option<SigningKey>,
    /// Where another program is that signs.
    endpoint: Option<String>,
    /// That program.
    external: Option<Arc<ExternalSigner>>,
}

// === impl ServiceAccountFlags ===

impl ServiceAccountFlags {
    /// Whether they say anything.
    pub fn are_given(&self) -> bool {
        *self != ServiceAccountFlags::default()
    }

    /// The same, wherever they are read: the names of files do not depend on a working directory. Words of nothing are none:
    /// that is how they are taken back.
    pub fn anchored(&self) -> Result<ServiceAccountFlags> {
        let files = self.service_account_key_file.iter().map(|file| anchor(Some(file)));
        let files = files.collect::<Result<Vec<_>>>()?;
        let said = |words: &[String]| match words {
            [only] if only.is_empty() => Vec::new(),
            words => words.to_vec(),
        };
        let word = |word: &Option<String>| word.clone().filter(|word| !word.is_empty());
        Ok(ServiceAccountFlags {
            service_account_issuer: said(&self.service_account_issuer),
            service_account_key_file: files.into_iter().flatten().collect(),
            service_account_signing_key_file: anchor(self.service_account_signing_key_file.as_deref())?,
            service_account_signing_endpoint: socket(self.service_account_signing_endpoint.as_deref())?,
            service_account_max_token_expiration: word(&self.service_account_max_token_expiration),
            service_account_jwks_uri: word(&self.service_account_jwks_uri),
            api_audiences: said(&self.api_audiences),
            ..self.clone()
        })
    }

    /// Reads what they name.
    ///
    /// # Errors
    /// They contradict each other, or a file cannot be used.
    pub fn read(&self) -> Result<TokenPlan> {
        let issuers = self.issuers()?;
        self.check_endpoint()?;
        if self.service_account_signing_key_file.is_some() && self.service_account_key_file.is_empty() {
            return Err(wrong(
                "either `--service-account-key-file` or `--service-account-signing-endpoint` must be set",
            ));
        }
        if let Some(uri) = &self.service_account_jwks_uri {
            let scheme =
                check_url(uri).map_err(|why| wrong(format!("service-account-jwks-uri must be a valid URL: {why}")))?;
            if scheme != "https" {
                return Err(wrong(format!(
                    "service-account-jwks-uri requires https scheme, parsed as: {uri}"
                )));
            }
        }
        let max_expiration_seconds = self.max_expiration_seconds()?;
        let extend = self.service_account_extend_token_expiration.unwrap_or(true);
        if let Some(max) = max_expiration_seconds.filter(|_| extend && self.service_account_signing_endpoint.is_none())
        {
            warn_of_extension(max);
        }
        let mut keys = Vec::new();
        for file in &self.service_account_key_file {
            let text = read("--service-account-key-file", file)?;
            keys.extend(verifying_keys(&text).map_err(|why| {
                let file = file.display();
                wrong(format!("error reading public key file {file}: {why}"))
            })?);
        }
        let signing = self.service_account_signing_key_file.as_deref().map(|file| {
            let text = read("--service-account-signing-key-file", file)?;
            SigningKey::from_pem(&text).map_err(|why| {
                let file = file.display();
                wrong(format!(
                    "failed to parse service-account-issuer-key-file: error reading private key file {file}: {why}"
                ))
            })
        });
        Ok(TokenPlan {
            settings: TokenSettings {
                audiences: match self.api_audiences.is_empty() {
                    true => issuers.clone(),
                    false => self.api_audiences.clone(),
                },
                issuers,
                max_expiration_seconds,
                extend,
                extended_seconds: EXTENDED_SECONDS,
                lookup: self.service_account_lookup.unwrap_or(true),
                jwks_uri: self.service_account_jwks_uri.clone(),
            },
            keys,
            signing: signing.transpose()?,
            endpoint: self.service_account_signing_endpoint.clone(),
            external: None,
        })
    }

    fn check_endpoint(&self) -> Result {
        let Some(endpoint) = &self.service_account_signing_endpoint else {
            return Ok(());
        };
        if self.service_account_signing_key_file.is_some() {
            return Err(wrong(
                "service-account-signing-key-file and service-account-signing-endpoint are mutually exclusive and cannot be set at \
                 the same time",
            ));
        }
        if !self.service_account_key_file.is_empty() {
            return Err(wrong(
                "can't set `--service-account-signing-key-file` and/or `--service-account-key-file` with \
                 `--service-account-signing-endpoint` (They are mutually exclusive)",
            ));
        }
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || "_-".contains(char))
        };
        if let Some(name) = endpoint.strip_prefix('@')
            && !name.split('.').all(is_word)
        {
            return Err(wrong(format!(
                "invalid value {endpoint:?} passed for `--service-account-signing-endpoint`, when prefixed with @ must be a valid \
                 abstract socket name"
            )));
        }
        Ok(())
    }

    fn issuers(&self) -> Result<Vec<String>> {
        if self.service_account_issuer.is_empty() {
            return Ok(TokenSettings::default().issuers);
        }
        let mut seen = BTreeSet::new();
        for issuer in &self.service_account_issuer {
            if issuer.contains(':')
                && let Err(why) = check_url(issuer)
            {
                return Err(wrong(format!(
                    "service-account-issuer {issuer:?} contained a ':' but was not a valid URL: {why}"
                )));
            }
            if issuer.is_empty() {
                return Err(wrong("service-account-issuer should not be an empty string"));
            }
            if !seen.insert(issuer) {
                return Err(wrong(format!("service-account-issuer {issuer:?} is already specified")));
            }
        }
        Ok(self.service_account_issuer.clone())
    }

    fn max_expiration_seconds(&self) -> Result<Option<i64>> {
        let Some(text) = &self.service_account_max_token_expiration else {
            return Ok(None);
        };
        let Some(max) = api::duration::parse(text) else {
            return Err(wrong(format!(
                "--service-account-max-token-expiration {text:?} is no duration such as 48h0m0s"
            )));
        };
        let bounds =
            Duration::from_secs(MAX_EXPIRATION_SECONDS_MIN)..=Duration::from_secs(MAX_EXPIRATION_SECONDS as u64);
        match max {
            Duration::ZERO => Ok(None),
            max if bounds.contains(&max) => Ok(Some(max.as_secs() as i64)),
            _ => Err(wrong(
                "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds",
            )),
        }
    }
}

/// The same with an external signer, which shortens them.
fn warn_of_signer(max: i64) {
    let shown = api::duration::text(Duration::from_secs(max.unsigned_abs()));
    if max < WARN_ONLY_SECONDS {
        tracing::warn!(
            "service-account-extend-token-expiration is true, in order to correctly trigger safe transition logic, token lifetime \
             supported by external-jwt-signer must be longer than {WARN_ONLY_SECONDS} seconds (currently {shown})"
        );
    }
    if max < EXTENDED_SECONDS {
        tracing::warn!(
            "service-account-extend-token-expiration is true, tokens validity will be caped at the smaller of {EXTENDED_SECONDS} \
             seconds and maximum token lifetime supported by external-jwt-signer ({shown})"
        );
    }
}

/// Tokens of pods outlive what was set as the longest life.
fn warn_of_extension(max: i64) {
    if max < WARN_ONLY_SECONDS {
        tracing::warn!(
            "service-account-extend-token-expiration is true, in order to correctly trigger safe transition logic, \
             service-account-max-token-expiration must be set longer than {WARN_ONLY_SECONDS} seconds (currently {max}s)"
        );
    }
    if max < EXTENDED_SECONDS {
        tracing::warn!(
            "service-account-extend-token-expiration is true, enabling tokens valid up to {EXTENDED_SECONDS} seconds, which \
             is longer than service-account-max-token-expiration set to {max}s"
        );
    }
}

// === impl TokenPlan ===

impl TokenPlan {
    /// The same with the program that signs, if one does; its keys are asked for until the end.
    ///
    /// # Errors
    /// It does not answer, or not with what can be used.
    pub async fn connected(mut self, shutdown: &Shutdown) -> Result<TokenPlan> {
        let Some(endpoint) = &self.endpoint else {
            return Ok(self);
        };
        let (signer, longest) = ExternalSigner::connect(endpoint).await.map_err(wrong)?;
        let settings = &mut self.settings;
        match settings.max_expiration_seconds {
            Some(max) if max > longest => {
                let shown = |seconds: i64| api::duration::text(Duration::from_secs(seconds.unsigned_abs()));
                let (max, longest) = (shown(max), shown(longest));
                return Err(wrong(format!(
                    "service-account-max-token-expiration cannot be set longer than the token expiration supported by \
                     service-account-signing-endpoint: {max} > {longest}"
                )));
            }
            Some(_) => {}
            None => settings.max_expiration_seconds = Some(longest),
        }
        settings.extended_seconds = settings.extended_seconds.min(longest);
        if let Some(max) = settings.max_expiration_seconds.filter(|_| settings.extend) {
            warn_of_signer(max);
        }
        signer.follow(shutdown);
        self.external = Some(signer);
        Ok(self)
    }

    /// Who signs and verifies. The cluster's own key does both until another one signs; from then on it verifies what it
    /// signed as long as it is among the files.
    ///
    /// # Errors
    /// The cluster's own key cannot be read.
    pub fn signer(self, own_key_pem: &str, random: Random) -> Result<Signer> {
        if let Some(external) = self.external {
            return Ok(Signer::external(external, self.settings, random));
        }
        let mut taken = self.keys;
        let key = match self.signing {
            Some(key) => key,
            None => {
                let own = SigningKey::from_pem(own_key_pem).map_err(CliError::internal);
                let own = own.doing("reading the key of tokens")?;
                taken.insert(0, own.verifying());
                own
            }
        };
        Ok(Signer::new(key, taken, self.settings, random))
    }
}

/// A name of a socket that does not depend on the working directory; a name of nothing is none.
fn socket(name: Option<&str>) -> Result<Option<String>> {
    match name.filter(|name| !name.is_empty()) {
        Some(name) if !name.starts_with('@') => {
            let path = std::path::absolute(name).map_err(CliError::internal)?;
            Ok(Some(path.display().to_string()))
        }
        name => Ok(name.map(str::to_owned)),
    }
}

fn wrong(what: impl Into<String>) -> CliError {
    CliError::new(Kind::Usage, "SERVICE_ACCOUNTS", what).hint("the flags are in docs/authentication.md")
}

fn read(flag: &str, file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|error| wrong(format!("{flag} {}: {}", file.display(), words(&error))))
}

/// The scheme of what Go takes for a URL, as far as names of issuers go.
fn check_url(url: &str) -> std::result::Result<&str, String> {
    let wrong = |why: &str| Err(format!("parse {url:?}: {why}"));
    if url.chars().any(|char| char < ' ' || char == '\x7f') {
        return wrong("net/url: invalid control character in URL");
    }
    let end = url.find(|char: char| !(char.is_ascii_alphanumeric() || "+-.".contains(char)));
    let (scheme, rest) = url.split_at(end.unwrap_or(url.len()));
    let Some(rest) = rest.strip_prefix(':') else {
        let first = url.split('/').next().unwrap_or_default();
        return match first.contains(':') {
            true => wrong("first path segment in URL cannot contain colon"),
            false => Ok(""),
        };
    };
    if scheme.is_empty() {
        return wrong("missing protocol scheme");
    }
    if !scheme.starts_with(|char: char| char.is_ascii_alphabetic()) {
        return wrong("first path segment in URL cannot contain colon");
    }
    let authority = rest.strip_prefix("//").unwrap_or_default();
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if let Some(bad) = host.chars().find(|char| " {}|^`\\".contains(*char)) {
        return wrong(&format!("invalid character {:?} in host name", bad.to_string()));
    }
    let port = host
        .rsplit(']')
        .next()
        .and_then(|end| end.find(':').map(|at| &end[at..]));
    match port {
        Some(port) if !port[1..].chars().all(|char| char.is_ascii_digit()) => {
            wrong(&format!("invalid port {port:?} after host"))
        }
        _ => Ok(scheme),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn flags(words: &[&str]) -> ServiceAccountFlags {
        let line = ["trireme", "server"].iter().chain(words);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Server(server) => server.api_server.service_accounts,
            other => panic!("{other:?}"),
        }
    }

    fn key(dir: &Path, name: &str) -> String {
        let file = dir.join(name);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&file, key.serialize_pem()).unwrap();
        let public = file.with_extension("pub");
        std::fs::write(&public, key.public_key_pem()).unwrap();
        file.display().to_string()
    }

    #[test]
    fn without_flags_all_is_the_clusters_own() {
        assert!(!flags(&[]).are_given());
        let plan = flags(&[]).read().unwrap();
        assert_eq!(plan.settings, TokenSettings::default());
        let dir = tempfile::tempdir().unwrap();
        let own = std::fs::read_to_string(key(dir.path(), "own")).unwrap();
        let signer = plan.signer(&own, Random::seeded(1)).unwrap();
        assert_eq!(signer.key_set()["keys"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn the_first_issuer_and_one_key_sign() {
        let dir = tempfile::tempdir().unwrap();
        let [own, next, public] = ["own", "next", "old"].map(|name| key(dir.path(), name));
        let public = format!("{public}.pub");
        let of_file = |file: &str| verifying_keys(&std::fs::read_to_string(file).unwrap()).unwrap();
        let own_pem = std::fs::read_to_string(&own).unwrap();
        let keys = |words: &[&str]| {
            let signer = flags(words)
                .read()
                .unwrap()
                .signer(&own_pem, Random::seeded(1))
                .unwrap();
            let token = signer.sign(&apiserver::tokens::Claims {
                issuer: signer.settings().issuers[0].clone(),
                ..Default::default()
            });
            (
                signer.key_set()["keys"].as_array().unwrap().len(),
                signer.verify(&token.unwrap()).is_ok(),
            )
        };
        let file = |name: &str| format!("--service-account-key-file={name}");
        let signing = format!("--service-account-signing-key-file={next}");
        assert_eq!(
            keys(&[&file(&public)]),
            (2, true),
            "our own key signs, and counts beside the file's"
        );
        assert_eq!(keys(&[&signing, &file(&format!("{next}.pub"))]), (1, true));
        assert_eq!(keys(&[&signing, &file(&next), &file(&own)]), (2, true));
        assert_eq!(
            keys(&[&signing, &file(&public)]),
            (1, false),
            "as upstream: nobody adds what signs"
        );
        assert_eq!(of_file(&next), of_file(&format!("{next}.pub")));

        let two = flags(&[
            "--service-account-issuer=https://new",
            "--service-account-issuer=old",
            "--service-account-max-token-expiration=2h",
            "--service-account-extend-token-expiration=false",
            "--service-account-lookup=false",
            "--service-account-jwks-uri=https://keys/set",
        ]);
        let settings = two.read().unwrap().settings;
        let expect = TokenSettings {
            issuers: vec!["https://new".into(), "old".into()],
            audiences: vec!["https://new".into(), "old".into()],
            max_expiration_seconds: Some(7200),
            extend: false,
            extended_seconds: EXTENDED_SECONDS,
            lookup: false,
            jwks_uri: Some("https://keys/set".into()),
        };
        assert_eq!(settings, expect);
        let named = flags(&["--api-audiences=a,b"]).read().unwrap().settings;
        assert_eq!(
            (named.audiences, named.issuers),
            (vec!["a".into(), "b".into()], TokenSettings::default().issuers)
        );
    }

    #[test]
    fn what_cannot_be_used_is_told_as_upstream_does() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "no key").unwrap();
        let (empty, good) = (empty.display().to_string(), key(dir.path(), "good"));
        let good = format!("--service-account-key-file={good}");
        for (words, expect) in [
            (
                vec!["--service-account-issuer=a", "--service-account-issuer=a"],
                "service-account-issuer \"a\" is already specified",
            ),
            (
                vec!["--service-account-issuer=a", "--service-account-issuer="],
                "service-account-issuer should not be an empty string",
            ),
            (
                vec!["--service-account-issuer=:a"],
                "service-account-issuer \":a\" contained a ':' but was not a valid URL: parse \":a\": missing protocol scheme",
            ),
            (
                vec!["--service-account-issuer=http://a:b"],
                "parse \"http://a:b\": invalid port \":b\" after host",
            ),
            (
                vec!["--service-account-issuer=1:a"],
                "parse \"1:a\": first path segment in URL cannot contain colon",
            ),
            (
                vec!["--service-account-jwks-uri=http://a/b"],
                "service-account-jwks-uri requires https scheme, parsed as: http://a/b",
            ),
            (
                vec!["--service-account-max-token-expiration=59m"],
                "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds",
            ),
            (
                vec!["--service-account-max-token-expiration=1193047h"],
                "must be between 1 hour and 2^32 seconds",
            ),
            (
                vec!["--service-account-max-token-expiration=long"],
                "is no duration such as",
            ),
            (
                vec!["--service-account-key-file", &empty],
                "empty: data does not contain any valid RSA or ECDSA public keys",
            ),
            (
                vec!["--service-account-key-file=/nowhere"],
                "/nowhere: No such file or directory",
            ),
            (
                vec![&*good, "--service-account-signing-key-file", &empty],
                "empty: data does not contain a valid RSA or ECDSA private key",
            ),
            (
                vec![
                    "--service-account-signing-endpoint=/s",
                    "--service-account-signing-key-file",
                    &empty,
                ],
                "service-account-signing-key-file and service-account-signing-endpoint are mutually exclusive and cannot be set at \
                 the same time",
            ),
            (
                vec!["--service-account-signing-endpoint=/s", &good],
                "can't set `--service-account-signing-key-file` and/or `--service-account-key-file` with \
                 `--service-account-signing-endpoint` (They are mutually exclusive)",
            ),
            (
                vec!["--service-account-signing-endpoint=@a..b"],
                "invalid value \"@a..b\" passed for `--service-account-signing-endpoint`, when prefixed with @ must be a valid",
            ),
            (
                vec!["--service-account-signing-key-file", &empty],
                "either `--service-account-key-file` or `--service-account-signing-endpoint` must be set",
            ),
        ] {
            let Err(error) = flags(&words).read() else {
                panic!("{words:?}: {expect}");
            };
            assert!(error.what.contains(expect), "{words:?}: {error:?}");
        }
        let here = std::env::current_dir().unwrap();
        let anchored = flags(&["--service-account-key-file=a", "--service-account-key-file=/b"])
            .anchored()
            .unwrap();
        assert_eq!(anchored.service_account_key_file, [here.join("a"), "/b".into()]);
        for (given, expect) in [
            ("s", Some(here.join("s").display().to_string())),
            ("/s", Some("/s".to_owned())),
            ("@s.t", Some("@s.t".to_owned())),
            ("", None),
        ] {
            let given = flags(&[&format!("--service-account-signing-endpoint={given}")]);
            assert_eq!(given.anchored().unwrap().service_account_signing_endpoint, expect);
        }
        let back = flags(&[
            "--service-account-key-file=",
            "--service-account-issuer=",
            "--api-audiences=",
            "--service-account-jwks-uri=",
            "--service-account-signing-endpoint=",
        ]);
        assert!(back.are_given() && !back.anchored().unwrap().are_given());
    }
}
