//! A node with pods, and small programs that run in them.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

use network::catalog::Catalog;
use network::links::{LinksConfig, PodLinks};
use network::node::{self, MTU, NodeNetwork, UplinkConfig};
use network::services::kernel::Kernel;
use network::services::plan::{PlanConfig, Table};
use network::services::rotation::{Node, rotation};
use network::services::rules::RulesConfig;
use network::views::{EndpointView, ObjectName, Protocol, ServiceKind, ServicePort, ServiceView, SlicePort, SliceView};
use sys::netns::NetworkNamespace;

/// Longer than any answer takes; passing it fails the test.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const NODE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
pub const UNALLOCATED: Ipv4Addr = Ipv4Addr::new(10, 100, 1, 1);

pub struct Pod {
    pub namespace: NetworkNamespace,
    pub name: String,
    pub address: Ipv4Addr,
}

pub struct World {
    pub node: NetworkNamespace,
    pub links: PodLinks,
    pub directory: tempfile::TempDir,
    pub kernel: Kernel,
    pub table: Table,
    pub catalog: Catalog,
}

pub fn links_config(directory: &tempfile::TempDir) -> LinksConfig {
    LinksConfig {
        record_directory: directory.path().join("links"),
        pod_network: "10.244.0.0/24".parse().unwrap(),
        mtu: MTU,
    }
}

pub fn rules_config() -> RulesConfig {
    RulesConfig {
        service_networks: vec!["10.96.0.0/12".parse().unwrap()],
        pod_network: "10.244.0.0/24".parse().unwrap(),
        node_address: NODE,
        dns_address: Some(DNS),
        uplink: None,
    }
}

fn here() -> Node {
    Node {
        name: "node".to_owned(),
        address: NODE,
    }
}

pub fn network() -> NodeNetwork {
    NodeNetwork {
        node_address: NODE,
        pod_network: "10.244.0.0/24".parse().unwrap(),
        cluster_network: "10.244.0.0/16".parse().unwrap(),
        service_network: "10.96.0.0/12".parse().unwrap(),
        dns_address: Some(DNS),
    }
}

/// A runtime for what serves in a test, whose own thread asks.
pub fn one_worker() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// The path of an open namespace, for interfaces that take one.
pub fn path_of(namespace: &NetworkNamespace) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        namespace.as_fd().as_raw_fd()
    ))
}

impl World {
    pub fn new() -> Self {
        Self::with_uplink(None)
    }

    pub fn with_uplink(uplink: Option<UplinkConfig>) -> Self {
        let node = NetworkNamespace::create().unwrap();
        let network = network();
        node::setup(&node, &network, uplink.as_ref()).unwrap();
        node::setup(&node, &network, uplink.as_ref()).expect("a second time changes nothing");
        let directory = tempfile::tempdir().unwrap();
        let links = PodLinks::open(&node, links_config(&directory)).unwrap();
        let plan = PlanConfig {
            pod_network: network.pod_network,
            dns_address: Some(DNS),
        };
        let mut kernel = Kernel::open(
            &node,
            RulesConfig {
                uplink: uplink.map(|uplink| uplink.node_link),
                ..rules_config()
            },
        )
        .unwrap();
        let mut table = Table::new(plan);
        kernel.sync(&mut table).unwrap();
        Self {
            node,
            links,
            directory,
            kernel,
            table,
            catalog: Catalog::new(),
        }
    }

    pub fn pod(&self, name: &str) -> Pod {
        let namespace = NetworkNamespace::create().unwrap();
        let address = self.links.add(&path_of(&namespace), name).unwrap();
        Pod {
            namespace,
            name: name.to_owned(),
            address,
        }
    }

    /// A client, and pods of these names that serve, with their addresses.
    pub fn client_and<const COUNT: usize>(&self, names: [&str; COUNT]) -> (Pod, [Pod; COUNT], [Ipv4Addr; COUNT]) {
        let pods = names.map(|name| {
            let pod = self.pod(name);
            pod.serve();
            pod
        });
        let addresses = std::array::from_fn(|at| pods[at].address);
        (self.pod("client"), pods, addresses)
    }

    /// Makes `name` a Service at `address`:80 (TCP and UDP) with these endpoints at port 8080.
    pub fn service(&mut self, name: &str, address: Ipv4Addr, endpoints: &[Ipv4Addr]) {
        self.service_with_affinity(name, address, endpoints, None);
    }

