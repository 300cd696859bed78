//! Addresses and networks: `ip('10.0.0.1').family()`, `cidr('10.0.0.0/8').containsIP('10.0.0.1')`.
//! Sources: `pkg/cel/library/ip.go` and `cidr.go` of the API server.

use std::fmt;
use std::net::IpAddr;

use super::Native::Plain;
use super::opaque::Opaque;
use super::strings::text;
use super::{Line, Outcome, no_overload};
use crate::program::Error;
use crate::value::Value;

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("string_to_ip", "ip(string) -> net.IP", Plain(ip)),
    ("ip_family", "net.IP::family() -> int", Plain(family)),
    ("ip_is_canonical", "ip.isCanonical(string) -> bool", Plain(is_canonical)),
    ("ip_is_unspecified", "net.IP::isUnspecified() -> bool", Plain(is_unspecified)),
    ("ip_is_loopback", "net.IP::isLoopback() -> bool", Plain(is_loopback)),
    ("ip_is_link_local_multicast", "net.IP::isLinkLocalMulticast() -> bool", Plain(is_link_local_multicast)),
    ("ip_is_link_local_unicast", "net.IP::isLinkLocalUnicast() -> bool", Plain(is_link_local_unicast)),
    ("ip_is_global_unicast", "net.IP::isGlobalUnicast() -> bool", Plain(is_global_unicast)),
    ("is_ip", "isIP(string) -> bool", Plain(is_ip)),
    ("ip_to_string", "string(net.IP) -> string", Plain(to_string)),
    ("string_to_cidr", "cidr(string) -> net.CIDR", Plain(cidr)),
    ("cidr_contains_ip_string", "net.CIDR::containsIP(string) -> bool", Plain(contains_ip)),
    ("cidr_contains_ip_ip", "net.CIDR::containsIP(net.IP) -> bool", Plain(contains_ip)),
    ("cidr_contains_cidr_string", "net.CIDR::containsCIDR(string) -> bool", Plain(contains_cidr)),
    ("cidr_contains_cidr", "net.CIDR::containsCIDR(net.CIDR) -> bool", Plain(contains_cidr)),
    ("cidr_ip", "net.CIDR::ip() -> net.IP", Plain(cidr_ip)),
    ("cidr_prefix_length", "net.CIDR::prefixLength() -> int", Plain(prefix_length)),
    ("cidr_masked", "net.CIDR::masked() -> net.CIDR", Plain(masked)),
    ("is_cidr", "isCIDR(string) -> bool", Plain(is_cidr)),
    ("cidr_to_string", "string(net.CIDR) -> string", Plain(to_string)),
];

/// An address with the length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.address, self.prefix)
    }
}

/// An address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl Network {
    /// Bytes of the network part: its size as upstream counts it.
    pub(crate) fn size(&self) -> usize {
        usize::from(self.prefix.div_ceil(8))
    }

    fn contains(&self, address: IpAddr) -> bool {
        let ((own, length), (other, other_length)) = (bits(self.address), bits(address));
        let rest = u32::from(length - self.prefix);
        length == other_length && own.checked_shr(rest) == other.checked_shr(rest)
    }

    fn masked(&self) -> Network {
        let (own, length) = bits(self.address);
        let rest = u32::from(length - self.prefix);
        let kept = own
            .checked_shr(rest)
            .and_then(|kept| kept.checked_shl(rest))
            .unwrap_or(0);
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(kept).unwrap_or_default().into()),
            IpAddr::V6(_) => IpAddr::V6(kept.into()),
        };
        Network {
            address,
            prefix: self.prefix,
        }
    }
}

/// Bytes of an address: its size as upstream counts it.
pub(crate) fn address_size(address: IpAddr) -> usize {
    if address.is_ipv4() { 4 } else { 16 }
}

