//! The channel framing of Kubernetes' WebSocket streams (exec, attach and logs), for the server side and tests of clients.
//!
//! One WebSocket message carries one chunk of one channel: a first byte (or, in the base64 variants, a first ASCII digit)
//! names the channel, the rest is the data. `v5.channel.k8s.io` adds a message on channel 255 whose second byte names a
//! channel that the sender will not write to any more; that is how stdin ends without closing the whole connection. The
//! `binary.k8s.io` protocols have a single stream and no channel byte.
//!
//! The source of these rules is upstream's `k8s.io/streaming` (`wsstream`) and `remotecommand` constants.

use bytes::{BufMut, Bytes, BytesMut};

/// Data from the client to the process.
pub const STDIN: u8 = 0;
/// Data from the process.
pub const STDOUT: u8 = 1;
/// Data from the process's standard error; not used with a terminal.
pub const STDERR: u8 = 2;
/// The final status of the command.
pub const ERROR: u8 = 3;
/// Terminal sizes, JSON `{"Width":80,"Height":24}`.
pub const RESIZE: u8 = 4;
/// The pseudo channel of v5 that half-closes another one.
pub const CLOSE: u8 = 255;

/// Longest message that is accepted from a peer: client-go writes chunks of 32 KiB, base64 makes 44 KiB of that; more is
/// somebody testing our memory.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Size of the chunks that we send, as upstream's clients expect to buffer.
pub const CHUNK_BYTES: usize = 32 * 1024;

/// A negotiated subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `v5.channel.k8s.io`: v4 and half-close.
    V5,
    /// `v4.channel.k8s.io`: the error channel carries a JSON `Status`.
    V4,
    /// `channel.k8s.io` and no protocol at all: the error channel carries text, and only for failures.
    V1,
    /// `v4.base64.channel.k8s.io`.
    V4Base64,
    /// `base64.channel.k8s.io`.
    V1Base64,
    /// `binary.k8s.io`: one stream without channel bytes (logs).
    Binary,
    /// `base64.binary.k8s.io`: the same, base64 in text messages.
    BinaryBase64,
}

/// Subprotocols of exec and attach, the most capable first.
pub const EXEC_PROTOCOLS: &[Protocol] = &[
    Protocol::V5,
    Protocol::V4,
    Protocol::V4Base64,
    Protocol::V1,
    Protocol::V1Base64,
];
/// Subprotocols of port-forward: for each port a channel of data and one for errors.
pub const FORWARD_PROTOCOLS: &[Protocol] = &[Protocol::V4, Protocol::V4Base64];
/// Subprotocols of a single stream (logs).
pub const STREAM_PROTOCOLS: &[Protocol] = &[Protocol::Binary, Protocol::BinaryBase64];

/// What a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A chunk of a channel; empty chunks are legal (client-go opens channels with them).
    Data(u8, Bytes),
    /// The peer will not write to this channel again (v5).
    Close(u8),
}

/// One WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A binary message.
    Binary(Bytes),
    /// A text message (the base64 protocols).
    Text(String),
}

/// Why a message was refused; the connection ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// A message without a channel.
    #[error("a message without a channel byte")]
    Empty,
    /// A text message in a binary protocol or the other way round is accepted by upstream as bytes; this is bad base64.
    #[error("a base64 message that does not decode")]
    Base64,
    /// A channel digit outside of 0..=9 in a base64 protocol.
    #[error("a channel that does not exist")]
    Channel,
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message that is too long")]
    TooLong,
}

