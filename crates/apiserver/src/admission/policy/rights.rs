//! Whoever writes a policy with parameters, or a binding that names some, must be allowed to read them.
//!
//! Upstream does this in the strategies of these kinds; here it is a plug-in so that every verb passes it.
//! Source: `pkg/registry/admissionregistration/*/authz.go`.

use std::sync::Arc;

use api::field::{Error, Path};
use api::{GroupResource, Status, Value};

use super::{GROUP, params};
use crate::admission::judge::Judge;
use crate::pipeline::{Authorizer, Decision, Review};
use crate::request::{Attributes, SYSTEM_MASTERS, UserInfo};

/// The plug-in.
pub struct PolicyRights {
    authorizer: Arc<dyn Authorizer>,
}

impl Judge for PolicyRights {
    fn name(&self) -> &'static str {
        "PolicyParameterRights"
    }

    async fn judge(&self, review: &Review, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        let is_other = review.resource.group != GROUP || !review.subresource.is_empty();
        if is_other || review.user.is_in(SYSTEM_MASTERS) {
            return Ok(());
        }
        let spec = |object: &Value| object["spec"].clone();
        let (new, old) = (spec(object), old.map_or(Value::Null, spec));
        let refused = match &*review.resource.resource {
            "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
                let kind = &new["paramKind"];
                if kind.is_null() || old["paramKind"] == *kind {
                    return Ok(());
                }
                ("paramKind", self.may_read_all(review, kind).await)
            }
            "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
                let same = |field: &str| old[field] == new[field];
                if new["paramRef"].is_null() || (same("paramRef") && same("policyName")) {
                    return Ok(());
                }
                ("paramRef", self.may_read(review, &new).await)
            }
            _ => return Ok(()),
        };
        let (field, Err(why)) = refused else { return Ok(()) };
        let path = Path::new("spec").child(field);
        let errors = [Error::forbidden(&path, why)];
        Err(Status::invalid(&review.kind.group_kind(), &review.name, &errors))
    }
}

// === impl PolicyRights ===

impl PolicyRights {
    /// A plug-in that asks this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> PolicyRights {
        PolicyRights { authorizer }
    }

    /// All objects of a kind of parameters.
    async fn may_read_all(&self, review: &Review, kind: &Value) -> Result<(), String> {
        let attributes = Attributes {
            name: "*".into(),
            namespace: "*".into(),
            ..attributes("get", review, Some(kind))
        };
        match self.authorizer.authorize(&review.user, &attributes).await {
            Decision::Allow(_) => Ok(()),
            Decision::Failed { error, .. } => Err(error),
            Decision::Deny(_) | Decision::NoOpinion(_) => Err(format!(
                "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
                shown(&review.user),
                kind["kind"].as_str().unwrap_or(""),
                kind["apiVersion"].as_str().unwrap_or(""),
            )),
        }
    }

    /// The objects that a binding refers to.
    async fn may_read(&self, review: &Review, spec: &Value) -> Result<(), String> {
        let policies = GroupResource {
            group: GROUP.into(),
            resource: review.resource.resource.replace("policybindings", "policies"),
        };
        let name = spec["policyName"].as_str().unwrap_or("");
        let policy = review.cluster.get(&policies, "", name).map(|policy| policy.value());
        let kind = policy.as_ref().map(|policy| &policy["spec"]["paramKind"]);
        let reference = &spec["paramRef"];
        let text = |field: &str| reference[field].as_str().unwrap_or("").to_owned();
        let verb = if text("name").is_empty() { "list" } else { "get" };
        let attributes = Attributes {
            name: text("name"),
            namespace: text("namespace"),
            ..attributes(verb, review, kind.filter(|kind| kind.is_object()))
        };
        let user = shown(&review.user);
        let everywhere = format!(
            "to determine minimum required permissions and user {user} does not have \"{verb}\" permission for all groups, versions and resources"
        );
        match self.authorizer.authorize(&review.user, &attributes).await {
            Decision::Allow(_) => Ok(()),
            Decision::Failed { error, .. } => Err(format!("failed to authorize request: {error}")),
            Decision::Deny(_) | Decision::NoOpinion(_) if policy.is_none() => {
                Err(format!("unable to get policy {name} {everywhere}"))
            }
            Decision::Deny(_) | Decision::NoOpinion(_) => Err(format!(
                "user {user} does not have \"{verb}\" permission on the object referenced by paramRef"
            )),
        }
    }
}

/// What reading objects of a kind needs; without one, or without who serves it, that is everything.
fn attributes(verb: &str, review: &Review, kind: Option<&Value>) -> Attributes {
    let gvk = kind.map(params::gvk);
    let served = gvk.as_ref().and_then(|gvk| params::find(gvk, &review.registry));
    let any = || "*".to_owned();
    Attributes {
        verb: verb.into(),
        prefix: "apis".into(),
        group: gvk.as_ref().map_or_else(any, |gvk| gvk.group.clone()),
        version: gvk.as_ref().map_or_else(any, |gvk| gvk.version.clone()),
        resource: served.map_or_else(any, |served| served.kind.resource.resource.clone()),
        is_resource: true,
        ..Attributes::default()
    }
}

/// A user as Go prints the struct of one.
fn shown(user: &UserInfo) -> String {
    let extra: Vec<String> = user
        .extra
        .iter()
        .map(|(key, values)| format!("{key}:[{}]", values.join(" ")))
        .collect();
    format!(
        "&{{{} {} [{}] map[{}]}}",
        user.name,
        user.uid,
        user.groups.join(" "),
        extra.join(" ")
    )
}
