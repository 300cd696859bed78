//! A client of etcd's API that costs next to nothing: what shares the processors with the servers that it measures must not
//! be what is measured.
//!
//! One thread, one connection of HTTP/2 without TLS, as many requests at a time as are asked for. It knows what a bench needs
//! of the protocol: requests whose headers are all the same, answers whose headers nobody reads. Anything else that a server
//! says ends the program.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tokio::time::Instant;

/// The largest frame that any server takes.
const FRAME_BYTES_MAX: usize = 16_384;
/// What is read at once at most; more than a frame.
const READ_BYTES: usize = 256 * 1024;
/// What HTTP/2 lets us send before the server says more.
const FIRST_WINDOW: i64 = 65_535;
/// What the server may send us in all, and when we give as much again.
const OUR_WINDOW: u32 = (1 << 31) - 1;
const CREDIT_AT: u32 = 1 << 29;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection.
pub struct Wire {
    socket: TcpStream,
    path: &'static str,
    authority: String,
    /// Calls begun so far; the next one is stream `2 * calls + 1`.
    calls: u32,
    out: Vec<u8>,
    /// Bytes of data that the server takes now.
    window: i64,
    /// What waits for that: streams, messages, and whether they end their stream.
    waiting: VecDeque<(u32, Vec<u8>, bool)>,
    /// What was read, of which the first `filled` bytes are still to be understood.
    read: Vec<u8>,
    filled: usize,
    received: u32,
    /// For each call, what came of a message that is not whole.
    parts: Vec<Vec<u8>>,
    answered: Vec<bool>,
    /// Messages are counted and not kept.
    counting: Option<Counting>,
}

/// How often the messages of all calls have a field, seen as their bytes pass.
struct Counting {
    field: u64,
    found: u64,
    /// For each call, where it is.
    places: Vec<Place>,
}

/// Where a stream of messages is.
#[derive(Default)]
struct Place {
    /// Bytes of the message that come after those passed over.
    left: usize,
    passed_over: usize,
    /// The beginning of a message's or a field's head.
    head: Vec<u8>,
}

impl Counting {
    fn take(&mut self, call: usize, mut bytes: &[u8]) {
        if self.places.len() <= call {
            self.places.resize_with(call + 1, Place::default);
        }
        let place = &mut self.places[call];
        loop {
            let over = place.passed_over.min(bytes.len());
            place.passed_over -= over;
            bytes = &bytes[over..];
            let Some((first, rest)) = bytes.split_first() else {
                return;
            };
            bytes = rest;
            place.head.push(*first);
            if place.left == 0 {
                if let [_, length @ ..] = &place.head[..]
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    place.left = u32::from_be_bytes(length) as usize;
                    place.head.clear();
                }
                continue;
            }
            place.left -= 1;
            let mut head = &place.head[..];
            if let (Some(tag), Some(value)) = (varint(&mut head), varint(&mut head)) {
                place.head.clear();
                if tag & 7 == 2 {
                    self.found += u64::from(tag >> 3 == self.field);
                    place.passed_over = value as usize;
                    place.left -= value as usize;
                }
            }
        }
    }
}

/// What a server said.
pub enum Said<'a> {
    /// A message to a call.
    Message(&'a [u8]),
    /// The call is over.
    End(usize),
}

impl Wire {
    /// Connects to `http://address`, for calls of one method.
    pub fn connect(url: &str, path: &'static str) -> Self {
        let authority = url.trim_start_matches("http://").to_owned();
        let socket = TcpStream::connect(&authority).expect("a server");
        socket.set_nodelay(true).expect("a socket");
        let mut wire = Self {
            socket,
            path,
            authority,
            calls: 0,
            out: PREFACE.to_vec(),
            window: FIRST_WINDOW,
            waiting: VecDeque::new(),
            read: vec![0; READ_BYTES],
            filled: 0,
            received: 0,
            parts: Vec::new(),
            answered: Vec::new(),
            counting: None,
        };
        // No table of headers, so that the answers' need not be understood; windows that never close.
        let settings = [(1_u16, 0_u32), (2, 0), (4, OUR_WINDOW)];
        let settings = settings.map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        wire.frame(SETTINGS, 0, 0, &settings.concat());
        let more = OUR_WINDOW - FIRST_WINDOW as u32;
        wire.frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        wire
    }

    /// Begins a call with a message; `last`: there will be no other. The number of the call.
    pub fn call(&mut self, message: &impl prost::Message, last: bool) -> usize {
        let number = self.calls as usize;
        let stream = 2 * self.calls + 1;
        self.calls += 1;
        self.parts.push(Vec::new());
        self.answered.push(false);
        let headers = if number == 0 {
            self.first_headers()
        } else {
            LATER_HEADERS.to_vec()
        };
        self.frame(HEADERS, END_HEADERS, stream, &headers);
        let mut data = vec![0; 5];
        message.encode(&mut data).expect("a message");
        let length = (data.len() - 5) as u32;
        data[1..5].copy_from_slice(&length.to_be_bytes());
        self.waiting.push_back((stream, data, last));
        self.fill();
        number
    }

