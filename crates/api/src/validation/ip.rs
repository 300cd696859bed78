//! IP addresses and ranges.
//!
//! Three rules live side by side: sloppy (what Go read before 1.17: leading zeros, IPv4 inside IPv6), strict for
//! old fields, and canonical for new ones. Source: `k8s.io/apimachinery/pkg/util/validation/ip.go`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::field::{Error, ErrorList, Path, quote};

const BAD_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const BAD_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const BAD_INTERFACE: &str = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
/// Numbers in addresses end here, as in Go.
const NUMBER_MAX: u32 = 0xFF_FFFF;

/// An address by the old rules; IPv4 inside IPv6 comes out as IPv4.
pub fn parse_ip_sloppy(text: &str) -> Option<IpAddr> {
    Some(parse_sloppy(text)?.to_canonical())
}

/// An address with its prefix length by the old rules, as written (IPv4 inside IPv6 stays IPv6).
pub fn parse_cidr_sloppy(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = parse_v4(address)
        .map(IpAddr::V4)
        .or_else(|| parse_v6(address).map(IpAddr::V6))?;
    let (number, digits) = leading_number(length, 10)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (digits == length.len() && number <= bits).then_some((address, number as u8))
}

/// An address of a field made today: strict and canonical.
pub fn ip(path: &Path, value: &str) -> ErrorList {
    let (address, mut errors) = check_ip(path, value, true);
    if let Some(address) = address.filter(|_| errors.is_empty()) {
        errors.extend(not_canonical(path, value, &address.to_string()));
    }
    errors
}

/// An address of an old field, which need not be canonical. Values of the old object are let through.
pub fn ip_legacy(path: &Path, value: &str, strict: bool, old_values: &[&str]) -> ErrorList {
    if old_values.contains(&value) {
        return Vec::new();
    }
    check_ip(path, value, strict).1
}

/// Warnings about an address that an old field accepts.
pub fn ip_warnings(path: &Path, value: &str) -> Vec<String> {
    let Some(address) = parse_ip_sloppy(value) else {
        return Vec::new();
    };
    match value.parse::<IpAddr>() {
        Ok(strict) if !is_v4_in_v6(strict) => {
            let canonical = strict.to_string();
            if strict.is_ipv4() || canonical == value {
                return Vec::new();
            }
            let (value, canonical) = (quote(value), quote(&canonical));
            vec![format!(
                "{path}: IPv6 address {value} should be in RFC 5952 canonical format ({canonical})"
            )]
        }
        _ => {
            let (value, better) = (quote(value), quote(&address.to_string()));
            vec![format!(
                "{path}: non-standard IP address {value} is invalid: use {better}"
            )]
        }
    }
}

/// A range of a field made today: strict and canonical.
pub fn cidr(path: &Path, value: &str) -> ErrorList {
    let (range, mut errors) = check_cidr(path, value, true);
    if let Some(range) = range.filter(|_| errors.is_empty()) {
        errors.extend(not_canonical(path, value, &network(range)));
    }
    errors
}

/// A range of an old field. Values of the old object are let through.
pub fn cidr_legacy(path: &Path, value: &str, strict: bool, old_values: &[&str]) -> ErrorList {
    if old_values.contains(&value) {
        return Vec::new();
    }
    check_cidr(path, value, strict).1
}

/// Warnings about a range that an old field accepts.
pub fn cidr_warnings(path: &Path, value: &str) -> Vec<String> {
    let Some((address, length)) = parse_cidr_sloppy(value) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    let (shown, range) = (quote(value), network((address, length)));
    if masked(address, length) != address {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let single = quote(&format!("{}/{bits}", address.to_canonical()));
        let range = quote(&range);
        warnings.push(format!(
            "{path}: CIDR value {shown} is ambiguous in this context (should be {range} or {single}?)"
        ));
    }
    let strict = parse_prefix(value);
    if strict.is_none_or(|(address, _)| is_v4_in_v6(address)) {
        let range = quote(&range);
        warnings.push(format!(
            "{path}: non-standard CIDR value {shown} is invalid: use {range}"
        ));
    }
    if let (true, Some((address, length))) = (warnings.is_empty(), strict) {
        let canonical = format!("{address}/{length}");
        if address.is_ipv6() && canonical != value {
            let canonical = quote(&canonical);
            warnings.push(format!(
                "{path}: IPv6 CIDR value {shown} should be in RFC 5952 canonical format ({canonical})"
            ));
        }
    }
    warnings
}

