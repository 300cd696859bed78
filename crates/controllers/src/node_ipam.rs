//! Node IPAM: each node gets its own part of the cluster's pod addresses.
//!
//! Source: `pkg/controller/nodeipam/ipam/range_allocator.go`. Invariant: no two nodes have overlapping parts, and a node's
//! part never changes. All nodes go through one worker, so that what is free is known.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use client::events::ObjectReference;
use client::informer::{Delta, Informer};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Meta, Patch, resources};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::json;

use crate::context::{Context, synced};
use crate::views::Node;

/// Parts that are looked at before a range counts as exhausted (65,536 nodes).
const PARTS_MAX: u128 = 1 << 16;

/// The first free part of each range, of the given mask lengths; `None` when a range has none left.
fn allocate(ranges: &[IpNet], masks: (u8, u8), taken: &HashSet<IpNet>) -> Option<Vec<IpNet>> {
    ranges
        .iter()
        .map(|range| {
            let mask = if range.addr().is_ipv4() { masks.0 } else { masks.1 }.max(range.prefix_len());
            parts(*range, mask).find(|part| !taken.iter().any(|other| other.contains(part) || part.contains(other)))
        })
        .collect()
}

fn parts(range: IpNet, mask: u8) -> Box<dyn Iterator<Item = IpNet>> {
    let count = (1u128 << (mask - range.prefix_len()).min(16)).min(PARTS_MAX);
    let step = 128 - u32::from(mask);
    match range {
        IpNet::V4(range) => {
            let base = u32::from(range.network());
            let step = 32 - u32::from(mask);
            Box::new((0..count).filter_map(move |index| {
                let offset = u32::try_from(index).ok()?.checked_shl(step).unwrap_or(0);
                Ipv4Net::new(Ipv4Addr::from(base.wrapping_add(offset)), mask)
                    .ok()
                    .map(IpNet::V4)
            }))
        }
        IpNet::V6(range) => {
            let base = u128::from(range.network());
            Box::new((0..count).filter_map(move |index| {
                let offset = index.checked_shl(step).unwrap_or(0);
                Ipv6Net::new(Ipv6Addr::from(base.wrapping_add(offset)), mask)
                    .ok()
                    .map(IpNet::V6)
            }))
        }
    }
}

/// What the nodes have.
fn taken<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> HashSet<IpNet> {
    let texts = nodes.into_iter().flat_map(|node| {
        node.spec
            .pod_cidrs
            .iter()
            .map(String::as_str)
            .chain(std::iter::once(node.spec.pod_cidr.as_str()))
    });
    texts
        .filter_map(|text| text.parse::<IpNet>().ok())
        .map(|part| part.trunc())
        .collect()
}

/// Starts the controller.
pub(crate) fn start(context: Context, ranges: Vec<IpNet>, masks: (u8, u8)) {
    if ranges.is_empty() {
        return;
    }
    let nodes = context.informers.informer::<Node>();
    let queue = WorkQueue::<String>::new().named("cidrallocator-node");
    context.watch(&nodes, {
        let (queue, nodes) = (queue.clone(), nodes.clone());
        move |delta| match delta {
            Delta::Added(node) if node.spec.pod_cidr.is_empty() => queue.add(node.metadata.name().to_string()),
            // A part became free: nodes that had to go without may have it.
            Delta::Deleted(_) => {
                let without = nodes.list().into_iter().filter(|node| node.spec.pod_cidr.is_empty());
                without.for_each(|node| queue.add(node.metadata.name().to_string()));
            }
            _ => {}
        }
    });
    let ready = vec![synced(&nodes)];
    let shell = context.clone();
    context.work(queue, ready, 1, move |name| {
        let (context, nodes, ranges) = (shell.clone(), nodes.clone(), ranges.clone());
        async move { sync(&context, &nodes, &ranges, masks, &name).await }
    });
}

