//! What clients send in streams.

use ::streams::channel::{Event, Message, Protocol, parse_resize};
use ::streams::spdy::{Decoder, Encoder, Frame};
use base::Random;
use bytes::{Bytes, BytesMut};

pub fn make_spdy(random: &Random) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let frames = [
        Frame::Open {
            stream: 1,
            fin: false,
            headers: vec![
                header("streamtype", "data"),
                header("port", "80"),
                header("requestid", "0"),
            ],
        },
        Frame::Data {
            stream: 1,
            fin: random.index(2) == 0,
            data: Bytes::from_static(b"hello"),
        },
        Frame::Open {
            stream: 3,
            fin: true,
            headers: vec![header("streamtype", "error")],
        },
        Frame::Reset { stream: 1, status: 5 },
        Frame::Ping(1),
        Frame::GoAway,
    ];
    let count = 1 + random.index(frames.len());
    frames[..count].iter().flat_map(|frame| encoder.encode(frame)).collect()
}

/// However the bytes are cut into reads, the frames are the same.
pub fn spdy(bytes: &[u8]) -> String {
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(whole, read(bytes, 1));
    whole
}

fn read(bytes: &[u8], step: usize) -> String {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    let mut words = Vec::new();
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(None) => break,
                Ok(Some(frame)) => words.push(match frame {
                    Frame::Open { headers, .. } => format!("open {}", headers.len()),
                    Frame::Data { fin, .. } => format!("data {fin}"),
                    Frame::Reset { .. } => "reset".into(),
                    other => format!("{other:?}"),
                }),
                Err(error) => return format!("{} {error}", words.join(" ")),
            }
        }
    }
    words.join(" ")
}

const PROTOCOLS: [Protocol; 7] = [
    Protocol::V5,
    Protocol::V4,
    Protocol::V1,
    Protocol::V4Base64,
    Protocol::V1Base64,
    Protocol::Binary,
    Protocol::BinaryBase64,
];

/// The first byte chooses the protocol, and whether the message is one of text.
pub fn make_channels(random: &Random) -> Vec<u8> {
    let head = random.bytes::<1>()[0];
    let data = br#"{"Width":80,"Height":24}"#;
    let channel = u8::try_from(random.index(6)).unwrap_or_default();
    let mut input = vec![head];
    match PROTOCOLS[usize::from(head) % PROTOCOLS.len()].encode(channel, data) {
        Message::Binary(bytes) => input.extend_from_slice(&bytes),
        Message::Text(text) => input.extend_from_slice(text.as_bytes()),
    }
    input
}

/// What was read of a channel is read again when it is sent on.
pub fn channels(input: &[u8]) -> String {
    let Some((head, bytes)) = input.split_first() else {
        return "nothing".into();
    };
    let protocol = PROTOCOLS[usize::from(*head) % PROTOCOLS.len()];
    let message = match std::str::from_utf8(bytes) {
        Ok(text) if *head >= 128 => Message::Text(text.to_owned()),
        _ => Message::Binary(Bytes::copy_from_slice(bytes)),
    };
    match protocol.decode(message) {
        Err(error) => error.to_string(),
        Ok(Event::Close(_)) => "close".into(),
        Ok(Event::Data(channel, data)) => {
            let again = protocol.decode(protocol.encode(channel, &data));
            assert_eq!(again, Ok(Event::Data(channel, data.clone())), "{protocol:?}");
            let resize = if parse_resize(&data).is_some() {
                "resize"
            } else {
                "data"
            };
            format!("{} {resize}", protocol.name())
        }
    }
}
