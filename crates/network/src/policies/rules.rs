//! The rules of policies in nftables' terms: what stands in the table always, and how a change is spelled out.
//!
//! ```text
//! map ingress  { addr : verdict }        a pod's address: jump ingress-N         map egress: the same
//! set isolated-ingress { addr }          what no chain allows these is dropped   set isolated-egress: the same
//! set selves   { addr . addr }           an isolated pod with itself
//! set dns      { addr . proto }          who may ask the cluster's own DNS, which is not tracked
//! set pods-N   { addr }                  the pods behind a selector
//! set ports-N  { addr . port }           the ports of pods that are called so
//!
//! chain forward-egress   (-20)  judge who began the connection        chain input-egress (-20): the same, but not its node
//! chain forward-ingress  (-10)  judge where it goes
//! chain ingress-N, egress-N     what matches is accepted; the rest comes back and is dropped if isolated
//! ```
//!
//! What the node itself sends meets no chain: it may reach its pods. Connections are read from connection tracking and not
//! from the packet, so each packet of either direction is judged alike, before and after any translation.
//!
//! **Nothing opens for a moment.** A packet sees each set as it is when it looks (`services::rules`), and before Linux 6.17 may miss
//! an element that is being replaced. Being isolated stands in a set of its own, which does not change when a pod's rights do:
//! a packet that misses its chain, or meets it empty, is looked at once more and then dropped, never let through. The two
//! names of the table serve the same end: a new table is complete and enforced before the old one goes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sys::nftables::{
    Batch, ChainKind, ConnectionKey, Direction as Side, ElementValue, Expression, Hook, Register, STATE_INVALID,
    STATE_UNTRACKED, Set, SetData, TableFamily, Verdict, types,
};

use super::Direction;
use super::cluster::DNS_PORT;
use super::delta::{ChainId, Delta, Line, PeerMatch, PortMatch};
use super::selections::{Member, SetId};
use super::views::Block;
use crate::rule_parts::{
    DESTINATION_ADDRESS, SOURCE_ADDRESS, address, base_chain, destination_port, equal, transport_protocol,
};
use crate::views::Protocol;

/// The names of the table.
pub const TABLES: [&str; 2] = ["trireme-policies-0", "trireme-policies-1"];
/// Its family.
pub const FAMILY: TableFamily = TableFamily::Ip;

/// Before the service table's filters, which reject what leads nowhere.
const EGRESS_PRIORITY: i32 = -20;
const INGRESS_PRIORITY: i32 = -10;
/// How often a packet looks for its chain: a second time in case it missed it while the pod's rights changed.
const LOOKUP_ATTEMPTS: usize = 2;
const SELVES: &str = "selves";
const DNS: &str = "dns";

/// What the standing rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesConfig {
    /// This node's address, which its pods may reach.
    pub node_address: Ipv4Addr,
    /// Where the cluster's own DNS answers.
    pub dns_address: Option<Ipv4Addr>,
}

/// A whole new table with all that is in `delta`, which is a rebuild.
pub fn whole(table: &str, config: &RulesConfig, delta: &Delta) -> Batch {
    let mut batch = Batch::new(FAMILY, table);
    // Adding first makes the deletion valid whether the table was there or not.
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    standing_rules(&mut batch, config);
    add_sets_and_chains(&mut batch, delta);
    change_elements(&mut batch, delta);
    batch
}

/// The steps of a change, without those in which nothing happens.
pub fn steps(table: &str, delta: &Delta) -> Vec<Batch> {
    let mut steps = Vec::new();
    for step in [add_sets_and_chains, change_elements, remove_sets_and_chains] {
        let mut batch = Batch::new(FAMILY, table);
        step(&mut batch, delta);
        if !batch.is_empty() {
            steps.push(batch);
        }
    }
    steps
}

/// The batch that removes everything.
pub fn removal(table: &str) -> Batch {
    let mut batch = Batch::new(FAMILY, table);
    batch.add_table();
    batch.delete_table();
    batch
}

