//! An audit policy: which requests are told of, and how much of each. The first rule that a request matches decides; a
//! request that matches none is not told of.
//!
//! Source: `k8s.io/apiserver/pkg/audit/policy` (`checker.go`, `reader.go`) and `pkg/apis/audit/validation`.

use std::collections::BTreeSet;

use api::Value;
use api::codec::{Limits, yaml};
use bytes::Bytes;

use super::{Level, Stage};
use crate::request::{Attributes, UserInfo};

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct PolicyError(String);

/// A policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

/// What a policy says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How much is told.
    pub level: Level,
    /// When nothing is told.
    pub omit_stages: Vec<Stage>,
    /// Whether objects are told without their managers.
    pub omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Rule {
    level: Option<Level>,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

/// Resources of one group.
#[derive(Clone, Debug, Default, PartialEq)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

const FIELDS: [&str; 6] = [
    "apiVersion",
    "kind",
    "metadata",
    "rules",
    "omitStages",
    "omitManagedFields",
];
const RULE_FIELDS: [&str; 9] = [
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];

impl Policy {
    /// Reads a policy file (YAML or JSON).
    ///
    /// # Errors
    /// What of it is wrong, and where.
    pub fn from_text(text: &str) -> Result<Policy, PolicyError> {
        let decoded = yaml::decode(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default());
        let policy = decoded.map_err(|error| PolicyError(error.to_string()))?.value;
        let kind = (policy["apiVersion"].as_str(), policy["kind"].as_str());
        if kind != (Some("audit.k8s.io/v1"), Some("Policy")) {
            let why = "it must be of the kind Policy of apiVersion audit.k8s.io/v1";
            return Err(PolicyError(why.into()));
        }
        known(&policy, &FIELDS, "")?;
        let rules = policy["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Source: `LoadPolicyFromBytes`: a policy without rules is taken for a mistake.
        if rules.is_empty() {
            return Err(PolicyError("it has no rules".into()));
        }
        let rules = rules
            .iter()
            .enumerate()
            .map(|(at, rule)| Rule::of(rule, &format!("rules[{at}]")));
        Ok(Policy {
            rules: rules.collect::<Result<_, _>>()?,
            omit_stages: stages(&policy["omitStages"], "omitStages")?,
            omit_managed_fields: policy["omitManagedFields"] == true,
        })
    }

    /// What it says of a request; `None`: nothing is told.
    pub fn judge(&self, user: &UserInfo, request: &Attributes) -> Option<Verdict> {
        let rule = self.rules.iter().find(|rule| rule.matches(user, request))?;
        let level = rule.level?;
        let both: BTreeSet<Stage> = self.omit_stages.iter().chain(&rule.omit_stages).copied().collect();
        Some(Verdict {
            level,
            omit_stages: both.into_iter().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        })
    }
}

fn known(value: &Value, fields: &[&str], path: &str) -> Result<(), PolicyError> {
    let unknown = value
        .as_object()
        .into_iter()
        .flatten()
        .find(|(key, _)| !fields.contains(&key.as_str()));
    match unknown {
        Some((key, _)) => Err(PolicyError(format!("unknown field \"{path}{key}\""))),
        None => Ok(()),
    }
}

fn texts(value: &Value, path: &str) -> Result<Vec<String>, PolicyError> {
    let Some(list) = value.as_array() else {
        return match value.is_null() {
            true => Ok(Vec::new()),
            false => Err(PolicyError(format!("{path}: must be a list"))),
        };
    };
    let text = |one: &Value| one.as_str().map(str::to_owned);
    let all: Option<Vec<String>> = list.iter().map(text).collect();
    all.ok_or_else(|| PolicyError(format!("{path}: must be a list of texts")))
}

fn stages(value: &Value, path: &str) -> Result<Vec<Stage>, PolicyError> {
    let stage = |text: &String| {
        let unknown = || {
            PolicyError(format!(
                "{path}: Invalid value: \"{text}\": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"
            ))
        };
        Stage::parse(text).ok_or_else(unknown)
    };
    texts(value, path)?.iter().map(stage).collect()
}

impl Rule {
    fn of(rule: &Value, path: &str) -> Result<Rule, PolicyError> {
        known(rule, &RULE_FIELDS, &format!("{path}."))?;
        let list = |field: &str| texts(&rule[field], &format!("{path}.{field}"));
        let level = match rule["level"].as_str() {
            Some("None") => None,
            Some(text) => Some(Level::parse(text).ok_or_else(|| {
                PolicyError(format!(
                    "{path}.level: Unsupported value: \"{text}\": supported values: \"Metadata\", \"None\", \"Request\", \"RequestResponse\""
                ))
            })?),
            None => return Err(PolicyError(format!("{path}.level: Required value"))),
        };
        let read = Rule {
            level,
            users: list("users")?,
            groups: list("userGroups")?,
            verbs: list("verbs")?,
            resources: resources(&rule["resources"], path)?,
            namespaces: list("namespaces")?,
            paths: list("nonResourceURLs")?,
            omit_stages: stages(&rule["omitStages"], &format!("{path}.omitStages"))?,
            omit_managed_fields: rule["omitManagedFields"].as_bool(),
        };
        let about_resources = !read.resources.is_empty() || !read.namespaces.is_empty();
        if !read.paths.is_empty() && about_resources {
            let why = format!(
                "{path}.nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs"
            );
            return Err(PolicyError(why));
        }
        for url in &read.paths {
            let star = url.find('*');
            if url != "*" && (!url.starts_with('/') || star.is_some_and(|at| at + 1 < url.len())) {
                let why = "non-resource URL rules must begin with a '/' character, and may only contain a trailing '*'";
                return Err(PolicyError(format!(
                    "{path}.nonResourceURLs: Invalid value: \"{url}\": {why}"
                )));
            }
        }
        Ok(read)
    }

    fn matches(&self, user: &UserInfo, request: &Attributes) -> bool {
        let none_or = |list: &[String], wanted: &str| list.is_empty() || list.iter().any(|one| one == wanted);
        if !none_or(&self.users, &user.name) || !none_or(&self.verbs, &request.verb) {
            return false;
        }
        if !self.groups.is_empty() && !self.groups.iter().any(|group| user.is_in(group)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.is_resource
                && none_or(&self.namespaces, &request.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.matches(request)));
        }
        if !self.paths.is_empty() {
            let is_path = |one: &String| {
                let below = one
                    .strip_suffix('*')
                    .is_some_and(|start| request.path.starts_with(start));
                below || *one == request.path
            };
            return !request.is_resource && self.paths.iter().any(is_path);
        }
        true
    }
}

fn resources(value: &Value, path: &str) -> Result<Vec<Resources>, PolicyError> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |(at, one): (usize, &Value)| {
        let path = format!("{path}.resources[{at}]");
        known(one, &["group", "resources", "resourceNames"], &format!("{path}."))?;
        let read = Resources {
            group: one["group"].as_str().unwrap_or("").to_owned(),
            resources: texts(&one["resources"], &format!("{path}.resources"))?,
            names: texts(&one["resourceNames"], &format!("{path}.resourceNames"))?,
        };
        if !read.names.is_empty() && read.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            return Err(PolicyError(format!("{path}.resourceNames: Invalid value: {why}")));
        }
        Ok(read)
    };
    list.iter().enumerate().map(of).collect()
}

