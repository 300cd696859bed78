//! Connection tracking over netlink: reading the IPv4 entries of one protocol and deleting some.
//!
//! Needed for UDP only: a "connection" of UDP never ends while packets flow, so without this a client that keeps asking a
//! Service would be sent to a removed endpoint for ever (kube-proxy's `conntrack` cleanup does the same).

use std::net::Ipv4Addr;

use crate::netlink::{Answer, Attributes, DUMP, Error, Messages, Socket};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
const FAMILY_HEADER: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const ADDRESS_SOURCE: u16 = 1;
const ADDRESS_DESTINATION: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE: u16 = 2;
const PROTOCOL_DESTINATION: u16 = 3;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// `CTA_FILTER_F_CTA_PROTO_NUM` of the kernel's `nf_internals.h`.
const FILTER_BY_PROTOCOL: u32 = 1 << 3;

/// One direction of a tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Transport protocol number.
    pub protocol: u8,
    /// Source address and port.
    pub source: (Ipv4Addr, u16),
    /// Destination address and port.
    pub destination: (Ipv4Addr, u16),
}

/// A tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// As the client sends it.
    pub original: Tuple,
    /// As the answers come back: their source is where the connection really goes.
    pub reply: Tuple,
}

/// The IPv4 connections of a transport protocol. The kernel picks them (since 5.8), so that a hundred thousand TCP
/// connections cost nothing when a few of UDP are asked for.
pub fn connections(socket: &mut Socket, protocol: u8) -> Result<Vec<Connection>, Error> {
    let mut request = Messages::new();
    request.begin((SUBSYSTEM << 8) | GET, DUMP);
    request.fixed(&FAMILY_HEADER);
    request.nested(TUPLE_ORIGINAL, |tuple| {
        tuple.nested(TUPLE_PROTOCOL, |inner| {
            inner.attribute(PROTOCOL_NUMBER, &[protocol]);
        });
    });
    request.nested(FILTER, |filter| {
        filter
            .number(FILTER_ORIGINAL, FILTER_BY_PROTOCOL)
            .number(FILTER_REPLY, 0);
    });
    let answers = socket.dump(&request)?;
    // An older kernel does not know the filter and sends all.
    Ok(answers
        .iter()
        .filter_map(parse)
        .filter(|connection| connection.original.protocol == protocol)
        .collect())
}

/// Deletes the IPv4 connections of a protocol that `unwanted` picks; returns how many. One that ended meanwhile is fine.
pub fn delete_where(socket: &mut Socket, protocol: u8, unwanted: impl Fn(&Connection) -> bool) -> Result<usize, Error> {
    let mut messages = Messages::new();
    for connection in connections(socket, protocol)?
        .iter()
        .filter(|connection| unwanted(connection))
    {
        messages.begin((SUBSYSTEM << 8) | DELETE, 0);
        messages.fixed(&FAMILY_HEADER);
        messages.nested(TUPLE_ORIGINAL, |tuple| write_tuple(tuple, &connection.original));
    }
    let count = messages.count();
    match socket.transact(messages) {
        Ok(()) => Ok(count),
        Err(Error::Refused(refusals)) if refusals.iter().all(|refusal| refusal.errno == libc::ENOENT) => {
            Ok(count - refusals.len())
        }
        Err(error) => Err(error),
    }
}

fn write_tuple(message: &mut Messages, tuple: &Tuple) {
    message.nested(TUPLE_ADDRESSES, |addresses| {
        addresses.attribute(ADDRESS_SOURCE, &tuple.source.0.octets());
        addresses.attribute(ADDRESS_DESTINATION, &tuple.destination.0.octets());
    });
    message.nested(TUPLE_PROTOCOL, |protocol| {
        protocol.attribute(PROTOCOL_NUMBER, &[tuple.protocol]);
        protocol.attribute(PROTOCOL_SOURCE, &tuple.source.1.to_be_bytes());
        protocol.attribute(PROTOCOL_DESTINATION, &tuple.destination.1.to_be_bytes());
    });
}

fn parse(answer: &Answer) -> Option<Connection> {
    if answer.kind != (SUBSYSTEM << 8) | NEW {
        return None;
    }
    let attributes = answer.payload.get(FAMILY_HEADER.len()..)?;
    Some(Connection {
        original: parse_tuple(Attributes::value(attributes, TUPLE_ORIGINAL)?)?,
        reply: parse_tuple(Attributes::value(attributes, TUPLE_REPLY)?)?,
    })
}

fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    let addresses = Attributes::value(bytes, TUPLE_ADDRESSES)?;
    let protocol = Attributes::value(bytes, TUPLE_PROTOCOL)?;
    let address = |kind| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = Attributes::value(addresses, kind)?.try_into().ok()?;
        Some(octets.into())
    };
    let port = |kind| -> Option<u16> { Some(u16::from_be_bytes(Attributes::value(protocol, kind)?.try_into().ok()?)) };
    Some(Tuple {
        protocol: *Attributes::value(protocol, PROTOCOL_NUMBER)?.first()?,
        // ICMP has no ports; its entries are not of interest, but must not hide others.
        source: (address(ADDRESS_SOURCE)?, port(PROTOCOL_SOURCE).unwrap_or(0)),
        destination: (address(ADDRESS_DESTINATION)?, port(PROTOCOL_DESTINATION).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::HEADER_LENGTH;

    #[test]
    fn tuples_survive_a_round_trip() {
        let original = Tuple {
            protocol: 17,
            source: (Ipv4Addr::new(10, 244, 0, 2), 40000),
            destination: (Ipv4Addr::new(10, 96, 0, 10), 53),
        };
        let reply = Tuple {
            protocol: 17,
            source: (Ipv4Addr::new(10, 244, 0, 3), 5353),
            destination: original.source,
        };
        let mut messages = Messages::new();
        messages.begin((SUBSYSTEM << 8) | NEW, 0);
        messages.fixed(&FAMILY_HEADER);
        messages.nested(TUPLE_ORIGINAL, |tuple| write_tuple(tuple, &original));
        messages.nested(TUPLE_REPLY, |tuple| write_tuple(tuple, &reply));
        let payload = messages.finished()[HEADER_LENGTH..].to_vec();
        assert_eq!(
            parse(&Answer { kind: 0x100, payload }),
            Some(Connection { original, reply })
        );
    }
}