impl Protocol {
    /// The name in `Sec-WebSocket-Protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::V5 => "v5.channel.k8s.io",
            Protocol::V4 => "v4.channel.k8s.io",
            Protocol::V1 => "channel.k8s.io",
            Protocol::V4Base64 => "v4.base64.channel.k8s.io",
            Protocol::V1Base64 => "base64.channel.k8s.io",
            Protocol::Binary => "binary.k8s.io",
            Protocol::BinaryBase64 => "base64.binary.k8s.io",
        }
    }

    /// Chooses the first subprotocol offered by the client (values of `Sec-WebSocket-Protocol`, comma lists allowed)
    /// that is `supported`. `None` if it offered something and nothing fits; without any offer the caller decides.
    pub fn negotiate<'a>(offered: impl IntoIterator<Item = &'a str>, supported: &[Protocol]) -> Option<Protocol> {
        offered
            .into_iter()
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .find_map(|name| supported.iter().copied().find(|p| p.name() == name))
    }

    /// Whether the error channel carries a JSON `Status` for success too (v4 and later).
    pub fn has_status(self) -> bool {
        matches!(self, Protocol::V5 | Protocol::V4 | Protocol::V4Base64)
    }

    /// Whether a channel can be half-closed.
    pub fn has_close(self) -> bool {
        self == Protocol::V5
    }

    fn has_channels(self) -> bool {
        !matches!(self, Protocol::Binary | Protocol::BinaryBase64)
    }

    fn is_base64(self) -> bool {
        matches!(self, Protocol::V4Base64 | Protocol::V1Base64 | Protocol::BinaryBase64)
    }

    /// The message that carries `data` on `channel` (ignored by the single-stream protocols).
    pub fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.is_base64() {
            let mut text = String::with_capacity(1 + data.len().div_ceil(3) * 4);
            if self.has_channels() {
                text.push(char::from(b'0' + channel.min(9)));
            }
            base64_encode(data, &mut text);
            return Message::Text(text);
        }
        let mut out = BytesMut::with_capacity(1 + data.len());
        if self.has_channels() {
            out.put_u8(channel);
        }
        out.put_slice(data);
        Message::Binary(out.freeze())
    }

    /// The message that half-closes `channel`, where the protocol has one.
    pub fn encode_close(self, channel: u8) -> Option<Message> {
        self.has_close()
            .then(|| Message::Binary(Bytes::copy_from_slice(&[CLOSE, channel])))
    }

    /// Reads one message. Text messages of a binary protocol are taken as their bytes, as upstream does.
    pub fn decode(self, message: Message) -> Result<Event, ChannelError> {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
        };
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(ChannelError::TooLong);
        }
        match (self.has_channels(), self.is_base64()) {
            (false, false) => Ok(Event::Data(STDIN, bytes)),
            (false, true) => Ok(Event::Data(STDIN, base64_decode(&bytes)?)),
            (true, base64) => {
                let channel = *bytes.first().ok_or(ChannelError::Empty)?;
                if !base64 {
                    return match (channel, bytes.get(1)) {
                        (CLOSE, Some(closed)) if self.has_close() => Ok(Event::Close(*closed)),
                        _ => Ok(Event::Data(channel, bytes.slice(1..))),
                    };
                }
                if !channel.is_ascii_digit() {
                    return Err(ChannelError::Channel);
                }
                Ok(Event::Data(channel - b'0', base64_decode(&bytes[1..])?))
            }
        }
    }
}

