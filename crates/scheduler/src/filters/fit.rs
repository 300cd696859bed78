//! NodeResourcesFit: what the pod asks for must be left on the node.
//!
//! Source: `pkg/scheduler/framework/plugins/noderesources/fit.go` (`fitsRequest`).

use super::{Reason, Refusal};
use crate::cluster::Node;
use crate::pod::Pod;

/// Whether there is enough of everything.
///
/// # Errors
/// All of which there is not, in upstream's order. What even an empty node has not no other pod's end can give.
pub fn fits(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let mut reasons = Vec::new();
    let mut resolvable = true;
    if node.pods.len() as i64 + 1 > node.pods_max {
        reasons.push(Reason::TooManyPods);
    }
    let (wanted, there, used) = (&pod.requests, &node.allocatable, &node.requested);
    let mut check = |name: &str, wanted: i64, there: i64, used: i64| {
        if wanted > 0 && wanted > there - used {
            reasons.push(Reason::Insufficient(name.into()));
            resolvable &= wanted <= there;
        }
    };
    check("cpu", wanted.milli_cpu, there.milli_cpu, used.milli_cpu);
    check("memory", wanted.memory, there.memory, used.memory);
    check(
        "ephemeral-storage",
        wanted.ephemeral_storage,
        there.ephemeral_storage,
        used.ephemeral_storage,
    );
    for (name, amount) in &wanted.others {
        check(name, *amount, there.other(name), used.other(name));
    }
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(Refusal { reasons, resolvable }),
    }
}
