//! Route netlink: the dozen requests a layer-3 node needs, written into one [`Messages`] so that a group of pods is a
//! few system calls.
//!
//! Only IPv4 addresses are written today; every address goes through [`family`], which is the place IPv6 joins.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{Answer, Attributes, CREATE, DUMP, EXCLUSIVE, Error, Messages, REPLACE, Socket, read_u32};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTAX_MTU: u16 = 2;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const IFF_UP: u32 = 1;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const LINK_HEADER_LENGTH: usize = 16;
const ROUTE_HEADER_LENGTH: usize = 12;

/// Index of the loopback link in every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;
/// `IFNAMSIZ` without the final NUL.
pub const LINK_NAME_LENGTH_MAX: usize = 15;

/// A hardware address.
pub type HardwareAddress = [u8; 6];

/// How far an address or a route's destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Anywhere.
    Universe = 0,
    /// Directly on the link.
    Link = 253,
    /// This host only.
    Host = 254,
}

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RouteKind {
    /// Sends it on.
    Unicast = 1,
    /// Drops it and tells the sender that the host is unreachable.
    Unreachable = 7,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination and the length of its prefix.
    pub destination: (IpAddr, u8),
    /// What happens to a packet.
    pub kind: RouteKind,
    /// Scope of the destination.
    pub scope: Scope,
    /// Link to send on.
    pub link: Option<u32>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Address that this host's own packets carry.
    pub source: Option<IpAddr>,
    /// Largest packet, when it is smaller than the link's.
    pub mtu: Option<u32>,
}

impl Route {
    /// A route to `address` alone, directly on `link`.
    pub fn host(address: IpAddr, link: u32) -> Self {
        Self {
            destination: (address, host_prefix(address)),
            kind: RouteKind::Unicast,
            scope: Scope::Link,
            link: Some(link),
            gateway: None,
            source: None,
            mtu: None,
        }
    }

    /// The default IPv4 route over `gateway`.
    pub fn default_over(gateway: Ipv4Addr, link: u32) -> Self {
        Self {
            destination: (Ipv4Addr::UNSPECIFIED.into(), 0),
            kind: RouteKind::Unicast,
            scope: Scope::Universe,
            link: Some(link),
            gateway: Some(gateway.into()),
            source: None,
            mtu: None,
        }
    }

    /// A route that refuses everything to `destination` that no longer prefix takes.
    pub fn unreachable(destination: (IpAddr, u8)) -> Self {
        Self {
            destination,
            kind: RouteKind::Unreachable,
            scope: Scope::Universe,
            link: None,
            gateway: None,
            source: None,
            mtu: None,
        }
    }
}

/// One end of a veth pair.
#[derive(Debug, Clone)]
pub struct VethEnd<'a> {
    /// Link name.
    pub name: &'a str,
    /// Fixed hardware address, so that neighbours can be written down beforehand.
    pub hardware_address: HardwareAddress,
    /// Namespace to put it into; the socket's own when absent.
    pub namespace: Option<BorrowedFd<'a>>,
}

/// Adds a veth pair, both ends down. Both must be new.
///
/// A link that comes up before its peer gets its carrier from a work queue later, and drops what is sent until then. So
/// bring the far end up first and the near one last, and read the far one with [`links_named`] afterwards: since Linux 6.8
/// that waits for its carrier.
pub fn add_veth(messages: &mut Messages, near: &VethEnd<'_>, far: &VethEnd<'_>, mtu: u32) {
    messages.begin(RTM_NEWLINK, CREATE | EXCLUSIVE);
    messages.fixed(&link_header(0, 0, 0));
    veth_end(messages, near, mtu);
    messages.nested(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, b"veth");
        info.nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| {
                peer.fixed(&link_header(0, 0, 0));
                veth_end(peer, far, mtu);
            });
        });
    });
}

