//! Role bindings and cluster role bindings.
//!
//! Source of the rules: `ValidateRoleBinding`, `ValidateClusterRoleBinding` and `ValidateRoleBindingSubject` in
//! `pkg/apis/rbac/validation/validation.go`; of the defaults: `pkg/apis/rbac/v1/defaults.go`.

use api::Value;
use api::field::ErrorList;

use super::GROUP;
use crate::check::{At, Report};
use crate::names;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

/// Bindings, of a namespace or of the cluster.
pub struct Bindings {
    /// Whether they live in a namespace.
    pub namespaced: bool,
}

impl Strategy for Bindings {
    fn default(&self, object: &mut Value) {
        if let Some(role) = object.existing("roleRef") {
            role.put_default_text("apiGroup", GROUP);
        }
        for subject in object.elements("subjects") {
            if matches!(subject.text("kind"), "User" | "Group") {
                subject.put_default("apiGroup", GROUP);
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |binding| self.validate(&binding))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |binding| {
            self.validate(&binding);
            let role = binding.get("roleRef");
            role.ensure(role.value == old.at("roleRef"), "cannot change roleRef");
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

impl Bindings {
    fn validate(&self, binding: &At) {
        binding.get("roleRef.apiGroup").one_of(&[GROUP]);
        binding.get("roleRef.kind").one_of(match self.namespaced {
            true => &["Role", "ClusterRole"],
            false => &["ClusterRole"],
        });
        let name = binding.get("roleRef.name");
        if name.required() {
            name.check(names::path_segment(name.text(), false));
        }
        for subject in binding.items("subjects") {
            self.subject(&subject);
        }
    }

    fn subject(&self, subject: &At) {
        let (name, group, kind) = (subject.get("name"), subject.get("apiGroup"), subject.get("kind"));
        name.required();
        match kind.text() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    name.check(names::subdomain(name.text(), false));
                }
                if !group.is_empty() {
                    group.not_supported(&[""]);
                }
                if !self.namespaced {
                    subject.get("namespace").required();
                }
            }
            "User" | "Group" => group.one_of(&[GROUP]),
            _ => kind.not_supported(&["ServiceAccount", "User", "Group"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bindings, GROUP};
    use crate::testing::{Case, SUBDOMAIN, check};

    #[test]
    fn rules() {
        let namespaced = Bindings { namespaced: true };
        let cluster = Bindings { namespaced: false };
        for (bindings, case) in [
            (
                &namespaced,
                Case::new("a binding")
                    .object(
                        "roleRef: {kind: Role, name: a}\nsubjects: [{kind: User, name: u}, {kind: ServiceAccount, \
                         name: s}]",
                    )
                    .field("roleRef.apiGroup", GROUP)
                    .field("subjects.0.apiGroup", GROUP)
                    .field("subjects.1.apiGroup", ()),
            ),
            (
                &cluster,
                Case::new("a role of a namespace")
                    .object("roleRef: {kind: Role, name: a/b}\nsubjects: [{kind: ServiceAccount, name: s}]")
                    .errors(&[
                        "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                        "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
                        "subjects[0].namespace: Required value",
                    ]),
            ),
            (
                &namespaced,
                Case::new("subjects")
                    .object(
                        "roleRef: {kind: X, apiGroup: g}\nsubjects: [{kind: X}, {kind: ServiceAccount, name: A, \
                         apiGroup: g}, {kind: Group, name: g, apiGroup: g}]",
                    )
                    .errors(&[
                        "roleRef.apiGroup: Unsupported value: \"g\": supported values: \"rbac.authorization.k8s.io\"",
                        "roleRef.kind: Unsupported value: \"X\": supported values: \"Role\", \"ClusterRole\"",
                        "roleRef.name: Required value",
                        "subjects[0].name: Required value",
                        "subjects[0].kind: Unsupported value: \"X\": supported values: \"ServiceAccount\", \"User\", \
                         \"Group\"",
                        &format!("subjects[1].name: Invalid value: \"A\": {SUBDOMAIN}"),
                        "subjects[1].apiGroup: Unsupported value: \"g\": supported values: \"\"",
                        "subjects[2].apiGroup: Unsupported value: \"g\": supported values: \
                         \"rbac.authorization.k8s.io\"",
                    ]),
            ),
            (
                &cluster,
                Case::new("the role is for life")
                    .old("roleRef: {kind: ClusterRole, name: a}")
                    .object("roleRef: {kind: ClusterRole, name: b}")
                    .errors(&[
                        "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\
                         \"name\":\"b\"}: cannot change roleRef",
                    ]),
            ),
        ] {
            check(bindings, case);
        }
    }
}
