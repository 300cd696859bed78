//! The packet rules in nftables' terms: what stands in the table always, and how a change is spelled out.
//!
//! The table is `ip trireme` in the node's namespace (`ip6 trireme` will be its twin):
//!
//! ```text
//! map services   { addr . proto . port         : verdict }   -> goto endpoints-K
//! map endpoints  { addr . proto . port . index : addr . port }
//! map affinity   { addr . addr . proto . port  : addr . port }   client, frontend: endpoint; written by the rules
//! set affinities { addr . proto . port . addr . port }       frontend, endpoint: may be stayed with
//! set hairpin    { addr . addr }                             a local pod with itself
//! set own-dns    { addr }                                    the DNS address while it is ours
//!
//! chain raw-prerouting   (-300)  loopback addresses from elsewhere are dropped; packets of own-dns are not tracked
//! chain raw-output       (-300)  the same, both directions
//! chain nat-prerouting   (-100)  jump services, three times    pods' connections
//! chain nat-output       (-100)  jump services, three times    the node's own
//! chain filter-forward      (0)  what is still for the service range is rejected
//! chain filter-output       (0)  the same, but not own-dns
//! chain nat-postrouting   (100)  hairpin, and loopback to a pod: source becomes the node's address; uplink: masquerade
//! ```
//!
//! **A transaction is atomic, a packet is not.** Each lookup of a packet sees the tables of its own moment, so a packet that
//! is between two lookups while a change is committed may draw an index that is no longer there, or meet a chain whose rules
//! are not its generation's. Seen under load: one connection rejected in some three thousand changes, none since. Hence: a chain is
//! made in a transaction before the one that leads to it and is never deleted; and whoever comes back from `services`
//! without a translation is sent through it again, with lookups of then.
//!
//! Rejecting happens after translation, so only addresses and ports that no endpoint serves get there: TCP is answered with
//! a reset and everything else with "port unreachable", and both sides learn at once.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sys::nftables::{
    Batch, ChainKind, ElementValue, Expression, Hook, Learn, Learned, MetaKey, Register, Set, SetData, TableFamily,
    Verdict, types,
};

use super::delta::Delta;
use super::{Backend, Frontend, ServiceChain};
use crate::rule_parts::{
    DESTINATION_ADDRESS, SOURCE_ADDRESS, address, base_chain, destination_port, equal, transport_protocol, within,
};

/// Name of the table.
pub const TABLE: &str = "trireme";
/// Its family.
pub const FAMILY: TableFamily = TableFamily::Ip;

const SERVICES: &str = "services";
const ENDPOINTS: &str = "endpoints";
const HAIRPIN: &str = "hairpin";
const AFFINITY: &str = "affinity";
const AFFINITIES: &str = "affinities";
/// Clients that are remembered at once, each once a Service port; 200 bytes each. Beyond it new clients are not remembered.
const AFFINITY_MAX: u32 = 1 << 17;
/// How often the kernel clears away clients whose time is over. It looks at that time in each lookup, so nothing depends on
/// this but memory.
const AFFINITY_SWEEP_MS: u32 = 60_000;
const OWN_DNS: &str = "own-dns";
const REJECT: &str = "reject-unserved";
const RAW_PRIORITY: i32 = -300;
const DNAT_PRIORITY: i32 = -100;
const FILTER_PRIORITY: i32 = 0;
const SNAT_PRIORITY: i32 = 100;
const ICMP_PORT_UNREACHABLE: u8 = 3;
/// How often a packet looks for its endpoint. Each miss but the last needs a commit between two of its lookups.
const LOOKUP_ATTEMPTS: usize = 3;
const TCP: u8 = 6;
/// Length of a link name in the kernel.
const LINK_NAME_LENGTH: usize = 16;

/// The loopback link, and the addresses that belong on it.
const LOOPBACK_LINK: &str = "lo";
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// What the standing rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesConfig {
    /// The ranges cluster addresses come from.
    pub service_networks: Vec<Ipv4Net>,
    /// The addresses of this node's pods.
    pub pod_network: Ipv4Net,
    /// This node's address.
    pub node_address: Ipv4Addr,
    /// The DNS address, when this node answers on it.
    pub dns_address: Option<Ipv4Addr>,
    /// The link that leads out, when there is one: pods' packets leave with its address.
    pub uplink: Option<String>,
}

