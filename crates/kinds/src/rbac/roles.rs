//! Roles and cluster roles.
//!
//! Source of the rules: `ValidateRole`, `ValidateClusterRole` and `ValidatePolicyRule` in
//! `pkg/apis/rbac/validation/validation.go`. That nobody grants more than they have is the API server's to check.

use api::Value;
use api::field::ErrorList;
use api::selector::LabelSelector;
use api::validation::label_selector;

use crate::check::{At, Report};
use crate::row::{Strategy, WriteContext};

/// Roles, of a namespace or of the cluster.
pub struct Roles {
    /// Whether they live in a namespace.
    pub namespaced: bool,
}

impl Strategy for Roles {
    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |role| self.validate(&role))
    }

    fn validate_update(&self, object: &Value, _old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |role| self.validate(&role))
    }

    fn is_deep(&self) -> bool {
        true
    }
}

impl Roles {
    fn validate(&self, role: &At) {
        for rule in role.items("rules") {
            policy_rule(&rule, self.namespaced);
        }
        if !self.namespaced && role.get("aggregationRule").is_set() {
            aggregation(&role.get("aggregationRule"));
        }
    }
}

fn policy_rule(rule: &At, namespaced: bool) {
    if rule.get("verbs").is_empty() {
        rule.get("verbs").missing("verbs must contain at least one value");
    }
    let (groups, resources, urls) = (
        rule.get("apiGroups"),
        rule.get("resources"),
        rule.get("nonResourceURLs"),
    );
    if !urls.is_empty() {
        urls.ensure(!namespaced, "namespaced rules cannot apply to non-resource URLs");
        let of_resources = !groups.is_empty() || !resources.is_empty() || !rule.get("resourceNames").is_empty();
        urls.ensure(
            !of_resources,
            "rules cannot apply to both regular resources and non-resource URLs",
        );
        return;
    }
    if groups.is_empty() {
        groups.missing("resource rules must supply at least one api group");
    }
    if resources.is_empty() {
        resources.missing("resource rules must supply at least one resource");
    }
}

fn aggregation(rule: &At) {
    let selectors = rule.items("clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        rule.get("clusterRoleSelectors").missing(detail);
    }
    for selector in selectors {
        selector.extend(label_selector(selector.value, false, &selector.path));
        if LabelSelector::from_object(selector.value).is_err() {
            selector.invalid("invalid label selector.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Roles;
    use crate::testing::{Case, check};

    #[test]
    fn rules() {
        let namespaced = Roles { namespaced: true };
        let cluster = Roles { namespaced: false };
        for (roles, case) in [
            (&namespaced, Case::new("a role").object("rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]")),
            (&cluster, Case::new("a path").object("rules: [{verbs: [get], nonResourceURLs: [/healthz]}]")),
            (
                &namespaced,
                Case::new("nothing").object("rules: [{}]").errors(&[
                    "rules[0].verbs: Required value: verbs must contain at least one value",
                    "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "rules[0].resources: Required value: resource rules must supply at least one resource",
                ]),
            ),
            (
                &namespaced,
                Case::new("paths and resources")
                    .object("rules: [{verbs: [get], nonResourceURLs: [/a], resources: [pods]}]")
                    .errors(&[
                        "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to \
                         non-resource URLs",
                        "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both regular \
                         resources and non-resource URLs",
                    ]),
            ),
            (
                &cluster,
                Case::new("aggregation of nothing").object("aggregationRule: {}").errors(&[
                    "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required \
                     if aggregationRule is non-nil",
                ]),
            ),
            (
                &cluster,
                Case::new("aggregation")
                    .old("rules: []")
                    .object("aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}"),
            ),
        ] {
            check(roles, case);
        }
    }
}
