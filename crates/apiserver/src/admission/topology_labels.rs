//! PodTopologyLabels: a pod that is bound gets the zone and the region of its node as labels (KEP-4742; beta and on in v1.36).
//!
//! Source: `plugin/pkg/admission/podtopologylabels/admission.go`.

use api::{GroupResource, Status, Value, meta};
use futures::future::BoxFuture;

use crate::pipeline::{Operation, Plugin, Review, Step};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// The plug-in.
pub struct PodTopologyLabels;

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Admit
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(object) = object.as_mut() {
            add(review, object);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn add(review: &Review, object: &mut Value) {
    let node = if review.is_about("", "pods", "") {
        &object["spec"]["nodeName"]
    } else if review.is_about("", "pods", "binding") && object["target"]["kind"] == "Node" {
        &object["target"]["name"]
    } else {
        return;
    };
    let nodes = GroupResource {
        group: String::new(),
        resource: "nodes".into(),
    };
    let Some(node) = node.as_str().and_then(|name| review.cluster.get(&nodes, "", name)) else {
        return;
    };
    for label in LABELS {
        let Some(value) = node.label(label) else { continue };
        let labels = meta::metadata_mut(object)
            .entry("labels")
            .or_insert_with(|| Value::Object(Default::default()));
        if let Some(labels) = labels.as_object_mut() {
            labels.entry(label).or_insert_with(|| value.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;

    #[test]
    fn what_is_bound_gets_its_nodes_place() {
        let labels = json!({LABELS[0]: "z", LABELS[1]: "r", "other": "x"});
        let world = World::new(&[("nodes", json!({"metadata": {"name": "a", "labels": labels}}))]);
        let all = json!({LABELS[0]: "z", LABELS[1]: "r"});
        for (subresource, mut object, expect) in [
            ("binding", json!({"target": {"kind": "Node", "name": "a"}}), all.clone()),
            ("binding", json!({"target": {"kind": "Node", "name": "b"}}), Value::Null),
            ("", json!({"spec": {"nodeName": "a"}}), all),
            ("", json!({"spec": {}}), Value::Null),
            ("status", json!({"spec": {"nodeName": "a"}}), Value::Null),
            (
                "",
                json!({"metadata": {"labels": {LABELS[0]: "own"}}, "spec": {"nodeName": "a"}}),
                json!({LABELS[0]: "own", LABELS[1]: "r"}),
            ),
        ] {
            let review = world.review(Operation::Create, "", "pods", subresource, "n", "p");
            add(&review, &mut object);
            assert_eq!(object["metadata"]["labels"], expect);
        }
    }
}
