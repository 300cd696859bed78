//! nftables over raw netlink: tables, chains, rules, maps and their elements as one atomic batch.
//!
//! Why not the `nft` program: a node needs nothing installed, a change is one system call instead of a process that lists
//! the table first, and its parser refuses the map of (address, protocol, port, index) to (address, port) that makes a
//! service with many endpoints cheap. Only what the rules of services and policies use is here; the numbers are those of
//! `linux/netfilter/nf_tables.h` and never change.
//!
//! Invariant: a batch is applied whole or not at all.

pub use crate::nftables_expression::{
    ConnectionKey, Direction, Expression, HeaderBase, Learn, MetaKey, Register, STATE_INVALID, STATE_UNTRACKED, Verdict,
};

use crate::netlink::{ACK, APPEND, Answer, Attributes, CREATE, EXCLUSIVE, Error, Messages, Socket};
use crate::nftables_expression::{write_expression, write_verdict};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY_HEADER_LENGTH: usize = 4;

const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;
const DELETE_RULE: u16 = 8;

const SET_IS_MAP: u32 = 8;
const SET_HAS_TIMEOUTS: u32 = 0x10;
const SET_IS_WRITTEN_BY_RULES: u32 = 0x20;
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
/// An element list is one attribute, whose length is a 16 bit number; this leaves room for one more element.
const ELEMENTS_BYTES_MAX: usize = 60 << 10;

/// `nft`'s numbers for types, so that `nft list` prints what it finds as addresses and ports.
pub mod types {
    /// `ipv4_addr`.
    pub const IPV4_ADDRESS: u32 = 7;
    /// `inet_proto`.
    pub const PROTOCOL: u32 = 12;
    /// `inet_service`.
    pub const PORT: u32 = 13;
    /// `mark`, a 32 bit number in the machine's order.
    pub const MARK: u32 = 19;

    /// The type of a concatenation.
    pub const fn concatenation(parts: &[u32]) -> u32 {
        let mut sum = 0;
        let mut place = 0;
        while place < parts.len() {
            sum = (sum << 6) | parts[place];
            place += 1;
        }
        sum
    }
}
/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TableFamily {
    /// IPv4.
    Ip = 2,
    /// IPv6.
    Ip6 = 10,
}

/// Where packets meet a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Everything that arrives.
    Prerouting = 0,
    /// What is for this host.
    Input = 1,
    /// What goes through.
    Forward = 2,
    /// What this host's processes send.
    Output = 3,
    /// Everything that leaves.
    Postrouting = 4,
}

/// The kind of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of each connection.
    Nat,
}

/// A base chain's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Kind.
    pub kind: ChainKind,
    /// Hook.
    pub hook: Hook,
    /// Smaller runs earlier; connection tracking is -200, dnat -100, filters 0, snat 100.
    pub priority: i32,
}
/// What a set's or map's elements hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetData {
    /// A set: keys only.
    None,
    /// A map to verdicts.
    Verdict,
    /// A map to values of this type and length in bytes.
    Value(u32, u32),
}

/// A set or map to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<'a> {
    /// Name.
    pub name: &'a str,
    /// `nft` type of the key.
    pub key_type: u32,
    /// Bytes of the key.
    pub key_length: u32,
    /// Values.
    pub data: SetData,
    /// Whether rules add elements to it, and how that is bounded.
    pub learned: Option<Learned>,
}

/// A set whose elements are added by rules and end by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// The most elements it holds.
    pub elements_max: u32,
    /// How often the kernel clears away the ones that ended.
    pub sweep_interval_ms: u32,
}

/// The value of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementValue {
    /// A set's element.
    None,
    /// A map's.
    Bytes(Vec<u8>),
    /// A verdict map's.
    Verdict(Verdict),
}

/// One transaction on one table.
#[derive(Debug, Clone)]
pub struct Batch {
    messages: Messages,
    family: TableFamily,
    table: String,
    sets: u32,
}

impl Batch {
    /// An empty transaction on `table`.
    pub fn new(family: TableFamily, table: &str) -> Self {
        let mut messages = Messages::new();
        messages.begin(BATCH_BEGIN, 0);
        messages.fixed(&family_header(0, SUBSYSTEM));
        Self {
            messages,
            family,
            table: table.to_owned(),
            sets: 0,
        }
    }

    /// Makes the table unless it is there.
    pub fn add_table(&mut self) {
        self.begin(NEW_TABLE, CREATE);
        self.messages.text(1, &self.table);
    }

    /// Deletes the table and everything in it.
    pub fn delete_table(&mut self) {
        self.begin(DELETE_TABLE, 0);
        self.messages.text(1, &self.table);
    }

