//! `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`: which resources are sealed by what, read and checked as upstream
//! does, with its messages.
//!
//! Sources: `k8s.io/apiserver/pkg/apis/apiserver/validation/validation_encryption.go` and
//! `pkg/server/options/encryptionconfig/config.go`.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use api::codec::{Limits, yaml};
use api::field::{Error, Path, aggregate, quote};
use api::{GroupResource, Value};

/// How long a KMS plug-in has for an answer when nobody says. Source: `defaultTimeout`.
const KMS_TIMEOUT: Duration = Duration::from_secs(3);
const AES_KEY_BYTES: [usize; 3] = [16, 24, 32];
const SECRETBOX_KEY_BYTES: [usize; 1] = [32];

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(super) String);

/// A configuration that was checked.
#[derive(Debug, PartialEq, Eq)]
pub struct EncryptionConfig {
    pub(super) rules: Vec<Rule>,
}

/// What seals some resources: the first provider; all of them open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// `*` as a resource is all of its group, as both it is everything.
    pub(super) resources: Vec<GroupResource>,
    pub(super) providers: Vec<ProviderConfig>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProviderConfig {
    Identity,
    AesGcm(Vec<NamedKey>),
    AesCbc(Vec<NamedKey>),
    Secretbox(Vec<NamedKey>),
    Kms(KmsConfig),
}

/// A key by its name. Its bytes are in no output.
#[derive(PartialEq, Eq)]
pub(super) struct NamedKey {
    pub(super) name: String,
    pub(super) key: Vec<u8>,
}

impl std::fmt::Debug for NamedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NamedKey").field(&self.name).finish()
    }
}

/// A plug-in that has the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KmsConfig {
    pub(super) name: String,
    /// The socket's path; with `@` in front a name in the kernel's own space.
    pub(super) path: String,
    pub(super) timeout: Duration,
}

impl EncryptionConfig {
    /// Reads a file's text (YAML or JSON).
    ///
    /// # Errors
    /// What of it is wrong, and where.
    pub fn from_text(text: &str) -> Result<EncryptionConfig, ConfigError> {
        if text.is_empty() {
            return Err(ConfigError("it is empty".into()));
        }
        let decoded = yaml::decode(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default());
        let config = decoded.map_err(|error| ConfigError(error.to_string()))?.value;
        let kind = (config["apiVersion"].as_str(), config["kind"].as_str());
        if kind != (Some("apiserver.config.k8s.io/v1"), Some("EncryptionConfiguration")) {
            let why = "it must be of the kind EncryptionConfiguration of apiVersion apiserver.config.k8s.io/v1";
            return Err(ConfigError(why.into()));
        }
        check_fields(&config)?;
        let mut errors = Vec::new();
        let config = EncryptionConfig {
            rules: rules(&config, &mut errors),
        };
        if !errors.is_empty() {
            return Err(ConfigError(aggregate(&errors)));
        }
        config.refuse_masked()?;
        Ok(config)
    }

    /// A rule that an earlier, wider one hides is a mistake.
    fn refuse_masked(&self) -> Result<(), ConfigError> {
        let mut before: BTreeSet<GroupResource> = BTreeSet::new();
        for resource in self.rules.iter().flat_map(|rule| &rule.resources) {
            let wider = [any_of(&resource.group), any_of("*")];
            if let Some(wider) = wider.iter().find(|wider| before.contains(wider)) {
                let (resource, wider) = (quote(&written(resource)), quote(&written(wider)));
                return Err(ConfigError(format!(
                    "resource {resource} is masked by earlier rule {wider}"
                )));
            }
            before.insert(resource.clone());
        }
        Ok(())
    }
}

/// Every resource of a group.
pub(super) fn any_of(group: &str) -> GroupResource {
    GroupResource {
        group: group.into(),
        resource: "*".into(),
    }
}

