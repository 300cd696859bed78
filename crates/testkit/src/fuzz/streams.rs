//! What clients send in streams.

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