/// The chains that have to be there before the change is committed; nothing when it needs none.
pub fn chains_first(delta: &Delta) -> Option<Batch> {
    if delta.rebuild || (delta.add_chains.is_empty() && delta.add_affinity_chains.is_empty()) {
        return None;
    }
    let mut batch = Batch::new(FAMILY, TABLE);
    add_chains(&mut batch, delta);
    Some(batch)
}

/// The name of a chain without rules that says which standing rules the table has: a hash of how they are written. A daemon
/// that starts over a table with the same ones fills its maps again instead of making it anew, so that no connection meets
/// the moment in between and clients stay with their endpoints.
pub fn shape(config: &RulesConfig) -> String {
    let mut batch = Batch::new(FAMILY, TABLE);
    standing_rules(&mut batch, config);
    add_chains(
        &mut batch,
        &Delta {
            add_chains: 1..2,
            ..Delta::default()
        },
    );
    format!("shape-{:016x}", crate::links::fnv1a(batch.finished().iter().copied()))
}

/// Spells a change out. `refill`: the table is there and has the right [`shape`].
pub fn batch(config: &RulesConfig, delta: &Delta, refill: bool) -> Batch {
    let mut batch = Batch::new(FAMILY, TABLE);
    if delta.rebuild {
        if refill {
            for set in [SERVICES, ENDPOINTS, HAIRPIN, OWN_DNS, AFFINITIES] {
                batch.flush_set(set);
            }
        } else {
            // Adding first makes the deletion valid whether the table was there or not.
            batch.add_table();
            batch.delete_table();
            batch.add_table();
            standing_rules(&mut batch, config);
            batch.add_chain(&shape(config), None);
        }
        add_chains(&mut batch, delta);
    }
    batch.delete_elements(SERVICES, delta.remove_services.iter().map(service_key));
    batch.delete_elements(
        ENDPOINTS,
        delta
            .remove_endpoints
            .iter()
            .map(|(frontend, index)| endpoint_key(frontend, *index)),
    );
    batch.add_elements(
        ENDPOINTS,
        delta.add_endpoints.iter().map(|(frontend, index, backend)| {
            (
                endpoint_key(frontend, *index),
                ElementValue::Bytes(backend_value(backend).to_vec()),
            )
        }),
    );
    batch.add_elements(
        SERVICES,
        delta.add_services.iter().map(|(frontend, chain)| {
            (
                service_key(frontend),
                ElementValue::Verdict(Verdict::Goto(service_chain_name(chain))),
            )
        }),
    );
    batch.delete_elements(
        HAIRPIN,
        delta.remove_hairpins.iter().map(|address| hairpin_key(*address)),
    );
    batch.add_elements(
        HAIRPIN,
        delta
            .add_hairpins
            .iter()
            .map(|address| (hairpin_key(*address), ElementValue::None)),
    );
    batch.delete_elements(AFFINITIES, delta.remove_affinities.iter().map(affinity_key));
    batch.add_elements(
        AFFINITIES,
        delta
            .add_affinities
            .iter()
            .map(|pair| (affinity_key(pair), ElementValue::None)),
    );
    if let (Some(own), Some(address)) = (delta.own_dns, config.dns_address) {
        match own {
            true => batch.add_elements(OWN_DNS, [(address.octets(), ElementValue::None)]),
            false => batch.delete_elements(OWN_DNS, [address.octets()]),
        }
    }
    batch
}

fn add_chains(batch: &mut Batch, delta: &Delta) {
    for size in delta.add_chains.clone() {
        batch.add_chain(&chain_name(size), None);
        // It may be there from before a restart.
        batch.flush_chain(&chain_name(size));
        batch.add_rule(&chain_name(size), &endpoint_rule(size));
    }
    for chain in &delta.add_affinity_chains {
        let name = service_chain_name(chain);
        batch.add_chain(&name, None);
        batch.flush_chain(&name);
        let seconds = chain.affinity_seconds.unwrap_or_default();
        batch.add_rule(&name, &stay_rule(seconds));
        batch.add_rule(&name, &choose_rule(chain.size, seconds));
        // The map is full: better another endpoint each time than none.
        batch.add_rule(&name, &endpoint_rule(chain.size));
    }
}

