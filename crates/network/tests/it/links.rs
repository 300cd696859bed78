//! Pod links: who reaches whom, and what is left afterwards.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use network::links::PodLinks;
use sys::netlink::{Family, Messages, Socket};
use sys::netlink_route::{self as route, VethEnd};
use sys::netns::NetworkNamespace;

use crate::world::{NODE, World, ask, exchange, links_config, path_of, refusal, udp};

fn links_of(namespace: &NetworkNamespace) -> Vec<String> {
    let links = namespace
        .run(|| route::links(&mut Socket::open(Family::Route).unwrap()).unwrap())
        .unwrap();
    let mut names: Vec<String> = links
        .into_iter()
        .map(|link| link.name)
        .filter(|name| name.starts_with("tri"))
        .collect();
    names.sort();
    names
}

#[test]
fn pods_reach_each_other_with_their_own_addresses() {
    let world = World::new();
    let (a, b) = (world.pod("a"), world.pod("b"));
    a.serve();
    b.serve();
    assert_eq!(
        (a.address, b.address),
        (Ipv4Addr::new(10, 244, 0, 2), Ipv4Addr::new(10, 244, 0, 3))
    );
    assert_eq!(ask(&a.namespace, b.address, 8080).unwrap(), format!("b {}", a.address));
    assert_eq!(ask(&b.namespace, a.address, 8080).unwrap(), format!("a {}", b.address));
    assert_eq!(
        exchange(&udp(&a.namespace, b.address, 8080)).unwrap(),
        format!("b {}", a.address)
    );
    assert_eq!(ask(&a.namespace, a.address, 8080).unwrap(), format!("a {}", a.address));
    assert_eq!(ask(&a.namespace, Ipv4Addr::LOCALHOST, 8080).unwrap(), "a 127.0.0.1");
    assert_eq!(ask(&world.node, b.address, 8080).unwrap(), format!("b {NODE}"));
}

#[test]
fn addresses_that_nobody_has_are_unreachable_at_once() {
    let world = World::new();
    let a = world.pod("a");
    assert_eq!(
        refusal(&a.namespace, Ipv4Addr::new(10, 244, 0, 77), 80),
        ErrorKind::HostUnreachable
    );
    assert_eq!(
        refusal(&world.node, Ipv4Addr::new(10, 244, 0, 77), 80),
        ErrorKind::HostUnreachable
    );
    // No way out of an isolated node.
    assert_eq!(
        refusal(&a.namespace, Ipv4Addr::new(192, 0, 2, 1), 80),
        ErrorKind::NetworkUnreachable
    );
    assert_eq!(
        refusal(&world.node, Ipv4Addr::new(192, 0, 2, 1), 80),
        ErrorKind::NetworkUnreachable
    );
}

#[test]
fn linking_again_gives_the_same_address_and_removing_leaves_nothing() {
    let world = World::new();
    let a = world.pod("a");
    assert_eq!(world.links.add(&path_of(&a.namespace), "a").unwrap(), a.address);
    assert_eq!(links_of(&world.node).len(), 1);
    world.links.remove("a").unwrap();
    world.links.remove("a").unwrap();
    assert!(links_of(&world.node).is_empty());
    assert_eq!(world.links.address("a"), None);
    assert_eq!(
        world.links.add(&path_of(&a.namespace), "a").unwrap(),
        Ipv4Addr::new(10, 244, 0, 3)
    );
}

#[test]
fn groups_are_linked_and_removed_together_even_when_one_fails() {
    let world = World::new();
    let pods: Vec<NetworkNamespace> = (0..20).map(|_| NetworkNamespace::create().unwrap()).collect();
    let keys: Vec<String> = (0..20).map(|place| format!("pod-{place}")).collect();
    let mut paths: Vec<_> = pods.iter().map(path_of).collect();
    paths[7] = "/nowhere".into();
    // The same namespace twice: the second `eth0` is refused by the kernel.
    paths[9] = paths[8].clone();
    let requests: Vec<_> = paths
        .iter()
        .map(|path| path.as_path())
        .zip(keys.iter().map(String::as_str))
        .collect();
    let answers = world.links.add_many(&requests);
    let failed: Vec<usize> = (0..20).filter(|place| answers[*place].is_err()).collect();
    assert_eq!(failed, [7, 9], "{answers:?}");
    assert_eq!(links_of(&world.node).len(), 18);
    assert_eq!(world.links.keys().len(), 18);

    // A namespace that goes takes its link along; removing the rest must not mind.
    drop(pods);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    world.links.remove_many(&keys).unwrap();
    assert!(links_of(&world.node).is_empty());
    assert!(world.links.keys().is_empty());
}

