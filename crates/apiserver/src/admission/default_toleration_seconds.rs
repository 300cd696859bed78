//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or unreachable, unless it says else.
//!
//! Source: `plugin/pkg/admission/defaulttolerationseconds/admission.go`.

use api::{Status, Value};
use futures::future::BoxFuture;
use serde_json::json;

use crate::pipeline::{Operation, Plugin, Review, Step};

/// How long a pod stays, in seconds: upstream's default for both flags.
const TOLERATION_SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The plug-in.
pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Admit
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(pod) = object.as_mut().filter(|_| review.is_about("", "pods", "")) {
            add(pod);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn add(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let present = spec
        .get("tolerations")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let missing: Vec<Value> = TAINTS
        .iter()
        .filter(|taint| !present.iter().any(|toleration| tolerates(toleration, taint)))
        .map(|taint| {
            json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS})
        })
        .collect();
    if !missing.is_empty() {
        spec.insert(
            "tolerations".into(),
            Value::Array(present.into_iter().chain(missing).collect()),
        );
    }
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let key = toleration["key"].as_str().unwrap_or("");
    let effect = toleration["effect"].as_str().unwrap_or("");
    (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let own =
            |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        for (tolerations, expect) in [
            (json!([]), json!([own(TAINTS[0]), own(TAINTS[1])])),
            (json!([{"operator": "Exists"}]), json!([{"operator": "Exists"}])),
            (
                json!([{"key": TAINTS[0], "effect": "NoExecute", "operator": "Exists"}]),
                json!([{"key": TAINTS[0], "effect": "NoExecute", "operator": "Exists"}, own(TAINTS[1])]),
            ),
            (
                json!([{"key": TAINTS[1], "effect": "NoSchedule"}]),
                json!([{"key": TAINTS[1], "effect": "NoSchedule"}, own(TAINTS[0]), own(TAINTS[1])]),
            ),
        ] {
            let mut pod = json!({"spec": {"tolerations": tolerations}});
            add(&mut pod);
            assert_eq!(pod["spec"]["tolerations"], expect);
            let once = pod.clone();
            add(&mut pod);
            assert_eq!(pod, once);
        }
    }
}
