//! Which of the nodes that fit is best: the sum of weighted scores, each from 0 to 100.
//!
//! Source: `pkg/scheduler/framework/plugins/{noderesources,tainttoleration,nodeaffinity}` and the default weights of
//! `pkg/scheduler/apis/config/v1/default_plugins.go`.

use crate::cluster::Node;
use crate::filters::taints;
use crate::pod::Pod;

const MAX: i64 = 100;
const WEIGHT_TAINTS: i64 = 3;
const WEIGHT_AFFINITY: i64 = 2;
const WEIGHT_LEAST_ALLOCATED: i64 = 1;
const WEIGHT_BALANCED: i64 = 1;

/// The score of each node, in their order.
pub fn scores(pod: &Pod, nodes: &[&Node]) -> Vec<i64> {
    let taints: Vec<i64> = nodes.iter().map(|node| taints::disliked(pod, node)).collect();
    let affinity: Vec<i64> = nodes.iter().map(|node| preference(pod, node)).collect();
    let (taints_max, affinity_max) = (max_of(&taints), max_of(&affinity));
    let each = nodes.iter().enumerate().map(|(at, node)| {
        let disliked = if taints_max == 0 {
            0
        } else {
            taints[at] * MAX / taints_max
        };
        let preferred = if affinity_max == 0 {
            0
        } else {
            affinity[at] * MAX / affinity_max
        };
        (MAX - disliked) * WEIGHT_TAINTS
            + preferred * WEIGHT_AFFINITY
            + least_allocated(pod, node) * WEIGHT_LEAST_ALLOCATED
            + balanced(pod, node) * WEIGHT_BALANCED
    });
    each.collect()
}

fn max_of(scores: &[i64]) -> i64 {
    scores.iter().copied().max().unwrap_or(0)
}

fn preference(pod: &Pod, node: &Node) -> i64 {
    pod.preferences
        .iter()
        .filter(|preference| preference.matches(node))
        .map(|preference| preference.weight)
        .sum()
}

/// The share of CPU and memory that would be left, on average.
fn least_allocated(pod: &Pod, node: &Node) -> i64 {
    let (there, used, own) = (&node.allocatable, &node.scored, &pod.scored);
    let parts = [
        (there.milli_cpu, used.milli_cpu + own.milli_cpu),
        (there.memory, used.memory + own.memory),
    ];
    let counted = parts.iter().filter(|(there, _)| *there > 0);
    let left = |&(there, used): &(i64, i64)| {
        if used > there {
            0
        } else {
            i64::try_from(i128::from(there - used) * i128::from(MAX) / i128::from(there)).unwrap_or(0)
        }
    };
    let (sum, count) = counted.fold((0, 0), |(sum, count), part| (sum + left(part), count + 1));
    if count == 0 { 0 } else { sum / count }
}

/// How evenly CPU and memory would be used: half the distance of their shares is taken off.
fn balanced(pod: &Pod, node: &Node) -> i64 {
    // Who asks for neither changes no node's balance (upstream skips the plug-in).
    if pod.requests.milli_cpu == 0 && pod.requests.memory == 0 {
        return 0;
    }
    let share = |used: i64, there: i64| (used as f64 / there as f64).min(1.0);
    let (there, used, own) = (&node.allocatable, &node.requested, &pod.requests);
    if there.milli_cpu <= 0 || there.memory <= 0 {
        return MAX;
    }
    let cpu = share(used.milli_cpu + own.milli_cpu, there.milli_cpu);
    let memory = share(used.memory + own.memory, there.memory);
    let deviation = ((cpu - memory) / 2.0).abs();
    ((1.0 - deviation) * MAX as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{NodeView, PodView};
    use serde_json::{Value, json};

    fn node(cpu: &str, memory: &str, extra: Value) -> Node {
        let mut view =
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "9"}}});
        for (key, value) in extra.as_object().unwrap() {
            view[key] = value.clone();
        }
        Node::of_view(&serde_json::from_value::<NodeView>(view).unwrap())
    }

    fn pod(spec: Value) -> Pod {
        Pod::of_view(&serde_json::from_value::<PodView>(json!({"spec": spec})).unwrap())
    }

    fn best(pod: &Pod, nodes: &[Node]) -> usize {
        let nodes: Vec<&Node> = nodes.iter().collect();
        let scores = scores(pod, &nodes);
        (0..scores.len()).max_by_key(|at| scores[*at]).unwrap()
    }

    #[test]
    fn the_emptier_and_the_evener_node_wins() {
        let pod = pod(json!({"containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}));
        assert_eq!(
            best(&pod, &[node("2", "2Gi", json!({})), node("8", "8Gi", json!({}))]),
            1
        );
        assert_eq!(least_allocated(&pod, &node("4", "4Gi", json!({}))), 75);
        assert_eq!(balanced(&pod, &node("4", "4Gi", json!({}))), 100);
        assert_eq!(balanced(&pod, &node("2", "4Gi", json!({}))), 87);
        let modest = super::tests::pod(json!({"containers": [{}]}));
        assert_eq!(balanced(&modest, &node("2", "4Gi", json!({}))), 0);
    }

    #[test]
    fn likes_and_dislikes_count() {
        let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
        assert_eq!(
            best(
                &pod(json!({})),
                &[node("8", "8Gi", tainted), node("2", "2Gi", json!({}))]
            ),
            1
        );
        let likes = pod(
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}},
            ]}}}),
        );
        let labelled = json!({"metadata": {"name": "l", "labels": {"disk": "ssd"}}});
        assert_eq!(
            best(&likes, &[node("8", "8Gi", json!({})), node("2", "2Gi", labelled)]),
            1
        );
    }
}