fn add_sets_and_chains(batch: &mut Batch, delta: &Delta) {
    for (id, members) in &delta.add_sets {
        let (key_type, key_length) = match id.has_ports {
            true => (types::concatenation(&[types::IPV4_ADDRESS, types::PORT]), 8),
            false => (types::IPV4_ADDRESS, 4),
        };
        add_set(batch, &set_name(*id), key_type, key_length, SetData::None);
        let members = members.iter().map(|member| (member_key(member), ElementValue::None));
        batch.add_elements(&set_name(*id), members);
    }
    for (id, lines) in &delta.add_chains {
        let name = chain_name(*id);
        batch.add_chain(&name, None);
        for line in lines.iter() {
            batch.add_rule(&name, &line_rule(id.direction, line));
        }
    }
}

fn change_elements(batch: &mut Batch, delta: &Delta) {
    for (id, member) in &delta.remove_members {
        batch.delete_elements(&set_name(*id), [member_key(member)]);
    }
    for (id, member) in &delta.add_members {
        batch.add_elements(&set_name(*id), [(member_key(member), ElementValue::None)]);
    }
    batch.delete_elements(DNS, delta.remove_dns.iter().map(dns_key));
    batch.add_elements(
        DNS,
        delta.add_dns.iter().map(|pair| (dns_key(pair), ElementValue::None)),
    );
    batch.delete_elements(SELVES, delta.remove_selves.iter().map(self_key));
    batch.add_elements(
        SELVES,
        delta
            .add_selves
            .iter()
            .map(|address| (self_key(address), ElementValue::None)),
    );
    for direction in Direction::ALL {
        let of = |list: &[(Direction, Ipv4Addr)]| -> Vec<[u8; 4]> {
            let list = list.iter().filter(|(other, _)| *other == direction);
            list.map(|(_, address)| address.octets()).collect()
        };
        batch.delete_elements(leads(direction), of(&delta.remove_leads));
        let added = delta.add_leads.iter().filter(|(other, ..)| *other == direction);
        let added = added.map(|(_, address, chain)| {
            let verdict = Verdict::Jump(chain_name(*chain));
            (address.octets(), ElementValue::Verdict(verdict))
        });
        batch.add_elements(leads(direction), added);
        batch.delete_elements(isolated(direction), of(&delta.release));
        let isolate = of(&delta.isolate).into_iter().map(|key| (key, ElementValue::None));
        batch.add_elements(isolated(direction), isolate);
    }
}

fn remove_sets_and_chains(batch: &mut Batch, delta: &Delta) {
    for id in &delta.remove_chains {
        batch.flush_chain(&chain_name(*id));
        batch.delete_chain(&chain_name(*id));
    }
    for id in &delta.remove_sets {
        batch.delete_set(&set_name(*id));
    }
}

fn standing_rules(batch: &mut Batch, config: &RulesConfig) {
    for direction in Direction::ALL {
        add_set(batch, leads(direction), types::IPV4_ADDRESS, 4, SetData::Verdict);
        add_set(batch, isolated(direction), types::IPV4_ADDRESS, 4, SetData::None);
    }
    let pair = types::concatenation(&[types::IPV4_ADDRESS, types::IPV4_ADDRESS]);
    add_set(batch, SELVES, pair, 8, SetData::None);
    let asking = types::concatenation(&[types::IPV4_ADDRESS, types::PROTOCOL]);
    add_set(batch, DNS, asking, 8, SetData::None);

    let chains = [
        ("forward-egress", Hook::Forward, EGRESS_PRIORITY, Direction::Egress),
        ("input-egress", Hook::Input, EGRESS_PRIORITY, Direction::Egress),
        ("forward-ingress", Hook::Forward, INGRESS_PRIORITY, Direction::Ingress),
    ];
    for (chain, hook, priority, direction) in chains {
        base_chain(batch, chain, ChainKind::Filter, hook, priority);
        for _ in 0..LOOKUP_ATTEMPTS {
            let mut rule = vec![side(direction)];
            rule.push(Expression::VerdictMap {
                map: leads(direction).to_owned(),
                key: Register(0),
            });
            batch.add_rule(chain, &rule);
        }
        batch.add_rule(chain, &to_itself());
        if hook == Hook::Input {
            let mut rule = vec![
                side(Direction::Ingress),
                equal(Register(0), &config.node_address.octets()),
            ];
            rule.push(Expression::Verdict(Verdict::Accept));
            batch.add_rule(chain, &rule);
            if let Some(dns) = config.dns_address {
                batch.add_rule(chain, &asks_dns(dns));
            }
        }
        let drop = |read: Vec<Expression>| {
            let mut rule = read;
            rule.push(Expression::InSet {
                set: isolated(direction).to_owned(),
                key: Register(0),
            });
            rule.push(Expression::Verdict(Verdict::Drop));
            rule
        };
        batch.add_rule(chain, &drop(vec![side(direction)]));
        let mut stray = no_connection();
        let offset = match direction {
            Direction::Egress => SOURCE_ADDRESS,
            Direction::Ingress => DESTINATION_ADDRESS,
        };
        stray.push(address(offset, 0));
        batch.add_rule(chain, &drop(stray));
    }
}

