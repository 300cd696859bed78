//! NodeResourcesFit: what the pod asks for must be left on the node.
//!
//! Source: `pkg/scheduler/framework/plugins/noderesources/fit.go` (`fitsRequest`).

use super::Reason;
use crate::cluster::Node;
use crate::pod::Pod;

/// Everything of which there is not enough, in upstream's order.
pub fn insufficient(pod: &Pod, node: &Node) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if node.pods.len() as i64 + 1 > node.pods_max {
        reasons.push(Reason::TooManyPods);
    }
    let (wanted, there, used) = (&pod.requests, &node.allocatable, &node.requested);
    let mut check = |name: &str, wanted: i64, left: i64| {
        if wanted > 0 && wanted > left {
            reasons.push(Reason::Insufficient(name.into()));
        }
    };
    check("cpu", wanted.milli_cpu, there.milli_cpu - used.milli_cpu);
    check("memory", wanted.memory, there.memory - used.memory);
    check(
        "ephemeral-storage",
        wanted.ephemeral_storage,
        there.ephemeral_storage - used.ephemeral_storage,
    );
    for (name, amount) in &wanted.others {
        check(name, *amount, there.other(name) - used.other(name));
    }
    reasons
}