/// The batch that removes everything.
pub fn removal() -> Batch {
    let mut batch = Batch::new(FAMILY, TABLE);
    batch.add_table();
    batch.delete_table();
    batch
}

fn standing_rules(batch: &mut Batch, config: &RulesConfig) {
    let key = [types::IPV4_ADDRESS, types::PROTOCOL, types::PORT, types::MARK];
    batch.add_set(&Set {
        name: SERVICES,
        key_type: types::concatenation(&key[..3]),
        key_length: 12,
        data: SetData::Verdict,
        learned: None,
    });
    batch.add_set(&Set {
        name: ENDPOINTS,
        key_type: types::concatenation(&key),
        key_length: 16,
        data: SetData::Value(types::concatenation(&[types::IPV4_ADDRESS, types::PORT]), 8),
        learned: None,
    });
    batch.add_set(&Set {
        name: HAIRPIN,
        key_type: types::concatenation(&[types::IPV4_ADDRESS, types::IPV4_ADDRESS]),
        key_length: 8,
        data: SetData::None,
        learned: None,
    });
    batch.add_set(&Set {
        name: OWN_DNS,
        key_type: types::IPV4_ADDRESS,
        key_length: 4,
        data: SetData::None,
        learned: None,
    });

    let client = [types::IPV4_ADDRESS, types::IPV4_ADDRESS, types::PROTOCOL, types::PORT];
    batch.add_set(&Set {
        name: AFFINITY,
        key_type: types::concatenation(&client),
        key_length: 16,
        data: SetData::Value(types::concatenation(&[types::IPV4_ADDRESS, types::PORT]), 8),
        learned: Some(Learned {
            elements_max: AFFINITY_MAX,
            sweep_interval_ms: AFFINITY_SWEEP_MS,
        }),
    });
    let pair = [
        types::IPV4_ADDRESS,
        types::PROTOCOL,
        types::PORT,
        types::IPV4_ADDRESS,
        types::PORT,
    ];
    batch.add_set(&Set {
        name: AFFINITIES,
        key_type: types::concatenation(&pair),
        key_length: 20,
        data: SetData::None,
        learned: None,
    });

    batch.add_chain(SERVICES, None);
    batch.add_rule(SERVICES, &services_rule());
    batch.add_chain(REJECT, None);
    batch.add_rule(
        REJECT,
        &[
            transport_protocol(Register(0)),
            equal(Register(0), &[TCP]),
            Expression::RejectTcp,
        ],
    );
    batch.add_rule(REJECT, &[Expression::RejectIcmp(ICMP_PORT_UNREACHABLE)]);

    base_chain(
        batch,
        "raw-prerouting",
        ChainKind::Filter,
        Hook::Prerouting,
        RAW_PRIORITY,
    );
    // Host ports on 127.0.0.1 need `route_localnet`, with which the kernel would take such packets from pods and neighbours
    // too (CVE-2020-8558).
    let mut foreign = not_from(LOOPBACK_LINK);
    foreign.extend(within(DESTINATION_ADDRESS, LOOPBACK));
    foreign.push(Expression::Verdict(Verdict::Drop));
    batch.add_rule("raw-prerouting", &foreign);
    batch.add_rule(
        "raw-prerouting",
        &[address(DESTINATION_ADDRESS, 0), in_set(OWN_DNS), Expression::NoTrack],
    );
    base_chain(batch, "raw-output", ChainKind::Filter, Hook::Output, RAW_PRIORITY);
    for offset in [SOURCE_ADDRESS, DESTINATION_ADDRESS] {
        batch.add_rule(
            "raw-output",
            &[address(offset, 0), in_set(OWN_DNS), Expression::NoTrack],
        );
    }
    for (chain, hook) in [("nat-prerouting", Hook::Prerouting), ("nat-output", Hook::Output)] {
        base_chain(batch, chain, ChainKind::Nat, hook, DNAT_PRIORITY);
        for _ in 0..LOOKUP_ATTEMPTS {
            batch.add_rule(chain, &[Expression::Verdict(Verdict::Jump(SERVICES.to_owned()))]);
        }
    }
    base_chain(
        batch,
        "filter-forward",
        ChainKind::Filter,
        Hook::Forward,
        FILTER_PRIORITY,
    );
    reject_ranges(batch, "filter-forward", config);
    base_chain(batch, "filter-output", ChainKind::Filter, Hook::Output, FILTER_PRIORITY);
    batch.add_rule(
        "filter-output",
        &[
            address(DESTINATION_ADDRESS, 0),
            in_set(OWN_DNS),
            Expression::Verdict(Verdict::Accept),
        ],
    );
    reject_ranges(batch, "filter-output", config);

    base_chain(
        batch,
        "nat-postrouting",
        ChainKind::Nat,
        Hook::Postrouting,
        SNAT_PRIORITY,
    );
    let mut hairpin = vec![
        address(SOURCE_ADDRESS, 0),
        address(DESTINATION_ADDRESS, 1),
        in_set(HAIRPIN),
    ];
    hairpin.extend(from_node(config));
    batch.add_rule("nat-postrouting", &hairpin);
    let mut from_loopback = within(SOURCE_ADDRESS, LOOPBACK);
    from_loopback.extend(within(DESTINATION_ADDRESS, config.pod_network));
    from_loopback.extend(from_node(config));
    batch.add_rule("nat-postrouting", &from_loopback);
    if let Some(uplink) = &config.uplink {
        batch.add_rule("nat-postrouting", &masquerade(uplink, config.pod_network));
    }
}