/// A terminal size from the resize channel; `None` for what is not one (upstream ignores it too).
pub fn parse_resize(data: &[u8]) -> Option<(u16, u16)> {
    let value: serde_json::Value = serde_json::from_slice(data).ok()?;
    let field = |name: &str| value.get(name)?.as_u64()?.try_into().ok();
    Some((field("Width")?, field("Height")?))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(data: &[u8], out: &mut String) {
    for chunk in data.chunks(3) {
        let mut group = [0u8; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for index in 0..4 {
            if index <= chunk.len() {
                out.push(char::from(ALPHABET[(bits >> (18 - 6 * index)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
}

fn base64_decode(text: &[u8]) -> Result<Bytes, ChannelError> {
    if !text.len().is_multiple_of(4) {
        return Err(ChannelError::Base64);
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return Err(ChannelError::Base64);
    }
    let mut out = BytesMut::with_capacity(text.len() / 4 * 3);
    let body = &text[..text.len() - padding];
    for chunk in body.chunks(4) {
        let mut bits = 0u32;
        for byte in chunk {
            let value = ALPHABET
                .iter()
                .position(|letter| letter == byte)
                .ok_or(ChannelError::Base64)?;
            bits = bits << 6 | value as u32;
        }
        bits <<= 6 * (4 - chunk.len()) as u32;
        let bytes = bits.to_be_bytes();
        out.put_slice(&bytes[1..chunk.len()]);
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_takes_the_clients_order() {
        let check = |offered: &[&str], expect: Option<Protocol>| {
            assert_eq!(
                Protocol::negotiate(offered.iter().copied(), EXEC_PROTOCOLS),
                expect,
                "{offered:?}"
            );
        };
        check(&["v5.channel.k8s.io, v4.channel.k8s.io"], Some(Protocol::V5));
        check(&["v4.channel.k8s.io", "v5.channel.k8s.io"], Some(Protocol::V4));
        check(&["nonsense,channel.k8s.io"], Some(Protocol::V1));
        check(&["nonsense"], None);
        check(&[], None);
    }

    #[test]
    fn messages_round_trip() {
        for protocol in [EXEC_PROTOCOLS, STREAM_PROTOCOLS].concat() {
            for data in [&b""[..], b"a", b"ab", b"abc", b"\x00\xff\x7f\x80"] {
                let channel = if protocol.has_channels() { STDOUT } else { STDIN };
                assert_eq!(
                    protocol.decode(protocol.encode(channel, data)),
                    Ok(Event::Data(channel, Bytes::copy_from_slice(data))),
                    "{protocol:?} {data:?}"
                );
            }
        }
    }

    #[test]
    fn known_messages() {
        assert_eq!(
            Protocol::V4Base64.encode(STDERR, b"hello"),
            Message::Text("2aGVsbG8=".into())
        );
        assert_eq!(
            Protocol::V5.encode(STDOUT, b"x"),
            Message::Binary(Bytes::from_static(b"\x01x"))
        );
        assert_eq!(
            Protocol::Binary.encode(7, b"x"),
            Message::Binary(Bytes::from_static(b"x"))
        );
    }

    #[test]
    fn only_v5_closes() {
        let close = Message::Binary(Bytes::from_static(&[255, 0]));
        assert_eq!(Protocol::V5.encode_close(STDIN), Some(close.clone()));
        assert_eq!(Protocol::V4.encode_close(STDIN), None);
        assert_eq!(Protocol::V5.decode(close.clone()), Ok(Event::Close(STDIN)));
        assert_eq!(
            Protocol::V4.decode(close),
            Ok(Event::Data(255, Bytes::from_static(&[0])))
        );
    }

    #[test]
    fn bad_messages() {
        let check = |protocol: Protocol, message: Message, expect| {
            assert_eq!(protocol.decode(message), Err(expect));
        };
        check(Protocol::V5, Message::Binary(Bytes::new()), ChannelError::Empty);
        check(Protocol::V1Base64, Message::Text("x".into()), ChannelError::Channel);
        check(Protocol::V1Base64, Message::Text("0a".into()), ChannelError::Base64);
        check(Protocol::V1Base64, Message::Text("0a===".into()), ChannelError::Base64);
        check(Protocol::V1Base64, Message::Text("0a!==".into()), ChannelError::Base64);
        let long = Message::Binary(Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]));
        check(Protocol::V5, long, ChannelError::TooLong);
    }

    #[test]
    fn resize() {
        assert_eq!(parse_resize(br#"{"Width":80,"Height":24}"#), Some((80, 24)));
        assert_eq!(parse_resize(br#"{"Width":-1,"Height":24}"#), None);
        assert_eq!(parse_resize(br#"{"Width":70000,"Height":24}"#), None);
        assert_eq!(parse_resize(b"nonsense"), None);
    }
}
