//! Rules of policies at scale, in a network namespace of its own: planning and commit, cold and for one change.
//!
//! `cargo bench -p network --bench policies [policies] [pods] [local pods]`; the defaults are 1,000, 5,000 and a full node's 110.
//! Prints one line a figure.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use client::Object;
use network::policies::kernel::Kernel;
use network::policies::objects::PolicyObject;
use network::policies::plan::Plan;
use network::policies::rules::RulesConfig;
use network::policies::views::{Labels, PodView};
use network::views::ObjectName;
use serde_json::{Value, json};
use sys::netns::NetworkNamespace;

const CHANGES: u32 = 200;
const NAMESPACES: u32 = 50;
/// Values of the label that policies select by, in each namespace.
const APPS: u32 = 20;
const PODS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u32>().ok());
    let policies = numbers.next().unwrap_or(1_000);
    let pods = numbers.next().unwrap_or(5_000);
    let local = numbers.next().unwrap_or(110);
    let node = NetworkNamespace::create().expect("a network namespace");
    let config = RulesConfig {
        node_address: Ipv4Addr::new(172, 30, 0, 1),
        dns_address: Some(Ipv4Addr::new(10, 96, 0, 10)),
    };
    let mut kernel = Kernel::open(&node, config.clone()).expect("a netlink socket");
    let mut plan = Plan::new(config.dns_address);

    let cold = timed(|| {
        for number in 0..NAMESPACES {
            plan.set_namespace(&namespace(number), Some(&namespace_labels(number, 0)));
        }
        for number in 0..policies {
            set_policy(&mut plan, number, 80);
        }
        for number in 0..pods {
            plan.set_pod(&name(number), Some(pod(number, 0)));
        }
        for number in 0..local {
            plan.attach(&number.to_string(), name(number), address(number));
        }
        plan.learn();
        plan.enforce();
        kernel.sync(&mut plan).expect("a commit");
    });
    let (chains, sets) = plan.size();
    println!(
        "figure policies.cold {:.4} {policies} policies, {pods} pods, {local} of them on this node: {chains} chains, {sets} sets",
        cold.as_secs_f64()
    );

    let mut measure = |what: &str, change: &dyn Fn(&mut Plan, u32)| {
        let mut all: Vec<Duration> = (0..CHANGES)
            .map(|number| {
                timed(|| {
                    change(&mut plan, number);
                    kernel.sync(&mut plan).expect("a commit");
                })
            })
            .collect();
        all.sort();
        let milliseconds = |place: u32| all[place as usize].as_secs_f64() * 1000.0;
        let (median, late) = (milliseconds(CHANGES / 2), milliseconds(CHANGES * 99 / 100));
        println!("figure policies.{what} {median:.4} p50 of {CHANGES}; p99 {late:.4} ms");
    };
    // Every second change takes back what the one before did.
    measure("pod", &|plan, number| {
        let elsewhere = local + number / 2 % (pods - local).max(1);
        plan.set_pod(&name(elsewhere), Some(pod(elsewhere, 1 - number % 2)));
    });
    measure("local_pod", &|plan, number| match number % 2 {
        0 => plan.detach(&(number / 2 % local).to_string()),
        _ => {
            let number = number / 2 % local;
            plan.attach(&number.to_string(), name(number), address(number));
        }
    });
    measure("policy", &|plan, number| {
        let port = 81 - number % 2;
        set_policy(plan, number / 2 % policies, port as u16);
    });
    measure("namespace", &|plan, number| {
        let which = number / 2 % NAMESPACES;
        plan.set_namespace(&namespace(which), Some(&namespace_labels(which, 1 - number % 2)));
    });
    let again = timed(|| {
        let mut restarted = Kernel::open(&node, config.clone()).expect("a netlink socket");
        restarted.sync(&mut plan).expect("a commit");
    });
    println!("restart over a full table: {again:?}");
}

fn namespace(number: u32) -> String {
    format!("namespace-{}", number % NAMESPACES)
}

/// A tenth of all namespaces are of one team.
fn namespace_labels(number: u32, shift: u32) -> Labels {
    Labels::from([("team".to_owned(), ((number + shift) % 10).to_string())])
}

fn app(number: u32) -> String {
    (number / NAMESPACES % APPS).to_string()
}

fn name(number: u32) -> ObjectName {
    ObjectName::new(namespace(number), format!("pod-{number}"))
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(PODS) + number)
}

fn pod(number: u32, shift: u32) -> PodView {
    PodView {
        name: name(number),
        labels: Labels::from([("app".to_owned(), app(number + shift * NAMESPACES))]),
        addresses: vec![address(number)],
        is_peer: true,
        ports: Vec::new(),
    }
}

/// Each application of a namespace may be reached by the next one, and by those of one team's namespaces.
fn set_policy(plan: &mut Plan, number: u32, port: u16) {
    let label = |app: String| json!({"matchLabels": {"app": app}});
    let spec: Value = json!({
        "podSelector": label(app(number)),
        "ingress": [{
            "from": [
                {"podSelector": label(app(number + NAMESPACES))},
                {"namespaceSelector": {"matchLabels": {"team": (number % 10).to_string()}}},
            ],
            "ports": [{"port": port}, {"port": 443}],
        }],
    });
    let object =
        json!({"metadata": {"namespace": namespace(number), "name": format!("policy-{number}")}, "spec": spec});
    let object = PolicyObject::decode(object.to_string().as_bytes()).expect("a policy");
    plan.set_policy(&object.object_name(), Some(&object.view()));
}

// A benchmark measures real time; everything else takes it from `base`.
#[allow(clippy::disallowed_methods)]
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