    /// From now on messages are not told; [`Wire::counted`] says how many fields of a number they had.
    pub fn count(&mut self, field: u64) {
        self.counting = Some(Counting {
            field,
            found: 0,
            places: Vec::new(),
        });
    }

    /// How many fields have been counted.
    pub fn counted(&self) -> u64 {
        self.counting.as_ref().map_or(0, |counting| counting.found)
    }

    /// Sends what waits, then tells what the server says next.
    pub fn turn(&mut self, mut hear: impl FnMut(Said<'_>)) {
        self.socket
            .write_all(&std::mem::take(&mut self.out))
            .expect("a connection");
        let count = self.socket.read(&mut self.read[self.filled..]).expect("a connection");
        assert!(count > 0, "the server ended the connection");
        let mut bytes = std::mem::take(&mut self.read);
        let filled = self.filled + count;
        let mut rest = &bytes[..filled];
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else {
                break;
            };
            rest = after;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.take(head[3], head[4], stream, payload, &mut hear);
        }
        self.filled = rest.len();
        bytes.copy_within(filled - self.filled..filled, 0);
        self.read = bytes;
        self.fill();
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8], hear: &mut impl FnMut(Said<'_>)) {
        let call = (stream / 2) as usize;
        match kind {
            DATA => {
                self.received += payload.len() as u32;
                if self.received > CREDIT_AT {
                    let credit = std::mem::take(&mut self.received).to_be_bytes();
                    self.frame(WINDOW_UPDATE, 0, 0, &credit);
                }
                self.answered[call] = true;
                if let Some(counting) = &mut self.counting {
                    return counting.take(call, payload);
                }
                let mut part = std::mem::take(&mut self.parts[call]);
                part.extend_from_slice(payload);
                let mut rest = &part[..];
                while let Some((head, after)) = rest.split_first_chunk::<5>() {
                    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                    let Some((message, after)) = after.split_at_checked(length) else {
                        break;
                    };
                    hear(Said::Message(message));
                    rest = after;
                }
                let done = part.len() - rest.len();
                part.drain(..done);
                self.parts[call] = part;
            }
            HEADERS if flags & END_STREAM != 0 => {
                assert!(self.answered[call], "call {call} was refused");
                hear(Said::End(call));
            }
            HEADERS => {}
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            SETTINGS | PING => {}
            // What a single request needs is always open.
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.try_into().map_or(0, u32::from_be_bytes);
                self.window += i64::from(more);
            }
            WINDOW_UPDATE => {}
            other => panic!("the server sent a frame of kind {other}: {payload:?}"),
        }
    }

    /// Sends the messages that the server has room for.
    fn fill(&mut self) {
        while let Some((_, data, _)) = self.waiting.front()
            && data.len() as i64 <= self.window
            && let Some((stream, data, last)) = self.waiting.pop_front()
        {
            self.window -= data.len() as i64;
            let mut chunks = data.chunks(FRAME_BYTES_MAX).peekable();
            while let Some(chunk) = chunks.next() {
                let ends = last && chunks.peek().is_none();
                self.frame(DATA, if ends { END_STREAM } else { 0 }, stream, chunk);
            }
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    /// The headers of a call, for the server to remember: `:method: POST`, `:scheme: http`, then what is new to it.
    fn first_headers(&self) -> Vec<u8> {
        let mut headers = vec![0x83, 0x86];
        let mut literal = |name: &[u8], value: &str| {
            headers.extend_from_slice(name);
            headers.push(value.len() as u8);
            headers.extend_from_slice(value.as_bytes());
        };
        literal(&[0x44], self.path);
        literal(&[0x41], &self.authority);
        literal(&[0x5f], "application/grpc");
        literal(b"\x40\x02te", "trailers");
        headers
    }
}

/// The same as the server remembers them.
const LATER_HEADERS: [u8; 6] = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];

/// Keeps so many calls under way for a time; how long each took.
pub fn keep_calling<M: prost::Message>(
    wire: &mut Wire,
    at_once: u64,
    span: Duration,
    mut next: impl FnMut() -> M,
    mut hear: impl FnMut(&[u8]),
) -> Vec<Duration> {
    let begun = Instant::now();
    let mut started = Vec::new();
    let mut took = Vec::new();
    let first = wire.calls as usize;
    for _ in 0..at_once {
        wire.call(&next(), true);
        started.push(begun);
    }
    let mut ended = Vec::new();
    while took.len() < started.len() {
        wire.turn(|said| match said {
            Said::Message(message) => hear(message),
            Said::End(call) => ended.push(call),
        });
        let now = Instant::now();
        for call in ended.drain(..) {
            took.push(now - started[call - first]);
            if now - begun < span {
                wire.call(&next(), true);
                started.push(now);
            }
        }
    }
    took
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0.. {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << (7 * place);
        if first & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}
