//! The whole agent: from objects in the API to packets and names.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;

use base::{Random, Shutdown};
use client::informer::SharedInformers;
use client::resources;
use client::testing::FakeApi;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use network::orders::{Ended, Orders};
use network::{Agent, AgentConfig, HostPorts};
use serde_json::{Value, json};
use sys::netns::NetworkNamespace;

use crate::dns::{addresses, ask_udp};
use crate::world::{NODE, PATIENCE, WEB, World, answering, ask, network, one_worker, refusal};

const NAME: &str = "web.default.svc.cluster.local";

pub fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIP": WEB.to_string(), "clusterIPs": [WEB.to_string()],
                 "ports": [{"name": "web", "protocol": "TCP", "port": 80, "targetPort": 8080}]},
    })
}

pub fn slice(endpoints: &[(Ipv4Addr, bool)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, ready)| {
            let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
            json!({"addresses": [address.to_string()], "conditions": conditions, "nodeName": "node"})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "web", "protocol": "TCP", "port": 8080}],
    })
}

fn set_endpoints(api: &FakeApi, endpoints: &[(Ipv4Addr, bool)]) {
    let wanted = slice(endpoints)["endpoints"].clone();
    api.edit(&resources::ENDPOINT_SLICES, "default", "web-1", |object| {
        object["endpoints"] = wanted
    });
}

/// An agent, and the thread that it runs on.
pub struct Running {
    pub runtime: tokio::runtime::Runtime,
    shutdown: Shutdown,
    agent: Agent,
}

impl Running {
    pub fn start(world: &World, api: &FakeApi, host_ports: Orders) -> Self {
        api.serve(resources::NETWORK_POLICIES);
        let runtime = one_worker();
        let shutdown = Shutdown::new();
        let config = AgentConfig {
            node_name: "node".to_owned(),
            network: network(),
            domain: "cluster.local".to_owned(),
            uplink: None,
        };
        let guard = runtime.enter();
        let informers = SharedInformers::new(api.client(), shutdown.clone()).with_random(Random::seeded(1));
        let agent = Agent::start(
            config,
            &world.node,
            &informers,
            host_ports,
            None,
            &Random::seeded(2),
            &shutdown,
        );
        let agent = agent.unwrap();
        drop(guard);
        assert!(runtime.block_on(async { tokio::time::timeout(PATIENCE, agent.ready()).await.unwrap() }));
        Self {
            runtime,
            shutdown,
            agent,
        }
    }

    /// Ends the agent as its daemon's end does.
    pub fn end(self) {
        self.runtime.block_on(self.shutdown.finish());
    }

    /// Makes a change and waits for the commit that follows it.
    pub fn after(&self, change: impl FnOnce()) {
        let mut commits = self.agent.commits();
        commits.mark_unchanged();
        change();
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, commits.changed())
                .await
                .unwrap()
                .unwrap()
        });
    }
}

/// Waits until an order is carried out.
pub fn wait(running: &Running, answer: impl Future<Output = Result<(), Ended>>) {
    let answer = running
        .runtime
        .block_on(async { tokio::time::timeout(PATIENCE, answer).await });
    answer.expect("the rules are written in time").unwrap();
}

#[test]
fn objects_become_packets_and_names_and_a_restart_changes_nothing() {
    let world = World::new();
    let client = world.pod("client");
    let (a, b) = (world.pod("a"), world.pod("b"));
    a.serve();
    b.serve();
    let api = FakeApi::new();
    api.put(service());
    api.put(slice(&[(a.address, true), (b.address, true)]));
    let both: BTreeSet<String> = ["a".to_owned(), "b".to_owned()].into();

    let host_ports = || HostPorts::new(NODE).1;
    let running = Running::start(&world, &api, host_ports());
    assert_eq!(answering(&client.namespace, WEB, 100), both);
    assert_eq!(addresses(&ask_udp(&client.namespace, NAME, RecordType::A)), [WEB]);

    // One terminates: new connections go to the other one. Then both do, and still serve.
    running.after(|| set_endpoints(&api, &[(a.address, false), (b.address, true)]));
    assert_eq!(answering(&client.namespace, WEB, 20), ["b".to_owned()].into());
    running.after(|| set_endpoints(&api, &[(a.address, false), (b.address, false)]));
    assert_eq!(answering(&client.namespace, WEB, 100), both);
    running.after(|| set_endpoints(&api, &[(a.address, true)]));
    assert_eq!(ask(&a.namespace, WEB, 80).unwrap(), format!("a {NODE}"), "hairpin");

    // It gets ways in from outside, and loses them again.
    let spec = |api: &FakeApi, change: fn(&mut Value)| {
        api.edit(&resources::SERVICES, "default", "web", |object| {
            change(&mut object["spec"])
        });
    };
    assert_eq!(refusal(&client.namespace, NODE, 30080), ErrorKind::ConnectionRefused);
    running.after(|| {
        spec(&api, |spec| {
            spec["type"] = "NodePort".into();
            spec["ports"][0]["nodePort"] = 30080.into();
            spec["externalIPs"] = json!(["192.0.2.1"]);
        });
    });
    let seen = format!("a {}", client.address);
    assert_eq!(ask(&client.namespace, NODE, 30080).unwrap(), seen);
    assert_eq!(ask(&client.namespace, Ipv4Addr::new(192, 0, 2, 1), 80).unwrap(), seen);
    assert_eq!(ask(&world.node, NODE, 30080).unwrap(), format!("a {NODE}"));
    assert_eq!(ask(&a.namespace, NODE, 30080).unwrap(), format!("a {NODE}"), "hairpin");
    running.after(|| {
        spec(&api, |spec| {
            spec["type"] = "ClusterIP".into();
            spec["ports"][0]["nodePort"] = Value::Null;
        });
    });
    assert_eq!(refusal(&client.namespace, NODE, 30080), ErrorKind::ConnectionRefused);

    // The daemon ends: rules stay. Another one takes over.
    running.end();
    assert_eq!(answering(&client.namespace, WEB, 5), ["a".to_owned()].into());
    let running = Running::start(&world, &api, host_ports());
    assert_eq!(answering(&client.namespace, WEB, 5), ["a".to_owned()].into());

    running.after(|| {
        api.remove(&resources::SERVICES, "default", "web");
    });
    assert_eq!(refusal(&client.namespace, WEB, 80), ErrorKind::ConnectionRefused);
    let gone = ask_udp(&client.namespace, NAME, RecordType::A);
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    running.end();
}

