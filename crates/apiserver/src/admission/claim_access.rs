//! Who may say what of claims for devices: administrators' access only in namespaces that are marked for it; what was allocated
//! only by who may bind claims; what drivers say of their devices only by who may speak for the driver.
//!
//! Upstream does this in the strategies of claims and their templates; here it is a plug-in, which has namespaces and an
//! authorizer. Source: `pkg/registry/resource/utils.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::field::{Error, ErrorList, Path};
use api::{GroupResource, Status, Value, validation};

use super::judge::Judge;
use crate::pipeline::{Authorizer, Decision, Review, forbidden};
use crate::request::Attributes;

const GROUP: &str = "resource.k8s.io";
/// The label of namespaces whose claims may have administrators' access.
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";
/// Which node a service account's token is bound to.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The plug-in.
pub struct ClaimAccess {
    authorizer: Arc<dyn Authorizer>,
}

impl Judge for ClaimAccess {
    fn name(&self) -> &'static str {
        "ResourceClaimAccess"
    }

    async fn judge(&self, review: &Review, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        if review.resource.group != GROUP {
            return Ok(());
        }
        let errors = match (&*review.resource.resource, &*review.subresource, old) {
            // The specs of both stay as they are.
            ("resourceclaims", "", None) => administrator(review, &object["spec"]["devices"]["requests"], asks_path),
            ("resourceclaimtemplates", "", None) => {
                administrator(review, &object["spec"]["spec"]["devices"]["requests"], asks_path)
            }
            ("resourceclaims", "status", Some(old)) => {
                let results = "/status/allocation/devices/results";
                let of = |claim: &Value| claim.pointer(results).cloned().unwrap_or_default();
                let mut errors = match admin_index(&of(old)) {
                    // What was given before stays.
                    Some(_) => ErrorList::new(),
                    None => administrator(review, &of(object), has_path),
                };
                errors.extend(self.binding(review, &object["status"], &old["status"]).await);
                errors.extend(self.drivers(review, &object["status"], &old["status"]).await);
                errors
            }
            _ => return Ok(()),
        };
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Status::invalid(&review.kind.group_kind(), &review.name, &errors)),
        }
    }
}

// === impl ClaimAccess ===

impl ClaimAccess {
    /// The plug-in; `authorizer` knows who may bind claims and speak for drivers.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> ClaimAccess {
        ClaimAccess { authorizer }
    }

    /// What was allocated, and for whom, is said by who may bind claims, wherever they are.
    async fn binding(&self, review: &Review, new: &Value, old: &Value) -> ErrorList {
        if ["allocation", "reservedFor"]
            .iter()
            .all(|field| new[field] == old[field])
        {
            return ErrorList::new();
        }
        let asked = attributes(review, &review.verb, "binding", "", "");
        let Some(why) = self.refusal(review, &asked).await else {
            return ErrorList::new();
        };
        let path = Path::new("status").child("allocation");
        let verb = &review.verb;
        let detail = format!(
            "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{verb}\" \
             permission: {why}"
        );
        vec![Error::forbidden(&path, detail)]
    }

    /// What is said of a driver's devices is said by who may speak for it: anywhere, or on the node of the claim, if one's
    /// token is of that node.
    async fn drivers(&self, review: &Review, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if new["allocation"].is_null() {
            return errors;
        }
        let anywhere = format!("arbitrary-node:{}", review.verb);
        let verbs = match is_of_node(review, node_of(&new["allocation"])) {
            true => vec![format!("associated-node:{}", review.verb), anywhere],
            false => vec![anywhere],
        };
        for driver in changed_drivers(&new["devices"], &old["devices"]) {
            let mut first = None;
            for verb in &verbs {
                let asked = attributes(review, verb, "driver", &review.namespace, driver);
                match self.refusal(review, &asked).await {
                    None => {
                        first = None;
                        break;
                    }
                    why => first = first.or(why),
                }
            }
            if let Some(why) = first {
                let path = Path::new("status").child("devices");
                let verbs = verbs.join(" ");
                let detail = format!(
                    "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{verbs}]\" permission: {why}"
                );
                errors.push(Error::forbidden(&path, detail));
            }
        }
        errors
    }

    /// Why somebody may not, or nothing.
    async fn refusal(&self, review: &Review, asked: &Attributes) -> Option<String> {
        let why = match self.authorizer.authorize(&review.user, asked).await {
            Decision::Allow(_) => return None,
            Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
            Decision::Failed { reason, error, .. } if reason.is_empty() => error,
            Decision::Failed { reason, error, .. } => format!("{error}: {reason}"),
        };
        Some(forbidden(&review.user, asked, &why).message)
    }
}

