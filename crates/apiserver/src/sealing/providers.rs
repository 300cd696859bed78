//! What an `EncryptionConfiguration` makes of values: for each resource a list of providers, of which the first seals and
//! every one opens what has its prefix.
//!
//! Sources: `k8s.io/apiserver/pkg/storage/value/transformer.go` (`NewPrefixTransformers`) and
//! `pkg/server/options/encryptionconfig/config.go` (`transformerFromOverrides`).

use std::collections::HashMap;
use std::sync::Arc;

use api::GroupResource;
use base::Random;
use bytes::Bytes;
use tokio::sync::Notify;

use super::ciphers::{Cbc, Gcm, Secretbox};
use super::config::{ConfigError, EncryptionConfig, NamedKey, ProviderConfig, any_of};
use super::kms::{Kms, KmsRuntime};

/// What every sealed value of upstream's format begins with; no JSON does.
pub(super) const PREFIX: &[u8] = b"k8s:enc:";
/// Source: `identity.NewEncryptCheckTransformer`.
pub(super) const IDENTITY_OF_SEALED: &str = "identity transformer tried to read encrypted data";

/// The providers of a configuration, at work.
pub struct Encryption {
    rules: HashMap<GroupResource, Arc<ResourceRule>>,
    kms: Vec<Arc<Kms>>,
    /// Told when a key service answers that could not open something before.
    recovered: Arc<Notify>,
    /// Ends what asks the key services; declared last, it ends after them.
    _runtime: Option<KmsRuntime>,
}

/// The providers of a resource, in their order.
pub(super) struct ResourceRule {
    providers: Vec<Provider>,
    random: Random,
}

#[derive(Clone)]
enum Provider {
    /// Stored as it is.
    Identity,
    /// Keys of this file.
    Keys(Arc<Keys>),
    /// Keys of a plug-in.
    Kms(Arc<Kms>),
}

struct Keys {
    prefix: &'static str,
    /// The error when no key has the name that a value says.
    no_key: &'static str,
    /// By name with its colon.
    keys: Vec<(String, Cipher)>,
}

enum Cipher {
    Gcm(Gcm),
    Cbc(Cbc),
    Secretbox(Secretbox),
}

impl Encryption {
    /// Puts a configuration to work and asks each key service once. A service that does not answer is asked again and
    /// again: until it does, what it sealed does not open, and `/readyz` says so.
    ///
    /// # Errors
    /// The thread that asks key services cannot be started.
    pub async fn start(config: EncryptionConfig, random: &Random) -> Result<Encryption, ConfigError> {
        let mut rules: HashMap<GroupResource, Vec<Provider>> = HashMap::new();
        let (mut kms, mut runtime, recovered) = (Vec::new(), None, Arc::new(Notify::new()));
        for rule in config.rules {
            let mut providers = Vec::new();
            for provider in rule.providers {
                providers.push(match provider {
                    ProviderConfig::Identity => Provider::Identity,
                    ProviderConfig::AesGcm(keys) => {
                        let cipher = |key: &[u8]| Gcm::new(key).map(Cipher::Gcm);
                        Provider::keys("k8s:enc:aesgcm:v1:", NO_AES_KEY, keys, cipher)
                    }
                    ProviderConfig::AesCbc(keys) => {
                        let cipher = |key: &[u8]| Cbc::new(key).map(Cipher::Cbc);
                        Provider::keys("k8s:enc:aescbc:v1:", NO_AES_KEY, keys, cipher)
                    }
                    ProviderConfig::Secretbox(keys) => {
                        let cipher = |key: &[u8]| Secretbox::new(key).map(Cipher::Secretbox);
                        Provider::keys("k8s:enc:secretbox:v1:", NO_SECRETBOX_KEY, keys, cipher)
                    }
                    ProviderConfig::Kms(config) => {
                        let running = match &mut runtime {
                            Some(running) => running,
                            none => none.insert(KmsRuntime::start().map_err(|error| ConfigError(error.to_string()))?),
                        };
                        let service = Kms::start(config, running, random.fork(), recovered.clone());
                        kms.push(service.clone());
                        Provider::Kms(service)
                    }
                });
            }
            for resource in rule.resources {
                rules.entry(resource).or_default().extend(providers.iter().cloned());
            }
        }
        let rule = |providers| ResourceRule {
            providers,
            random: random.fork(),
        };
        let encryption = Encryption {
            rules: rules
                .into_iter()
                .map(|(resource, providers)| (resource, Arc::new(rule(providers))))
                .collect(),
            kms,
            recovered,
            _runtime: runtime,
        };
        encryption.ask().await;
        Ok(encryption)
    }

