//! Policies in the kernel: which packets pass between pods, nodes and DNS, from the first one on.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use client::resources;
use client::testing::FakeApi;
use network::orders::Orders;
use network::policies::kernel::Kernel;
use network::policies::plan::Plan;
use network::policies::rules::{FAMILY, RulesConfig, TABLES, removal};
use network::views::ObjectName;
use network::{Attachments, HostPorts};
use serde_json::{Value, json};
use sys::netlink::{Family, Socket};
use sys::netns::NetworkNamespace;

use crate::agent::{Running, service, slice, wait};
use crate::world::{DNS, NODE, PATIENCE, Pod, WEB, World, ask, connect, read_line, serve_in, udp};

/// How long a packet is waited for that must not come. One that is let through takes microseconds.
const IN_VAIN: Duration = Duration::from_millis(300);
const PORT: u16 = 8080;

/// A node with an agent, and what the API says.
struct Cluster {
    world: World,
    api: FakeApi,
    attachments: Attachments,
    orders: Option<Orders>,
}

impl Cluster {
    fn new() -> Cluster {
        let (ports, orders) = HostPorts::new(NODE);
        let cluster = Cluster {
            world: World::new(),
            api: FakeApi::new(),
            attachments: ports.attachments(),
            orders: Some(orders),
        };
        cluster.api.serve(resources::NETWORK_POLICIES);
        for name in ["default", "other", "kube-system"] {
            cluster.api.put(json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            }));
        }
        cluster
    }

    /// A pod that serves, linked and known; it has its own name as a label.
    fn pod(&self, namespace: &str, name: &str) -> Pod {
        let pod = self.world.pod(name);
        pod.serve();
        self.api.put(object(namespace, name, pod.address));
        drop(
            self.attachments
                .attach(name, ObjectName::new(namespace, name), pod.address),
        );
        pod
    }

    fn start(&mut self) -> Running {
        Running::start(&self.world, &self.api, self.orders.take().expect("one agent"))
    }

    /// Makes a policy, or makes it another one.
    fn policy(&self, name: &str, spec: Value) {
        let kind = resources::NETWORK_POLICIES;
        if self.api.get(&kind, "default", name).is_some() {
            self.api.edit(&kind, "default", name, |object| object["spec"] = spec);
            return;
        }
        self.api.put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": name}, "spec": spec,
        }));
    }

    fn delete(&self, name: &str) {
        self.api.remove(&resources::NETWORK_POLICIES, "default", name);
    }
}

fn object(namespace: &str, name: &str, address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"pod": name}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": PORT}]}]},
        "status": {"phase": "Running", "podIP": address.to_string()},
    })
}

/// A connection comes about, or gets no answer at all, which is how policies forbid.
#[track_caller]
fn reaches(expect: bool, from: &NetworkNamespace, address: Ipv4Addr, port: u16) {
    let target = SocketAddr::from((address, port));
    let limit = if expect { PATIENCE } else { IN_VAIN };
    let result = from.run(|| TcpStream::connect_timeout(&target, limit)).unwrap();
    let found = result.map(drop).map_err(|error| error.kind());
    let expect = if expect { Ok(()) } else { Err(ErrorKind::TimedOut) };
    assert_eq!(found, expect, "{target}");
}

/// A datagram is answered, or not.
#[track_caller]
fn answers(expect: bool, from: &NetworkNamespace, address: Ipv4Addr, port: u16, datagram: &[u8]) {
    let socket: UdpSocket = udp(from, address, port);
    let limit = if expect { PATIENCE } else { IN_VAIN };
    socket.set_read_timeout(Some(limit)).unwrap();
    socket.send(datagram).unwrap();
    let found = socket.recv(&mut [0; 512]).map(drop).map_err(|error| error.kind());
    let expect = if expect { Ok(()) } else { Err(ErrorKind::WouldBlock) };
    assert_eq!(found, expect, "{address}:{port}");
}

fn selecting(pod: &str) -> Value {
    json!({"matchLabels": {"pod": pod}})
}