impl Resources {
    fn matches(&self, request: &Attributes) -> bool {
        if self.group != request.group {
            return false;
        }
        let is_it = |one: &String| match one.split_once('/') {
            None => one == "*" || *one == request.resource && request.subresource.is_empty(),
            Some(("*", subresource)) => !request.subresource.is_empty() && subresource == request.subresource,
            Some((resource, "*")) => resource == request.resource,
            Some((resource, subresource)) => resource == request.resource && subresource == request.subresource,
        };
        let named = || self.names.is_empty() || self.names.contains(&request.name);
        self.resources.is_empty() || named() && self.resources.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: RequestResponse
  omitManagedFields: false
  resources: [{group: "", resources: ["pods", "*/status"]}]
- level: Request
  namespaces: [kube-system]
  omitStages: [ResponseStarted]
  resources: [{group: "", resources: [configmaps], resourceNames: [a]}, {group: apps}]
- level: Metadata
  userGroups: [ops]
"#;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::from_text(POLICY).unwrap();
        let resource = |verb: &str, group: &str, resource: &str, namespace: &str, name: &str| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            Attributes {
                verb: verb.into(),
                group: group.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: namespace.into(),
                name: name.into(),
                is_resource: true,
                ..Attributes::default()
            }
        };
        let path = |path: &str| Attributes {
            verb: "get".into(),
            path: path.into(),
            ..Attributes::default()
        };
        let (full, request, metadata) = (
            Some(Level::RequestResponse),
            Some(Level::Request),
            Some(Level::Metadata),
        );
        for (user, group, asked, expect) in [
            ("system:kube-proxy", "x", resource("watch", "", "pods", "", ""), None),
            ("system:kube-proxy", "x", resource("list", "", "pods", "", ""), full),
            ("jane", "x", path("/healthz/ping"), None),
            ("jane", "x", path("/version"), None),
            ("jane", "x", path("/versions"), None),
            ("jane", "ops", path("/versions"), metadata),
            ("jane", "x", resource("get", "", "pods/log", "a", "p"), None),
            ("jane", "x", resource("update", "", "nodes/status", "", "n"), full),
            (
                "jane",
                "x",
                resource("get", "", "configmaps", "kube-system", "a"),
                request,
            ),
            ("jane", "x", resource("get", "", "configmaps", "kube-system", "b"), None),
            (
                "jane",
                "x",
                resource("get", "apps", "deployments/scale", "kube-system", "b"),
                request,
            ),
            (
                "jane",
                "x",
                resource("get", "apps", "deployments", "default", "b"),
                None,
            ),
        ] {
            let verdict = policy.judge(&UserInfo::new(user, [group]), &asked);
            assert_eq!(verdict.map(|verdict| verdict.level), expect, "{user} {asked:?}");
        }
        let asked = resource("get", "apps", "deployments", "kube-system", "b");
        let verdict = policy.judge(&UserInfo::new("jane", ["x"]), &asked).unwrap();
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(verdict.omit_managed_fields);
    }

    #[test]
    fn mistakes_are_told() {
        let of = |rest: &str| format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rest}");
        for (text, expect) in [
            (
                "kind: Policy".to_owned(),
                "it must be of the kind Policy of apiVersion audit.k8s.io/v1",
            ),
            (of(""), "it has no rules"),
            (of("rules: [{}]"), "rules[0].level: Required value"),
            (
                of("rules: [{level: Metadata, user: a}]"),
                "unknown field \"rules[0].user\"",
            ),
            (
                of("rules: [{level: All}]"),
                "rules[0].level: Unsupported value: \"All\": supported values: \"Metadata\", \"None\", \"Request\", \"RequestResponse\"",
            ),
            (
                of("rules: [{level: None, nonResourceURLs: [/a*b]}]"),
                "rules[0].nonResourceURLs: Invalid value: \"/a*b\": non-resource URL rules must begin with a '/' character, and may only contain a trailing '*'",
            ),
            (
                of("rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]"),
                "rules[0].nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs",
            ),
            (of("rules: [{level: None, users: a}]"), "rules[0].users: must be a list"),
        ] {
            assert_eq!(Policy::from_text(&text), Err(PolicyError(expect.into())), "{text}");
        }
    }
}