fn add_set(batch: &mut Batch, name: &str, key_type: u32, key_length: u32, data: SetData) {
    batch.add_set(&Set {
        name,
        key_type,
        key_length,
        data,
        learned: None,
    });
}

/// Reads the side of the pod that is judged into the first register: who began the connection (`Egress`) or where it really
/// goes (`Ingress`).
fn side(direction: Direction) -> Expression {
    let direction = match direction {
        Direction::Egress => Side::Original,
        Direction::Ingress => Side::Reply,
    };
    Expression::Connection {
        key: ConnectionKey::SourceAddress,
        direction,
        to: Register(0),
    }
}

/// The other side.
fn peer_side(direction: Direction) -> Expression {
    side(match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    })
}

fn to_itself() -> Vec<Expression> {
    let read = |direction, to| Expression::Connection {
        key: ConnectionKey::SourceAddress,
        direction,
        to: Register(to),
    };
    vec![
        read(Side::Original, 0),
        read(Side::Reply, 1),
        Expression::InSet {
            set: SELVES.to_owned(),
            key: Register(0),
        },
        Expression::Verdict(Verdict::Accept),
    ]
}

/// The packet has no connection. Register 0 is used.
fn no_connection() -> Vec<Expression> {
    let bits = STATE_INVALID | STATE_UNTRACKED;
    vec![
        Expression::ConnectionState { to: Register(0) },
        Expression::Mask {
            from: Register(0),
            to: Register(0),
            mask: bits.to_ne_bytes().to_vec(),
        },
        Expression::Compare {
            register: Register(0),
            equal: false,
            value: 0u32.to_ne_bytes().to_vec(),
        },
    ]
}

fn asks_dns(dns: Ipv4Addr) -> Vec<Expression> {
    let mut rule = no_connection();
    rule.extend([address(DESTINATION_ADDRESS, 0), equal(Register(0), &dns.octets())]);
    // The header of another protocol means something else there, but that is in no element.
    rule.extend([destination_port(0), equal(Register(0), &DNS_PORT.to_be_bytes())]);
    rule.extend([address(SOURCE_ADDRESS, 0), transport_protocol(Register(1))]);
    rule.push(Expression::InSet {
        set: DNS.to_owned(),
        key: Register(0),
    });
    rule.push(Expression::Verdict(Verdict::Accept));
    rule
}

/// The rule of a line: what matches is accepted. The target is the pod itself or its peer, as the direction says.
fn line_rule(direction: Direction, line: &Line) -> Vec<Expression> {
    let mut rule = Vec::new();
    match &line.port {
        PortMatch::Any => {}
        PortMatch::Protocol(protocol) => rule.extend(has_protocol(*protocol)),
        PortMatch::Range(protocol, first, last) => {
            rule.extend(has_protocol(*protocol));
            rule.push(target_port(0));
            let (first, last) = (first.to_be_bytes(), last.to_be_bytes());
            rule.push(match first == last {
                true => equal(Register(0), &first),
                false => Expression::Range {
                    register: Register(0),
                    first: first.to_vec(),
                    last: last.to_vec(),
                },
            });
        }
        PortMatch::Set(protocol, id) => {
            rule.extend(has_protocol(*protocol));
            rule.extend([side(Direction::Ingress), target_port(1), in_set(*id)]);
        }
    }
    match &line.peer {
        PeerMatch::Anyone => {}
        PeerMatch::Set(id) => rule.extend([peer_side(direction), in_set(*id)]),
        PeerMatch::Block(block) => rule.extend(in_block(direction, block)),
    }
    rule.push(Expression::Verdict(Verdict::Accept));
    rule
}