    /// Asks every key service how it is and which key it writes with, as otherwise happens from time to time.
    pub async fn ask(&self) {
        futures::future::join_all(self.kms.iter().map(Kms::ask)).await;
    }

    /// What is wrong with the key services.
    ///
    /// # Errors
    /// All that is.
    pub fn health(&self) -> Result<(), String> {
        let wrong = |(at, service): (usize, &Arc<Kms>)| {
            let why = service.health().err()?;
            Some(format!("kms-provider-{at}: {why}"))
        };
        let wrong: Vec<String> = self.kms.iter().enumerate().filter_map(wrong).collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join(", ")),
        }
    }

    /// The rule of a resource: its own, its group's, or everything's.
    pub(super) fn rule(&self, resource: &GroupResource) -> Option<Arc<ResourceRule>> {
        let wider = || [any_of(&resource.group), any_of("*")];
        let own = self.rules.get(resource);
        own.or_else(|| wider().iter().find_map(|wider| self.rules.get(wider)))
            .cloned()
    }

    /// Returns when a key service answers that could not open something before.
    pub(super) async fn recovered(&self) {
        self.recovered.notified().await;
    }
}

const NO_AES_KEY: &str = "no matching key was found for the provided AES transformer";
const NO_SECRETBOX_KEY: &str = "no matching key was found for the provided Secretbox transformer";

impl Provider {
    fn keys(
        prefix: &'static str,
        no_key: &'static str,
        keys: Vec<NamedKey>,
        cipher: impl Fn(&[u8]) -> Option<Cipher>,
    ) -> Provider {
        let named = |NamedKey { name, key }| {
            let cipher = cipher(&key).expect("invariant: lengths of keys were checked");
            (format!("{name}:"), cipher)
        };
        Provider::Keys(Arc::new(Keys {
            prefix,
            no_key,
            keys: keys.into_iter().map(named).collect(),
        }))
    }

    fn prefix(&self) -> &str {
        match self {
            Provider::Identity => "",
            Provider::Keys(keys) => keys.prefix,
            Provider::Kms(kms) => kms.prefix(),
        }
    }

    /// What it leaves in front of a value now, and what else tells its keys apart.
    fn writer(&self) -> String {
        match self {
            Provider::Identity => String::new(),
            Provider::Keys(keys) => format!("{}{}", keys.prefix, keys.keys[0].0),
            Provider::Kms(kms) => kms.writer(),
        }
    }

    /// Opens what follows the prefix; says also what sealed it.
    fn open(&self, store_key: &[u8], rest: &[u8]) -> Result<(Vec<u8>, String), String> {
        match self {
            Provider::Identity => Err(IDENTITY_OF_SEALED.into()),
            Provider::Kms(kms) => kms.open(store_key, rest),
            Provider::Keys(keys) => keys.open(store_key, rest),
        }
    }
}

impl Keys {
    fn open(&self, store_key: &[u8], rest: &[u8]) -> Result<(Vec<u8>, String), String> {
        let mut why = self.no_key;
        for (name, cipher) in &self.keys {
            let Some(sealed) = rest.strip_prefix(name.as_bytes()) else {
                continue;
            };
            match cipher.open(store_key, sealed) {
                Ok(opened) => return Ok((opened, format!("{}{name}", self.prefix))),
                Err(error) => why = error,
            }
        }
        Err(why.into())
    }
}

impl Cipher {
    fn seal(&self, store_key: &[u8], value: &[u8], random: &Random, out: &mut Vec<u8>) {
        match self {
            Cipher::Gcm(key) => key.seal(store_key, value, random, out),
            Cipher::Cbc(key) => key.seal(value, random, out),
            Cipher::Secretbox(key) => key.seal(value, random, out),
        }
    }

    fn open(&self, store_key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
        match self {
            Cipher::Gcm(key) => key.open(store_key, sealed),
            Cipher::Cbc(key) => key.open(sealed),
            Cipher::Secretbox(key) => key.open(sealed),
        }
    }
}

impl ResourceRule {
    /// Seals with the first provider.
    pub(super) fn seal(&self, store_key: &[u8], value: Bytes) -> Result<Bytes, String> {
        let mut out = Vec::new();
        match &self.providers[0] {
            Provider::Identity => return Ok(value),
            Provider::Keys(keys) => {
                let (name, cipher) = &keys.keys[0];
                out.extend_from_slice(keys.prefix.as_bytes());
                out.extend_from_slice(name.as_bytes());
                cipher.seal(store_key, &value, &self.random, &mut out);
            }
            Provider::Kms(kms) => kms.seal(store_key, &value, &mut out)?,
        }
        Ok(out.into())
    }