async fn sync(
    context: &Context,
    nodes: &Informer<Node>,
    ranges: &[IpNet],
    masks: (u8, u8),
    name: &str,
) -> Result<Next, Error> {
    let Some(node) = nodes.get("", name).filter(|node| node.spec.pod_cidr.is_empty()) else {
        return Ok(Next::Wait);
    };
    let all = nodes.list();
    let about = || ObjectReference::to(&resources::NODES, &node.metadata);
    let Some(parts) = allocate(ranges, masks, &taken(all.iter().map(|node| &**node))) else {
        context.recorder.normal(
            about(),
            "CIDRNotAvailable",
            format!("Node {name} status is now: CIDRNotAvailable"),
        );
        // A node that goes makes room, and asks for this one again.
        return Ok(Next::Wait);
    };
    let texts: Vec<String> = parts.iter().map(IpNet::to_string).collect();
    let edit = json!({
        "metadata": {"uid": node.metadata.uid(), "resourceVersion": node.metadata.resource_version()},
        "spec": {"podCIDR": texts[0], "podCIDRs": texts},
    });
    match context
        .client
        .patch(&resources::NODES, "", name, None, &Patch::Merge, &edit)
        .await
    {
        Ok(written) => {
            nodes.seen(api::meta::resource_version(&written)).await;
            Ok(Next::Wait)
        }
        Err(error) if error.is_not_found() => Ok(Next::Wait),
        Err(error) if error.is_conflict() => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;

    fn check(ranges: &[&str], masks: (u8, u8), taken: &[&str], expect: Option<&[&str]>) {
        let nets = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let got = allocate(&nets(ranges), masks, &nets(taken).into_iter().collect());
        assert_eq!(got, expect.map(nets), "{ranges:?} {taken:?}");
    }

    #[test]
    fn parts_do_not_overlap() {
        check(&["10.244.0.0/16"], (24, 64), &[], Some(&["10.244.0.0/24"]));
        check(
            &["10.244.0.0/16"],
            (24, 64),
            &["10.244.0.0/24", "10.244.2.0/24"],
            Some(&["10.244.1.0/24"]),
        );
        check(
            &["10.244.0.0/16"],
            (24, 64),
            &["10.244.0.0/23"],
            Some(&["10.244.2.0/24"]),
        );
        check(
            &["10.244.0.0/16"],
            (24, 64),
            &["10.244.0.16/28"],
            Some(&["10.244.1.0/24"]),
        );
        check(&["10.0.0.0/25"], (26, 64), &["10.0.0.0/26", "10.0.0.64/26"], None);
        check(&["10.0.0.0/24"], (24, 64), &[], Some(&["10.0.0.0/24"]));
        check(
            &["10.244.0.0/16", "fd00::/56"],
            (24, 64),
            &["fd00::/64"],
            Some(&["10.244.0.0/24", "fd00:0:0:1::/64"]),
        );
    }

    #[tokio::test(start_paused = true)]
    async fn each_node_gets_one_and_a_free_one_is_used_again() {
        let bench = Bench::new();
        start(
            bench.context("node-controller"),
            vec!["10.244.0.0/23".parse().unwrap()],
            (24, 64),
        );
        let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}});
        for name in ["a", "b", "c"] {
            bench.api.put(node(name));
            bench.idle().await;
        }
        let parts = |bench: &Bench| -> Vec<String> {
            let nodes = bench.api.list(&resources::NODES);
            nodes
                .iter()
                .map(|node| node["spec"]["podCIDR"].as_str().unwrap_or("").to_string())
                .collect()
        };
        assert_eq!(parts(&bench), ["10.244.0.0/24", "10.244.1.0/24", ""]);
        assert_eq!(
            bench.events(),
            ["CIDRNotAvailable: Node c status is now: CIDRNotAvailable"]
        );
        bench.api.remove(&resources::NODES, "", "a");
        bench.idle().await;
        assert_eq!(parts(&bench), ["10.244.1.0/24", "10.244.0.0/24"]);
        bench.end().await;
    }
}
