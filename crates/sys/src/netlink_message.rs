//! Netlink messages: how they are written into one buffer, and how attributes are read. Part of [`crate::netlink`].
//!
//! Invariant: messages of one [`Messages`] are numbered from zero in the order they were begun; the socket adds its own
//! base, so that an answer to an earlier request is never taken for one to this request.

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x01;
/// `NLM_F_ACK`.
pub const ACK: u16 = 0x04;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;

/// Bytes of a netlink message header.
pub const HEADER_LENGTH: usize = 16;
/// The largest attribute: its length is a 16 bit number.
pub const ATTRIBUTE_LENGTH_MAX: usize = u16::MAX as usize;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Several netlink messages in one buffer, sent by one system call.
#[derive(Debug, Default, Clone)]
pub struct Messages {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Messages {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a message; returns its place, which a failure names again.
    pub fn begin(&mut self, kind: u16, flags: u16) -> usize {
        self.close_last();
        let place = self.starts.len();
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&(place as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        place
    }

    /// Appends a fixed header (`ifinfomsg`, `nfgenmsg`, ...) and pads it to four bytes.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = value.len() + 4;
        assert!(
            length <= ATTRIBUTE_LENGTH_MAX,
            "invariant: callers keep attributes under 64 KiB"
        );
        self.bytes.extend_from_slice(&(length as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends a string attribute with its final NUL.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let length = value.len() + 5;
        assert!(length <= ATTRIBUTE_LENGTH_MAX, "invariant: names are short");
        self.bytes.extend_from_slice(&(length as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
        self
    }

    /// Appends a 32 bit number in the machine's order (route netlink).
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a 32 bit number in network order (netfilter).
    pub fn number_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends an attribute that holds what `fill` appends.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let length = self.bytes.len() - start;
        assert!(
            length <= ATTRIBUTE_LENGTH_MAX,
            "invariant: callers keep attributes under 64 KiB"
        );
        self.bytes[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self
    }

    /// Bytes of the message that is being written, its header included.
    pub fn current_length(&self) -> usize {
        self.bytes.len() - self.starts.last().copied().unwrap_or(0)
    }

    /// Number of messages.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The finished buffer as it stands, numbered from zero. For tests and for measuring.
    pub fn finished(&self) -> Vec<u8> {
        let mut copy = self.clone();
        copy.close_last();
        copy.bytes
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn close_last(&mut self) {
        if let Some(&start) = self.starts.last() {
            let length = (self.bytes.len() - start) as u32;
            self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// The bytes to send: numbered from `base`, with an acknowledgement asked of the message at `acknowledged`.
    pub(crate) fn into_wire(mut self, base: u32, acknowledged: usize) -> Vec<u8> {
        self.close_last();
        for (place, &start) in self.starts.iter().enumerate() {
            let sequence = base.wrapping_add(place as u32);
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            if place == acknowledged {
                let flags = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]) | ACK;
                self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
            }
        }
        self.bytes
    }
}
/// Walks the attributes of a message; stops at the first malformed one.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`, which begin behind the fixed header.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The value of the first attribute of this kind.
    pub fn value(bytes: &'a [u8], kind: u16) -> Option<&'a [u8]> {
        Self::new(bytes)
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.len() < 4 {
            return None;
        }
        let length = read_u16(self.rest, 0) as usize;
        let kind = read_u16(self.rest, 2) & NLA_TYPE_MASK;
        if length < 4 || length > self.rest.len() {
            self.rest = &[];
            return None;
        }
        let value = &self.rest[4..length];
        self.rest = &self.rest[align(length).min(self.rest.len())..];
        Some((kind, value))
    }
}

/// A 32 bit number in the machine's order at `offset`.
pub fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_ne_bytes(value)
}

pub(crate) fn read_u16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes([bytes[offset], bytes[offset + 1]])
}

pub(crate) fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_lengths_padding_and_places() {
        let mut messages = Messages::new();
        assert_eq!(messages.begin(0x10, EXCLUSIVE), 0);
        messages.fixed(&[1, 2, 3]);
        messages.text(3, "lo");
        assert_eq!(messages.begin(0x11, 0), 1);
        messages.nested(2, |inner| {
            inner.number_be(1, 7);
        });
        let expect: Vec<u8> = [
            &[28u8, 0, 0, 0, 0x10, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 2, 3, 0, 7, 0, 3, 0, b'l', b'o', 0, 0],
            &[28, 0, 0, 0, 0x11, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 7],
        ]
        .concat();
        assert_eq!(messages.finished(), expect);
    }

    #[test]
    fn the_wire_carries_the_base_and_one_acknowledgement() {
        let mut messages = Messages::new();
        messages.begin(1, 0);
        messages.begin(2, 0);
        let wire = messages.into_wire(40, 1);
        assert_eq!((read_u32(&wire, 8), read_u16(&wire, 6)), (40, REQUEST));
        assert_eq!((read_u32(&wire, 24), read_u16(&wire, 22)), (41, REQUEST | ACK));
    }

    #[test]
    fn attributes_survive_a_round_trip_and_stop_at_garbage() {
        let mut messages = Messages::new();
        messages.begin(1, 0);
        messages.text(3, "eth0").number(4, 1500);
        let bytes = messages.finished();
        let found: Vec<_> = Attributes::new(&bytes[HEADER_LENGTH..]).collect();
        assert_eq!(found, [(3u16, &b"eth0\0"[..]), (4, &1500u32.to_ne_bytes()[..])]);
        assert_eq!(Attributes::new(&[200, 0, 1, 0, 9]).count(), 0);
        assert_eq!(Attributes::new(&[0, 0, 1, 0]).count(), 0);
    }
}