fn veth_end(messages: &mut Messages, end: &VethEnd<'_>, mtu: u32) {
    messages
        .text(IFLA_IFNAME, end.name)
        .number(IFLA_MTU, mtu)
        .attribute(IFLA_ADDRESS, &end.hardware_address);
    if let Some(namespace) = end.namespace {
        messages.number(IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
    }
}

/// Brings a link up.
pub fn set_link_up(messages: &mut Messages, index: u32) {
    messages.begin(RTM_SETLINK, 0);
    messages.fixed(&link_header(index, IFF_UP, IFF_UP));
}

/// Puts a link into a group, so that a whole group is deleted by one request.
pub fn set_link_group(messages: &mut Messages, name: &str, group: u32) {
    messages.begin(RTM_SETLINK, 0);
    messages
        .fixed(&link_header(0, 0, 0))
        .text(IFLA_IFNAME, name)
        .number(IFLA_GROUP, group);
}

/// Deletes a link by name, and its veth peer with it.
pub fn delete_link(messages: &mut Messages, name: &str) {
    messages.begin(RTM_DELLINK, 0);
    messages.fixed(&link_header(0, 0, 0)).text(IFLA_IFNAME, name);
}

/// Deletes all links of a group; the kernel waits for its readers once, not once a link.
pub fn delete_link_group(messages: &mut Messages, group: u32) {
    messages.begin(RTM_DELLINK, 0);
    messages.fixed(&link_header(0, 0, 0)).number(IFLA_GROUP, group);
}

/// Adds an address.
pub fn add_address(messages: &mut Messages, link: u32, address: IpAddr, prefix: u8, scope: Scope) {
    messages.begin(RTM_NEWADDR, CREATE | REPLACE);
    address_body(messages, link, address, prefix, scope);
}

/// Deletes an address.
pub fn delete_address(messages: &mut Messages, link: u32, address: IpAddr, prefix: u8) {
    messages.begin(RTM_DELADDR, 0);
    address_body(messages, link, address, prefix, Scope::Universe);
}

fn address_body(messages: &mut Messages, link: u32, address: IpAddr, prefix: u8, scope: Scope) {
    let mut header = vec![family(address), prefix, 0, scope as u8];
    header.extend_from_slice(&link.to_ne_bytes());
    let bytes = octets(address);
    messages
        .fixed(&header)
        .attribute(IFA_LOCAL, &bytes)
        .attribute(IFA_ADDRESS, &bytes);
}

/// Adds or replaces a route.
pub fn put_route(messages: &mut Messages, route: &Route) {
    messages.begin(RTM_NEWROUTE, CREATE | REPLACE);
    route_body(messages, route);
}

/// Deletes a route.
pub fn delete_route(messages: &mut Messages, route: &Route) {
    messages.begin(RTM_DELROUTE, 0);
    route_body(messages, route);
}

fn route_body(messages: &mut Messages, route: &Route) {
    let (address, prefix) = route.destination;
    let mut header = vec![
        family(address),
        prefix,
        0,
        0,
        TABLE_MAIN,
        PROTOCOL_STATIC,
        route.scope as u8,
        route.kind as u8,
    ];
    header.extend_from_slice(&0u32.to_ne_bytes());
    messages.fixed(&header);
    if prefix > 0 {
        messages.attribute(RTA_DST, &octets(address));
    }
    if let Some(link) = route.link {
        messages.number(RTA_OIF, link);
    }
    if let Some(gateway) = route.gateway {
        messages.attribute(RTA_GATEWAY, &octets(gateway));
    }
    if let Some(source) = route.source {
        messages.attribute(RTA_PREFSRC, &octets(source));
    }
    if let Some(mtu) = route.mtu {
        messages.nested(RTA_METRICS, |metrics| {
            metrics.number(RTAX_MTU, mtu);
        });
    }
}

/// Writes down a neighbour for good: nobody asks for it by ARP, nothing ages it.
pub fn put_neighbour(messages: &mut Messages, link: u32, address: IpAddr, hardware_address: HardwareAddress) {
    messages.begin(RTM_NEWNEIGH, CREATE | REPLACE);
    let mut header = vec![family(address), 0, 0, 0];
    header.extend_from_slice(&link.to_ne_bytes());
    header.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
    header.extend_from_slice(&[0, 0]);
    messages
        .fixed(&header)
        .attribute(NDA_DST, &octets(address))
        .attribute(NDA_LLADDR, &hardware_address);
}

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
}

/// All links of the socket's namespace.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let mut request = Messages::new();
    request.begin(RTM_GETLINK, DUMP);
    request.fixed(&link_header(0, 0, 0));
    Ok(socket.dump(&request)?.iter().filter_map(parse_link).collect())
}

/// The links of these names, in that order. One request for all; an absent link is a refusal with `ENODEV`.
pub fn links_named(socket: &mut Socket, names: &[&str]) -> Result<Vec<Link>, Error> {
    let mut request = Messages::new();
    for name in names {
        request.begin(RTM_GETLINK, 0);
        request.fixed(&link_header(0, 0, 0)).text(IFLA_IFNAME, name);
    }
    let last = request.count().saturating_sub(1);
    let answers = socket.transact_acknowledged(request, last)?;
    let found: Vec<Link> = answers.iter().filter_map(parse_link).collect();
    match found.len() == names.len() {
        true => Ok(found),
        false => Err(Error::Protocol("fewer links than were asked for")),
    }
}