/// Reads (address, protocol, port) into three registers from `first` on.
fn frontend_registers(first: u8) -> [Expression; 3] {
    [
        address(DESTINATION_ADDRESS, first),
        transport_protocol(Register(first + 1)),
        destination_port(first + 2),
    ]
}

fn services_rule() -> Vec<Expression> {
    let mut rule = frontend_registers(0).to_vec();
    rule.push(Expression::VerdictMap {
        map: SERVICES.to_owned(),
        key: Register(0),
    });
    rule
}

fn endpoint_rule(size: u32) -> Vec<Expression> {
    let mut rule = frontend_registers(0).to_vec();
    rule.push(Expression::Random {
        modulus: size,
        to: Register(3),
    });
    rule.push(Expression::Map {
        map: ENDPOINTS.to_owned(),
        key: Register(0),
        to: Register(4),
    });
    rule.push(Expression::DestinationNat {
        address: Register(4),
        port: Register(5),
    });
    rule
}

/// A client that is remembered, and whose endpoint still takes connections, stays. Registers: 0 client, 1 to 3 frontend, 4
/// and 5 endpoint; so 0 to 3 are the map's key and 1 to 5 the set's.
fn stay_rule(seconds: u32) -> Vec<Expression> {
    let mut rule = vec![address(SOURCE_ADDRESS, 0)];
    rule.extend(frontend_registers(1));
    rule.push(Expression::Map {
        map: AFFINITY.to_owned(),
        key: Register(0),
        to: Register(4),
    });
    rule.push(Expression::InSet {
        set: AFFINITIES.to_owned(),
        key: Register(1),
    });
    rule.push(learn(Learn::Update, seconds));
    rule.push(Expression::DestinationNat {
        address: Register(4),
        port: Register(5),
    });
    rule
}

/// Any other client gets an endpoint and is remembered; whom it was with before has to be forgotten first, because the
/// kernel does not overwrite. Registers: as in [`stay_rule`], and 6 to 9 the key of the endpoint map.
fn choose_rule(size: u32, seconds: u32) -> Vec<Expression> {
    let mut rule = vec![address(SOURCE_ADDRESS, 0)];
    rule.extend(frontend_registers(1));
    rule.extend(frontend_registers(6));
    rule.push(Expression::Random {
        modulus: size,
        to: Register(9),
    });
    rule.push(Expression::Map {
        map: ENDPOINTS.to_owned(),
        key: Register(6),
        to: Register(4),
    });
    rule.push(learn(Learn::Delete, seconds));
    rule.push(learn(Learn::Add, seconds));
    rule.push(Expression::DestinationNat {
        address: Register(4),
        port: Register(5),
    });
    rule
}

fn learn(operation: Learn, seconds: u32) -> Expression {
    Expression::Learn {
        operation,
        map: AFFINITY.to_owned(),
        key: Register(0),
        value: Register(4),
        lifetime_ms: u64::from(seconds) * 1000,
    }
}

