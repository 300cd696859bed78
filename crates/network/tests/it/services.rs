//! Services: which pod answers, what is refused, and which connections live on.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use network::dial_in;
use network::node::UplinkConfig;
use network::services::kernel::Kernel;
use network::services::rules::{self, RulesConfig};
use sys::netlink::{Family, Socket};
use sys::netns::NetworkNamespace;

use crate::world::{
    DNS, NODE, PATIENCE, UNALLOCATED, WEB, World, answering, ask, connect, exchange, read_line, refusal, rules_config,
    serve_in, udp,
};

/// Of three endpoints, each is missed by all of these with a chance of (2/3)^100, less than once in 10^17 runs.
const TRIES: usize = 100;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn connections_are_shared_among_the_endpoints_and_follow_their_changes() {
    let mut world = World::new();
    let (client, _pods, all) = world.client_and(["a", "b", "c"]);

    assert_eq!(
        refusal(&client.namespace, WEB, 80),
        ErrorKind::ConnectionRefused,
        "before there is a Service"
    );
    world.service("web", WEB, &all);
    assert_eq!(answering(&client.namespace, WEB, TRIES), names(&["a", "b", "c"]));
    assert_eq!(
        answering(&world.node, WEB, TRIES),
        names(&["a", "b", "c"]),
        "from the node"
    );
    assert_eq!(
        ask(&client.namespace, WEB, 80).unwrap().split(' ').nth(1),
        Some(client.address.to_string().as_str())
    );
    assert_eq!(
        ask(&world.node, WEB, 80).unwrap().split(' ').nth(1),
        Some(NODE.to_string().as_str())
    );

    world.service("web", WEB, &all[1..]);
    assert_eq!(answering(&client.namespace, WEB, TRIES), names(&["b", "c"]));
    world.service("web", WEB, &all[..1]);
    assert_eq!(answering(&client.namespace, WEB, 10), names(&["a"]));
    world.service("web", WEB, &[]);
    assert_eq!(refusal(&client.namespace, WEB, 80), ErrorKind::ConnectionRefused);
    world.service("web", WEB, &all);
    assert_eq!(answering(&client.namespace, WEB, TRIES), names(&["a", "b", "c"]));
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let mut world = World::new();
    let pod = world.pod("a");
    pod.serve();
    world.service("web", WEB, &[pod.address]);
    assert_eq!(ask(&pod.namespace, WEB, 80).unwrap(), format!("a {NODE}"));
    assert_eq!(exchange(&udp(&pod.namespace, WEB, 80)).unwrap(), format!("a {NODE}"));
}

#[test]
fn what_no_endpoint_serves_is_refused_at_once() {
    let mut world = World::new();
    let pod = world.pod("a");
    pod.serve();
    world.service("web", WEB, &[pod.address]);
    // The kernel tells a process of the node itself at the send that its datagram was refused, as with any firewall.
    for (from, datagram) in [
        (&pod.namespace, ErrorKind::ConnectionRefused),
        (&world.node, ErrorKind::PermissionDenied),
    ] {
        assert_eq!(
            refusal(from, UNALLOCATED, 80),
            ErrorKind::ConnectionRefused,
            "an unallocated address"
        );
        assert_eq!(refusal(from, WEB, 81), ErrorKind::ConnectionRefused, "an unknown port");
        assert_eq!(exchange(&udp(from, UNALLOCATED, 53)).unwrap_err().kind(), datagram);
        assert_eq!(
            refusal(from, DNS, 80),
            ErrorKind::ConnectionRefused,
            "a port nobody listens on at our own address"
        );
    }
}