#[test]
fn a_restart_keeps_what_is_there_and_removes_what_is_nobodys() {
    let world = World::new();
    let (a, b) = (world.pod("a"), world.pod("b"));
    a.serve();
    let gone = world.pod("gone");
    drop(gone);
    let stranger = NetworkNamespace::create().unwrap();
    world
        .node
        .run(|| {
            use std::os::fd::AsFd;
            let mut messages = Messages::new();
            let near = VethEnd {
                name: "tri0123456789ab",
                hardware_address: [0xee; 6],
                namespace: None,
            };
            let far = VethEnd {
                name: "eth0",
                hardware_address: [2; 6],
                namespace: Some(stranger.as_fd()),
            };
            route::add_veth(&mut messages, &near, &far, 1500);
            Socket::open(Family::Route).unwrap().transact(messages).unwrap();
        })
        .unwrap();

    let World {
        node, links, directory, ..
    } = world;
    drop(links);
    let links = PodLinks::open(&node, links_config(&directory)).unwrap();
    assert_eq!(links.address("a"), Some(a.address));
    assert_eq!(links.address("b"), Some(b.address));
    assert!(!links_of(&node).contains(&"tri0123456789ab".to_owned()));
    assert_eq!(ask(&b.namespace, a.address, 8080).unwrap(), format!("a {}", b.address));
    let next = NetworkNamespace::create().unwrap();
    assert_eq!(
        links.add(&path_of(&next), "next").unwrap(),
        Ipv4Addr::new(10, 244, 0, 5)
    );
}

#[test]
fn a_pod_cannot_speak_with_another_pods_address() {
    let world = World::new();
    let (a, b) = (world.pod("a"), world.pod("b"));
    b.serve();
    let spoofed = Ipv4Addr::new(10, 244, 0, 99);
    let socket = a
        .namespace
        .run(|| {
            let mut socket = Socket::open(Family::Route).unwrap();
            let index = route::links_named(&mut socket, &["eth0"]).unwrap()[0].index;
            let mut messages = Messages::new();
            route::add_address(&mut messages, index, spoofed.into(), 32, route::Scope::Universe);
            socket.transact(messages).unwrap();
            std::net::UdpSocket::bind((spoofed, 0)).unwrap()
        })
        .unwrap();
    let receiver = b
        .namespace
        .run(|| std::net::UdpSocket::bind("0.0.0.0:9000").unwrap())
        .unwrap();
    receiver.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
    socket.send_to(b"forged", (b.address, 9000)).unwrap();
    // The kernel handles both packets in order on the same path: when the honest one is there, the forged one was dropped.
    let honest = udp(&a.namespace, b.address, 9000);
    honest.send(b"honest").unwrap();
    let mut buffer = [0; 10];
    let (length, from) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"honest"[..], a.address.into()));
}

#[test]
fn the_very_first_packet_arrives_in_both_directions() {
    let world = World::new();
    let outside = world
        .node
        .run(|| std::net::UdpSocket::bind((NODE, 9000)).unwrap())
        .unwrap();
    outside.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
    for round in 0..40 {
        let namespace = NetworkNamespace::create().unwrap();
        let inside = namespace
            .run(|| std::net::UdpSocket::bind("0.0.0.0:9000").unwrap())
            .unwrap();
        inside.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
        let address = world.links.add(&path_of(&namespace), &format!("pod-{round}")).unwrap();
        let mut buffer = [0; 10];
        // Which side speaks first differs, so that neither warms the other up.
        let sides = [(&outside, address, &inside), (&inside, NODE, &outside)];
        for place in [round % 2, (round + 1) % 2] {
            let (from, to, at) = sides[place];
            from.send_to(b"first", (to, 9000)).unwrap();
            let (length, _) = at
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("round {round}, {place}: {error}"));
            assert_eq!(&buffer[..length], b"first");
        }
    }
}
