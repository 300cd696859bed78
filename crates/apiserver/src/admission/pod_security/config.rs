//! `PodSecurityConfiguration` of `pod-security.admission.config.k8s.io`: what holds where labels say nothing, and for whom
//! nothing holds.
//!
//! Source: `k8s.io/pod-security-admission/admission/api` (`v1/types.go`, `v1/defaults.go`, `validation/validation.go`).

use std::collections::BTreeSet;

use api::field::{Error, ErrorList, Path, aggregate};
use api::validation;
use serde::Deserialize;

use super::policy::{LATEST, Policy, Rule, level_of, version_of};
use api::Value;

const GROUP: &str = "pod-security.admission.config.k8s.io";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const KIND: &str = "PodSecurityConfiguration";

/// For whom nothing holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Exemptions {
    pub usernames: Vec<String>,
    pub namespaces: Vec<String>,
    pub runtime_classes: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    defaults: Defaults,
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

/// Reads a configuration.
///
/// # Errors
/// All that is wrong with it.
pub(super) fn read(config: &Value) -> Result<(Policy, Exemptions), String> {
    let (version, kind) = (config["apiVersion"].as_str().unwrap_or(""), config["kind"].as_str());
    let known = version
        .split_once('/')
        .is_some_and(|(group, version)| group == GROUP && VERSIONS.contains(&version));
    if !known || kind != Some(KIND) {
        return Err(format!("it must be {KIND} of {GROUP}/v1"));
    }
    let file: File =
        serde_json::from_value(config.clone()).map_err(|error| format!("strict decoding error: {error}"))?;
    let mut errors = ErrorList::new();
    let of = &file.defaults;
    let policy = Policy {
        enforce: rule("enforce", &of.enforce, &of.enforce_version, &mut errors),
        warn: rule("warn", &of.warn, &of.warn_version, &mut errors),
        audit: rule("audit", &of.audit, &of.audit_version, &mut errors),
    };
    let exempt = Path::new("exemptions");
    let all = [
        (
            &file.exemptions.namespaces,
            "namespaces",
            validation::dns1123_label as fn(&str) -> Vec<String>,
        ),
        (
            &file.exemptions.runtime_classes,
            "runtimeClasses",
            validation::dns1123_subdomain,
        ),
        (&file.exemptions.usernames, "usernames", |name| match name {
            "" => vec!["username must not be empty".into()],
            _ => Vec::new(),
        }),
    ];
    for (names, field, broken) in all {
        let mut seen = BTreeSet::new();
        for (at, name) in names.iter().enumerate() {
            let (path, why) = (exempt.child(field).index(at), broken(name));
            if !why.is_empty() {
                errors.push(Error::invalid(&path, name.clone(), why.join(", ")));
            } else if !seen.insert(name) {
                errors.push(Error::duplicate(&path, name.clone()));
            }
        }
    }
    match errors.is_empty() {
        true => Ok((policy, file.exemptions)),
        false => Err(aggregate(&errors)),
    }
}

fn rule(mode: &str, level: &str, version: &str, errors: &mut ErrorList) -> Rule {
    let mut rule = Rule::EVERYTHING;
    let path = Path::new("defaults");
    match (level, level_of(level)) {
        ("", _) => {}
        (_, Some(level)) => rule.level = level,
        _ => {
            let why = "must be one of privileged, baseline, restricted";
            errors.push(Error::invalid(&path.child(mode), level, why));
        }
    }
    match (version, version_of(version)) {
        ("", _) => rule.version = LATEST,
        (_, Some(version)) => rule.version = version,
        _ => {
            let why = "must be \"latest\" or \"v1.x\"";
            errors.push(Error::invalid(&path.child(&format!("{mode}-version")), version, why));
        }
    }
    rule
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(defaults: Value, exemptions: Value) -> Value {
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": KIND, "defaults": defaults, "exemptions": exemptions})
    }

    #[test]
    fn configurations_are_read_or_refused() {
        let (policy, exemptions) = read(&file(
            json!({"enforce": "baseline", "enforce-version": "v1.30", "warn": "restricted"}),
            json!({"namespaces": ["kube-system"], "usernames": ["jane"], "runtimeClasses": ["kata"]}),
        ))
        .unwrap();
        assert_eq!(policy.enforce.to_string(), "baseline:v1.30");
        assert_eq!(
            (policy.warn.to_string(), policy.audit),
            ("restricted:latest".into(), Rule::EVERYTHING)
        );
        assert_eq!(exemptions.runtime_classes, ["kata"]);
        for (config, expect) in [
            (json!({"kind": KIND}), "it must be PodSecurityConfiguration"),
            (
                file(json!({"enforced": "x"}), json!({})),
                "strict decoding error: unknown field `enforced`",
            ),
            (
                file(
                    json!({"enforce": "strict", "audit-version": "1"}),
                    json!({"usernames": [""], "namespaces": ["a", "a"]}),
                ),
                "[defaults.enforce: Invalid value: \"strict\": must be one of privileged, baseline, restricted, \
                 defaults.audit-version: Invalid value: \"1\": must be \"latest\" or \"v1.x\", \
                 exemptions.namespaces[1]: Duplicate value: \"a\", \
                 exemptions.usernames[0]: Invalid value: \"\": username must not be empty]",
            ),
        ] {
            let why = read(&config).unwrap_err();
            assert!(why.starts_with(expect), "{why}");
        }
    }
}
