//! Host ports: which pod answers on the node's addresses, to whom, and until when.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use client::testing::FakeApi;
use network::links::PodLinks;
use network::orders::Ended;
use network::views::{ObjectName, Protocol};
use network::{HostPort, HostPorts};

use crate::agent::{Running, wait};
use crate::world::{NODE, World, ask, exchange, links_config, refusal, udp};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PORT: u16 = 8081;

fn port(protocol: Protocol, address: Ipv4Addr) -> HostPort {
    HostPort {
        protocol,
        address,
        port: PORT,
        target: 8080,
    }
}

#[test]
fn a_port_of_all_addresses_leads_to_the_pod_from_everywhere() {
    let world = World::new();
    let (client, [pod], [address]) = world.client_and(["a"]);
    let (ports, orders) = HostPorts::new(NODE);
    let running = Running::start(&world, &FakeApi::new(), orders);
    assert_eq!(refusal(&world.node, LOOPBACK, PORT), ErrorKind::ConnectionRefused);
    // A flow that begins before the port leads anywhere.
    let early = udp(&client.namespace, NODE, PORT);
    assert_eq!(exchange(&early).unwrap_err().kind(), ErrorKind::ConnectionRefused);

    let all = [Protocol::Tcp, Protocol::Udp].map(|protocol| port(protocol, Ipv4Addr::UNSPECIFIED));
    wait(&running, ports.publish("a", address, &all));
    let seen = |who: Ipv4Addr| format!("a {who}");
    assert_eq!(ask(&world.node, LOOPBACK, PORT).unwrap(), seen(NODE));
    assert_eq!(ask(&world.node, NODE, PORT).unwrap(), seen(NODE));
    assert_eq!(ask(&client.namespace, NODE, PORT).unwrap(), seen(client.address));
    assert_eq!(ask(&pod.namespace, NODE, PORT).unwrap(), seen(NODE), "hairpin");
    assert_eq!(exchange(&early).unwrap(), seen(client.address));
    assert_eq!(exchange(&udp(&world.node, LOOPBACK, PORT)).unwrap(), seen(NODE));
    // The other ports of the node are its own.
    assert_eq!(refusal(&client.namespace, NODE, 8080), ErrorKind::ConnectionRefused);

    wait(&running, ports.withdraw("a"));
    assert_eq!(refusal(&world.node, LOOPBACK, PORT), ErrorKind::ConnectionRefused);
    assert_eq!(refusal(&client.namespace, NODE, PORT), ErrorKind::ConnectionRefused);
    assert_eq!(exchange(&early).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    running.end();
    assert_eq!(running_ended(&ports), Err(Ended));
}

fn running_ended(ports: &HostPorts) -> Result<(), Ended> {
    crate::world::one_worker().block_on(ports.withdraw("a"))
}

#[test]
fn a_port_number_serves_one_pod_for_each_address_and_protocol() {
    let world = World::new();
    let (_client, _pods, [a, b, c]) = world.client_and(["a", "b", "c"]);
    let (ports, orders) = HostPorts::new(NODE);
    let running = Running::start(&world, &FakeApi::new(), orders);
    for (owner, pod, one) in [
        ("a", a, port(Protocol::Tcp, LOOPBACK)),
        ("b", b, port(Protocol::Tcp, NODE)),
        ("c", c, port(Protocol::Udp, NODE)),
    ] {
        wait(&running, ports.publish(owner, pod, &[one]));
    }
    assert_eq!(ask(&world.node, LOOPBACK, PORT).unwrap(), format!("a {NODE}"));
    assert_eq!(ask(&world.node, NODE, PORT).unwrap(), format!("b {NODE}"));
    assert_eq!(exchange(&udp(&world.node, NODE, PORT)).unwrap(), format!("c {NODE}"));
    running.end();
}

#[test]
fn a_restarted_daemon_knows_them() {
    let mut world = World::new();
    let (_client, _pods, [a]) = world.client_and(["a"]);
    let published = vec![port(Protocol::Tcp, NODE)];
    let pod = ObjectName::new("default", "a");
    for key in ["a", "nobody"] {
        world.links.describe(key, pod.clone(), published.clone()).unwrap();
    }
    world.links = PodLinks::open(&world.node, links_config(&world.directory)).unwrap();
    let described = |world: &World| {
        let records = world.links.records().into_iter();
        let described = records.filter_map(|record| Some((record.key, record.address, record.pod?, record.host_ports)));
        described.collect::<Vec<_>>()
    };
    assert_eq!(described(&world), [("a".to_owned(), a, pod, published.clone())]);

    // What was ordered before the agent starts is in its first rules.
    let (ports, orders) = HostPorts::new(NODE);
    drop(ports.publish("a", a, &published));
    let running = Running::start(&world, &FakeApi::new(), orders);
    assert_eq!(ask(&world.node, NODE, PORT).unwrap(), format!("a {NODE}"));
    running.end();
    assert_eq!(ask(&world.node, NODE, PORT).unwrap(), format!("a {NODE}"), "rules stay");

    world.links.remove("a").unwrap();
    assert_eq!(described(&world), []);
}
