//! ABAC: a file of policies, one a line, read at the start. Every policy that fits allows; none forbids.
//!
//! Source: `pkg/auth/authorizer/abac/abac.go` and `pkg/apis/abac` (`v0` and `v1beta1`).

use api::Value;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;

use crate::pipeline::{Authorizer, Decision, RuleSet};
use crate::request::{Attributes, UserInfo, groups};

const API_VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";
const READ: [&str; 3] = ["get", "list", "watch"];

/// The policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abac(Vec<Policy>);

/// One policy. `*` stands for all, but of users and groups only at [`Policy::of_line`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

// === impl Abac ===

impl Abac {
    /// Reads a file's text; `name` is told with what is wrong. Empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// A line that is no policy.
    pub fn read(text: &str, name: &str) -> Result<Abac, String> {
        let mut policies = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let policy = Policy::of_line(trimmed);
            policies.push(
                policy
                    .map_err(|why| format!("error reading policy file {name}, line {}: {line}: {why}", number + 1))?,
            );
        }
        Ok(Abac(policies))
    }

    fn decide(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        match self.0.iter().any(|policy| policy.fits(user, attributes)) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion("No policy matched.".into()),
        }
    }
}

impl Authorizer for Abac {
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        self.decide(user, attributes).now()
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> RuleSet {
        let mut rules = RuleSet::default();
        let own = self.0.iter().filter(|policy| policy.is_for(user));
        for policy in own.filter(|policy| is(&policy.namespace, namespace)) {
            let verbs = if policy.readonly { &READ[..] } else { &["*"] };
            if !policy.resource.is_empty() {
                let rule = json!({"verbs": verbs, "apiGroups": [policy.api_group], "resources": [policy.resource]});
                rules.resource_rules.push(rule);
            }
            if !policy.non_resource_path.is_empty() {
                let rule = json!({"verbs": verbs, "nonResourceURLs": [policy.non_resource_path]});
                rules.non_resource_rules.push(rule);
            }
        }
        rules
    }
}

// === impl Policy ===

impl Policy {
    fn of_line(line: &str) -> Result<Policy, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let read = |value: &Value| serde_json::from_value::<Policy>(value.clone()).map_err(|error| error.to_string());
        let mut policy = match (value["apiVersion"].as_str(), value["kind"].as_str()) {
            (Some(API_VERSION), Some("Policy")) => read(&value["spec"])?,
            (None, None) => Policy::unversioned(read(&value)?),
            (version, kind) => {
                return Err(format!(
                    "no kind {:?} is registered for version {:?}",
                    kind.unwrap_or(""),
                    version.unwrap_or("")
                ));
            }
        };
        if policy.user == "*" || policy.group == "*" {
            (policy.user, policy.group) = (String::new(), groups::AUTHENTICATED.to_owned());
        }
        Ok(policy)
    }

    /// The first form, without a version: what it leaves out is everything.
    fn unversioned(mut policy: Policy) -> Policy {
        if policy.user.is_empty() && policy.group.is_empty() {
            policy.group = groups::AUTHENTICATED.to_owned();
        }
        if policy.namespace.is_empty() && policy.resource.is_empty() {
            policy.non_resource_path = "*".into();
        }
        for field in [&mut policy.namespace, &mut policy.resource] {
            if field.is_empty() {
                *field = "*".into();
            }
        }
        policy.api_group = "*".into();
        policy
    }

    fn fits(&self, user: &UserInfo, attributes: &Attributes) -> bool {
        let may_verb = !self.readonly || READ.contains(&&*attributes.verb);
        let about = match attributes.is_resource {
            true => {
                is(&self.namespace, &attributes.namespace)
                    && is(&self.resource, &attributes.resource)
                    && is(&self.api_group, &attributes.group)
            }
            false => self.is_path(&attributes.path),
        };
        self.is_for(user) && may_verb && about
    }

    /// Both have to fit, as far as they are named; one of them has to be named.
    fn is_for(&self, user: &UserInfo) -> bool {
        let names_somebody = !self.user.is_empty() || !self.group.is_empty();
        names_somebody
            && (self.user.is_empty() || self.user == user.name)
            && (self.group.is_empty() || user.is_in(&self.group))
    }

    fn is_path(&self, path: &str) -> bool {
        let below = self.non_resource_path.strip_suffix('*');
        self.non_resource_path == path || below.is_some_and(|below| path.starts_with(below.trim_end_matches('*')))
    }
}

fn is(wanted: &str, own: &str) -> bool {
    wanted == "*" || wanted == own
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: &str = r##"
# people
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"alice","namespace":"*","resource":"*","apiGroup":"*"}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"dev","namespace":"a","resource":"pods","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"*","nonResourcePath":"/version","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"bob","group":"ops","nonResourcePath":"/logs/*"}}
{"user":"old","namespace":"b"}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"namespace":"*","resource":"*","apiGroup":"*"}}
"##;

    #[test]
    fn what_fits_is_allowed() {
        let abac = Abac::read(POLICIES, "policies").unwrap();
        // user/group verb resource.group namespace, or user/group verb path
        for (request, expect) in [
            ("alice/x delete secrets. kube-system", true),
            ("alice/x get /version", true),
            ("alice/x get /metrics", false),
            ("jane/dev get pods. a", true),
            ("jane/dev watch pods. a", true),
            ("jane/dev create pods. a", false),
            ("jane/dev get pods. b", false),
            ("jane/dev get pods.x a", false),
            ("jane/dev post /version", false),
            ("bob/ops get /logs/x", true),
            ("bob/dev get /logs/x", false),
            ("joe/ops get /logs/x", false),
            ("old/x delete deployments.apps b", true),
            ("old/x get deployments.apps a", false),
            // Who is named by no policy is nobody's.
            ("nobody/x get pods. b", false),
        ] {
            let words: Vec<&str> = request.split(' ').collect();
            let (user, group) = words[0].split_once('/').unwrap();
            let attributes = match words[2].split_once('.') {
                Some((resource, group)) => Attributes {
                    verb: words[1].into(),
                    resource: resource.into(),
                    group: group.into(),
                    namespace: words[3].into(),
                    is_resource: true,
                    ..Attributes::default()
                },
                None => Attributes {
                    verb: words[1].into(),
                    path: words[2].into(),
                    ..Attributes::default()
                },
            };
            let decision = abac.decide(&UserInfo::new(user, [group]), &attributes);
            assert_eq!(decision.allows(), expect, "{request}");
        }
        let version = Attributes {
            verb: "get".into(),
            path: "/version".into(),
            ..Attributes::default()
        };
        assert!(!abac.decide(&UserInfo::anonymous(), &version).allows());
        let rules = abac.rules(&UserInfo::new("jane", ["dev"]), "a");
        let expect = json!({"verbs": READ, "apiGroups": [""], "resources": ["pods"]});
        assert_eq!(rules.resource_rules, [expect]);
        assert!(!rules.incomplete);
    }

    #[test]
    fn what_is_no_policy_is_told_with_its_line() {
        for (line, expect) in [
            ("{", "error reading policy file p, line 2: {: EOF while parsing"),
            (
                r#"{"apiVersion":"v1","kind":"Pod"}"#,
                r#"error reading policy file p, line 2: {"apiVersion":"v1","kind":"Pod"}: no kind "Pod" is registered for version "v1""#,
            ),
            (
                r#"{"user":["a"]}"#,
                r#"error reading policy file p, line 2: {"user":["a"]}: invalid type"#,
            ),
        ] {
            let why = Abac::read(&format!("# one\n{line}\n"), "p").unwrap_err();
            assert!(why.starts_with(expect), "{why}");
        }
    }
}
