//! One policy rule: what it allows, and whether it covers another one.
//!
//! Source: `pkg/apis/rbac/v1/evaluation_helpers.go` and `k8s.io/component-helpers/auth/rbac/validation/policy_comparator.go`.

use api::Value;

use crate::request::Attributes;

/// A rule of a Role or ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// Groups, or `*`.
    pub groups: Vec<String>,
    /// Resources, `resource/subresource`, `*/subresource` or `*`.
    pub resources: Vec<String>,
    /// Names; none means every name.
    pub names: Vec<String>,
    /// Paths that are no resource, with `*` at the end for everything below.
    pub urls: Vec<String>,
}

// === impl Rule ===

impl Rule {
    /// Reads the `rules` of a role object.
    pub fn of_role(role: &Value) -> Vec<Rule> {
        let rules = role.get("rules").and_then(Value::as_array);
        rules.into_iter().flatten().map(Rule::of_value).collect()
    }

    fn of_value(rule: &Value) -> Rule {
        let texts = |field: &str| -> Vec<String> {
            let list = rule.get(field).and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        Rule {
            verbs: texts("verbs"),
            groups: texts("apiGroups"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            urls: texts("nonResourceURLs"),
        }
    }

    /// Whether the rule allows the request.
    pub fn allows(&self, attributes: &Attributes) -> bool {
        if !has(&self.verbs, &attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self.urls.iter().any(|rule| url_matches(rule, &attributes.path));
        }
        has(&self.groups, &attributes.group)
            && self
                .resources
                .iter()
                .any(|r| resource_matches(r, &attributes.resource, &attributes.subresource))
            && (self.names.is_empty() || self.names.contains(&attributes.name))
    }

    /// Whether these rules together allow all that `wanted` allows. Each atom of `wanted` (one verb of one resource of
    /// one group with one name) must be covered by a single rule.
    pub fn cover(own: &[Rule], wanted: &Rule) -> bool {
        wanted
            .atoms()
            .iter()
            .all(|atom| own.iter().any(|rule| rule.covers_atom(atom)))
    }

    fn atoms(&self) -> Vec<Rule> {
        let one = |text: &String| vec![text.clone()];
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for group in &self.groups {
                for resource in &self.resources {
                    let atom = Rule {
                        verbs: one(verb),
                        groups: one(group),
                        resources: one(resource),
                        ..Rule::default()
                    };
                    match &self.names[..] {
                        [] => atoms.push(atom),
                        names => atoms.extend(names.iter().map(|name| Rule {
                            names: one(name),
                            ..atom.clone()
                        })),
                    }
                }
            }
            atoms.extend(self.urls.iter().map(|url| Rule {
                verbs: one(verb),
                urls: one(url),
                ..Rule::default()
            }));
        }
        atoms
    }

    fn covers_atom(&self, atom: &Rule) -> bool {
        if !has(&self.verbs, &atom.verbs[0]) {
            return false;
        }
        if let Some(url) = atom.urls.first() {
            return self.urls.iter().any(|own| own == url || url_matches(own, url));
        }
        let (resource, subresource) = atom.resources[0].split_once('/').unwrap_or((&atom.resources[0], ""));
        has(&self.groups, &atom.groups[0])
            && self
                .resources
                .iter()
                .any(|own| resource_matches(own, resource, subresource))
            && (self.names.is_empty() || atom.names.first().is_some_and(|name| self.names.contains(name)))
    }

    /// The rule in upstream's compact words: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    pub fn words(&self) -> String {
        let mut parts = Vec::new();
        let mut tell = |name: &str, texts: &[String]| {
            if !texts.is_empty() {
                let quoted: Vec<String> = texts.iter().map(|text| api::field::quote(text)).collect();
                parts.push(format!("{name}:[{}]", quoted.join(" ")));
            }
        };
        tell("APIGroups", &self.groups);
        tell("Resources", &self.resources);
        tell("NonResourceURLs", &self.urls);
        tell("ResourceNames", &self.names);
        tell("Verbs", &self.verbs);
        format!("{{{}}}", parts.join(", "))
    }

    /// The rule as `authorization.k8s.io/v1 ResourceRule`, if it is about resources.
    pub fn to_resource_rule(&self) -> Option<Value> {
        (!self.resources.is_empty()).then(|| {
            let mut rule = serde_json::json!({
                "verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources,
            });
            if !self.names.is_empty() {
                rule["resourceNames"] = serde_json::json!(self.names);
            }
            rule
        })
    }