#[test]
fn what_no_policy_allows_is_dropped_and_what_exists_is_judged_again() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.pod("default", "a"), cluster.pod("default", "b"));
    let c = cluster.pod("other", "c");
    cluster.api.put(service());
    cluster.api.put(slice(&[(a.address, true)]));
    let running = cluster.start();
    for from in [&b, &c] {
        reaches(true, &from.namespace, a.address, PORT);
    }
    let mut open = connect(&c.namespace, a.address, PORT).unwrap();
    assert!(read_line(&mut open).unwrap().starts_with("a "));

    running.after(|| {
        cluster.policy(
            "deny",
            json!({"podSelector": selecting("a"), "policyTypes": ["Ingress"]}),
        )
    });
    for from in [&b, &c] {
        reaches(false, &from.namespace, a.address, PORT);
        // Through its Service.
        reaches(false, &from.namespace, WEB, 80);
        answers(false, &from.namespace, a.address, PORT, b"?");
        // The other way.
        reaches(true, &a.namespace, from.address, PORT);
    }
    // A connection that was open.
    open.write_all(b"?").unwrap();
    open.set_read_timeout(Some(IN_VAIN)).unwrap();
    assert_eq!(read_line(&mut open).unwrap_err().kind(), ErrorKind::WouldBlock);
    // The node may, and the pod itself, whichever way it goes.
    assert_eq!(ask(&cluster.world.node, a.address, PORT).unwrap(), format!("a {NODE}"));
    reaches(true, &a.namespace, a.address, PORT);
    assert_eq!(ask(&a.namespace, WEB, 80).unwrap(), format!("a {NODE}"), "hairpin");

    let from_b = json!({"podSelector": selecting("a"), "ingress": [{"from": [{"podSelector": selecting("b")}]}]});
    running.after(|| cluster.policy("b", from_b));
    reaches(true, &b.namespace, a.address, PORT);
    reaches(true, &b.namespace, WEB, 80);
    answers(true, &b.namespace, a.address, PORT, b"?");
    reaches(false, &c.namespace, a.address, PORT);
    reaches(false, &c.namespace, WEB, 80);

    // The other policy selects it, too.
    running.after(|| cluster.delete("deny"));
    reaches(false, &c.namespace, a.address, PORT);
    running.after(|| cluster.delete("b"));
    reaches(true, &c.namespace, a.address, PORT);
    // The connection goes on.
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(read_line(&mut open).unwrap().starts_with("a "));
    running.end();
}

#[test]
fn egress_and_the_clusters_dns() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.pod("default", "a"), cluster.pod("other", "b"));
    let (from_a, from_b) = (&a.namespace, &b.namespace);
    serve_in(&cluster.world.node, "node");
    let running = cluster.start();
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04none\x07cluster\x05local\x00\x00\x01\x00\x01";
    let asks = |expect: bool, from: &NetworkNamespace| answers(expect, from, DNS, 53, question);
    asks(true, from_a);
    reaches(true, from_a, DNS, 53);

    let spec = |egress: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress});
    running.after(|| cluster.policy("p", spec(json!([]))));
    reaches(false, from_a, b.address, PORT);
    asks(false, from_a);
    reaches(false, from_a, DNS, 53);
    // Nobody else is concerned, nor is the other way, nor the pod's own node and the pod itself.
    asks(true, from_b);
    reaches(true, from_b, a.address, PORT);
    reaches(true, from_a, NODE, PORT);
    reaches(true, from_a, a.address, PORT);

    let dns = json!({
        "to": [{
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }],
        "ports": [{"protocol": "UDP", "port": 53}],
    });
    running.after(|| cluster.policy("p", spec(json!([dns]))));
    asks(true, from_a);
    // By UDP only.
    reaches(false, from_a, DNS, 53);
    reaches(false, from_a, b.address, PORT);

    // Each way of saying where to, against a pod of another namespace.
    let address = b.address.to_string();
    for (to, expect) in [
        (json!({"to": [{"namespaceSelector": {}}]}), true),
        (json!({"to": [{"podSelector": {}}]}), false),
        (json!({"to": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]}), true),
        (
            json!({"to": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": [format!("{address}/32")]}}]}),
            false,
        ),
        (json!({"ports": [{"port": "web"}]}), true),
        (json!({"ports": [{"port": "other"}]}), false),
        (json!({"ports": [{"port": 8000, "endPort": 9000}]}), true),
        (json!({"ports": [{"port": 8081, "endPort": 9000}]}), false),
        (json!({"ports": [{"port": 8080, "protocol": "UDP"}]}), false),
        (
            json!({"ports": [{"protocol": "TCP"}], "to": [{"namespaceSelector": {}}]}),
            true,
        ),
        (
            json!({"ports": [{"port": "web"}], "to": [{"ipBlock": {"cidr": format!("{address}/32")}}]}),
            true,
        ),
    ] {
        running.after(|| cluster.policy("p", spec(json!([to.clone()]))));
        println!("{to}");
        reaches(expect, from_a, b.address, PORT);
    }
    running.end();
}