/// An address with the length of its network, as `ip addr` shows it.
pub fn interface_address(path: &Path, value: &str) -> ErrorList {
    let Some((address, length)) = parse_cidr_sloppy(value) else {
        return vec![Error::invalid(path, value, BAD_INTERFACE)];
    };
    let shorter = if is_v4_in_v6(address) && length > 32 {
        length - 96.min(length)
    } else {
        length
    };
    let canonical = format!("{}/{shorter}", address.to_canonical());
    not_canonical(path, value, &canonical).into_iter().collect()
}

fn not_canonical(path: &Path, value: &str, canonical: &str) -> Option<Error> {
    let detail = || format!("must be in canonical form ({})", quote(canonical));
    (value != canonical).then(|| Error::invalid(path, value, detail()))
}

fn check_ip(path: &Path, value: &str, strict: bool) -> (Option<IpAddr>, ErrorList) {
    let Some(address) = parse_ip_sloppy(value) else {
        return (None, vec![Error::invalid(path, value, BAD_IP)]);
    };
    let mut errors = Vec::new();
    if strict {
        match value.parse::<IpAddr>() {
            Err(_) => errors.push(Error::invalid(path, value, "must not have leading 0s")),
            Ok(strict) if is_v4_in_v6(strict) => {
                errors.push(Error::invalid(path, value, "must not be an IPv4-mapped IPv6 address"));
            }
            Ok(_) => {}
        }
    }
    (Some(address), errors)
}

fn check_cidr(path: &Path, value: &str, strict: bool) -> (Option<(IpAddr, u8)>, ErrorList) {
    let Some(range) = parse_cidr_sloppy(value) else {
        return (None, vec![Error::invalid(path, value, BAD_CIDR)]);
    };
    let detail = match parse_prefix(value) {
        _ if !strict => None,
        None => Some("must not have leading 0s in IP or prefix length"),
        Some((address, _)) if is_v4_in_v6(address) => Some("must not have an IPv4-mapped IPv6 address"),
        Some((address, length)) if masked(address, length) != address => {
            Some("must not have bits set beyond the prefix length")
        }
        Some(_) => None,
    };
    let errors = detail.map(|detail| Error::invalid(path, value, detail));
    (Some(range), errors.into_iter().collect())
}

fn is_v4_in_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// The network as Go prints it: IPv4 inside IPv6 with the length that is left for IPv4.
fn network((address, length): (IpAddr, u8)) -> String {
    let masked = masked(address, length);
    if is_v4_in_v6(masked) {
        return format!("{}/{}", masked.to_canonical(), length.saturating_sub(96));
    }
    format!("{masked}/{length}")
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// A range by today's strict rules.
fn parse_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.rsplit_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let canonical = length == "0" || !length.starts_with('0');
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| canonical && digits)?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

fn parse_sloppy(text: &str) -> Option<IpAddr> {
    match text.bytes().find(|byte| matches!(byte, b'.' | b':'))? {
        b'.' => parse_v4(text).map(IpAddr::V4),
        _ => parse_v6(text).map(IpAddr::V6),
    }
}

/// Four decimal numbers, leading zeros allowed.
fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut rest = text;
    for (index, octet) in octets.iter_mut().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('.')?;
        }
        let (number, length) = leading_number(rest, 10)?;
        *octet = u8::try_from(number).ok()?;
        rest = &rest[length..];
    }
    rest.is_empty().then(|| octets.into())
}

/// Groups of hexadecimal digits, any number of leading zeros allowed, IPv4 at the end.
fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    let mut groups: Vec<u16> = Vec::with_capacity(8);
    let mut ellipsis = None;
    let mut rest = text;
    if let Some(after) = rest.strip_prefix("::") {
        (ellipsis, rest) = (Some(0), after);
    }
    while groups.len() < 8 && !(rest.is_empty() && ellipsis == Some(groups.len())) {
        let (number, length) = leading_number(rest, 16)?;
        let group = u16::try_from(number).ok()?;
        if rest[length..].starts_with('.') {
            if groups.len() > 6 || (ellipsis.is_none() && groups.len() != 6) {
                return None;
            }
            let bits = parse_v4(rest)?.to_bits();
            groups.extend([(bits >> 16) as u16, bits as u16]);
            rest = "";
            break;
        }
        groups.push(group);
        rest = &rest[length..];
        if rest.is_empty() {
            break;
        }
        rest = rest.strip_prefix(':').filter(|rest| !rest.is_empty())?;
        if let Some(after) = rest.strip_prefix(':') {
            if ellipsis.is_some() {
                return None;
            }
            (ellipsis, rest) = (Some(groups.len()), after);
        }
    }
    // The ellipsis stands for at least one group.
    let missing = 8usize.checked_sub(groups.len())?;
    if !rest.is_empty() || ellipsis.is_some() != (missing > 0) {
        return None;
    }
    if let Some(at) = ellipsis {
        groups.splice(at..at, std::iter::repeat_n(0, missing));
    }
    let groups: [u16; 8] = groups.try_into().ok()?;
    Some(groups.into())
}

