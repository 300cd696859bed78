//! The expressions of nftables rules, and how each is written. Part of [`crate::nftables`], which says why.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`.

use crate::netlink::Messages;
use crate::nftables::TableFamily;

/// `NFT_GOTO` and `NFT_JUMP`.
const VERDICT_JUMP: i32 = -3;
const VERDICT_GOTO: i32 = -4;
const VERDICT_RETURN: i32 = -5;
const REGISTER_VERDICT: u32 = 0;
/// `NFT_CT_STATE`.
const CONNECTION_STATE: u32 = 0;
/// `NFT_RANGE_EQ`.
const RANGE_INSIDE: u32 = 0;

/// The packet belongs to no connection that the kernel can make out.
pub const STATE_INVALID: u32 = 1;
/// The packet is kept out of connection tracking.
pub const STATE_UNTRACKED: u32 = 1 << 6;

/// A four-byte register, 0 to 15; longer values take several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}
/// What a rule or a map's value decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on to the next base chain.
    Accept,
    /// The packet is gone.
    Drop,
    /// Back to the calling chain.
    Return,
    /// To a chain, and back.
    Jump(String),
    /// To a chain, not back.
    Goto(String),
}

/// Which header a payload expression reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum HeaderBase {
    /// IP.
    Network = 1,
    /// TCP, UDP, SCTP.
    Transport = 2,
}

/// What a meta expression reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MetaKey {
    /// Name of the link it came in on, 16 bytes.
    InputName = 6,
    /// Name of the link it leaves on, 16 bytes.
    OutputName = 7,
    /// Transport protocol, one byte.
    TransportProtocol = 16,
}

/// What an expression reads of the connection that a packet belongs to. A rule ends where there is none: the packet is not
/// tracked, or belongs to no connection that the kernel can make out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ConnectionKey {
    /// Transport protocol, one byte.
    Protocol = 10,
    /// Source port, two bytes.
    SourcePort = 11,
    /// IPv4 source address.
    SourceAddress = 19,
}

/// The side of a connection that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// What the client sends, before any translation.
    Original = 0,
    /// What the answers would be: their source is where the connection really goes.
    Reply = 1,
}

/// What a rule does with an element of a learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Learn {
    /// Adds it; goes on when it is there then.
    Add = 0,
    /// Adds it, or begins its time anew.
    Update = 1,
    /// Deletes it if it is there.
    Delete = 2,
}

/// One step of a rule; a rule ends at the first step that does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Reads bytes of the packet.
    Payload {
        /// Header.
        base: HeaderBase,
        /// Offset in it.
        offset: u32,
        /// Bytes.
        length: u32,
        /// Where to.
        to: Register,
    },
    /// Reads something about the packet.
    Meta {
        /// What.
        key: MetaKey,
        /// Where to.
        to: Register,
    },
    /// Reads something about the connection.
    Connection {
        /// What.
        key: ConnectionKey,
        /// Of which side.
        direction: Direction,
        /// Where to.
        to: Register,
    },
    /// Reads how a packet relates to connections: a set of `STATE_` bits in the machine's order. Also where there is none.
    ConnectionState {
        /// Where to.
        to: Register,
    },
    /// Goes on when the register is between both values, which are compared byte by byte.
    Range {
        /// Register.
        register: Register,
        /// The first that is in it.
        first: Vec<u8>,
        /// The last that is in it.
        last: Vec<u8>,
    },
    /// Goes on when the register equals (or does not) the value.
    Compare {
        /// Register.
        register: Register,
        /// Whether it must equal.
        equal: bool,
        /// Value.
        value: Vec<u8>,
    },
    /// `to = from & mask`.
    Mask {
        /// From.
        from: Register,
        /// To.
        to: Register,
        /// Mask; its length is the value's.
        mask: Vec<u8>,
    },
    /// Goes on when the value in the registers is in the set.
    InSet {
        /// Set.
        set: String,
        /// First register of the key.
        key: Register,
    },
    /// Reads a map's value for a key; goes on when there is one.
    Map {
        /// Map.
        map: String,
        /// First register of the key.
        key: Register,
        /// First register of the value.
        to: Register,
    },
    /// Writes an element of a learned map.
    Learn {
        /// What to do.
        operation: Learn,
        /// Map.
        map: String,
        /// First register of the key.
        key: Register,
        /// First register of the value; ignored by a deletion.
        value: Register,
        /// How long the element lasts; ignored by a deletion.
        lifetime_ms: u64,
    },
    /// Follows the verdict a map has for a key.
    VerdictMap {
        /// Map.
        map: String,
        /// First register of the key.
        key: Register,
    },
    /// A random number below `modulus`, in the machine's order.
    Random {
        /// Modulus.
        modulus: u32,
        /// Where to.
        to: Register,
    },
    /// Changes the destination for the connection.
    DestinationNat {
        /// Register of the address.
        address: Register,
        /// Register of the port.
        port: Register,
    },
    /// Changes the source address for the connection.
    SourceNat {
        /// Register of the address.
        address: Register,
    },
    /// Changes the source address to the outgoing link's.
    Masquerade,
    /// Puts a constant into a register.
    Constant {
        /// Value.
        value: Vec<u8>,
        /// Where to.
        to: Register,
    },
    /// Decides.
    Verdict(Verdict),
    /// Answers with a TCP reset.
    RejectTcp,
    /// Answers with an ICMP unreachable of this code.
    RejectIcmp(u8),
    /// Keeps connection tracking off the packet.
    NoTrack,
}
pub(crate) fn write_verdict(data: &mut Messages, verdict: &Verdict) {
    data.nested(2, |inner| match verdict {
        Verdict::Accept => {
            inner.number_be(1, 1);
        }
        Verdict::Drop => {
            inner.number_be(1, 0);
        }
        Verdict::Return => {
            inner.number_be(1, VERDICT_RETURN as u32);
        }
        Verdict::Jump(chain) => {
            inner.number_be(1, VERDICT_JUMP as u32).text(2, chain);
        }
        Verdict::Goto(chain) => {
            inner.number_be(1, VERDICT_GOTO as u32).text(2, chain);
        }
    });
}