fn attributes(review: &Review, verb: &str, subresource: &str, namespace: &str, name: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        prefix: "apis".into(),
        group: GROUP.into(),
        version: review.requested.version.clone(),
        resource: "resourceclaims".into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        is_resource: true,
        ..Attributes::default()
    }
}

/// The path of a request; upstream leaves out `exactly` and, in templates, the outer `spec`.
fn asks_path(index: usize) -> Path {
    let requests = Path::new("spec").child("devices").child("requests");
    requests.index(index).child("adminAccess")
}

fn has_path(index: usize) -> Path {
    let devices = Path::new("status").child("allocation").child("devices");
    devices.child("results").index(index).child("adminAccess")
}

/// Which one asks for an administrator's access, or has it.
fn admin_index(list: &Value) -> Option<usize> {
    let mut list = list.as_array()?.iter();
    list.position(|one| one["exactly"]["adminAccess"] == true || one["adminAccess"] == true)
}

/// An administrator's access, where there is any, is given in marked namespaces only.
fn administrator(review: &Review, list: &Value, path: impl Fn(usize) -> Path) -> ErrorList {
    let Some(index) = admin_index(list) else {
        return ErrorList::new();
    };
    let namespaces = GroupResource {
        group: String::new(),
        resource: "namespaces".into(),
    };
    let namespace = review.cluster.get(&namespaces, "", &review.namespace);
    let marked = namespace.is_some_and(|namespace| namespace.value()["metadata"]["labels"][ADMIN_LABEL] == "true");
    match marked {
        true => ErrorList::new(),
        false => vec![Error::forbidden(
            &path(index),
            format!("admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace"),
        )],
    }
}

/// The drivers of devices that are told of otherwise than before.
fn changed_drivers<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    fn by_key(list: &Value) -> BTreeMap<[&str; 4], &Value> {
        let devices = list.as_array().into_iter().flatten();
        devices
            .map(|device| {
                let fields = ["driver", "pool", "device", "shareID"];
                (fields.map(|field| device[field].as_str().unwrap_or("")), device)
            })
            .collect()
    }
    let (new, old) = (by_key(new), by_key(old));
    let changed = new.iter().filter(|(key, device)| old.get(*key) != Some(device));
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    changed.chain(gone).map(|(key, _)| key[0]).collect()
}

/// The one node that an allocation is for.
fn node_of(allocation: &Value) -> Option<&str> {
    let [term] = &allocation["nodeSelector"]["nodeSelectorTerms"].as_array()?[..] else {
        return None;
    };
    let [field] = &term["matchFields"].as_array()?[..] else {
        return None;
    };
    let [name] = &field["values"].as_array()?[..] else {
        return None;
    };
    let by_fields = term["matchExpressions"].as_array().is_none_or(Vec::is_empty);
    let by_name = field["key"] == "metadata.name" && field["operator"] == "In";
    name.as_str().filter(|_| by_fields && by_name)
}