#[test]
fn open_connections_survive_the_endpoints_leaving_and_a_rebuild() {
    let mut world = World::new();
    let (client, _pods, [a, b]) = world.client_and(["a", "b"]);
    world.service("web", WEB, &[a]);
    let mut stream = connect(&client.namespace, WEB, 80).unwrap();
    assert!(read_line(&mut stream).unwrap().starts_with("a "));

    world.service("web", WEB, &[b]);
    stream.write_all(b"?").unwrap();
    assert!(read_line(&mut stream).unwrap().starts_with("a "));
    assert_eq!(answering(&client.namespace, WEB, 5), names(&["b"]));

    // Somebody else removes the table; the next change finds out and writes all of it.
    let mut other = world.node.run(|| Socket::open(Family::Netfilter).unwrap()).unwrap();
    rules::removal().commit(&mut other).unwrap();
    world.sync();
    stream.write_all(b"?").unwrap();
    assert!(read_line(&mut stream).unwrap().starts_with("a "));
    assert_eq!(answering(&client.namespace, WEB, 5), names(&["b"]));
}

#[test]
fn a_change_that_the_kernel_refuses_ends_in_a_rebuild() {
    let mut world = World::new();
    let (client, _pods, [a, b]) = world.client_and(["a", "b"]);
    world.service("web", WEB, &[a]);
    // Somebody else takes an element away that the next change deletes.
    let mut other = world.node.run(|| Socket::open(Family::Netfilter).unwrap()).unwrap();
    let mut batch = sys::nftables::Batch::new(rules::FAMILY, rules::TABLE);
    batch.delete_elements("services", [[10u8, 96, 0, 7, 6, 0, 0, 0, 0, 80, 0, 0]]);
    batch.commit(&mut other).unwrap();
    assert_eq!(refusal(&client.namespace, WEB, 80), ErrorKind::ConnectionRefused);
    world.service("web", WEB, &[a, b]);
    assert_eq!(answering(&client.namespace, WEB, TRIES), names(&["a", "b"]));
}

#[test]
fn udp_flows_leave_an_endpoint_that_left() {
    let mut world = World::new();
    let (client, _pods, [a, b]) = world.client_and(["a", "b"]);
    world.service("web", WEB, &[a]);
    let socket = udp(&client.namespace, WEB, 80);
    assert_eq!(exchange(&socket).unwrap(), format!("a {}", client.address));
    world.service("web", WEB, &[b]);
    assert_eq!(
        exchange(&socket).unwrap(),
        format!("b {}", client.address),
        "the same flow"
    );
}