fn parse_link(answer: &Answer) -> Option<Link> {
    if answer.kind != RTM_NEWLINK || answer.payload.len() < LINK_HEADER_LENGTH {
        return None;
    }
    let name = Attributes::value(&answer.payload[LINK_HEADER_LENGTH..], IFLA_IFNAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some(Link {
        index: read_u32(&answer.payload, 4),
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

/// The IPv4 host routes of the main table: destination and link.
pub fn host_routes(socket: &mut Socket) -> Result<Vec<(Ipv4Addr, u32)>, Error> {
    let mut request = Messages::new();
    request.begin(RTM_GETROUTE, DUMP);
    let mut header = [0u8; ROUTE_HEADER_LENGTH];
    header[0] = libc::AF_INET as u8;
    request.fixed(&header);
    Ok(socket.dump(&request)?.iter().filter_map(parse_host_route).collect())
}

fn parse_host_route(answer: &Answer) -> Option<(Ipv4Addr, u32)> {
    let payload = &answer.payload;
    let wanted = answer.kind == RTM_NEWROUTE
        && payload.len() >= ROUTE_HEADER_LENGTH
        && payload[0] == libc::AF_INET as u8
        && payload[1] == 32
        && payload[4] == TABLE_MAIN
        && payload[7] == RouteKind::Unicast as u8;
    if !wanted {
        return None;
    }
    let attributes = &payload[ROUTE_HEADER_LENGTH..];
    let destination: [u8; 4] = Attributes::value(attributes, RTA_DST)?.try_into().ok()?;
    let link = Attributes::value(attributes, RTA_OIF).filter(|value| value.len() == 4)?;
    Some((destination.into(), read_u32(link, 0)))
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER_LENGTH] {
    let mut header = [0; LINK_HEADER_LENGTH];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Family, HEADER_LENGTH};
    use crate::netns::NetworkNamespace;
    use std::os::fd::AsFd;

    #[test]
    fn a_default_route_is_written_as_ip_writes_it() {
        let mut messages = Messages::new();
        put_route(&mut messages, &Route::default_over(Ipv4Addr::new(169, 254, 1, 1), 7));
        let expect: Vec<u8> = [
            &[2u8, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0][..],
            &[8, 0, 4, 0, 7, 0, 0, 0],
            &[8, 0, 5, 0, 169, 254, 1, 1],
        ]
        .concat();
        assert_eq!(messages.finished()[HEADER_LENGTH..], expect);
    }

    #[test]
    fn the_kernel_takes_a_pair_an_address_routes_and_a_neighbour() {
        let host = NetworkNamespace::create().unwrap();
        let pod = NetworkNamespace::create().unwrap();
        let address = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
        let routes = host
            .run(|| {
                let mut socket = Socket::open(Family::Route).unwrap();
                let mut messages = Messages::new();
                let near = VethEnd {
                    name: "tri0",
                    hardware_address: [0xee; 6],
                    namespace: None,
                };
                let far = VethEnd {
                    name: "eth0",
                    hardware_address: [2, 0, 0, 0, 0, 1],
                    namespace: Some(pod.as_fd()),
                };
                add_veth(&mut messages, &near, &far, 1400);
                set_link_up(&mut messages, LOOPBACK_INDEX);
                socket.transact(messages).unwrap();

                let index = links_named(&mut socket, &["tri0"]).unwrap()[0].index;
                let mut messages = Messages::new();
                set_link_up(&mut messages, index);
                put_route(&mut messages, &Route::host(address, index));
                put_neighbour(&mut messages, index, address, [2, 0, 0, 0, 0, 1]);
                put_route(
                    &mut messages,
                    &Route::unreachable((Ipv4Addr::new(10, 1, 2, 0).into(), 24)),
                );
                add_address(
                    &mut messages,
                    LOOPBACK_INDEX,
                    Ipv4Addr::new(10, 0, 0, 1).into(),
                    32,
                    Scope::Universe,
                );
                socket.transact(messages).unwrap();
                let routes = host_routes(&mut socket).unwrap();
                assert_eq!(routes, [(Ipv4Addr::new(10, 1, 2, 3), index)]);

                let refused = links_named(&mut socket, &["absent"]).unwrap_err();
                assert_eq!(refused.errno(), Some(libc::ENODEV));

                let mut messages = Messages::new();
                set_link_group(&mut messages, "tri0", 77);
                delete_link_group(&mut messages, 77);
                socket.transact(messages).unwrap();
                links(&mut socket)
                    .unwrap()
                    .into_iter()
                    .map(|link| link.name)
                    .collect::<Vec<_>>()
            })
            .unwrap();
        assert_eq!(routes, ["lo"]);
    }
}