/// Whether somebody is a service account whose token is of that node.
fn is_of_node(review: &Review, node: Option<&str>) -> bool {
    let Some(node) = node else { return false };
    let user = &review.user;
    let is_account = user
        .name
        .strip_prefix(SERVICE_ACCOUNT)
        .is_some_and(|name| name.contains(':'));
    let own = user.extra.get(NODE_NAME).map(Vec::as_slice).unwrap_or_default();
    is_account && own == [node] && validation::dns1123_subdomain(node).is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;
    use crate::authorization::Rbac;
    use crate::pipeline::Operation;
    use crate::request::UserInfo;

    const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
    const BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";

    /// A cluster in which the scheduler binds, one driver speaks for its devices on its node, and another one anywhere.
    fn world() -> World {
        let role = |name: &str, verbs: Value, resource: &str, names: Value| {
            let rule = json!({"verbs": verbs, "apiGroups": [GROUP], "resources": [resource], "resourceNames": names});
            (ROLES, json!({"metadata": {"name": name}, "rules": [rule]}))
        };
        let bind = |role: &str, user: &str| {
            let subject = json!({"kind": "User", "name": user});
            let of = json!({"kind": "ClusterRole", "name": role});
            (
                BINDINGS,
                json!({"metadata": {"name": role}, "roleRef": of, "subjects": [subject]}),
            )
        };
        World::new(&[
            ("namespaces", json!({"metadata": {"name": "n"}})),
            (
                "namespaces",
                json!({"metadata": {"name": "marked", "labels": {ADMIN_LABEL: "true"}}}),
            ),
            role("binder", json!(["update"]), "resourceclaims/binding", json!([])),
            bind("binder", "scheduler"),
            role(
                "near",
                json!(["associated-node:update"]),
                "resourceclaims/driver",
                json!(["d"]),
            ),
            bind("near", "system:serviceaccount:n:near"),
            role(
                "far",
                json!(["arbitrary-node:update"]),
                "resourceclaims/driver",
                json!(["d"]),
            ),
            bind("far", "far"),
        ])
    }

    fn check(user: &str, namespace: &str, subresource: &str, new: Value, old: Option<Value>) -> Result<(), String> {
        let world = world();
        let operation = if old.is_some() {
            Operation::Update
        } else {
            Operation::Create
        };
        let mut review = world.review(operation, GROUP, "resourceclaims", subresource, namespace, "c");
        review.verb = "update".into();
        let mut who = UserInfo::new(user, ["system:authenticated"]);
        if user.starts_with(SERVICE_ACCOUNT) {
            who.extra.insert(NODE_NAME.into(), vec!["node-1".into()]);
        }
        review.user = Arc::new(who);
        let plugin = ClaimAccess::new(Arc::new(Rbac::new(&world)));
        let verdict = futures::executor::block_on(plugin.judge(&review, &new, old.as_ref()));
        verdict.map_err(|status| status.message)
    }

    #[test]
    fn administrators_are_let_in_where_the_namespace_says_so() {
        let claim = |admin: bool| json!({"spec": {"devices": {"requests": [{"name": "r"}, {"exactly": {"adminAccess": admin}}]}}});
        assert_eq!(check("jane", "n", "", claim(false), None), Ok(()));
        assert_eq!(check("jane", "marked", "", claim(true), None), Ok(()));
        let refused = check("jane", "n", "", claim(true), None).unwrap_err();
        assert!(
            refused.ends_with(
                "spec.devices.requests[1].adminAccess: Forbidden: admin access to devices requires the \
                 `resource.kubernetes.io/admin-access: true` label on the containing namespace"
            ),
            "{refused}"
        );
        let status = |admin: bool| json!({"status": {"allocation": {"devices": {"results": [{"driver": "d", "adminAccess": admin}]}}}});
        let none = || Some(json!({"status": {}}));
        assert_eq!(check("scheduler", "marked", "status", status(true), none()), Ok(()));
        let refused = check("scheduler", "n", "status", status(true), none()).unwrap_err();
        assert!(
            refused.contains("status.allocation.devices.results[0].adminAccess: Forbidden"),
            "{refused}"
        );
    }

    #[test]
    fn allocations_are_told_by_who_may_bind() {
        let old = json!({"status": {}});
        let new = json!({"status": {"reservedFor": [{"uid": "u"}]}});
        assert_eq!(
            check("scheduler", "n", "status", new.clone(), Some(old.clone())),
            Ok(())
        );
        assert_eq!(check("jane", "n", "status", new.clone(), Some(new.clone())), Ok(()));
        let refused = check("jane", "n", "status", new, Some(old)).unwrap_err();
        let why = "status.allocation: Forbidden: changing status.allocation or status.reservedFor requires \
                   resource=\"resourceclaims/binding\", verb=\"update\" permission: resourceclaims.resource.k8s.io is forbidden: \
                   User \"jane\" cannot update resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope";
        assert!(refused.contains(why), "{refused}");
    }

    #[test]
    fn devices_are_told_of_by_who_speaks_for_their_driver() {
        let on = |node: &str, driver: &str| {
            let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
            let selector = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
            let results = json!([{"driver": driver, "pool": "p", "device": "a"}]);
            json!({"status": {"allocation": {"devices": {"results": results}, "nodeSelector": selector}}})
        };
        let told = |mut claim: Value| {
            claim["status"]["devices"] = claim["status"]["allocation"]["devices"]["results"].clone();
            claim
        };
        let near = "system:serviceaccount:n:near";
        for (user, node, driver, ok) in [
            ("far", "node-1", "d", true),
            ("far", "node-2", "d", true),
            ("far", "node-1", "e", false),
            (near, "node-1", "d", true),
            (near, "node-2", "d", false),
            ("jane", "node-1", "d", false),
        ] {
            let old = on(node, driver);
            for (new, old) in [(told(old.clone()), old.clone()), (old.clone(), told(old.clone()))] {
                let got = check(user, "n", "status", new, Some(old));
                assert_eq!(got.is_ok(), ok, "{user} {node} {driver} {got:?}");
                let why = "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[";
                assert!(got.is_ok() || got.clone().unwrap_err().contains(why), "{got:?}");
            }
        }
    }
}
