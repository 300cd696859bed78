//! The objects that bindings name as parameters of policies.
//!
//! Source: `CollectParams` of `policy/generic/policy_dispatcher.go`.

use std::sync::Arc;

use api::selector::LabelSelector;
use api::{GroupVersionKind, Value};

use crate::pipeline::Review;
use crate::registry::{Registry, Served};

/// The kind of a policy's parameters.
pub struct ParamKind {
    served: Arc<Served>,
}

impl ParamKind {
    /// What `paramKind` of a policy names; `None` when it names none.
    ///
    /// # Errors
    /// Nothing of that kind is served.
    pub fn of(spec: &Value, registry: &Registry) -> Result<Option<ParamKind>, String> {
        let named = &spec["paramKind"];
        if !named.is_object() {
            return Ok(None);
        }
        let wanted = gvk(named);
        match find(&wanted, registry) {
            Some(served) => Ok(Some(ParamKind { served })),
            None => Err(format!(
                "failed to find resource referenced by paramKind: '{}'",
                shown(&wanted)
            )),
        }
    }

    /// What a binding's `paramRef` refers to, in the version that `paramKind` names: one run of the policy for each. Without a
    /// reference, one without any.
    ///
    /// # Errors
    /// Why the binding cannot be used.
    pub async fn collect(
        own: Option<&ParamKind>,
        reference: &Value,
        review: &Review,
    ) -> Result<Vec<Option<Value>>, String> {
        let (Some(own), true) = (own, reference.is_object()) else {
            return Ok(vec![None]);
        };
        let kind = &own.served.kind;
        let text = |field: &str| reference[field].as_str().unwrap_or("");
        let namespace = match (kind.row.namespaced, text("namespace"), &*review.namespace) {
            (true, "", "") => {
                return Err(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into(),
                );
            }
            (true, "", namespace) => namespace,
            (false, "", _) => "",
            (false, _, _) => {
                return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
            }
            (true, named, _) => named,
        };
        let (cluster, resource) = (&review.cluster, &kind.resource);
        let found = match text("name") {
            "" => {
                let selector = LabelSelector::from_object(&reference["selector"]).map_err(|error| error.to_string())?;
                let mut all = cluster.list(resource, kind.row.namespaced.then_some(namespace));
                all.retain(|object| selector.matches(|key| object.label(key)));
                all
            }
            name => cluster.get(resource, namespace, name).into_iter().collect(),
        };
        if found.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
        }
        let seen = review.conversions.of_cluster(&own.served, found).await;
        let seen = seen.map_err(|status| status.message)?;
        Ok(seen.into_iter().map(Some).collect())
    }
}

/// The kind that `paramKind` names.
pub fn gvk(named: &Value) -> GroupVersionKind {
    let text = |field: &str| named[field].as_str().unwrap_or("");
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    GroupVersionKind::new(group, version, text("kind"))
}

/// Who serves a kind.
pub fn find(wanted: &GroupVersionKind, registry: &Registry) -> Option<Arc<Served>> {
    registry.served().iter().find(|served| served.gvk == *wanted).cloned()
}

/// As Go prints it.
fn shown(gvk: &GroupVersionKind) -> String {
    format!("{}/{}, Kind={}", gvk.group, gvk.version, gvk.kind)
}