    pub fn service_with_affinity(
        &mut self,
        name: &str,
        address: Ipv4Addr,
        endpoints: &[Ipv4Addr],
        affinity_seconds: Option<u32>,
    ) {
        let (service, slice) = views(name, address, endpoints);
        self.catalog.set_service(ServiceView {
            affinity_seconds,
            ..service
        });
        self.catalog.set_slice(slice);
        self.sync();
    }

    pub fn sync(&mut self) {
        for name in self.catalog.take_changed() {
            let frontends = self
                .catalog
                .get(&name)
                .map(|found| rotation(&found, &here()))
                .unwrap_or_default();
            self.table.set(&name, frontends);
        }
        self.kernel.sync(&mut self.table).unwrap();
    }
}

pub fn views(name: &str, address: Ipv4Addr, endpoints: &[Ipv4Addr]) -> (ServiceView, SliceView) {
    let ports = [("web", Protocol::Tcp), ("datagrams", Protocol::Udp)];
    let service = ServiceView {
        name: ObjectName::new("default", name),
        kind: ServiceKind::Cluster(vec![IpAddr::V4(address)]),
        ports: ports
            .iter()
            .map(|(name, protocol)| ServicePort {
                name: (*name).to_owned(),
                protocol: *protocol,
                port: 80,
                node_port: None,
            })
            .collect(),
        external_addresses: Vec::new(),
        local_only: false,
        external_local_only: false,
        affinity_seconds: None,
        foreign_proxy: false,
        health_port: None,
    };
    let endpoints = endpoints.iter().map(|address| EndpointView {
        addresses: vec![IpAddr::V4(*address)],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: Some("node".to_owned()),
    });
    let slice = SliceView {
        name: ObjectName::new("default", format!("{name}-1")),
        service: name.to_owned(),
        endpoints: endpoints.collect(),
        ports: ports
            .iter()
            .map(|(name, protocol)| SlicePort {
                name: (*name).to_owned(),
                protocol: *protocol,
                port: Some(8080),
            })
            .collect(),
    };
    (service, slice)
}

impl Pod {
    /// Serves inside the pod.
    pub fn serve(&self) {
        serve_in(&self.namespace, &self.name);
    }
}

/// Answers on port 8080, TCP and UDP, with the name and the address it sees; a TCP connection that sends a byte gets
/// another answer for each. Runs until the test's process ends.
pub fn serve_in(namespace: &NetworkNamespace, name: &str) {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080));
    let listener = namespace.run(|| TcpListener::bind(any)).unwrap().unwrap();
    let socket = namespace.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    let (for_tcp, for_udp) = (name.to_owned(), name.to_owned());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, name) = (stream.unwrap(), for_tcp.clone());
            std::thread::spawn(move || greet(stream, &name));
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{for_udp} {}", from.ip()).as_bytes(), from);
        }
    });
}

fn greet(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let from = stream.peer_addr()?.ip();
    let mut byte = [0];
    loop {
        stream.write_all(format!("{name} {from}\n").as_bytes())?;
        stream.read_exact(&mut byte)?;
    }
}

/// Reads one answer.
pub fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(String::from_utf8(line).unwrap());
        }
        line.push(byte[0]);
    }
}

/// Connects from a namespace.
pub fn connect(from: &NetworkNamespace, address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let target = SocketAddr::from((address, port));
    let stream = from.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Who answers a new connection, and whom it sees.
pub fn ask(from: &NetworkNamespace, address: Ipv4Addr, port: u16) -> io::Result<String> {
    read_line(&mut connect(from, address, port)?)
}

/// Who answers `count` new connections, without the addresses they see.
pub fn answering(from: &NetworkNamespace, address: Ipv4Addr, count: usize) -> BTreeSet<String> {
    let name = |answer: String| answer.split(' ').next().unwrap().to_owned();
    (0..count).map(|_| name(ask(from, address, 80).unwrap())).collect()
}

/// A UDP socket of a namespace that talks to one address.
pub fn udp(from: &NetworkNamespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = from.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.connect(SocketAddr::from((address, port))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub fn exchange(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"?")?;
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The error of a connection that must not come about.
pub fn refusal(from: &NetworkNamespace, address: Ipv4Addr, port: u16) -> io::ErrorKind {
    connect(from, address, port)
        .map(|_| ())
        .expect_err("nobody is there")
        .kind()
}
