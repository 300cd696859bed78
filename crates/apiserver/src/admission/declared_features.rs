//! NodeDeclaredFeatureValidator: a pod changes only in ways that its node says it can follow (`status.declaredFeatures`).
//!
//! Source: `plugin/pkg/admission/nodedeclaredfeatures/admission.go`, and what a change asks for:
//! `k8s.io/component-helpers/nodedeclaredfeatures/features`.

use api::{GroupResource, Status, Value};
use futures::future::BoxFuture;

use crate::pipeline::{Operation, Plugin, Review, Step};

/// What a node has to be able to do before the pod of an update may change so; sorted by name.
const FEATURES: [(&str, fn(&Value, &Value) -> bool); 2] = [
    ("InPlacePodLevelResourcesVerticalScaling", |new, old| {
        new["spec"]["resources"] != old["spec"]["resources"]
    }),
    ("InPlacePodVerticalScalingInitContainers", starting_containers_change),
];

/// The plug-in.
pub struct NodeDeclaredFeatures;

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Validate
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let concerned = review.is_about("", "pods", "") || review.is_about("", "pods", "resize");
        let verdict = match (object, old) {
            (Some(pod), Some(old)) if concerned => check(review, pod, old),
            _ => Ok(()),
        };
        Box::pin(std::future::ready(verdict))
    }
}

/// The node of a pod whose spec changes; none while it has none. Forbidden when that node is not there.
pub(super) fn node_of(review: &Review, pod: &Value, old: &Value) -> Result<Option<Value>, Status> {
    let name = pod["spec"]["nodeName"].as_str().unwrap_or("");
    if name.is_empty() || pod["metadata"]["generation"] == old["metadata"]["generation"] {
        return Ok(None);
    }
    let nodes = GroupResource {
        group: String::new(),
        resource: "nodes".into(),
    };
    match review.cluster.get(&nodes, "", name) {
        Some(node) => Ok(Some(node.value())),
        None => Err(review.forbidden(&format!("node {} not found", api::field::quote(name)))),
    }
}

fn check(review: &Review, pod: &Value, old: &Value) -> Result<(), Status> {
    let asked: Vec<&str> = FEATURES
        .iter()
        .filter(|(_, changes)| changes(pod, old))
        .map(|(name, _)| *name)
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let Some(node) = node_of(review, pod, old)? else {
        return Ok(());
    };
    let declared = node["status"]["declaredFeatures"].as_array();
    let has = |name: &str| declared.is_some_and(|list| list.iter().any(|own| own == name));
    let missing: Vec<&str> = asked.into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let name = pod["spec"]["nodeName"].as_str().unwrap_or("");
    Err(review.forbidden(&format!(
        "pod update requires features {} which are not available on node {}",
        missing.join(", "),
        api::field::quote(name)
    )))
}

/// Whether an init container gets other resources that does not go on beside the others.
fn starting_containers_change(new: &Value, old: &Value) -> bool {
    let list = |pod: &Value| pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
    let (new, old) = (list(new), list(old));
    let mut pairs = new.iter().zip(&old);
    pairs.any(|(new, old)| old["restartPolicy"] != "Always" && new["resources"] != old["resources"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;

    #[test]
    fn a_node_is_asked_what_it_can_follow() {
        let node =
            |name: &str, features: Value| json!({"metadata": {"name": name}, "status": {"declaredFeatures": features}});
        let world = World::new(&[
            ("nodes", node("old", json!(null))),
            ("nodes", node("new", json!(["InPlacePodVerticalScalingInitContainers"]))),
        ]);
        let pod = |node: &str, generation: i64, policy: Value, cpu: &str| {
            json!({"metadata": {"generation": generation}, "spec": {"nodeName": node, "initContainers":
                [{"restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}}]}})
        };
        let lacks = "pods \"a\" is forbidden: pod update requires features InPlacePodVerticalScalingInitContainers which are not \
                     available on node \"old\"";
        for (node, generation, policy, cpu, expect) in [
            ("old", 2, json!(null), "2", lacks),
            ("new", 2, json!(null), "2", ""),
            ("old", 2, json!("Always"), "2", ""),
            ("old", 2, json!(null), "1", ""),
            ("old", 1, json!(null), "2", ""),
            ("", 2, json!(null), "2", ""),
            (
                "gone",
                2,
                json!(null),
                "2",
                "pods \"a\" is forbidden: node \"gone\" not found",
            ),
        ] {
            let review = world.review(Operation::Update, "", "pods", "resize", "n", "a");
            let (new, old) = (pod(node, generation, policy.clone(), cpu), pod(node, 1, policy, "1"));
            let got = check(&review, &new, &old)
                .err()
                .map_or(String::new(), |status| status.message);
            assert_eq!(got, expect, "{node} {generation} {cpu}");
        }
    }
}