    /// What [`ResourceRule::seal`] leaves now.
    pub(super) fn writer(&self) -> String {
        self.providers[0].writer()
    }

    /// Opens with whichever provider the prefix names.
    pub(super) fn open(&self, store_key: &[u8], value: &Bytes) -> Result<(Bytes, String), String> {
        let mut wrong: Vec<String> = Vec::new();
        for provider in &self.providers {
            let Some(rest) = value.strip_prefix(provider.prefix().as_bytes()) else {
                continue;
            };
            if matches!(provider, Provider::Identity) && !value.starts_with(PREFIX) {
                return Ok((value.clone(), String::new()));
            }
            match provider.open(store_key, rest) {
                Ok((opened, by)) => return Ok((opened.into(), by)),
                // Identity is tried with everything; it has nothing to say about what is sealed.
                Err(_) if matches!(provider, Provider::Identity) => {}
                Err(why) => wrong.push(why),
            }
        }
        Err(match wrong.is_empty() {
            true => "no matching prefix found".into(),
            false => wrong.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    async fn encryption(rules: &str) -> Encryption {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
        let config = EncryptionConfig::from_text(&format!("{head}{rules}")).unwrap();
        Encryption::start(config, &Random::seeded(1)).await.unwrap()
    }

    fn of(text: &str) -> GroupResource {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        GroupResource {
            group: group.into(),
            resource: resource.into(),
        }
    }

    fn key(name: &str, byte: u8) -> String {
        format!("{{name: {name}, secret: {}}}", STANDARD.encode([byte; 32]))
    }

    const NAME: &[u8] = b"/registry/secrets/n/a";

    #[tokio::test]
    async fn the_narrowest_rule_counts() {
        let rule = |resources: &str, kind: &str| {
            format!(
                "- resources: [{resources}]\n  providers: [{{{kind}: {{keys: [{}]}}}}]\n",
                key("k", 1)
            )
        };
        let rules = rule("secrets", "aesgcm")
            + &rule("'*.'", "aescbc")
            + &rule("deployments.apps", "secretbox")
            + "- resources: ['*.*']\n  providers: [{identity: {}}]\n";
        let encryption = encryption(&rules).await;
        for (resource, expect) in [
            ("secrets", "k8s:enc:aesgcm:v1:k:"),
            ("configmaps", "k8s:enc:aescbc:v1:k:"),
            ("deployments.apps", "k8s:enc:secretbox:v1:k:"),
            ("statefulsets.apps", ""),
        ] {
            let rule = encryption.rule(&of(resource)).unwrap();
            assert_eq!(rule.writer(), expect, "{resource}");
            let sealed = rule.seal(NAME, "{}".into()).unwrap();
            assert!(sealed.starts_with(expect.as_bytes()), "{resource}");
            assert_eq!(rule.open(NAME, &sealed), Ok(("{}".into(), expect.into())));
        }
    }

    #[tokio::test]
    async fn the_first_key_seals_and_all_open() {
        let one = |keys: &str, more: &str| {
            format!("- resources: [secrets]\n  providers: [{{aesgcm: {{keys: [{keys}]}}}}{more}]\n")
        };
        let old = encryption(&one(&key("old", 1), ", {identity: {}}")).await;
        let both = encryption(&one(&format!("{}, {}", key("new", 2), key("old", 1)), "")).await;
        let gone = encryption(&one(&key("new", 2), ", {identity: {}}")).await;
        let forged = encryption(&one(&key("old", 3), ", {identity: {}}")).await;
        let rule = |encryption: &Encryption| encryption.rule(&of("secrets")).unwrap();
        let sealed = rule(&old).seal(NAME, "{}".into()).unwrap();
        let (opened, by) = rule(&both).open(NAME, &sealed).unwrap();
        assert_eq!((&*opened, &*by), (&b"{}"[..], "k8s:enc:aesgcm:v1:old:"));
        assert_ne!(by, rule(&both).writer(), "stale");
        let why = |encryption: &Encryption, value: &Bytes| rule(encryption).open(NAME, value).unwrap_err();
        assert_eq!(why(&gone, &sealed), NO_AES_KEY);
        assert_eq!(why(&forged, &sealed), "cipher: message authentication failed");
        // What is not sealed is readable only where identity is a provider.
        let plain = Bytes::from_static(b"{}");
        assert_eq!(rule(&old).open(NAME, &plain), Ok((plain.clone(), String::new())));
        assert_eq!(why(&both, &plain), "no matching prefix found");
        let other = Bytes::from_static(b"k8s:enc:kms:v2:k:x");
        assert_eq!(why(&old, &other), "no matching prefix found");
    }
}
