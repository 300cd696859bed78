//! Services: which pod answers, what is refused, and which connections live on.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;

use network::dial_in;
use network::services::rules;
use sys::netlink::{Family, Socket};

use crate::world::{
    DNS, NODE, PATIENCE, UNALLOCATED, WEB, World, answering, ask, connect, exchange, read_line, refusal, udp,
};

/// Of three endpoints, each is missed by all of these with a chance of (2/3)^100, less than once in 10^17 runs.
const TRIES: usize = 100;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn connections_are_shared_among_the_endpoints_and_follow_their_changes() {
    let mut world = World::new();
    let client = world.pod("client");
    let pods: Vec<_> = ["a", "b", "c"].iter().map(|name| world.pod(name)).collect();
    pods.iter().for_each(|pod| pod.serve());
    let all: Vec<_> = pods.iter().map(|pod| pod.address).collect();

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
    let client = world.pod("client");
    let (a, b) = (world.pod("a"), world.pod("b"));
    a.serve();
    b.serve();
    world.service("web", WEB, &[a.address]);
    let mut stream = connect(&client.namespace, WEB, 80).unwrap();
    assert!(read_line(&mut stream).unwrap().starts_with("a "));

    world.service("web", WEB, &[b.address]);
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
    let client = world.pod("client");
    let (a, b) = (world.pod("a"), world.pod("b"));
    a.serve();
    b.serve();
    world.service("web", WEB, &[a.address]);
    // Somebody else takes an element away that the next change deletes.
    let mut other = world.node.run(|| Socket::open(Family::Netfilter).unwrap()).unwrap();
    let mut batch = sys::nftables::Batch::new(rules::FAMILY, rules::TABLE);
    batch.delete_elements("services", [[10u8, 96, 0, 7, 6, 0, 0, 0, 0, 80, 0, 0]]);
    batch.commit(&mut other).unwrap();
    assert_eq!(refusal(&client.namespace, WEB, 80), ErrorKind::ConnectionRefused);
    world.service("web", WEB, &[a.address, b.address]);
    assert_eq!(answering(&client.namespace, WEB, TRIES), names(&["a", "b"]));
}

#[test]
fn udp_flows_leave_an_endpoint_that_left() {
    let mut world = World::new();
    let client = world.pod("client");
    let (a, b) = (world.pod("a"), world.pod("b"));
    a.serve();
    b.serve();
    world.service("web", WEB, &[a.address]);
    let socket = udp(&client.namespace, WEB, 80);
    assert_eq!(exchange(&socket).unwrap(), format!("a {}", client.address));
    world.service("web", WEB, &[b.address]);
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
