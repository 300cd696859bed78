//! Service rules at scale, in a network namespace of its own: planning and commit, cold and for one change.
//!
//! `cargo bench -p network --bench services [services] [endpoints]`; the defaults are the design's 10,000 and 10. Prints
//! one line a figure. The target is 1 s cold and 3 ms a change, rule building and kernel commit together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use network::services::kernel::Kernel;
use network::services::plan::{PlanConfig, Table};
use network::services::rules::RulesConfig;
use network::services::{Backend, Frontend, Wanted};
use network::views::{ObjectName, Protocol};
use sys::netns::NetworkNamespace;

const CHANGES: usize = 200;
const SERVICES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
const PODS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u32>().ok());
    let (services, endpoints) = (numbers.next().unwrap_or(10_000), numbers.next().unwrap_or(10));
    let node = NetworkNamespace::create().expect("a network namespace");
    let pod_network = "10.244.0.0/24".parse().expect("a network");
    let mut kernel = Kernel::open(&node, rules(pod_network)).expect("a netlink socket");
    let mut table = Table::new(PlanConfig {
        pod_network,
        dns_address: None,
    });

    for service in 0..services {
        table.set(&name(service), wanted(service, endpoints, 0));
    }
    let cold = timed(|| kernel.sync(&mut table).expect("a commit"));
    println!(
        "figure services.cold {:.4} {services} services x {endpoints} endpoints, rules built and committed, no rule there before",
        cold.as_secs_f64()
    );

    let mut changes: Vec<Duration> = (0..CHANGES)
        .map(|change| {
            let service = change as u32 * services / CHANGES as u32;
            // An endpoint leaves, and at the next visit it is another one that does.
            let fewer = wanted(service, endpoints, 1);
            timed(|| {
                table.set(&name(service), fewer);
                kernel.sync(&mut table).expect("a commit");
            })
        })
        .collect();
    changes.sort();
    println!(
        "figure services.change {:.4} one endpoint leaves, p50 of {CHANGES}; p99 {:?}",
        changes[CHANGES / 2].as_secs_f64() * 1000.0,
        changes[CHANGES * 99 / 100]
    );

    let mut replacements: Vec<Duration> = (0..CHANGES)
        .map(|change| {
            let service = change as u32 * services / CHANGES as u32;
            let other = wanted(service, endpoints + 1, 2);
            timed(|| {
                table.set(&name(service), other);
                kernel.sync(&mut table).expect("a commit");
            })
        })
        .collect();
    replacements.sort();
    println!(
        "one endpoint is replaced: p50 {:?}, p99 {:?}",
        replacements[CHANGES / 2],
        replacements[CHANGES * 99 / 100]
    );

    let again = timed(|| {
        let mut restarted = Kernel::open(&node, rules(pod_network)).expect("a netlink socket");
        restarted.sync(&mut table).expect("a commit");
    });
    println!("restart over a full table: {again:?}");
}

fn rules(pod_network: ipnet::Ipv4Net) -> RulesConfig {
    RulesConfig {
        service_networks: vec!["10.96.0.0/12".parse().expect("a network")],
        pod_network,
        node_address: Ipv4Addr::new(172, 30, 0, 1),
        dns_address: None,
        uplink: None,
    }
}

fn name(service: u32) -> ObjectName {
    ObjectName::new("default", format!("service-{service}"))
}

/// `endpoints` endpoints of a service, without the first `skipped`.
fn wanted(service: u32, endpoints: u32, skipped: u32) -> BTreeMap<Frontend, Wanted> {
    let address = Ipv4Addr::from(u32::from(SERVICES) + service + 1);
    let backends = (skipped..endpoints).map(|endpoint| Backend {
        address: Ipv4Addr::from(u32::from(PODS) + service * 16 + endpoint),
        port: 8080,
    });
    BTreeMap::from([(
        Frontend {
            address,
            protocol: Protocol::Tcp,
            port: 80,
        },
        backends.collect::<BTreeSet<_>>().into(),
    )])
}

// A benchmark measures real time; everything else takes it from `base`.
#[allow(clippy::disallowed_methods)]
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