    /// Makes a chain; without a base it is reached by verdicts only.
    pub fn add_chain(&mut self, name: &str, base: Option<Base>) {
        self.begin(NEW_CHAIN, CREATE);
        self.messages.text(1, &self.table).text(3, name);
        if let Some(base) = base {
            self.messages.nested(4, |hook| {
                hook.number_be(1, base.hook as u32).number_be(2, base.priority as u32);
            });
            let kind = match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            };
            self.messages.text(7, kind);
        }
    }

    /// Deletes a chain; the kernel refuses one that is still used.
    pub fn delete_chain(&mut self, name: &str) {
        self.begin(DELETE_CHAIN, 0);
        self.messages.text(1, &self.table).text(3, name);
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.begin(DELETE_RULE, 0);
        self.messages.text(1, &self.table).text(2, name);
    }

    /// Appends a rule.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expression]) {
        self.begin(NEW_RULE, CREATE | APPEND);
        self.messages.text(1, &self.table).text(2, chain);
        self.messages.nested(4, |list| {
            for expression in expressions {
                list.nested(1, |element| write_expression(element, expression));
            }
        });
    }

    /// Makes a set or map.
    pub fn add_set(&mut self, set: &Set<'_>) {
        self.sets += 1;
        self.begin(NEW_SET, CREATE | EXCLUSIVE);
        self.messages.text(1, &self.table).text(2, set.name);
        let mut flags = if set.data == SetData::None { 0 } else { SET_IS_MAP };
        if set.learned.is_some() {
            flags |= SET_HAS_TIMEOUTS | SET_IS_WRITTEN_BY_RULES;
        }
        self.messages
            .number_be(3, flags)
            .number_be(4, set.key_type)
            .number_be(5, set.key_length);
        match set.data {
            SetData::None => {}
            SetData::Verdict => {
                self.messages.number_be(6, DATA_TYPE_VERDICT);
            }
            SetData::Value(data_type, length) => {
                self.messages.number_be(6, data_type).number_be(7, length);
            }
        }
        if let Some(learned) = set.learned {
            self.messages.nested(9, |description| {
                description.number_be(1, learned.elements_max);
            });
            self.messages.number_be(12, learned.sweep_interval_ms);
        }
        self.messages.number_be(10, self.sets);
    }

    /// Deletes a set with its elements; the kernel refuses one that is still used.
    pub fn delete_set(&mut self, name: &str) {
        self.begin(DELETE_SET, 0);
        self.messages.text(1, &self.table).text(2, name);
    }

    /// Adds elements; one that is there with another value fails the transaction.
    pub fn add_elements<K: AsRef<[u8]>>(&mut self, set: &str, elements: impl IntoIterator<Item = (K, ElementValue)>) {
        self.elements(NEW_ELEMENT, CREATE, set, elements);
    }

    /// Deletes elements; an absent one fails the transaction.
    pub fn delete_elements<K: AsRef<[u8]>>(&mut self, set: &str, keys: impl IntoIterator<Item = K>) {
        self.elements(
            DELETE_ELEMENT,
            0,
            set,
            keys.into_iter().map(|key| (key, ElementValue::None)),
        );
    }

    /// Deletes all elements of a set.
    pub fn flush_set(&mut self, set: &str) {
        self.begin(DELETE_ELEMENT, 0);
        self.messages.text(1, &self.table).text(2, set);
    }

    /// Number of messages so far, without the frame.
    pub fn count(&self) -> usize {
        self.messages.count() - 1
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The bytes as they would be sent first. For tests and for measuring.
    pub fn finished(mut self) -> Vec<u8> {
        self.end();
        self.messages.finished()
    }

    /// Applies the batch.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        // The end of a batch is not acknowledged by kernels before 6.10; its last message is, and only after the commit.
        let acknowledged = self.messages.count() - 1;
        self.end();
        socket.transact_acknowledged(self.messages, acknowledged).map(drop)
    }

    fn end(&mut self) {
        self.messages.begin(BATCH_END, 0);
        self.messages.fixed(&family_header(0, SUBSYSTEM));
    }

    fn begin(&mut self, kind: u16, flags: u16) {
        self.messages.begin((SUBSYSTEM << 8) | kind, flags);
        self.messages.fixed(&family_header(self.family as u8, 0));
    }

    fn elements<K: AsRef<[u8]>>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: impl IntoIterator<Item = (K, ElementValue)>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.begin(kind, flags);
            self.messages.text(1, &self.table).text(2, set);
            self.messages.nested(3, |list| {
                while list.current_length() < ELEMENTS_BYTES_MAX {
                    let Some((key, value)) = elements.next() else { break };
                    list.nested(1, |element| {
                        element.nested(1, |data| {
                            data.attribute(1, key.as_ref());
                        });
                        match &value {
                            ElementValue::None => {}
                            ElementValue::Bytes(bytes) => {
                                element.nested(2, |data| {
                                    data.attribute(1, bytes);
                                });
                            }
                            ElementValue::Verdict(verdict) => {
                                element.nested(2, |data| write_verdict(data, verdict));
                            }
                        }
                    });
                }
            });
        }
    }
}

/// The generation of all tables of this namespace: each commit by anyone raises it.
pub fn generation(socket: &mut Socket) -> Result<u32, Error> {
    let mut messages = Messages::new();
    messages.begin((SUBSYSTEM << 8) | GET_GENERATION, ACK);
    messages.fixed(&family_header(0, 0));
    let answers = socket.transact_acknowledged(messages, 0)?;
    answers
        .iter()
        .filter(|answer| answer.kind == (SUBSYSTEM << 8) | NEW_GENERATION)
        .find_map(|answer| attribute_u32_be(answer, 1))
        .ok_or(Error::Protocol("no generation"))
}

