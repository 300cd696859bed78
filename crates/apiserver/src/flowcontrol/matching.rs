//! Which requests a FlowSchema is about.
//!
//! Source: `k8s.io/apiserver/pkg/util/flowcontrol/rule.go`.

use api::Value;

use crate::request::{Attributes, UserInfo};

/// The users of a rule.
#[derive(Clone, Debug, PartialEq)]
enum Subject {
    User(String),
    Group(String),
    /// Namespace and name; the name may be `*`.
    ServiceAccount(String, String),
}

/// A rule about resources.
#[derive(Clone, Debug, Default, PartialEq)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

/// A rule about paths.
#[derive(Clone, Debug, Default, PartialEq)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

/// Subjects, and what of theirs is meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

const ANY: &str = "*";

impl Rule {
    /// Reads one of `spec.rules`.
    pub fn of(rule: &Value) -> Rule {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let texts = |value: &Value| -> Vec<String> {
            let all = value.as_array().into_iter().flatten();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let subjects = list(&rule["subjects"]);
        let subjects = subjects.iter().filter_map(|subject| match subject["kind"].as_str()? {
            "User" => Some(Subject::User(text(&subject["user"]["name"]))),
            "Group" => Some(Subject::Group(text(&subject["group"]["name"]))),
            "ServiceAccount" => {
                let account = &subject["serviceAccount"];
                Some(Subject::ServiceAccount(
                    text(&account["namespace"]),
                    text(&account["name"]),
                ))
            }
            _ => None,
        });
        let resources = list(&rule["resourceRules"]).into_iter().map(|rule| ResourceRule {
            verbs: texts(&rule["verbs"]),
            groups: texts(&rule["apiGroups"]),
            resources: texts(&rule["resources"]),
            namespaces: texts(&rule["namespaces"]),
            cluster_scope: rule["clusterScope"] == true,
        });
        let paths = list(&rule["nonResourceRules"]).into_iter().map(|rule| PathRule {
            verbs: texts(&rule["verbs"]),
            paths: texts(&rule["nonResourceURLs"]),
        });
        Rule {
            subjects: subjects.collect(),
            resources: resources.collect(),
            paths: paths.collect(),
        }
    }

    /// Whether it is about a request of a user.
    pub fn matches(&self, user: &UserInfo, request: &Attributes) -> bool {
        let what = match request.is_resource {
            true => self.resources.iter().any(|rule| rule.matches(request)),
            false => self.paths.iter().any(|rule| rule.matches(request)),
        };
        what && self.subjects.iter().any(|subject| subject.matches(user))
    }
}

impl Subject {
    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Subject::User(name) => name == ANY || *name == user.name,
            Subject::Group(name) => name == ANY || user.is_in(name),
            Subject::ServiceAccount(namespace, name) => {
                let account = user
                    .name
                    .strip_prefix("system:serviceaccount:")
                    .and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(own, account)| own == namespace && (name == ANY || name == account))
            }
        }
    }
}

fn contains(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == ANY || one == wanted)
}

impl ResourceRule {
    fn matches(&self, request: &Attributes) -> bool {
        let resource = |one: &String| {
            let (resource, subresource) = one.split_once('/').unwrap_or((one, ""));
            one == ANY || resource == request.resource && subresource == request.subresource
        };
        let place = match &*request.namespace {
            "" => self.cluster_scope,
            namespace => contains(&self.namespaces, namespace),
        };
        place
            && contains(&self.verbs, &request.verb)
            && contains(&self.groups, &request.group)
            && self.resources.iter().any(resource)
    }
}

impl PathRule {
    fn matches(&self, request: &Attributes) -> bool {
        let path = |one: &String| {
            let below = one
                .strip_suffix('*')
                .is_some_and(|start| request.path.starts_with(start));
            below || *one == request.path
        };
        contains(&self.verbs, &request.verb) && self.paths.iter().any(path)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(verb: &str, group: &str, resource: &str, subresource: &str, namespace: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            is_resource: true,
            ..Attributes::default()
        }
    }

    fn path(verb: &str, path: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            path: path.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn rules_select_by_who_and_what() {
        let rule = Rule::of(&json!({
            "subjects": [
                {"kind": "User", "user": {"name": "jane"}}, {"kind": "Group", "group": {"name": "dev"}},
                {"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}],
            "resourceRules": [
                {"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "nodes/status"], "namespaces": ["a"],
                    "clusterScope": true},
                {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"], "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/apis/*"]}],
        }));
        let jane = UserInfo::new("jane", ["x"]);
        for (request, expect) in [
            (resource("get", "", "pods", "", "a"), true),
            (resource("get", "", "pods", "", "b"), false),
            (resource("get", "", "pods", "", ""), true),
            (resource("get", "", "pods", "log", "a"), false),
            (resource("get", "", "nodes", "status", ""), true),
            (resource("get", "", "nodes", "", ""), false),
            (resource("list", "", "pods", "", "a"), false),
            (resource("delete", "apps", "deployments", "scale", "z"), true),
            (resource("list", "apps", "deployments", "", ""), false),
            (path("get", "/healthz"), true),
            (path("get", "/healthz/x"), false),
            (path("get", "/apis/apps/v1"), true),
            (path("post", "/healthz"), false),
        ] {
            assert_eq!(rule.matches(&jane, &request), expect, "{request:?}");
        }
        let health = path("get", "/healthz");
        for (user, groups, expect) in [
            ("joe", vec!["dev"], true),
            ("joe", vec!["ops"], false),
            ("system:serviceaccount:kube-system:x", vec![], true),
            ("system:serviceaccount:default:x", vec![], false),
        ] {
            assert_eq!(rule.matches(&UserInfo::new(user, groups), &health), expect, "{user}");
        }
    }
}