/// A resource as it stands in a file. Source: `grYAMLString`.
fn written(resource: &GroupResource) -> String {
    match (&*resource.resource, &*resource.group) {
        ("*", "") => "*.".into(),
        (resource, "") => resource.into(),
        (resource, group) => format!("{resource}.{group}"),
    }
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.` and `*.*`. Source: `schema.ParseGroupResource`.
fn parse_resource(text: &str) -> GroupResource {
    let (resource, group) = text.split_once('.').unwrap_or((text, ""));
    GroupResource {
        group: group.into(),
        resource: resource.into(),
    }
}

/// Unknown fields are refused: a mistyped one would leave something readable that was to be sealed.
fn check_fields(config: &Value) -> Result<(), ConfigError> {
    let mut unknown = Vec::new();
    check(config, &["apiVersion", "kind", "resources"], "", &mut unknown);
    for (at, rule) in list(&config["resources"]).iter().enumerate() {
        let path = format!("resources[{at}].");
        check(rule, &["resources", "providers"], &path, &mut unknown);
        for (at, provider) in list(&rule["providers"]).iter().enumerate() {
            let path = format!("{path}providers[{at}].");
            check(
                provider,
                &["aesgcm", "aescbc", "secretbox", "identity", "kms"],
                &path,
                &mut unknown,
            );
            check(&provider["identity"], &[], &format!("{path}identity."), &mut unknown);
            let kms = ["apiVersion", "name", "cachesize", "endpoint", "timeout"];
            check(&provider["kms"], &kms, &format!("{path}kms."), &mut unknown);
            for kind in ["aesgcm", "aescbc", "secretbox"] {
                check(&provider[kind], &["keys"], &format!("{path}{kind}."), &mut unknown);
                for (at, key) in list(&provider[kind]["keys"]).iter().enumerate() {
                    let path = format!("{path}{kind}.keys[{at}].");
                    check(key, &["name", "secret"], &path, &mut unknown);
                }
            }
        }
    }
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(ConfigError(format!("strict decoding error: {}", unknown.join(", ")))),
    }
}

fn check(value: &Value, fields: &[&str], path: &str, unknown: &mut Vec<String>) {
    for (name, _) in value.as_object().into_iter().flatten() {
        if !fields.contains(&&**name) {
            unknown.push(format!("unknown field \"{path}{name}\""));
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn rules(config: &Value, errors: &mut Vec<Error>) -> Vec<Rule> {
    let root = Path::new("resources");
    let rules = list(&config["resources"]);
    if rules.is_empty() {
        errors.push(at_least_one(&root, "resources"));
    }
    let mut kms_names = BTreeSet::new();
    let mut rule = |(at, rule): (usize, &Value)| {
        let path = root.index(at);
        Rule {
            resources: resources(&rule["resources"], &path.child("resources"), errors),
            providers: providers(&rule["providers"], &path.child("providers"), &mut kms_names, errors),
        }
    };
    rules.iter().enumerate().map(&mut rule).collect()
}

fn at_least_one(path: &Path, what: &str) -> Error {
    Error::required(path, format!("at least one {what} is required"))
}

fn resources(value: &Value, path: &Path, errors: &mut Vec<Error>) -> Vec<GroupResource> {
    let names: Vec<&str> = list(value).iter().filter_map(Value::as_str).collect();
    if names.is_empty() {
        errors.push(at_least_one(path, &path.to_string()));
    }
    let resources: Vec<GroupResource> = names.iter().map(|name| parse_resource(name)).collect();
    let pairs = || {
        let others = |at: usize| resources.iter().skip(at + 1);
        resources
            .iter()
            .enumerate()
            .flat_map(move |(at, one)| others(at).map(move |other| (one, other)))
    };
    if pairs().any(|(one, other)| one == other) {
        let why = "the same resource cannot be specified multiple times";
        errors.push(Error::invalid(path, json!(names), why));
    }
    let masks = |one: &GroupResource, other: &GroupResource| {
        let wide = |resource: &GroupResource| &*resource.resource == "*";
        let everything = any_of("*");
        one != other
            && (*one == everything || *other == everything || one.group == other.group && (wide(one) || wide(other)))
    };
    if pairs().any(|(one, other)| masks(one, other)) {
        let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as \
                   they will be masked";
        errors.push(Error::invalid(path, json!(names), why));
    }
    for (at, (name, resource)) in names.iter().zip(&resources).enumerate() {
        if let Some(why) = bad_name(name, resource) {
            errors.push(Error::invalid(&path.index(at), *name, why));
        }
    }
    resources
}

fn bad_name(name: &str, resource: &GroupResource) -> Option<&'static str> {
    Some(match (name, &*resource.resource, &*resource.group) {
        _ if name.to_lowercase() != name => "resource name should not contain capital letters",
        ("*", ..) => "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        ("apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations", ..) => {
            "resources which do not have REST API/s cannot be encrypted"
        }
        (_, _, "events.k8s.io") => {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config \
             file"
        }
        (_, _, "extensions") => "'extensions' group has been removed and cannot be used for encryption",
        (_, resource, "*") if resource != "*" => "encrypting the same resource across groups is not supported",
        _ => return None,
    })
}

fn providers(
    value: &Value,
    path: &Path,
    kms_names: &mut BTreeSet<String>,
    errors: &mut Vec<Error>,
) -> Vec<ProviderConfig> {
    let providers = list(value);
    if providers.is_empty() {
        errors.push(at_least_one(path, &path.to_string()));
    }
    let mut read = Vec::new();
    for (at, provider) in providers.iter().enumerate() {
        let path = path.index(at);
        let given = provider.as_object().into_iter().flatten();
        let mut given = given.filter(|(_, value)| !value.is_null());
        let (Some((kind, value)), more) = (given.next(), given.next()) else {
            let why =
                "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
            errors.push(Error::invalid(&path, "REDACTED", why));
            continue;
        };
        if more.is_some() {
            let why = "more than one provider specified in a single element, should split into different list elements";
            errors.push(Error::invalid(&path, "REDACTED", why));
            continue;
        }
        let keys = |lengths: &[usize], errors: &mut Vec<Error>| {
            keys(&value["keys"], &path.child(kind).child("keys"), lengths, errors)
        };
        read.push(match &**kind {
            "aesgcm" => ProviderConfig::AesGcm(keys(&AES_KEY_BYTES, errors)),
            "aescbc" => ProviderConfig::AesCbc(keys(&AES_KEY_BYTES, errors)),
            "secretbox" => ProviderConfig::Secretbox(keys(&SECRETBOX_KEY_BYTES, errors)),
            "kms" => ProviderConfig::Kms(kms(value, &path.child("kms"), kms_names, errors)),
            _ => ProviderConfig::Identity,
        });
    }
    read
}

fn keys(value: &Value, path: &Path, lengths: &[usize], errors: &mut Vec<Error>) -> Vec<NamedKey> {
    let keys = list(value);
    if keys.is_empty() {
        errors.push(at_least_one(path, "keys"));
    }
    let mut read = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let path = path.index(at);
        let (name, secret) = (text(key, "name"), text(key, "secret"));
        if name.is_empty() {
            errors.push(Error::required(
                &path.child("name"),
                "name is a mandatory field for a key",
            ));
        }
        let path = path.child("secret");
        if secret.is_empty() {
            errors.push(Error::required(&path, "secret is a mandatory field for a key"));
            continue;
        }
        let Ok(key) = STANDARD.decode(secret) else {
            errors.push(Error::invalid(&path, "REDACTED", "secrets must be base64 encoded"));
            continue;
        };
        if !lengths.contains(&key.len()) {
            let expected = lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
            let why = format!(
                "secret is not of the expected length, got {}, expected one of [{expected}]",
                key.len()
            );
            errors.push(Error::invalid(&path, "REDACTED", why));
        }
        read.push(NamedKey {
            name: name.to_owned(),
            key,
        });
    }
    read
}

fn kms(value: &Value, path: &Path, names: &mut BTreeSet<String>, errors: &mut Vec<Error>) -> KmsConfig {
    // Source: the defaults of `apiserver.config.k8s.io/v1`: who says nothing means the version that is off.
    let version = match text(value, "apiVersion") {
        "" => "v1",
        version => version,
    };
    let (name, endpoint) = (text(value, "name"), text(value, "endpoint"));
    let name_path = path.child("name");
    if name.is_empty() {
        let why = "name is a mandatory field for a provider";
        errors.push(Error::required(&name_path, why));
    }
    if version != "v1" && name.contains(':') {
        let why = format!("invalid KMS provider name {name}, must not contain ':'");
        errors.push(Error::invalid(&name_path, name, why));
    }
    if !names.insert(name.to_owned()) {
        let why = format!("duplicate KMS provider name {name}, names must be unique");
        errors.push(Error::invalid(&name_path, name, why));
    }
    let timeout = match &value["timeout"] {
        Value::Null => Some(KMS_TIMEOUT),
        Value::String(text) => api::duration::parse(text).filter(|timeout| !timeout.is_zero()),
        _ => None,
    };
    if timeout.is_none() {
        let why = "timeout should be a positive value";
        errors.push(Error::invalid(&path.child("timeout"), value["timeout"].clone(), why));
    }
    let endpoint_path = path.child("endpoint");
    match endpoint.split_once("://") {
        _ if endpoint.is_empty() => {
            errors.push(Error::invalid(
                &endpoint_path,
                "",
                "endpoint is a mandatory field for a kms",
            ));
        }
        Some(("unix", _)) => {}
        other => {
            let scheme = quote(other.map_or("", |(scheme, _)| scheme));
            let why = format!("unsupported scheme {scheme} for KMS provider, only unix is supported");
            errors.push(Error::invalid(&endpoint_path, endpoint, why));
        }
    }
    if version != "v1" && !value["cachesize"].is_null() {
        let why = "cachesize is not supported in v2";
        errors.push(Error::invalid(
            &path.child("cachesize"),
            value["cachesize"].clone(),
            why,
        ));
    }
    match version {
        "v2" => {}
        "v1" => {
            let why = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.";
            errors.push(Error::invalid(&path.child("apiVersion"), version, why));
        }
        _ => {
            let why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
            errors.push(Error::invalid(&path.child("apiVersion"), version, why));
        }
    }
    KmsConfig {
        name: name.to_owned(),
        path: socket_path(endpoint),
        timeout: timeout.unwrap_or(KMS_TIMEOUT),
    }
}

/// `unix:///run/kms.sock`, `unix:////run/kms.sock`, and `unix:///@name` for the kernel's own name space.
/// Source: `k8s.io/kms/pkg/util.ParseEndpoint`.
fn socket_path(endpoint: &str) -> String {
    let path = endpoint.strip_prefix("unix://").unwrap_or_default();
    match path.strip_prefix("/@") {
        Some(name) => format!("@{name}"),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";

    fn read(rules: &str) -> Result<EncryptionConfig, String> {
        EncryptionConfig::from_text(&format!("{HEAD}{rules}")).map_err(|error| error.0)
    }

    fn key(bytes: usize) -> String {
        STANDARD.encode(vec![1; bytes])
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = read(&format!(
            "- resources: [secrets, '*.apps']\n  providers:\n  - kms: {{apiVersion: v2, name: k, endpoint: 'unix:///@s', timeout: 500ms}}\n  \
             - aesgcm: {{keys: [{{name: a, secret: {}}}]}}\n  - aescbc: {{keys: [{{name: b, secret: {}}}]}}\n  \
             - secretbox: {{keys: [{{name: c, secret: {}}}]}}\n  - identity: {{}}\n- resources: ['*.']\n  providers: [{{identity: {{}}}}]\n\
             - resources: ['*.*']\n  providers: [{{identity: {{}}}}]\n",
            key(16),
            key(24),
            key(32)
        ))
        .unwrap();
        let named = |name: &str, bytes| {
            vec![NamedKey {
                name: name.into(),
                key: vec![1; bytes],
            }]
        };
        assert_eq!(
            config.rules[0].providers,
            [
                ProviderConfig::Kms(KmsConfig {
                    name: "k".into(),
                    path: "@s".into(),
                    timeout: Duration::from_millis(500),
                }),
                ProviderConfig::AesGcm(named("a", 16)),
                ProviderConfig::AesCbc(named("b", 24)),
                ProviderConfig::Secretbox(named("c", 32)),
                ProviderConfig::Identity,
            ]
        );
        assert_eq!(config.rules[0].resources, [parse_resource("secrets"), any_of("apps")]);
        assert_eq!(config.rules[1].resources, [any_of("")]);
        assert_eq!(config.rules[2].resources, [any_of("*")]);
        assert!(!format!("{config:?}").contains("[1, 1"), "no key in any output");
    }

    #[test]
    fn what_is_wrong_is_said_as_upstream_says_it() {
        let identity = "providers: [{identity: {}}]";
        let resources = |list: &str| format!("- resources: {list}\n  {identity}\n");
        let provider = |text: &str| format!("- resources: [secrets]\n  providers: [{text}]\n");
        let kms = |text: &str| provider(&format!("{{kms: {{{text}}}}}"));
        for (rules, expect) in [
            (
                " []".into(),
                "resources: Required value: at least one resources is required",
            ),
            (
                resources("[]"),
                "resources[0].resources: Required value: at least one resources[0].resources is required",
            ),
            (
                "- resources: [secrets]\n".into(),
                "resources[0].providers: Required value: at least one resources[0].providers is required",
            ),
            (
                resources("[secrets, secrets]"),
                r#"resources[0].resources: Invalid value: ["secrets","secrets"]: the same resource cannot be specified multiple times"#,
            ),
            (
                resources("[secrets, '*.']"),
                r#"resources[0].resources: Invalid value: ["secrets","*."]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"#,
            ),
            (
                resources("[Secrets]"),
                r#"resources[0].resources[0]: Invalid value: "Secrets": resource name should not contain capital letters"#,
            ),
            (
                resources("['*']"),
                r#"resources[0].resources[0]: Invalid value: "*": use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"#,
            ),
            (
                resources("['secrets.*']"),
                r#"resources[0].resources[0]: Invalid value: "secrets.*": encrypting the same resource across groups is not supported"#,
            ),
            (
                resources("[events.events.k8s.io]"),
                r#"resources[0].resources[0]: Invalid value: "events.events.k8s.io": '*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"#,
            ),
            (
                resources("[serviceipallocations]"),
                r#"resources[0].resources[0]: Invalid value: "serviceipallocations": resources which do not have REST API/s cannot be encrypted"#,
            ),
            (
                format!("{}{}", resources("['*.*']"), resources("[secrets]")),
                r#"resource "secrets" is masked by earlier rule "*.*""#,
            ),
            (
                format!("{}{}", resources("['*.apps']"), resources("[deployments.apps]")),
                r#"resource "deployments.apps" is masked by earlier rule "*.apps""#,
            ),
            (
                provider("{}"),
                r#"resources[0].providers[0]: Invalid value: "REDACTED": provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"#,
            ),
            (
                provider("{identity: {}, aesgcm: {}}"),
                r#"resources[0].providers[0]: Invalid value: "REDACTED": more than one provider specified in a single element, should split into different list elements"#,
            ),
            (
                provider("{aesgcm: {keys: []}}"),
                "resources[0].providers[0].aesgcm.keys: Required value: at least one keys is required",
            ),
            (
                provider("{aescbc: {keys: [{}]}}"),
                "[resources[0].providers[0].aescbc.keys[0].name: Required value: name is a mandatory field for a key, resources[0].providers[0].aescbc.keys[0].secret: Required value: secret is a mandatory field for a key]",
            ),
            (
                provider("{secretbox: {keys: [{name: a, secret: '!'}]}}"),
                r#"resources[0].providers[0].secretbox.keys[0].secret: Invalid value: "REDACTED": secrets must be base64 encoded"#,
            ),
            (
                provider("{aesgcm: {keys: [{name: a, secret: AAAA}]}}"),
                r#"resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: "REDACTED": secret is not of the expected length, got 3, expected one of [16 24 32]"#,
            ),
            (
                kms("name: k, endpoint: 'unix:///s'"),
                r#"resources[0].providers[0].kms.apiVersion: Invalid value: "v1": KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead."#,
            ),
            (
                kms("apiVersion: v2, name: 'k:', endpoint: 'http://x', timeout: 0s, cachesize: 5"),
                r#"[resources[0].providers[0].kms.name: Invalid value: "k:": invalid KMS provider name k:, must not contain ':', resources[0].providers[0].kms.timeout: Invalid value: "0s": timeout should be a positive value, resources[0].providers[0].kms.endpoint: Invalid value: "http://x": unsupported scheme "http" for KMS provider, only unix is supported, resources[0].providers[0].kms.cachesize: Invalid value: 5: cachesize is not supported in v2]"#,
            ),
            (
                provider(
                    "{kms: {apiVersion: v2, name: k, endpoint: 'unix:///s'}}, {kms: {apiVersion: v2, name: k, endpoint: 'unix:///s'}}",
                ),
                r#"resources[0].providers[1].kms.name: Invalid value: "k": duplicate KMS provider name k, names must be unique"#,
            ),
            (
                provider("{aesgmc: {}}"),
                r#"strict decoding error: unknown field "resources[0].providers[0].aesgmc""#,
            ),
        ] {
            assert_eq!(read(&rules).unwrap_err(), expect, "{rules}");
        }
        assert_eq!(EncryptionConfig::from_text("").unwrap_err().0, "it is empty");
        let other = EncryptionConfig::from_text("apiVersion: v1\nkind: Secret\n")
            .unwrap_err()
            .0;
        assert!(other.contains("EncryptionConfiguration"), "{other}");
    }
}
