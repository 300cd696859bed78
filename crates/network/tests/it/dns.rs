//! DNS through the cluster address, as a pod asks.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base::{Random, Shutdown};
use futures::FutureExt;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use network::catalog::ServiceWithSlices;
use network::dns::server::{DnsServer, DnsSockets};
use network::dns::upstream::{Forwarder, Transport, Upstream};
use network::dns::zone::{Zone, ZoneConfig};
use network::views::ServiceKind;
use parking_lot::RwLock;
use sys::netlink::{Family, Socket};
use sys::netns::NetworkNamespace;

use crate::world::{DNS, PATIENCE, WEB, World, one_worker, udp, views};

const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// Knows one answer to everything.
struct Oracle;

impl Upstream for Oracle {
    fn ask(&self, query: Vec<u8>, _: Transport) -> futures::future::BoxFuture<'static, std::io::Result<Vec<u8>>> {
        async move {
            let query = Message::from_vec(&query).unwrap();
            let mut answer = Message::response(query.metadata.id, OpCode::Query);
            answer.queries = query.queries.clone();
            let name = query.queries[0].name().clone();
            answer.answers.push(Record::from_rdata(name, 300, RData::A(A(FOREIGN))));
            Ok(answer.to_vec().unwrap())
        }
        .boxed()
    }
}

fn zone(domain: &str) -> Arc<RwLock<Zone>> {
    let mut zone = Zone::new(ZoneConfig {
        domain: domain.to_owned(),
        server: DNS,
        networks: vec!["10.96.0.0/12".parse().unwrap(), "10.244.0.0/16".parse().unwrap()],
    });
    let endpoints: Vec<Ipv4Addr> = (2..200).map(|last| Ipv4Addr::new(10, 244, 0, last)).collect();
    for (name, kind) in [
        ("web", ServiceKind::Cluster(vec![IpAddr::V4(WEB)])),
        ("many", ServiceKind::Headless),
        ("away", ServiceKind::External("example.org".to_owned())),
    ] {
        let (mut service, slice) = views(name, WEB, &endpoints);
        service.kind = kind;
        let found = ServiceWithSlices {
            service: Arc::new(service),
            slices: vec![Arc::new(slice)],
        };
        zone.set(&found.service.name.clone(), Some(&found));
    }
    Arc::new(RwLock::new(zone))
}

/// Serves `cluster.local` in the world's node; the runtime must outlive the test.
fn serve(node: &NetworkNamespace, upstream: Option<Arc<dyn Upstream>>) -> (tokio::runtime::Runtime, Shutdown) {
    serve_domain(node, "cluster.local", upstream)
}