/// The number at the start and its length.
fn leading_number(text: &str, radix: u32) -> Option<(u32, usize)> {
    let mut number = 0;
    let mut length = 0;
    for c in text.chars() {
        let Some(digit) = c.to_digit(radix) else { break };
        number = number * radix + digit;
        length += 1;
        if number >= NUMBER_MAX {
            return None;
        }
    }
    (length > 0).then_some((number, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(errors: ErrorList) -> String {
        errors.first().map(|error| error.detail.clone()).unwrap_or_default()
    }

    /// A value, and what the canonical, the strict and the legacy rule say of it first.
    type Judged = (&'static str, &'static str, &'static str, &'static str);

    fn judge(
        cases: &[Judged],
        canonical: fn(&Path, &str) -> ErrorList,
        legacy: fn(&Path, &str, bool, &[&str]) -> ErrorList,
    ) {
        let path = Path::new("f");
        for &(value, by_canonical, by_strict, by_legacy) in cases {
            assert_eq!(first(canonical(&path, value)), by_canonical, "{value}");
            assert_eq!(first(legacy(&path, value, true, &[])), by_strict, "{value}");
            assert_eq!(first(legacy(&path, value, false, &[])), by_legacy, "{value}");
            // What is there already is not judged again.
            assert_eq!(first(legacy(&path, value, true, &[value])), "", "{value}");
        }
    }

    #[test]
    fn addresses_are_judged_by_all_three_rules() {
        const ZEROS: &str = "must not have leading 0s";
        const MAPPED: &str = "must not be an IPv4-mapped IPv6 address";
        let cases = [
            ("1.2.3.4", "", "", ""),
            ("0.0.0.0", "", "", ""),
            ("1234::abcd", "", "", ""),
            ("::", "", "", ""),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "", ""),
            ("0:0:0:0:0:0:0:0", "must be in canonical form (\"::\")", "", ""),
            ("0001:002:03:4::", "must be in canonical form (\"1:2:3:4::\")", "", ""),
            ("1234::ABCD", "must be in canonical form (\"1234::abcd\")", "", ""),
            ("1.1.1.01", ZEROS, ZEROS, ""),
            ("::ffff:1.1.1.1", MAPPED, MAPPED, ""),
            ("00001::", ZEROS, ZEROS, ""),
            ("", BAD_IP, BAD_IP, BAD_IP),
            ("aaaaaaa", BAD_IP, BAD_IP, BAD_IP),
            ("myhost.mydomain", BAD_IP, BAD_IP, BAD_IP),
            ("1.2.3.0/24", BAD_IP, BAD_IP, BAD_IP),
            ("1.2.3.400", BAD_IP, BAD_IP, BAD_IP),
            ("-1.0.0.0", BAD_IP, BAD_IP, BAD_IP),
            ("2001:db8::10005", BAD_IP, BAD_IP, BAD_IP),
            ("1.2.3.4:80", BAD_IP, BAD_IP, BAD_IP),
            ("[2001:db8::1]", BAD_IP, BAD_IP, BAD_IP),
            ("1234::abcd%eth0", BAD_IP, BAD_IP, BAD_IP),
            (
                "1:2:3:4:5:6:7::",
                "must be in canonical form (\"1:2:3:4:5:6:7:0\")",
                "",
                "",
            ),
            ("1:2:3:4:5:6:7:8::", BAD_IP, BAD_IP, BAD_IP),
            ("::1::", BAD_IP, BAD_IP, BAD_IP),
            (":", BAD_IP, BAD_IP, BAD_IP),
            ("1:", BAD_IP, BAD_IP, BAD_IP),
        ];
        judge(&cases, ip, ip_legacy);
    }

    #[test]
    fn ranges_are_judged_by_all_three_rules() {
        const BITS: &str = "must not have bits set beyond the prefix length";
        const ZEROS: &str = "must not have leading 0s in IP or prefix length";
        const MAPPED: &str = "must not have an IPv4-mapped IPv6 address";
        let path = Path::new("f");
        let cases = [
            ("1.0.0.0/8", "", "", ""),
            ("0.0.0.0/0", "", "", ""),
            ("2001:4860:4860::8888/128", "", "", ""),
            ("::/0", "", "", ""),
            ("2001:DB8::/32", "must be in canonical form (\"2001:db8::/32\")", "", ""),
            ("1.002.3.0/24", ZEROS, ZEROS, ""),
            ("1.2.3.0/024", ZEROS, ZEROS, ""),
            ("1.2.3.4/24", BITS, BITS, ""),
            ("2001:db8::1/64", BITS, BITS, ""),
            ("::ffff:1.2.3.0/120", MAPPED, MAPPED, ""),
            ("", BAD_CIDR, BAD_CIDR, BAD_CIDR),
            ("1.2.3.4", BAD_CIDR, BAD_CIDR, BAD_CIDR),
            ("1.2.3.0/33", BAD_CIDR, BAD_CIDR, BAD_CIDR),
            ("1.2.3.0/-1", BAD_CIDR, BAD_CIDR, BAD_CIDR),
            ("1.2.3.0/", BAD_CIDR, BAD_CIDR, BAD_CIDR),
            ("2001:db8::/129", BAD_CIDR, BAD_CIDR, BAD_CIDR),
        ];
        judge(&cases, cidr, cidr_legacy);
        for (value, expect) in [
            ("1.2.3.4/24", ""),
            ("2001:db8::1/64", ""),
            ("1.2.3.04/24", "must be in canonical form (\"1.2.3.4/24\")"),
            (
                "::ffff:192.168.0.1/120",
                "must be in canonical form (\"192.168.0.1/24\")",
            ),
            ("1.2.3.4", BAD_INTERFACE),
        ] {
            assert_eq!(first(interface_address(&path, value)), expect, "{value}");
        }
    }

    #[test]
    fn warnings_propose_the_better_form() {
        let path = Path::new("s").child("ips").index(0);
        for (value, expect) in [
            ("192.12.2.2", ""),
            ("2001:db8::2", ""),
            (
                "192.012.2.2",
                "s.ips[0]: non-standard IP address \"192.012.2.2\" is invalid: use \"192.12.2.2\"",
            ),
            (
                "::ffff:192.12.2.2",
                "s.ips[0]: non-standard IP address \"::ffff:192.12.2.2\" is invalid: use \"192.12.2.2\"",
            ),
            (
                "2001:db8:0:0::2",
                "s.ips[0]: IPv6 address \"2001:db8:0:0::2\" should be in RFC 5952 canonical format (\"2001:db8::2\")",
            ),
        ] {
            assert_eq!(ip_warnings(&path, value).concat(), expect);
        }
        for (value, expect) in [
            ("192.12.2.0/24", ""),
            (
                "192.12.2.8/24",
                "s.ips[0]: CIDR value \"192.12.2.8/24\" is ambiguous in this context (should be \"192.12.2.0/24\" or \"192.12.2.8/32\"?)",
            ),
            (
                "192.012.2.0/24",
                "s.ips[0]: non-standard CIDR value \"192.012.2.0/24\" is invalid: use \"192.12.2.0/24\"",
            ),
            (
                "2001:db8:0:0::/64",
                "s.ips[0]: IPv6 CIDR value \"2001:db8:0:0::/64\" should be in RFC 5952 canonical format (\"2001:db8::/64\")",
            ),
        ] {
            assert_eq!(cidr_warnings(&path, value).concat(), expect);
        }
    }

    proptest::proptest! {
        #[test]
        fn every_address_is_read(address: u128, text in "[0-9a-f:./%]{0,20}") {
            let address = Ipv6Addr::from_bits(address);
            proptest::prop_assert_eq!(parse_v6(&address.to_string()), Some(address));
            let path = Path::new("f");
            let _ = (ip(&path, &text), cidr(&path, &text), cidr_warnings(&path, &text), interface_address(&path, &text));
            // What the strict rules read, the sloppy ones read the same.
            if let Ok(strict) = text.parse::<IpAddr>() {
                proptest::prop_assert_eq!(parse_ip_sloppy(&text), Some(strict.to_canonical()));
            }
        }
    }
}
