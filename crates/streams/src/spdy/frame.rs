//! Frames from bytes and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::SpdyError;
use super::headers::{Deflater, Inflater};

/// The version of all control frames.
const VERSION: u16 = 3;
/// The longest control frame that is read.
const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// The longest data frame that is read: clients copy in chunks of 32 KiB.
const DATA_BYTES_MAX: usize = 1 << 20;
/// Bytes in front of each frame.
const HEAD_BYTES: usize = 8;
/// The flag of a sender that will send no more.
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// What peers tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream.
    Open {
        /// Its number.
        stream: u32,
        /// Whether its opener will send nothing.
        fin: bool,
        /// What it is for.
        headers: Vec<(String, String)>,
    },
    /// The answer to it.
    Reply {
        /// The stream.
        stream: u32,
    },
    /// A stream ends at once.
    Reset {
        /// The stream.
        stream: u32,
        /// Why: 3 is a refusal, 5 a cancellation.
        status: u32,
    },
    /// To be sent back as it is.
    Ping(u32),
    /// The connection is about to end.
    GoAway,
    /// A piece of a stream.
    Data {
        /// The stream.
        stream: u32,
        /// Whether no more will come.
        fin: bool,
        /// The piece.
        data: Bytes,
    },
    /// Settings, windows and what else has no effect here.
    Other,
}

/// Frames of one direction as they come.
pub struct Decoder {
    inflater: Inflater,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            inflater: Inflater::new(),
        }
    }
}

impl Decoder {
    /// Takes the first frame out of `bytes`, once it is there as a whole.
    ///
    /// # Errors
    /// What is not SPDY/3; the connection is of no use after it.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        let control = first & 0x8000_0000 != 0;
        if length > if control { CONTROL_BYTES_MAX } else { DATA_BYTES_MAX } {
            return Err(SpdyError::TooLong);
        }
        if bytes.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        bytes.advance(HEAD_BYTES);
        let body = bytes.split_to(length).freeze();
        let fin = flags & FIN != 0;
        if !control {
            return Ok(Some(Frame::Data {
                stream: first,
                fin,
                data: body,
            }));
        }
        let version = (first >> 16) as u16 & 0x7fff;
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        self.control(first as u16, fin, &body).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, body: &[u8]) -> Result<Frame, SpdyError> {
        let number = |at: usize| {
            let bytes = body.get(at..at + 4).ok_or(SpdyError::Length(body.len()))?;
            Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let rest = |at: usize| body.get(at..).ok_or(SpdyError::Length(body.len()));
        match kind {
            SYN_STREAM => Ok(Frame::Open {
                stream: number(0)? & 0x7fff_ffff,
                fin,
                headers: self.inflater.read(rest(10)?)?,
            }),
            // Their headers say nothing, but what comes later was compressed after them.
            SYN_REPLY => {
                self.inflater.read(rest(4)?)?;
                Ok(Frame::Reply { stream: number(0)? })
            }
            HEADERS => {
                self.inflater.read(rest(4)?)?;
                Ok(Frame::Other)
            }
            RST_STREAM => Ok(Frame::Reset {
                stream: number(0)?,
                status: number(4)?,
            }),
            PING => Ok(Frame::Ping(number(0)?)),
            GOAWAY => Ok(Frame::GoAway),
            _ => Ok(Frame::Other),
        }
    }
}

/// Frames of one direction as they go.
#[derive(Default)]
pub struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// The bytes of a frame.
    pub fn encode(&mut self, frame: &Frame) -> Bytes {
        match frame {
            Frame::Open { stream, fin, headers } => {
                let mut body = stream.to_be_bytes().to_vec();
                body.extend_from_slice(&[0; 6]);
                body.extend(self.deflater.write(headers));
                control(SYN_STREAM, u8::from(*fin) * FIN, &body)
            }
            Frame::Reply { stream } => {
                let mut body = stream.to_be_bytes().to_vec();
                body.extend(self.deflater.write(&[]));
                control(SYN_REPLY, 0, &body)
            }
            Frame::Reset { stream, status } => {
                control(RST_STREAM, 0, &[stream.to_be_bytes(), status.to_be_bytes()].concat())
            }
            Frame::Ping(number) => control(PING, 0, &number.to_be_bytes()),
            Frame::GoAway => control(GOAWAY, 0, &[0; 8]),
            Frame::Data { stream, fin, data } => framed(*stream, u8::from(*fin) * FIN, data),
            Frame::Other => Bytes::new(),
        }
    }
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Bytes {
    framed(0x8000_0000 | u32::from(VERSION) << 16 | u32::from(kind), flags, body)
}

fn framed(first: u32, flags: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + body.len());
    out.put_u32(first);
    // Nothing that is sent here has more than 24 bits of length.
    out.put_u32(u32::from(flags) << 24 | (body.len() as u32 & 0x00ff_ffff));
    out.put_slice(body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::super::headers::tests::Client;
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Frame>, SpdyError> {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let mut frames = Vec::new();
        // A byte at a time: a frame is whole or it is not there.
        for byte in bytes {
            buffer.put_u8(*byte);
            while let Some(frame) = decoder.next(&mut buffer)? {
                frames.push(frame);
            }
        }
        assert!(buffer.is_empty(), "{buffer:?}");
        Ok(frames)
    }

    /// A stream as a client opens it.
    pub fn open(client: &mut Client, stream: u32, headers: &[(&str, &str)]) -> Bytes {
        let mut body = stream.to_be_bytes().to_vec();
        body.extend_from_slice(&[0; 6]);
        body.extend(client.write(headers));
        control(SYN_STREAM, 0, &body)
    }

    #[test]
    fn frames_round_trip() {
        let mut encoder = Encoder::default();
        let frames = [
            Frame::Reset { stream: 3, status: 5 },
            Frame::Ping(9),
            Frame::GoAway,
            Frame::Data {
                stream: 1,
                fin: false,
                data: Bytes::from_static(b"hello"),
            },
            Frame::Data {
                stream: 1,
                fin: true,
                data: Bytes::new(),
            },
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| encoder.encode(frame)).collect();
        assert_eq!(read(&bytes).unwrap(), frames);
    }

    #[test]
    fn a_client_opens_streams() {
        let mut client = Client::new();
        let mut bytes = open(&mut client, 1, &[("StreamType", "error"), ("port", "80")]).to_vec();
        bytes.extend(open(&mut client, 3, &[("StreamType", "data"), ("port", "80")]));
        let frames = read(&bytes).unwrap();
        for (frame, number, kind) in [(&frames[0], 1, "error"), (&frames[1], 3, "data")] {
            let Frame::Open { stream, headers, .. } = frame else {
                panic!("{frame:?}")
            };
            assert_eq!(
                (*stream, super::super::header(headers, "streamtype")),
                (number, Some(kind))
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |bytes: &[u8], expect| assert_eq!(read(bytes), Err(expect), "{bytes:?}");
        check(&[0x80, 2, 0, 6, 0, 0, 0, 0], SpdyError::Version(2));
        check(&[0x80, 3, 0, 6, 0, 0, 0, 1, 7], SpdyError::Length(1));
        check(&[0x80, 3, 0, 1, 0, 0xff, 0, 0], SpdyError::TooLong);
        check(&[0, 0, 0, 1, 0, 0xff, 0, 0], SpdyError::TooLong);
        check(&[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], SpdyError::Length(4));
    }
}