fn serve_domain(
    node: &NetworkNamespace,
    domain: &str,
    upstream: Option<Arc<dyn Upstream>>,
) -> (tokio::runtime::Runtime, Shutdown) {
    let runtime = one_worker();
    let shutdown = Shutdown::new();
    {
        let _guard = runtime.enter();
        let sockets = DnsSockets::bind(node, SocketAddr::from((DNS, 53))).unwrap();
        DnsServer::new(zone(domain), upstream, &Random::seeded(1)).start(sockets, &shutdown);
    }
    (runtime, shutdown)
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut query = Message::new(77, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    query.to_vec().unwrap()
}

pub fn ask_udp(from: &NetworkNamespace, name: &str, kind: RecordType) -> Message {
    let socket = udp(from, DNS, 53);
    socket.send(&question(name, kind)).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn ask_tcp(from: &NetworkNamespace, name: &str, kind: RecordType) -> Message {
    let target = SocketAddr::from((DNS, 53));
    let mut stream = from
        .run(|| std::net::TcpStream::connect_timeout(&target, PATIENCE).unwrap())
        .unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let query = question(name, kind);
    stream.write_all(&(query.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(&query).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

pub fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let address = |record: &Record| {
        if let RData::A(A(address)) = &record.data {
            Some(*address)
        } else {
            None
        }
    };
    message.answers.iter().filter_map(address).collect()
}

#[test]
fn pods_and_the_node_ask_the_cluster_address_over_udp_and_tcp() {
    let world = World::new();
    let pod = world.pod("a");
    let (_runtime, _shutdown) = serve(&world.node, None);
    for from in [&pod.namespace, &world.node] {
        let answer = ask_udp(from, "web.default.svc.cluster.local", RecordType::A);
        assert_eq!(addresses(&answer), [WEB]);
        assert!(answer.metadata.authoritative && !answer.metadata.recursion_available);

        let short = ask_udp(from, "many.default.svc.cluster.local", RecordType::A);
        assert!(short.metadata.truncation);
        let whole = ask_tcp(from, "many.default.svc.cluster.local", RecordType::A);
        assert_eq!((addresses(&whole).len(), whole.metadata.truncation), (198, false));

        let code = |name, kind| ask_udp(from, name, kind).metadata.response_code;
        assert_eq!(
            code("absent.default.svc.cluster.local", RecordType::A),
            ResponseCode::NXDomain
        );
        assert_eq!(
            code("web.default.svc.cluster.local", RecordType::AAAA),
            ResponseCode::NoError
        );
        assert_eq!(code("example.org", RecordType::A), ResponseCode::Refused, "isolated");
    }
    // None of it was tracked: a busy DNS server must not fill the table.
    let tracked = world
        .node
        .run(|| {
            let mut socket = Socket::open(Family::Netfilter).unwrap();
            [6, 17].map(|protocol| {
                sys::netlink_conntrack::connections(&mut socket, protocol)
                    .unwrap()
                    .len()
            })
        })
        .unwrap();
    assert_eq!(tracked, [0, 0]);
}

#[test]
fn foreign_names_are_asked_for() {
    let world = World::new();
    let pod = world.pod("a");
    let (_runtime, _shutdown) = serve(&world.node, Some(Arc::new(Oracle)));
    let answer = ask_udp(&pod.namespace, "example.org", RecordType::A);
    assert_eq!((addresses(&answer), answer.metadata.id), (vec![FOREIGN], 77));
    let answer = ask_tcp(&pod.namespace, "example.org", RecordType::A);
    assert_eq!(addresses(&answer), [FOREIGN]);
    let answer = ask_udp(&pod.namespace, "away.default.svc.cluster.local", RecordType::A);
    assert_eq!(answer.answers.len(), 2, "the alias and its target");
    assert_eq!(addresses(&answer), [FOREIGN]);
}

#[test]
fn the_forwarder_asks_the_next_resolver_when_one_is_dead() {
    // Another cluster plays the outside world; nobody listens on its loopback address.
    let (world, outside) = (World::new(), World::new());
    let pod = world.pod("a");
    let (_outside_runtime, _outside_shutdown) = serve_domain(&outside.node, "example.org", None);
    let servers = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53)), SocketAddr::from((DNS, 53))];
    let own = IpAddr::from([192, 0, 2, 1]);
    let forwarder = Forwarder::new(outside.node.try_clone().unwrap(), servers, own, Random::seeded(2));
    let (_runtime, _shutdown) = serve(&world.node, Some(Arc::new(forwarder)));
    let answer = ask_udp(&pod.namespace, "web.default.svc.example.org", RecordType::A);
    assert_eq!((addresses(&answer), answer.metadata.id), (vec![WEB], 77));
    assert!(
        ask_udp(&pod.namespace, "many.default.svc.example.org", RecordType::A)
            .metadata
            .truncation
    );
    let answer = ask_tcp(&pod.namespace, "many.default.svc.example.org", RecordType::A);
    assert_eq!(addresses(&answer).len(), 198);
    let answer = ask_udp(&pod.namespace, "away.default.svc.cluster.local", RecordType::A);
    let found = (
        answer.metadata.response_code,
        answer.answers.len(),
        answer.authorities.len(),
    );
    assert_eq!(
        found,
        (ResponseCode::NoError, 1, 1),
        "the alias, and the other side's word that its target has no address"
    );
}

#[test]
fn an_upstream_that_asks_back_is_noticed() {
    let world = World::new();
    let pod = world.pod("a");
    // The forwarder asks this very server, by an address that its own check does not know.
    let own = IpAddr::from([127, 0, 0, 1]);
    let servers = vec![SocketAddr::from((DNS, 53))];
    let forwarder = Forwarder::new(world.node.try_clone().unwrap(), servers, own, Random::seeded(2));
    let (_runtime, _shutdown) = serve(&world.node, Some(Arc::new(forwarder)));
    // Either the probe is already back, or this query runs in the loop until the probe is: it ends with an error, soon.
    let answer = ask_udp(&pod.namespace, "example.org", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn the_sockets_are_free_again_after_the_shutdown() {
    let world = World::new();
    let (runtime, shutdown) = serve(&world.node, None);
    runtime.block_on(shutdown.finish());
    let _guard = runtime.enter();
    DnsSockets::bind(&world.node, SocketAddr::from((DNS, 53))).unwrap();
}