#[test]
fn ranges_of_cluster_addresses_come_and_go() {
    let world = World::new();
    let (client, a) = (world.pod("client"), world.pod("a"));
    a.serve();
    let api = FakeApi::new();
    let (web, nobody) = (Ipv4Addr::new(203, 0, 113, 7), Ipv4Addr::new(203, 0, 113, 99));
    let mut other = service();
    other["spec"]["clusterIP"] = web.to_string().into();
    other["spec"]["clusterIPs"] = json!([web.to_string()]);
    api.put(other);
    api.put(slice(&[(a.address, true)]));
    let cidr = |name: &str, range: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
            "spec": {"cidrs": [range]}})
    };
    api.put(cidr("kubernetes", "10.96.0.0/12"));
    let running = Running::start(&world, &api, HostPorts::new(NODE).1);
    let (from_pod, from_node) = (&client.namespace, &world.node);
    // The node itself has no way to such an address yet, and nothing refuses those that nobody has.
    assert_ne!(refusal(from_node, web, 80), ErrorKind::ConnectionRefused);
    running.after(|| {
        api.put(cidr("more", "203.0.113.0/24"));
    });
    for from in [from_pod, from_node] {
        assert_eq!(answering(from, web, 5), ["a".to_owned()].into());
        assert_eq!(refusal(from, nobody, 80), ErrorKind::ConnectionRefused);
    }
    running.after(|| {
        api.remove(&resources::SERVICE_CIDRS, "", "more");
    });
    assert_ne!(refusal(from_node, nobody, 80), ErrorKind::ConnectionRefused);
    running.end();
}

/// The head and the body of what a health port answers.
fn health(from: &NetworkNamespace, port: u16) -> std::io::Result<(String, Value)> {
    let text = from.run(|| -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect((NODE, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })??;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(std::io::Error::from(ErrorKind::UnexpectedEof))?;
    Ok((head.to_owned(), serde_json::from_str(body).unwrap()))
}

/// Waits until nobody listens: a listener ends in a task of its own.
fn closes(running: &Running, from: &NetworkNamespace, port: u16) {
    let closed = async {
        while health(from, port).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let closed = running
        .runtime
        .block_on(async { tokio::time::timeout(PATIENCE, closed).await });
    closed.expect("the port is closed in time");
}

#[test]
fn health_ports_tell_load_balancers_of_this_nodes_endpoints() {
    let world = World::new();
    let (client, a) = (world.pod("client"), world.pod("a"));
    let api = FakeApi::new();
    let mut balanced = service();
    balanced["spec"]["type"] = "LoadBalancer".into();
    balanced["spec"]["externalTrafficPolicy"] = "Local".into();
    balanced["spec"]["healthCheckNodePort"] = 31234.into();
    api.put(balanced);
    api.put(slice(&[(a.address, true)]));
    let running = Running::start(&world, &api, HostPorts::new(NODE).1);
    for from in [&client.namespace, &world.node] {
        let (head, body) = health(from, 31234).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(
            body,
            json!({"service": {"namespace": "default", "name": "web"}, "localEndpoints": 1, "serviceProxyHealthy": true})
        );
    }
    running.after(|| set_endpoints(&api, &[(a.address, false)]));
    let (head, body) = health(&client.namespace, 31234).unwrap();
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable"), "{head}");
    assert_eq!(body["localEndpoints"], 0);
    // Another port takes its place, and none is left when nobody asks any more.
    running.after(|| {
        api.edit(&resources::SERVICES, "default", "web", |object| {
            object["spec"]["healthCheckNodePort"] = 31235.into();
        });
    });
    assert!(health(&world.node, 31235).is_ok());
    closes(&running, &world.node, 31234);
    running.after(|| {
        api.edit(&resources::SERVICES, "default", "web", |object| {
            object["spec"]["externalTrafficPolicy"] = "Cluster".into();
        });
    });
    closes(&running, &world.node, 31235);
    running.end();
}
