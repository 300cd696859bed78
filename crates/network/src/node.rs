//! The network namespace of a node: what stands in it before the first pod comes.
//!
//! Everything here is written inside the node's namespace. The rule behind the routes: a packet for the cluster never
//! leaves the cluster. Pod addresses that nobody has are unreachable, cluster addresses have an on-link route that ends in
//! the reject rules, and an isolated node has no default route at all.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use sys::netlink::{Family, Messages, Socket};
use sys::netlink_route::{self as route, LOOPBACK_INDEX, Route, RouteKind, Scope};
use sys::netns::NetworkNamespace;

/// Largest packet between pods.
pub const MTU: u32 = 1500;

/// The addresses of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetwork {
    /// This node's address: what its pods see as the source of probes, and where its host-network pods answer.
    pub node_address: Ipv4Addr,
    /// The addresses of its pods.
    pub pod_network: Ipv4Net,
    /// The addresses of all pods of the cluster. What no route of a node takes is unreachable.
    pub cluster_network: Ipv4Net,
    /// The range of cluster addresses that is there from the start; [`crate::ranges`] adds what ServiceCIDRs name.
    pub service_network: Ipv4Net,
    /// The address of the cluster's DNS, when this node answers on it.
    pub dns_address: Option<Ipv4Addr>,
}

/// The one way out of a node's namespace: a veth pair to another namespace, usually the host's. What that namespace does
/// with the packets is its owner's business; nothing but the link and its address is written there.
#[derive(Debug)]
pub struct UplinkConfig {
    /// The namespace at the other end.
    pub outside: NetworkNamespace,
    /// Name of the link there.
    pub outside_link: String,
    /// Address there, the node's gateway.
    pub outside_address: Ipv4Addr,
    /// Name of the link in the node.
    pub node_link: String,
    /// Address of the node on the link.
    pub node_address: Ipv4Addr,
    /// Length of the prefix that both addresses are in.
    pub prefix: u8,
}

/// Makes a network namespace that stays at `path` until [`delete_node_netns`].
pub fn create_node_netns(path: &Path) -> io::Result<NetworkNamespace> {
    let namespace = NetworkNamespace::create()?;
    namespace.pin(path)?;
    Ok(namespace)
}

/// Removes the file that keeps the namespace; the kernel removes it and all that is in it with the last process.
pub fn delete_node_netns(path: &Path) -> io::Result<()> {
    NetworkNamespace::unpin(path)
}

/// Writes settings, addresses and routes of a node. Idempotent: a restarted daemon calls it again.
pub fn setup(namespace: &NetworkNamespace, network: &NodeNetwork, uplink: Option<&UplinkConfig>) -> io::Result<()> {
    namespace.run(|| -> io::Result<()> {
        for (name, value) in SETTINGS {
            set(name, value)?;
        }
        let mut socket = Socket::open(Family::Route)?;
        let mut messages = Messages::new();
        route::set_link_up(&mut messages, LOOPBACK_INDEX);
        for address in [Some(network.node_address), network.dns_address].into_iter().flatten() {
            route::add_address(&mut messages, LOOPBACK_INDEX, address.into(), 32, Scope::Universe);
        }
        socket.transact(messages)?;

        let mut messages = Messages::new();
        route::put_route(&mut messages, &Route::unreachable(destination(network.cluster_network)));
        route::put_route(&mut messages, &Route::unreachable(destination(network.pod_network)));
        route::put_route(
            &mut messages,
            &service_route(network.service_network, network.node_address),
        );
        socket.transact(messages)?;
        match uplink {
            Some(uplink) => add_uplink(&mut socket, uplink),
            None => Ok(()),
        }
    })?
}

/// Settings of the namespace. What the kernel keeps for the whole machine is not among them.
const SETTINGS: [(&str, &str); 10] = [
    ("ipv4/ip_forward", "1"),
    // A pod may only send with its own address: its host route is the only way back to it.
    ("ipv4/conf/default/rp_filter", "1"),
    // The stricter of `all` and the link's own holds, so these two switch it off where it would harm.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/lo/rp_filter", "0"),
    // What is sent to a host port on 127.0.0.1 leaves by a pod's link. The rules drop what comes in for such addresses.
    ("ipv4/conf/all/route_localnet", "1"),
    // Otherwise the kernel tells pods of "better" routes when it sends a packet back over the link it came from (hairpin).
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    // No link-local addresses and router solicitations on pod links until pods have IPv6 addresses.
    ("ipv6/conf/default/disable_ipv6", "1"),
];

fn set(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{name}");
    match std::fs::write(&path, value) {
        // A kernel without IPv6 has none of its settings.
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6/") => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("writing {value} to {path}: {error}"),
        )),
        Ok(()) => Ok(()),
    }
}

/// The route is there so that the node's own connections get as far as the translation: that changes the destination and
/// routes again. What is not translated is rejected and never sent.
pub(crate) fn service_route(range: Ipv4Net, node_address: Ipv4Addr) -> Route {
    Route {
        destination: destination(range),
        kind: RouteKind::Unicast,
        scope: Scope::Link,
        link: Some(LOOPBACK_INDEX),
        gateway: None,
        source: Some(node_address.into()),
        // Without it a connection would begin with the loopback link's 64 KiB.
        mtu: Some(MTU),
    }
}

fn destination(network: Ipv4Net) -> (std::net::IpAddr, u8) {
    (network.network().into(), network.prefix_len())
}

fn add_uplink(node: &mut Socket, uplink: &UplinkConfig) -> io::Result<()> {
    use std::os::fd::AsFd;
    let present = route::links(node)?
        .into_iter()
        .any(|link| link.name == uplink.node_link);
    if !present {
        let mut messages = Messages::new();
        let near = route::VethEnd {
            name: &uplink.node_link,
            hardware_address: hardware_address(uplink.node_address),
            namespace: None,
        };
        let far = route::VethEnd {
            name: &uplink.outside_link,
            hardware_address: hardware_address(uplink.outside_address),
            namespace: Some(uplink.outside.as_fd()),
        };
        route::add_veth(&mut messages, &near, &far, MTU);
        node.transact(messages)?;
    }
    uplink.outside.run(|| -> io::Result<()> {
        let mut outside = Socket::open(Family::Route)?;
        let index = link_index(&mut outside, &uplink.outside_link)?;
        let mut messages = Messages::new();
        let address = uplink.outside_address.into();
        route::add_address(&mut messages, index, address, uplink.prefix, Scope::Universe);
        route::set_link_up(&mut messages, index);
        Ok(outside.transact(messages)?)
    })??;
    let index = link_index(node, &uplink.node_link)?;
    let mut messages = Messages::new();
    route::add_address(
        &mut messages,
        index,
        uplink.node_address.into(),
        uplink.prefix,
        Scope::Universe,
    );
    route::set_link_up(&mut messages, index);
    route::put_route(&mut messages, &Route::default_over(uplink.outside_address, index));
    node.transact(messages)?;
    // `add_veth` says why the far end is read last.
    uplink.outside.run(|| -> io::Result<()> {
        let mut outside = Socket::open(Family::Route)?;
        link_index(&mut outside, &uplink.outside_link).map(drop)
    })?
}

pub(crate) fn link_index(socket: &mut Socket, name: &str) -> io::Result<u32> {
    let found = route::links_named(socket, &[name])?;
    found
        .first()
        .map(|link| link.index)
        .ok_or_else(|| io::Error::other(format!("no link {name}")))
}

/// A locally administered hardware address that follows from an IPv4 address, as CNI plugins write it.
pub(crate) fn hardware_address(address: Ipv4Addr) -> route::HardwareAddress {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}