/// The kernel's handle of a table, which a table made anew does not have again; `None` when it is absent.
pub fn table_handle(socket: &mut Socket, family: TableFamily, table: &str) -> Result<Option<u64>, Error> {
    let mut messages = Messages::new();
    messages.begin((SUBSYSTEM << 8) | GET_TABLE, ACK);
    messages.fixed(&family_header(family as u8, 0)).text(1, table);
    let answers = match socket.transact_acknowledged(messages, 0) {
        Ok(answers) => answers,
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let handle = answers.iter().find_map(|answer| {
        let value = Attributes::value(answer.payload.get(FAMILY_HEADER_LENGTH..)?, 4)?;
        Some(u64::from_be_bytes(value.try_into().ok()?))
    });
    handle.map(Some).ok_or(Error::Protocol("a table without a handle"))
}

/// Whether a table has a chain of this name.
pub fn has_chain(socket: &mut Socket, family: TableFamily, table: &str, chain: &str) -> Result<bool, Error> {
    let mut messages = Messages::new();
    messages.begin((SUBSYSTEM << 8) | GET_CHAIN, ACK);
    messages
        .fixed(&family_header(family as u8, 0))
        .text(1, table)
        .text(3, chain);
    match socket.transact_acknowledged(messages, 0) {
        Ok(_) => Ok(true),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn attribute_u32_be(answer: &Answer, kind: u16) -> Option<u32> {
    let value = Attributes::value(answer.payload.get(FAMILY_HEADER_LENGTH..)?, kind)?;
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn family_header(family: u8, resource: u16) -> [u8; FAMILY_HEADER_LENGTH] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Family;
    use crate::netns::NetworkNamespace;

    #[test]
    fn a_small_batch_byte_by_byte() {
        let mut batch = Batch::new(TableFamily::Ip, "t");
        batch.add_table();
        batch.delete_elements("s", [[1u8, 2, 3, 4]]);
        let expect: Vec<u8> = [
            &[20u8, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10][..],
            // table "t" in family ip
            &[
                28, 0, 0, 0, 0, 10, 1, 4, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 6, 0, 1, 0, b't', 0, 0, 0,
            ],
            // set "s": list > element > key > value
            &[
                56, 0, 0, 0, 14, 10, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 6, 0, 1, 0, b't', 0, 0, 0,
            ],
            &[
                6, 0, 2, 0, b's', 0, 0, 0, 20, 0, 3, 0x80, 16, 0, 1, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 1, 2, 3, 4,
            ],
            &[20, 0, 0, 0, 0x11, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
        ]
        .concat();
        assert_eq!(batch.finished(), expect);
    }

    #[test]
    fn concatenated_types_are_six_bits_each() {
        assert_eq!(types::concatenation(&[types::IPV4_ADDRESS, types::PORT]), (7 << 6) | 13);
    }

    #[test]
    fn elements_are_split_below_the_attribute_limit_and_none_is_lost() {
        let mut batch = Batch::new(TableFamily::Ip, "t");
        let keys: Vec<[u8; 4]> = (0..20_000u32).map(u32::to_be_bytes).collect();
        batch.delete_elements("s", &keys);
        assert!(batch.count() > 1);
        let bytes = batch.finished();
        let found = keys
            .iter()
            .filter(|key| bytes.windows(4).any(|window| window == key.as_slice()))
            .take(50)
            .count();
        assert_eq!(found, 50);
    }

    fn inside<T: Send>(work: impl FnOnce(&mut Socket) -> T + Send) -> T {
        let namespace = NetworkNamespace::create().unwrap();
        namespace
            .run(|| work(&mut Socket::open(Family::Netfilter).unwrap()))
            .unwrap()
    }

    #[test]
    fn a_refused_message_is_named_and_nothing_of_the_batch_stays() {
        inside(|socket| {
            let mut batch = Batch::new(TableFamily::Ip, "t");
            batch.add_table();
            batch.add_chain("c", None);
            batch.delete_chain("absent");
            match batch.commit(socket).unwrap_err() {
                Error::Refused(refusals) => {
                    assert_eq!((refusals[0].place, refusals[0].errno), (3, libc::ENOENT));
                }
                other => panic!("{other}"),
            }
            assert_eq!(table_handle(socket, TableFamily::Ip, "t").unwrap(), None);
        });
    }

    #[test]
    fn commits_raise_the_generation_and_a_new_table_has_a_new_handle() {
        inside(|socket| {
            let before = generation(socket).unwrap();
            let mut handles = Vec::new();
            for _ in 0..2 {
                let mut batch = Batch::new(TableFamily::Ip, "t");
                batch.add_table();
                batch.delete_table();
                batch.add_table();
                batch.commit(socket).unwrap();
                handles.push(table_handle(socket, TableFamily::Ip, "t").unwrap().unwrap());
            }
            assert_ne!(handles[0], handles[1]);
            assert_eq!(generation(socket).unwrap(), before + 2);
        });
    }
}