pub(crate) fn write_expression(element: &mut Messages, expression: &Expression) {
    let name = match expression {
        Expression::Payload { .. } => "payload",
        Expression::Meta { .. } => "meta",
        Expression::Connection { .. } | Expression::ConnectionState { .. } => "ct",
        Expression::Range { .. } => "range",
        Expression::Compare { .. } => "cmp",
        Expression::Mask { .. } => "bitwise",
        Expression::InSet { .. } | Expression::Map { .. } | Expression::VerdictMap { .. } => "lookup",
        Expression::Learn { .. } => "dynset",
        Expression::Random { .. } => "numgen",
        Expression::DestinationNat { .. } | Expression::SourceNat { .. } => "nat",
        Expression::Masquerade => "masq",
        Expression::Constant { .. } | Expression::Verdict(_) => "immediate",
        Expression::RejectTcp | Expression::RejectIcmp(_) => "reject",
        Expression::NoTrack => "notrack",
    };
    element.text(1, name);
    if matches!(expression, Expression::Masquerade | Expression::NoTrack) {
        return;
    }
    element.nested(2, |data| write_expression_data(data, expression));
}

fn write_expression_data(data: &mut Messages, expression: &Expression) {
    match expression {
        Expression::Payload {
            base,
            offset,
            length,
            to,
        } => {
            data.number_be(1, to.number())
                .number_be(2, *base as u32)
                .number_be(3, *offset)
                .number_be(4, *length);
        }
        Expression::Meta { key, to } => {
            data.number_be(1, to.number()).number_be(2, *key as u32);
        }
        Expression::Connection { key, direction, to } => {
            data.number_be(1, to.number()).number_be(2, *key as u32);
            data.attribute(3, &[*direction as u8]);
        }
        Expression::ConnectionState { to } => {
            data.number_be(1, to.number()).number_be(2, CONNECTION_STATE);
        }
        Expression::Range { register, first, last } => {
            data.number_be(1, register.number()).number_be(2, RANGE_INSIDE);
            write_value(data, 3, first);
            write_value(data, 4, last);
        }
        Expression::Compare { register, equal, value } => {
            data.number_be(1, register.number()).number_be(2, u32::from(!equal));
            write_value(data, 3, value);
        }
        Expression::Mask { from, to, mask } => {
            data.number_be(1, from.number())
                .number_be(2, to.number())
                .number_be(3, mask.len() as u32);
            write_value(data, 4, mask);
            write_value(data, 5, &vec![0; mask.len()]);
        }
        Expression::InSet { set, key } => {
            data.text(1, set).number_be(2, key.number());
        }
        Expression::Map { map, key, to } => {
            data.text(1, map).number_be(2, key.number()).number_be(3, to.number());
        }
        Expression::Learn {
            operation,
            map,
            key,
            value,
            lifetime_ms,
        } => {
            data.text(1, map)
                .number_be(3, *operation as u32)
                .number_be(4, key.number());
            // A map's value register is asked for even where it is not read.
            data.number_be(5, value.number());
            if *operation != Learn::Delete {
                data.attribute(6, &lifetime_ms.to_be_bytes());
            }
        }
        Expression::VerdictMap { map, key } => {
            data.text(1, map)
                .number_be(2, key.number())
                .number_be(3, REGISTER_VERDICT);
        }
        Expression::Random { modulus, to } => {
            data.number_be(1, to.number()).number_be(2, *modulus).number_be(3, 1);
        }
        Expression::DestinationNat { address, port } => {
            data.number_be(1, 1).number_be(2, TableFamily::Ip as u32);
            data.number_be(3, address.number()).number_be(5, port.number());
        }
        Expression::SourceNat { address } => {
            data.number_be(1, 0)
                .number_be(2, TableFamily::Ip as u32)
                .number_be(3, address.number());
        }
        Expression::Constant { value, to } => {
            data.number_be(1, to.number());
            write_value(data, 2, value);
        }
        Expression::Verdict(verdict) => {
            data.number_be(1, REGISTER_VERDICT);
            data.nested(2, |inner| write_verdict(inner, verdict));
        }
        Expression::RejectTcp => {
            data.number_be(1, 1);
        }
        Expression::RejectIcmp(code) => {
            data.number_be(1, 0).attribute(2, &[*code]);
        }
        Expression::Masquerade | Expression::NoTrack => {}
    }
}

fn write_value(data: &mut Messages, kind: u16, value: &[u8]) {
    data.nested(kind, |inner| {
        inner.attribute(1, value);
    });
}
