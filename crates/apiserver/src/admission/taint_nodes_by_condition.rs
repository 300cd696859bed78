//! TaintNodesByCondition: a new node takes no pods until it was seen ready.
//!
//! Source: `plugin/pkg/admission/nodetaint/admission.go`.

use api::{Status, Value};
use futures::future::BoxFuture;
use serde_json::json;

use crate::pipeline::{Operation, Plugin, Review, Step};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plug-in.
pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
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
        if let Some(node) = object.as_mut().filter(|_| review.is_about("", "nodes", "")) {
            taint(node);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn taint(node: &mut Value) {
    let own = json!({"key": NOT_READY, "effect": "NoSchedule"});
    let Some(object) = node.as_object_mut() else { return };
    let spec = object.entry("spec").or_insert_with(|| json!({}));
    let mut taints = spec["taints"].as_array().cloned().unwrap_or_default();
    if !taints
        .iter()
        .any(|taint| taint["key"] == own["key"] && taint["effect"] == own["effect"])
    {
        taints.push(own);
        spec["taints"] = Value::Array(taints);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_is_tainted_once() {
        for node in [
            json!({}),
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
        ] {
            let mut tainted = node;
            taint(&mut tainted);
            let once = tainted.clone();
            taint(&mut tainted);
            assert_eq!(tainted, once);
            let taints = tainted["spec"]["taints"].as_array().unwrap();
            assert_eq!(
                taints.last().unwrap(),
                &json!({"key": NOT_READY, "effect": "NoSchedule"})
            );
        }
    }
}