fn parse_ip(raw: &str) -> Result<IpAddr, String> {
    if let Some((before, zone)) = raw.split_once('%')
        && before.contains(':')
        && !zone.is_empty()
    {
        return Err(format!("IP address {raw:?} with zone value is not allowed"));
    }
    let Ok(address) = raw.parse::<IpAddr>() else {
        let why = format!("ParseAddr({raw:?}): unable to parse IP");
        return Err(format!(
            "IP Address {raw:?} parse error during conversion from string: {why}"
        ));
    };
    not_mapped(raw, address)?;
    Ok(address)
}

fn not_mapped(raw: &str, address: IpAddr) -> Result<(), String> {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {raw:?} is not allowed"))
        }
        _ => Ok(()),
    }
}

fn parse_cidr(raw: &str) -> Result<Network, String> {
    let error = |why: String| {
        format!("network address parse error during conversion from string: netip.ParsePrefix({raw:?}): {why}")
    };
    let Some((address, length)) = raw.rsplit_once('/') else {
        return Err(error("no '/'".into()));
    };
    let parsed: IpAddr = address
        .parse()
        .map_err(|_| error(format!("ParseAddr({address:?}): unable to parse IP")))?;
    let canonical = length == "0" || !length.starts_with(['0', '+', '-']);
    let prefix = length.parse::<u8>().ok().filter(|_| canonical);
    let prefix = prefix.ok_or_else(|| error(format!("bad bits after slash: {length:?}")))?;
    if prefix > bits(parsed).1 {
        return Err(error("prefix length out of range".into()));
    }
    not_mapped(raw, parsed)?;
    Ok(Network {
        address: parsed,
        prefix,
    })
}

fn address(value: &Value<'_>) -> Result<IpAddr, Error> {
    match value {
        Value::Opaque(Opaque::Ip(address)) => Ok(*address),
        Value::String(text) => parse_ip(text).map_err(Error::evaluation),
        _ => Err(no_overload()),
    }
}

fn network(value: &Value<'_>) -> Result<Network, Error> {
    match value {
        Value::Opaque(Opaque::Cidr(network)) => Ok(*network),
        Value::String(text) => parse_cidr(text).map_err(|why| {
            Error::evaluation(format!(
                "network address parse error during conversion from string: {why}"
            ))
        }),
        _ => Err(no_overload()),
    }
}

fn ip<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Opaque(Opaque::Ip(address(&arguments[0])?)))
}

fn family<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(if address(&arguments[0])?.is_ipv4() { 4 } else { 6 }))
}

fn is_canonical<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let address = address(&arguments[0])?;
    Ok(Value::Bool(address.to_string() == text(&arguments[0])?))
}

fn is_unspecified<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(address(&arguments[0])?.is_unspecified()))
}

fn is_loopback<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(address(&arguments[0])?.is_loopback()))
}

fn is_link_local_multicast<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(match address(&arguments[0])? {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }))
}

fn link_local_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_link_local_unicast<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    address(&arguments[0]).map(|address| Value::Bool(link_local_unicast(address)))
}

/// As Go has it: private addresses are global too.
fn is_global_unicast<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let address = address(&arguments[0])?;
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let special =
        address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local_unicast(address);
    Ok(Value::Bool(!broadcast && !special))
}

fn is_ip<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(parse_ip(text(&arguments[0])?).is_ok()))
}

fn to_string<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    match &arguments[0] {
        Value::Opaque(value) => value.text().map(Value::from).ok_or_else(no_overload),
        _ => Err(no_overload()),
    }
}

fn cidr<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Opaque(Opaque::Cidr(network(&arguments[0])?)))
}

fn contains_ip<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(network(&arguments[0])?.contains(address(&arguments[1])?)))
}

fn contains_cidr<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (outer, inner) = (network(&arguments[0])?, network(&arguments[1])?);
    Ok(Value::Bool(
        outer.prefix <= inner.prefix && outer.contains(inner.address),
    ))
}

fn cidr_ip<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Opaque(Opaque::Ip(network(&arguments[0])?.address)))
}

fn prefix_length<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(i64::from(network(&arguments[0])?.prefix)))
}

fn masked<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Opaque(Opaque::Cidr(network(&arguments[0])?.masked())))
}

fn is_cidr<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(parse_cidr(text(&arguments[0])?).is_ok()))
}