/// What was not translated leads nowhere.
fn reject_ranges(batch: &mut Batch, chain: &str, config: &RulesConfig) {
    for range in &config.service_networks {
        let mut rule = within(DESTINATION_ADDRESS, *range);
        rule.push(Expression::Verdict(Verdict::Goto(REJECT.to_owned())));
        batch.add_rule(chain, &rule);
    }
}

/// The source becomes the node's address.
fn from_node(config: &RulesConfig) -> [Expression; 2] {
    let value = config.node_address.octets().to_vec();
    let to = Register(0);
    [
        Expression::Constant { value, to },
        Expression::SourceNat { address: to },
    ]
}

fn link_name(name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.resize(LINK_NAME_LENGTH, 0);
    name
}

fn not_from(link: &str) -> Vec<Expression> {
    let (key, to) = (MetaKey::InputName, Register(0));
    let other = Expression::Compare {
        register: to,
        equal: false,
        value: link_name(link),
    };
    vec![Expression::Meta { key, to }, other]
}

fn masquerade(uplink: &str, pods: Ipv4Net) -> Vec<Expression> {
    let mut rule = vec![
        Expression::Meta {
            key: MetaKey::OutputName,
            to: Register(0),
        },
        equal(Register(0), &link_name(uplink)),
    ];
    rule.extend(within(SOURCE_ADDRESS, pods));
    rule.push(Expression::Masquerade);
    rule
}

fn in_set(set: &str) -> Expression {
    Expression::InSet {
        set: set.to_owned(),
        key: Register(0),
    }
}

fn chain_name(size: u32) -> String {
    format!("endpoints-{size}")
}

fn service_chain_name(chain: &ServiceChain) -> String {
    match chain.affinity_seconds {
        None => chain_name(chain.size),
        Some(seconds) => format!("endpoints-{}-affinity-{seconds}", chain.size),
    }
}

/// Each part of a concatenation is padded to four bytes.
fn service_key(frontend: &Frontend) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&frontend.address.octets());
    key[4] = frontend.protocol.number();
    key[8..10].copy_from_slice(&frontend.port.to_be_bytes());
    key
}

/// The index is in the machine's order, as the random number is.
fn endpoint_key(frontend: &Frontend, index: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..12].copy_from_slice(&service_key(frontend));
    key[12..].copy_from_slice(&index.to_ne_bytes());
    key
}

fn backend_value(backend: &Backend) -> [u8; 8] {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&backend.address.octets());
    value[4..6].copy_from_slice(&backend.port.to_be_bytes());
    value
}

fn affinity_key((frontend, backend): &(Frontend, Backend)) -> [u8; 20] {
    let mut key = [0; 20];
    key[..12].copy_from_slice(&service_key(frontend));
    key[12..].copy_from_slice(&backend_value(backend));
    key
}

fn hairpin_key(address: Ipv4Addr) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&address.octets());
    key[4..].copy_from_slice(&address.octets());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Protocol;

    #[test]
    fn keys_are_what_the_registers_hold() {
        let frontend = Frontend {
            address: Ipv4Addr::new(10, 96, 0, 7),
            protocol: Protocol::Udp,
            port: 53,
        };
        assert_eq!(service_key(&frontend), [10, 96, 0, 7, 17, 0, 0, 0, 0, 53, 0, 0]);
        assert_eq!(endpoint_key(&frontend, 1)[12..], 1u32.to_ne_bytes());
        let backend = Backend {
            address: Ipv4Addr::new(10, 244, 0, 2),
            port: 8080,
        };
        assert_eq!(backend_value(&backend), [10, 244, 0, 2, 0x1f, 0x90, 0, 0]);
    }

    #[test]
    fn an_empty_change_is_an_empty_batch() {
        let config = RulesConfig {
            service_networks: vec!["10.96.0.0/12".parse().unwrap()],
            pod_network: "10.244.0.0/24".parse().unwrap(),
            node_address: Ipv4Addr::new(10, 0, 0, 1),
            dns_address: None,
            uplink: None,
        };
        assert!(batch(&config, &Delta::default(), false).is_empty());
        let whole = Delta {
            rebuild: true,
            ..Delta::default()
        };
        let rebuilt = batch(&config, &whole, false);
        assert!(!rebuilt.is_empty());
        assert_ne!(
            shape(&config),
            shape(&RulesConfig {
                uplink: Some("up".to_owned()),
                ..config.clone()
            })
        );
        assert_eq!(shape(&config), shape(&config));
    }
}