fn has_protocol(protocol: Protocol) -> [Expression; 2] {
    let read = Expression::Connection {
        key: ConnectionKey::Protocol,
        direction: Side::Original,
        to: Register(0),
    };
    [read, equal(Register(0), &[protocol.number()])]
}

/// The port that the connection really goes to.
fn target_port(to: u8) -> Expression {
    Expression::Connection {
        key: ConnectionKey::SourcePort,
        direction: Side::Reply,
        to: Register(to),
    }
}

fn in_set(id: SetId) -> Expression {
    Expression::InSet {
        set: set_name(id),
        key: Register(0),
    }
}

fn in_block(direction: Direction, block: &Block) -> Vec<Expression> {
    let range = |range: &Ipv4Net, equal: bool| {
        let masked = Expression::Mask {
            from: Register(0),
            to: Register(1),
            mask: range.netmask().octets().to_vec(),
        };
        let compared = Expression::Compare {
            register: Register(1),
            equal,
            value: range.network().octets().to_vec(),
        };
        [masked, compared]
    };
    let mut rule = vec![peer_side(direction)];
    rule.extend(range(&block.range, true));
    rule.extend(block.except.iter().flat_map(|gap| range(gap, false)));
    rule
}

fn leads(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn isolated(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "isolated-ingress",
        Direction::Egress => "isolated-egress",
    }
}

fn chain_name(id: ChainId) -> String {
    format!("{}-{}", leads(id.direction), id.number)
}

fn set_name(id: SetId) -> String {
    let what = if id.has_ports { "ports" } else { "pods" };
    format!("{what}-{}", id.number)
}

/// Each part of a concatenation is padded to four bytes.
fn member_key(member: &Member) -> Vec<u8> {
    let mut key = member.address.octets().to_vec();
    if let Some(port) = member.port {
        key.extend(port.to_be_bytes());
        key.extend([0; 2]);
    }
    key
}

fn self_key(address: &Ipv4Addr) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&address.octets());
    key[4..].copy_from_slice(&address.octets());
    key
}

fn dns_key((address, protocol): &(Ipv4Addr, Protocol)) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&address.octets());
    key[4] = protocol.number();
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_only_the_steps_it_needs() {
        let address = Ipv4Addr::new(10, 244, 0, 2);
        let chain = ChainId {
            direction: Direction::Ingress,
            number: 7,
        };
        let count = |delta: &Delta| -> Vec<usize> { steps(TABLES[0], delta).iter().map(Batch::count).collect() };
        assert!(count(&Delta::default()).is_empty());
        let mut delta = Delta::default();
        delta.lead(Direction::Ingress, address, None, Some(chain));
        assert_eq!(
            count(&delta),
            [2],
            "an element of the map, and one of those that are isolated"
        );
        delta.add_chains.push((chain, Default::default()));
        delta.remove_chains.push(chain);
        assert_eq!(count(&delta), [1, 2, 2]);
    }

    #[test]
    fn keys_are_what_the_registers_hold() {
        let address = Ipv4Addr::new(10, 244, 0, 2);
        let port = Some(8080);
        assert_eq!(member_key(&Member { address, port: None }), [10, 244, 0, 2]);
        assert_eq!(member_key(&Member { address, port }), [10, 244, 0, 2, 0x1f, 0x90, 0, 0]);
        assert_eq!(dns_key(&(address, Protocol::Udp)), [10, 244, 0, 2, 17, 0, 0, 0]);
    }
}
