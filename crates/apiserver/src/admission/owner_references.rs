//! OwnerReferencesPermissionEnforcement: whoever changes owners may delete the object, and whoever lets an object block its
//! owner's deletion may set the owner's finalizers.
//!
//! Source: `plugin/pkg/admission/gc/gc_admission.go`.

use std::collections::HashMap;
use std::sync::Arc;

use api::{Status, Value};

use super::judge::Judge;
use crate::pipeline::{Authorizer, Decision, Operation, Review};
use crate::request::Attributes;

/// The plug-in.
pub struct OwnerReferences {
    authorizer: Arc<dyn Authorizer>,
    /// Group and kind of each built-in resource, to its plural and whether it is in a namespace.
    resources: HashMap<(String, String), (String, bool)>,
}

// === impl OwnerReferences ===

impl OwnerReferences {
    /// A plug-in that asks this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> OwnerReferences {
        let rows = kinds::rows();
        let resource = |row: &Arc<kinds::row::StorageKind>| {
            let kind = (row.group.to_string(), row.kind.to_string());
            (kind, (row.plural.to_string(), row.namespaced))
        };
        OwnerReferences {
            authorizer,
            resources: rows.iter().map(resource).collect(),
        }
    }

    async fn must(&self, review: &Review, attributes: &Attributes, what: &str) -> Result<(), Status> {
        let (reason, error) = match self.authorizer.authorize(&review.user, attributes).await {
            Decision::Allow(_) => return Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => (reason, "<nil>".to_owned()),
            Decision::Failed { reason, error, .. } => (reason, error),
        };
        Err(review.forbidden(&format!("{what}: {reason}, {error}")))
    }

    /// The right to the owner's finalizers.
    fn finalizers(&self, review: &Review, owner: &Value) -> Result<Attributes, Status> {
        let text = |field: &str| owner[field].as_str().unwrap_or("");
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let kind = text("kind");
        let Some((resource, namespaced)) = self.resources.get(&(group.to_owned(), kind.to_owned())) else {
            let api_version = text("apiVersion");
            let quoted = api::field::quote(kind);
            return Err(review.forbidden(&format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind \
                 {kind}: no matches for kind {quoted} in version {}",
                api::field::quote(api_version)
            )));
        };
        Ok(Attributes {
            verb: "update".into(),
            group: group.into(),
            version: version.into(),
            resource: resource.clone(),
            subresource: "finalizers".into(),
            namespace: if *namespaced {
                review.namespace.clone()
            } else {
                String::new()
            },
            name: text("name").into(),
            is_resource: true,
            ..Attributes::default()
        })
    }
}

fn owners(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

impl Judge for OwnerReferences {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    async fn judge(&self, review: &Review, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        // What a kubelet does with a pod's status it does for the pod.
        if review.is_about("", "pods", "status") || owners(object) == old.map_or(&[][..], owners) {
            return Ok(());
        }
        if review.operation != Operation::Create {
            let attributes = Attributes {
                verb: "delete".into(),
                group: review.resource.group.clone(),
                version: review.resource.version.clone(),
                resource: review.resource.resource.clone(),
                subresource: review.subresource.clone(),
                namespace: review.namespace.clone(),
                name: review.name.clone(),
                is_resource: true,
                ..Attributes::default()
            };
            self.must(
                review,
                &attributes,
                "cannot set an ownerRef on a resource you can't delete",
            )
            .await?;
        }
        for owner in owners(object)
            .iter()
            .filter(|owner| owner["blockOwnerDeletion"] == true)
        {
            let before = old.map_or(&[][..], owners);
            let same = |other: &&Value| other["uid"] == owner["uid"] && other["blockOwnerDeletion"] == true;
            if before.iter().any(|other| same(&other)) {
                continue;
            }
            let attributes = self.finalizers(review, owner)?;
            let what =
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
            self.must(review, &attributes, what).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::future::BoxFuture;
    use serde_json::json;

    use super::super::testing::World;
    use super::*;
    use crate::pipeline::RuleSet;
    use crate::request::UserInfo;

    /// Allows what is named.
    struct Rights(&'static [&'static str]);

    impl Authorizer for Rights {
        fn authorize<'a>(&'a self, _: &'a UserInfo, of: &'a Attributes) -> BoxFuture<'a, Decision> {
            let asked = format!(
                "{} {}/{} {}/{}",
                of.verb, of.resource, of.subresource, of.namespace, of.name
            );
            match self.0.contains(&asked.as_str()) {
                true => Decision::Allow(String::new()).now(),
                false => Decision::NoOpinion("no rule".into()).now(),
            }
        }

        fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
            RuleSet::default()
        }
    }

    #[test]
    fn owners_are_changed_by_those_who_may() {
        let owner = |kind: &str, blocks: bool| json!({"apiVersion": "v1", "kind": kind, "name": "o", "uid": kind, "blockOwnerDeletion": blocks});
        let owned = |owners: Value| json!({"metadata": {"ownerReferences": owners}});
        let why = |what: &str| format!("pods \"p\" is forbidden: {what}");
        let cannot_delete = why("cannot set an ownerRef on a resource you can't delete: no rule, <nil>");
        let finalizers = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: \
                          no rule, <nil>";
        let unknown = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion v1 Kind Thing: no \
                       matches for kind \"Thing\" in version \"v1\"";
        let (free, blocks) = (owned(json!([owner("Pod", false)])), owned(json!([owner("Pod", true)])));
        for (rights, new, old, expect) in [
            (&[][..], free.clone(), None, None),
            (&[], free.clone(), Some(free.clone()), None),
            (&[], free.clone(), Some(json!({})), Some(cannot_delete)),
            (&["delete pods/ n/p"], free, Some(json!({})), None),
            (&[], blocks.clone(), None, Some(why(finalizers))),
            (&["update pods/finalizers n/o"], blocks.clone(), None, None),
            (
                &["delete pods/ n/p"],
                owned(json!([owner("Pod", true), owner("Node", false)])),
                Some(blocks),
                None,
            ),
            (
                &["update nodes/finalizers /o"],
                owned(json!([owner("Node", true)])),
                None,
                None,
            ),
            (&[], owned(json!([owner("Thing", true)])), None, Some(why(unknown))),
        ] {
            let operation = if old.is_some() {
                Operation::Update
            } else {
                Operation::Create
            };
            let review = World::default().review(operation, "", "pods", "", "n", "p");
            let plugin = OwnerReferences::new(Arc::new(Rights(rights)));
            let verdict = block_on(plugin.judge(&review, &new, old.as_ref()));
            assert_eq!(verdict.err().map(|status| status.message), expect, "{new}");
        }
    }
}