#[test]
fn the_hosts_process_dials_into_the_node() {
    let mut world = World::new();
    let pod = world.pod("a");
    pod.serve();
    world.service("web", WEB, &[pod.address]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        use tokio::io::AsyncReadExt;
        for (address, port) in [(WEB, 80), (pod.address, 8080)] {
            let mut stream = dial_in(&world.node, SocketAddr::from((address, port)), PATIENCE)
                .await
                .unwrap();
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"a ");
        }
        let refused = dial_in(&world.node, SocketAddr::from((UNALLOCATED, 80)), PATIENCE)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn removal_takes_the_table_away() {
    let mut world = World::new();
    world.kernel.remove().unwrap();
    world.kernel.remove().unwrap();
    let handle = world
        .node
        .run(|| {
            sys::nftables::table_handle(
                &mut Socket::open(Family::Netfilter).unwrap(),
                rules::FAMILY,
                rules::TABLE,
            )
        })
        .unwrap()
        .unwrap();
    assert_eq!(handle, None);
}

#[test]
fn a_service_may_end_on_the_node_itself() {
    // As `kubernetes.default` does, whose endpoint is the API server's address.
    let mut world = World::new();
    let client = world.pod("client");
    serve_in(&world.node, "node");
    world.service("web", WEB, &[NODE]);
    assert_eq!(
        ask(&client.namespace, WEB, 80).unwrap(),
        format!("node {}", client.address)
    );
    assert_eq!(ask(&world.node, WEB, 80).unwrap(), format!("node {NODE}"));
}

#[test]
fn connections_never_fail_while_endpoints_are_replaced() {
    let mut world = World::new();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let (client, _pods, addresses) = world.client_and(names);
    world.service("web", WEB, &addresses[..3]);
    let done = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut answered = 0;
                    while !done.load(Ordering::Relaxed) || answered == 0 {
                        ask(&client.namespace, WEB, 80).expect("a connection during a rollout");
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        // Three rollouts back and forth: one endpoint more, one fewer, as a rolling update does.
        for _ in 0..3 {
            for first in (0..6).chain((0..6).rev()) {
                world.service("web", WEB, &addresses[first..first + 4]);
                world.service("web", WEB, &addresses[first + 1..first + 4]);
            }
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    assert!(answered >= 2);
}

#[test]
fn an_uplink_lets_pods_out_under_the_nodes_address_and_cluster_addresses_never() {
    let outside = NetworkNamespace::create().unwrap();
    let (gateway, address) = (Ipv4Addr::new(172, 31, 0, 1), Ipv4Addr::new(172, 31, 0, 2));
    let world = World::with_uplink(Some(UplinkConfig {
        outside: outside.try_clone().unwrap(),
        outside_link: "tri-node".to_owned(),
        outside_address: gateway,
        node_link: "uplink".to_owned(),
        node_address: address,
        prefix: 30,
    }));
    let pod = world.pod("a");
    serve_in(&outside, "outside");
    assert_eq!(
        ask(&pod.namespace, gateway, 8080).unwrap(),
        format!("outside {address}")
    );
    assert_eq!(ask(&world.node, gateway, 8080).unwrap(), format!("outside {address}"));
    for from in [&pod.namespace, &world.node] {
        assert_eq!(refusal(from, UNALLOCATED, 8080), ErrorKind::ConnectionRefused);
        assert_eq!(
            refusal(from, Ipv4Addr::new(10, 244, 9, 9), 8080),
            ErrorKind::HostUnreachable,
            "a pod of no node"
        );
    }
}

#[test]
fn clients_with_affinity_stay_until_their_endpoint_leaves() {
    let mut world = World::new();
    let (client, pods, all) = world.client_and(["a", "b", "c", "d"]);
    let set = |world: &mut World, endpoints: &[Ipv4Addr], affinity: Option<u32>| {
        world.service_with_affinity("web", WEB, endpoints, affinity);
    };
    set(&mut world, &all, Some(10_800));
    let first = answering(&client.namespace, WEB, TRIES);
    assert_eq!(first.len(), 1, "{first:?}");
    let at = pods.iter().position(|pod| first.contains(&pod.name)).unwrap();

    // Others come and go.
    let others: Vec<_> = all.iter().copied().filter(|address| *address != all[at]).collect();
    set(&mut world, &[all[at], others[0]], Some(10_800));
    assert_eq!(answering(&client.namespace, WEB, 20), first);
    // The client's own leaves: it gets another one, and stays with that when the first is back.
    set(&mut world, &others, Some(10_800));
    let second = answering(&client.namespace, WEB, TRIES);
    assert_eq!(second.len(), 1);
    assert_ne!(second, first);
    set(&mut world, &all, Some(10_800));
    assert_eq!(answering(&client.namespace, WEB, TRIES), second);
    // Without affinity all take part again.
    set(&mut world, &all, None);
    assert_eq!(answering(&client.namespace, WEB, TRIES).len(), 4);
}

#[test]
fn a_restart_keeps_connections_and_affinity() {
    let mut world = World::new();
    let (client, _pods, addresses) = world.client_and(["a", "b", "c"]);
    world.service_with_affinity("web", WEB, &addresses, Some(10_800));
    world.service("other", UNALLOCATED, &addresses);
    let before = answering(&client.namespace, WEB, 5);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                ask(&client.namespace, UNALLOCATED, 80).expect("a connection during a restart");
            }
        });
        for _ in 0..20 {
            // A new daemon: nothing of the record is left, the table is.
            world.kernel = Kernel::open(&world.node, rules_config()).unwrap();
            world.kernel.sync(&mut world.table).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        asking.join().unwrap();
    });
    assert_eq!(answering(&client.namespace, WEB, 20), before);
    // A daemon with other standing rules makes the table anew.
    let other = RulesConfig {
        uplink: Some("elsewhere".to_owned()),
        ..rules_config()
    };
    world.kernel = Kernel::open(&world.node, other).unwrap();
    world.kernel.sync(&mut world.table).unwrap();
    assert_eq!(answering(&client.namespace, WEB, 20).len(), 1);
}