#[test]
fn a_new_pod_is_closed_before_anybody_knows_it_and_rules_outlive_the_daemon() {
    let mut cluster = Cluster::new();
    let a = cluster.pod("default", "a");
    let c = cluster.pod("other", "c");
    cluster.policy("deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let running = cluster.start();
    let b = cluster.world.pod("b");
    b.serve();
    let attached = cluster
        .attachments
        .attach("b", ObjectName::new("other", "b"), b.address);
    wait(&running, attached);
    // What was attached before is in force, too.
    reaches(false, &c.namespace, a.address, PORT);
    reaches(false, &b.namespace, c.address, PORT);
    reaches(false, &c.namespace, b.address, PORT);
    running.after(|| {
        cluster.api.put(object("other", "b", b.address));
    });
    reaches(true, &b.namespace, c.address, PORT);
    reaches(true, &c.namespace, b.address, PORT);
    reaches(false, &b.namespace, a.address, PORT);

    // The daemon ends.
    running.end();
    reaches(false, &b.namespace, a.address, PORT);
    let tables = |cluster: &Cluster| {
        let mut socket = netfilter(&cluster.world);
        TABLES.map(|table| {
            let handle = sys::nftables::table_handle(&mut socket, FAMILY, table);
            handle.unwrap().is_some()
        })
    };
    assert_eq!(tables(&cluster), [true, false]);
    let restart = |cluster: &mut Cluster| {
        let (ports, orders) = HostPorts::new(NODE);
        (cluster.attachments, cluster.orders) = (ports.attachments(), Some(orders));
        let attached = [("default", &a), ("other", &b), ("other", &c)].map(|(namespace, pod)| {
            let name = ObjectName::new(namespace, pod.name.clone());
            cluster.attachments.attach(&pod.name, name, pod.address)
        });
        let running = cluster.start();
        attached.into_iter().for_each(|attached| wait(&running, attached));
        running
    };
    let running = restart(&mut cluster);
    assert_eq!(tables(&cluster), [false, true], "a new one beside the old one");
    reaches(false, &b.namespace, a.address, PORT);
    // Somebody removes the rules; the next change finds out.
    removal(TABLES[1]).commit(&mut netfilter(&cluster.world)).unwrap();
    reaches(true, &b.namespace, a.address, PORT);
    running.after(|| cluster.policy("more", json!({"podSelector": {}})));
    reaches(false, &b.namespace, a.address, PORT);
    running.end();

    // Without a policy nothing is left.
    cluster.delete("deny");
    cluster.delete("more");
    let running = restart(&mut cluster);
    assert_eq!(tables(&cluster), [false, false]);
    reaches(true, &b.namespace, a.address, PORT);
    running.end();
}

#[test]
fn a_change_that_the_kernel_refuses_ends_in_a_rebuild() {
    let world = World::new();
    let (a, b) = (world.pod("a"), world.pod("b"));
    a.serve();
    let config = RulesConfig {
        node_address: NODE,
        dns_address: Some(DNS),
    };
    let mut kernel = Kernel::open(&world.node, config).unwrap();
    let mut plan = Plan::new(Some(DNS));
    plan.learn();
    plan.enforce();
    // Nobody knows the pods, so they are closed.
    plan.attach("a", ObjectName::new("default", "a"), a.address);
    kernel.sync(&mut plan).unwrap();
    reaches(false, &b.namespace, a.address, PORT);
    let mut batch = sys::nftables::Batch::new(FAMILY, TABLES[0]);
    batch.delete_elements("isolated-ingress", [a.address.octets()]);
    batch.commit(&mut netfilter(&world)).unwrap();
    reaches(true, &b.namespace, a.address, PORT);
    plan.detach("a");
    plan.attach("b", ObjectName::new("default", "b"), b.address);
    kernel.sync(&mut plan).unwrap();
    // Now the other one is closed.
    reaches(false, &b.namespace, a.address, PORT);
    reaches(true, &world.node, a.address, PORT);
    kernel.remove().unwrap();
    reaches(true, &b.namespace, a.address, PORT);
}

fn netfilter(world: &World) -> Socket {
    world.node.run(|| Socket::open(Family::Netfilter).unwrap()).unwrap()
}
