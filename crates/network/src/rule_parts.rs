//! Pieces of packet rules that the tables of services and policies have in common.

use ipnet::Ipv4Net;
use sys::nftables::{Base, Batch, ChainKind, Expression, HeaderBase, Hook, MetaKey, Register};

/// Where the source address stands in an IPv4 header.
pub(crate) const SOURCE_ADDRESS: u32 = 12;
/// Where the destination address stands in an IPv4 header.
pub(crate) const DESTINATION_ADDRESS: u32 = 16;
/// Where the destination port stands in the headers of TCP, UDP and SCTP.
const DESTINATION_PORT: u32 = 2;

/// Makes a base chain.
pub(crate) fn base_chain(batch: &mut Batch, name: &str, kind: ChainKind, hook: Hook, priority: i32) {
    batch.add_chain(name, Some(Base { kind, hook, priority }));
}

/// The packet's address at this offset is in the range.
pub(crate) fn within(offset: u32, range: Ipv4Net) -> Vec<Expression> {
    vec![
        address(offset, 0),
        Expression::Mask {
            from: Register(0),
            to: Register(0),
            mask: range.netmask().octets().to_vec(),
        },
        equal(Register(0), &range.network().octets()),
    ]
}

/// Reads the packet's address at this offset.
pub(crate) fn address(offset: u32, to: u8) -> Expression {
    Expression::Payload {
        base: HeaderBase::Network,
        offset,
        length: 4,
        to: Register(to),
    }
}

/// Reads the packet's transport protocol.
pub(crate) fn transport_protocol(to: Register) -> Expression {
    Expression::Meta {
        key: MetaKey::TransportProtocol,
        to,
    }
}

/// Goes on when the register has this value.
pub(crate) fn equal(register: Register, value: &[u8]) -> Expression {
    Expression::Compare {
        register,
        equal: true,
        value: value.to_vec(),
    }
}

/// Reads the packet's destination port.
pub(crate) fn destination_port(to: u8) -> Expression {
    Expression::Payload {
        base: HeaderBase::Transport,
        offset: DESTINATION_PORT,
        length: 2,
        to: Register(to),
    }
}
