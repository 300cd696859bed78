//! Nobody grants what he does not hold: rules in roles and bindings to roles are checked against the writer's own.
//!
//! Upstream does this in the storage of the RBAC kinds; here it is a plug-in so that every verb passes it.
//! Source: `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased/storage.go`.

use std::sync::Arc;

use api::{GroupResource, Status, Value};

use super::judge::Judge;
use crate::authorization::{Rbac, Rule};
use crate::pipeline::{Authorizer, Review};
use crate::request::{Attributes, SYSTEM_MASTERS};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The plug-in.
pub struct RbacEscalation {
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
}

impl Judge for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    async fn judge(&self, review: &Review, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        let is_other = review.resource.group != GROUP || !review.subresource.is_empty();
        if is_other || review.user.is_in(SYSTEM_MASTERS) {
            return Ok(());
        }
        match &*review.resource.resource {
            "roles" | "clusterroles" => self.check_role(review, object, old).await,
            "rolebindings" | "clusterrolebindings" => self.check_binding(review, object, old).await,
            _ => Ok(()),
        }
    }
}

// === impl RbacEscalation ===

impl RbacEscalation {
    /// A plug-in over those rules; `authorizer` answers for the verbs `escalate` and `bind`.
    pub fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> RbacEscalation {
        RbacEscalation { rbac, authorizer }
    }

    async fn check_role(&self, review: &Review, role: &Value, old: Option<&Value>) -> Result<(), Status> {
        let same = |field: &str| old.is_some_and(|old| old.get(field) == role.get(field));
        if same("rules") && same("aggregationRule") {
            return Ok(());
        }
        if self
            .may(review, "escalate", &review.resource.resource, &review.name)
            .await
        {
            return Ok(());
        }
        if role.get("aggregationRule").is_some_and(Value::is_object) && !same("aggregationRule") {
            let all = || vec!["*".to_owned()];
            let everything = [
                Rule {
                    verbs: all(),
                    groups: all(),
                    resources: all(),
                    ..Rule::default()
                },
                Rule {
                    verbs: all(),
                    urls: all(),
                    ..Rule::default()
                },
            ];
            let own = self.rbac.rules_of(&review.user, "");
            if !everything.iter().all(|rule| Rule::cover(&own, rule)) {
                return Err(review.forbidden("must have cluster-admin privileges to use the aggregationRule"));
            }
        }
        self.must_hold(review, &Rule::of_role(role))
    }

    async fn check_binding(&self, review: &Review, binding: &Value, old: Option<&Value>) -> Result<(), Status> {
        let same = |field: &str| old.is_some_and(|old| old.get(field) == binding.get(field));
        if same("roleRef") && same("subjects") {
            return Ok(());
        }
        let reference = &binding["roleRef"];
        let name = reference["name"].as_str().unwrap_or("");
        let (resource, namespace) = match reference["kind"].as_str() {
            Some("Role") => ("roles", &*review.namespace),
            _ => ("clusterroles", ""),
        };
        if self.may(review, "bind", resource, name).await {
            return Ok(());
        }
        match self.rbac.rules_of_role(namespace, name) {
            Some(rules) => self.must_hold(review, &rules),
            None => Err(Status::not_found(
                &GroupResource {
                    group: GROUP.into(),
                    resource: resource.into(),
                },
                name,
            )),
        }
    }

    async fn may(&self, review: &Review, verb: &str, resource: &str, name: &str) -> bool {
        let attributes = Attributes {
            verb: verb.into(),
            prefix: "apis".into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: resource.into(),
            namespace: review.namespace.clone(),
            name: name.into(),
            is_resource: true,
            ..Attributes::default()
        };
        self.authorizer.authorize(&review.user, &attributes).await.allows()
    }

    fn must_hold(&self, review: &Review, wanted: &[Rule]) -> Result<(), Status> {
        let own = self.rbac.rules_of(&review.user, &review.namespace);
        let mut missing: Vec<String> = wanted
            .iter()
            .filter(|rule| !Rule::cover(&own, rule))
            .map(Rule::words)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort();
        missing.dedup();
        let user = &review.user;
        let groups: Vec<String> = user.groups.iter().map(|group| api::field::quote(group)).collect();
        Err(review.forbidden(&format!(
            "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            api::field::quote(&user.name),
            groups.join(" "),
            missing.join("\n")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use crate::pipeline::Operation;
    use crate::request::UserInfo;
    use serde_json::json;

    const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
    const BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";

    fn role(name: &str, rules: Value) -> Value {
        json!({"metadata": {"name": name}, "rules": rules})
    }

    fn reader() -> Value {
        json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}])
    }

    fn world() -> (World, RbacEscalation) {
        let world = World::new(&[
            (ROLES, role("reader", reader())),
            (
                ROLES,
                role("all", json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])),
            ),
            (
                ROLES,
                role(
                    "binder",
                    json!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["all"]}]),
                ),
            ),
            (BINDINGS, binding("b1", "reader", "jane")),
            (BINDINGS, binding("b2", "binder", "bob")),
        ]);
        let rbac = Arc::new(Rbac::new(&world));
        let plugin = RbacEscalation::new(rbac.clone(), rbac);
        (world, plugin)
    }

    fn binding(name: &str, role: &str, user: &str) -> Value {
        json!({
            "metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}],
        })
    }

    fn check(user: UserInfo, resource: &str, object: Value, old: Option<Value>) -> Result<(), String> {
        let (world, plugin) = world();
        let operation = if old.is_some() {
            Operation::Update
        } else {
            Operation::Create
        };
        let mut review = world.review(operation, GROUP, resource, "", "", api::meta::name(&object));
        review.user = Arc::new(user);
        let verdict = futures::executor::block_on(plugin.judge(&review, &object, old.as_ref()));
        verdict.map_err(|status| status.message)
    }

    #[test]
    fn roles_grant_only_what_their_writer_holds() {
        let jane = || UserInfo::new("jane", ["dev"]);
        let wide = json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]);
        assert_eq!(check(jane(), "clusterroles", role("x", reader()), None), Ok(()));
        assert_eq!(
            check(jane(), "clusterroles", role("x", wide.clone()), None).unwrap_err(),
            "clusterroles.rbac.authorization.k8s.io \"x\" is forbidden: user \"jane\" (groups=[\"dev\" \
             \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"delete\"]}"
        );
        // Rules that stay as they are may stay.
        assert_eq!(
            check(
                jane(),
                "clusterroles",
                role("x", wide.clone()),
                Some(role("x", wide.clone()))
            ),
            Ok(())
        );
        assert_eq!(
            check(
                UserInfo::new("root", [SYSTEM_MASTERS]),
                "clusterroles",
                role("x", wide),
                None
            ),
            Ok(())
        );
        let mut aggregating = role("x", json!([]));
        aggregating["aggregationRule"] = json!({"clusterRoleSelectors": []});
        assert!(check(jane(), "clusterroles", aggregating, None).is_err());
    }

    #[test]
    fn bindings_need_the_rules_or_the_right_to_bind() {
        for (user, role, ok) in [
            ("jane", "reader", true),
            ("jane", "all", false),
            ("bob", "all", true),
            ("bob", "reader", false),
            ("jane", "none", false),
        ] {
            let got = check(
                UserInfo::new(user, ["dev"]),
                "clusterrolebindings",
                binding("x", role, "eve"),
                None,
            );
            assert_eq!(got.is_ok(), ok, "{user} {role} {got:?}");
        }
    }
}
