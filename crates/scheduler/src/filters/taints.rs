//! TaintToleration and NodeUnschedulable: what keeps pods away, and who goes there all the same.

use crate::cluster::Node;
use crate::pod::Pod;
use crate::view::{Taint, Toleration};

/// The taint that `kubectl cordon` stands for.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The first taint that keeps the pod off the node.
pub fn untolerated<'a>(pod: &Pod, node: &'a Node) -> Option<&'a Taint> {
    let hard = |taint: &&Taint| matches!(&*taint.effect, "NoSchedule" | "NoExecute");
    node.taints
        .iter()
        .filter(hard)
        .find(|taint| !pod.tolerations.iter().any(|t| tolerates(t, taint)))
}

/// How many taints with PreferNoSchedule the pod does not tolerate.
pub fn disliked(pod: &Pod, node: &Node) -> i64 {
    let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !pod.tolerations.iter().any(|t| tolerates(t, taint)))
        .count() as i64
}

/// Whether the pod goes to cordoned nodes (pods of daemons do).
pub fn tolerates_unschedulable(pod: &Pod) -> bool {
    let taint = Taint {
        key: UNSCHEDULABLE.into(),
        value: String::new(),
        effect: "NoSchedule".into(),
    };
    pod.tolerations.iter().any(|toleration| tolerates(toleration, &taint))
}

/// Source: `k8s.io/api/core/v1/toleration.go` (`ToleratesTaint`).
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && toleration.effect != taint.effect {
        return false;
    }
    if !toleration.key.is_empty() && toleration.key != taint.key {
        return false;
    }
    match &*toleration.operator {
        "" | "Equal" => toleration.value == taint.value,
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_taints() {
        let taint = Taint {
            key: "k".into(),
            value: "v".into(),
            effect: "NoSchedule".into(),
        };
        for (key, operator, value, effect, expect) in [
            ("k", "Equal", "v", "NoSchedule", true),
            ("k", "", "v", "", true),
            ("k", "Equal", "w", "", false),
            ("k", "Exists", "", "", true),
            ("", "Exists", "", "", true),
            ("k", "Exists", "", "NoExecute", false),
            ("j", "Exists", "", "", false),
            ("k", "Bogus", "v", "", false),
        ] {
            let toleration = Toleration {
                key: key.into(),
                operator: operator.into(),
                value: value.into(),
                effect: effect.into(),
            };
            assert_eq!(tolerates(&toleration, &taint), expect, "{toleration:?}");
        }
    }
}