    /// The rule as `authorization.k8s.io/v1 NonResourceRule`, if it is about other paths.
    pub fn to_non_resource_rule(&self) -> Option<Value> {
        let urls = &self.urls;
        (!urls.is_empty()).then(|| serde_json::json!({"verbs": self.verbs, "nonResourceURLs": urls}))
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == "*" || own == wanted)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((own, own_subresource)) => {
            !subresource.is_empty() && own_subresource == subresource && (own == "*" || own == resource)
        }
    }
}

fn url_matches(rule: &str, path: &str) -> bool {
    rule == path
        || rule
            .strip_suffix('*')
            .is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verbs groups resources names` or `verbs url paths`, comma separated, `-` for the core group.
    fn rule(text: &str) -> Rule {
        let words: Vec<&str> = text.split(' ').collect();
        let list =
            |t: &str| -> Vec<String> { t.split(',').map(|w| if w == "-" { "" } else { w }.to_owned()).collect() };
        match &words[..] {
            [verbs, "url", urls] => Rule {
                verbs: list(verbs),
                urls: list(urls),
                ..Rule::default()
            },
            [verbs, groups, resources, names @ ..] => Rule {
                verbs: list(verbs),
                groups: list(groups),
                resources: list(resources),
                names: names.first().map(|n| list(n)).unwrap_or_default(),
                ..Rule::default()
            },
            _ => panic!("{text}"),
        }
    }

    #[test]
    fn rules_allow_what_they_name() {
        for (text, request, expect) in [
            ("get - pods", "get - pods/ x", true),
            ("get - pods", "get - pods/log x", false),
            ("get - pods/log", "get - pods/log x", true),
            ("get - pods/log", "get - pods/ x", false),
            ("get - */scale", "get - pods/scale x", true),
            ("get - */scale", "get - pods/ x", false),
            ("* * *", "delete apps deployments/status x", true),
            ("get apps pods", "get - pods/ x", false),
            ("get - pods a,b", "get - pods/ b", true),
            ("get - pods a,b", "get - pods/ c", false),
            ("list - pods a", "list - pods/ ", false),
        ] {
            let words: Vec<&str> = request.split(' ').collect();
            let (resource, subresource) = words[2].split_once('/').unwrap();
            let attributes = Attributes {
                verb: words[0].into(),
                group: words[1].replace('-', ""),
                resource: resource.into(),
                subresource: subresource.into(),
                name: words[3].into(),
                is_resource: true,
                ..Attributes::default()
            };
            assert_eq!(rule(text).allows(&attributes), expect, "{text} / {request}");
        }
    }

    #[test]
    fn paths_match_to_their_end_or_below_a_star() {
        for (own, path, expect) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", false),
            ("/healthz/*", "/healthz/etcd", true),
            ("/healthz/*", "/healthz", false),
            ("*", "/anything", true),
            ("/api", "/apis", false),
        ] {
            let attributes = Attributes {
                verb: "get".into(),
                path: path.into(),
                ..Attributes::default()
            };
            assert_eq!(
                rule(&format!("get url {own}")).allows(&attributes),
                expect,
                "{own} {path}"
            );
        }
    }

    #[test]
    fn nobody_grants_what_he_does_not_hold() {
        for (own, wanted, expect) in [
            ("get,list - pods", "get - pods", true),
            ("get - pods", "get,list - pods", false),
            ("* * *", "get,delete apps,- deployments,pods/status", true),
            ("get - pods a", "get - pods", false),
            ("get - pods", "get - pods a", true),
            ("get - pods a,b", "get - pods b", true),
            ("get - */status", "get - pods/status", true),
            ("get - pods", "get - *", false),
            ("get url /api/*", "get url /api/v1", true),
            ("get url /api/*", "get url /api/*", true),
            ("get url /api/v1", "get url /api/*", false),
        ] {
            assert_eq!(
                Rule::cover(&[rule(own)], &rule(wanted)),
                expect,
                "{own} covers {wanted}"
            );
        }
    }

    #[test]
    fn rules_are_worded_as_upstream() {
        assert_eq!(
            rule("get - pods").words(),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#
        );
    }
}
