//! A connection's streams: one task reads and hands out, one writes.
//!
//! Invariants: a stream's pieces stay in order; what waits for a slow reader is bounded, and then nothing more is read from the
//! connection; when the connection ends, every stream and the session itself end.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::frame::{Decoder, Encoder, Frame};
use super::{SpdyError, header};

/// Streams at a time. A forwarded connection has two.
const STREAMS_MAX: usize = 1024;
/// Pieces of a stream that wait for its reader, each as long as the client sent it (32 KiB).
const PIECES_MAX: usize = 16;
/// Frames that wait to be sent.
const FRAMES_MAX: usize = 16;
/// The status of a stream that is refused.
const REFUSED: u32 = 3;

/// The server's side of a connection: the streams that the client opens.
pub struct Session {
    streams: mpsc::Receiver<Stream>,
}

/// A stream that the client opened.
pub struct Stream {
    /// What it is for.
    pub headers: Vec<(String, String)>,
    /// What comes.
    pub receiver: Receiver,
    /// What goes.
    pub sender: Sender,
}

/// The client's pieces.
pub struct Receiver {
    pieces: mpsc::Receiver<Bytes>,
}

/// Our pieces. Dropped without [`Sender::finish`], the client waits for more until the connection ends.
#[derive(Clone)]
pub struct Sender {
    stream: u32,
    frames: mpsc::Sender<Frame>,
}

// === impl Session ===

impl Session {
    /// Serves a connection from now on, with two tasks that end with it.
    pub fn new<C>(connection: C) -> Session
    where
        C: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(connection);
        let (frames, to_send) = mpsc::channel(FRAMES_MAX);
        let (opened, streams) = mpsc::channel(STREAMS_MAX);
        let writing = tokio::spawn(write(writer, to_send));
        tokio::spawn(async move {
            let reading = Reading {
                frames,
                opened,
                streams: HashMap::new(),
                last: 0,
            };
            match reading.run(reader).await {
                // What was said last still goes out.
                Ok(End::Ours) => {}
                Ok(End::Theirs) => writing.abort(),
                Err(error) => {
                    tracing::debug!(%error, "a SPDY connection");
                    writing.abort();
                }
            }
        });
        Session { streams }
    }

    /// The next stream; `None` when the connection has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

impl Stream {
    /// One of its headers.
    pub fn header(&self, name: &str) -> &str {
        header(&self.headers, name).unwrap_or("")
    }
}

// === impl Receiver ===

impl Receiver {
    /// The next piece; `None` when no more will come. Cancel safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }
}

// === impl Sender ===

impl Sender {
    /// Sends a piece. `false`: the connection has ended.
    pub async fn send(&self, data: Bytes) -> bool {
        let stream = self.stream;
        let frame = Frame::Data {
            stream,
            fin: false,
            data,
        };
        self.frames.send(frame).await.is_ok()
    }

    /// Says that no more will come.
    pub async fn finish(&self) {
        let stream = self.stream;
        let frame = Frame::Data {
            stream,
            fin: true,
            data: Bytes::new(),
        };
        // Nobody is left to tell.
        let _ = self.frames.send(frame).await;
    }

    /// Ends the stream in both directions.
    pub async fn reset(&self) {
        let stream = self.stream;
        let _ = self
            .frames
            .send(Frame::Reset {
                stream,
                status: REFUSED,
            })
            .await;
    }
}

/// Who ended a connection.
enum End {
    Ours,
    Theirs,
}

struct Reading {
    frames: mpsc::Sender<Frame>,
    opened: mpsc::Sender<Stream>,
    streams: HashMap<u32, mpsc::Sender<Bytes>>,
    last: u32,
}

impl Reading {
    async fn run(mut self, mut reader: impl AsyncRead + Unpin) -> Result<End, SpdyError> {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(32 * 1024));
        loop {
            while let Some(frame) = decoder.next(&mut buffer)? {
                if !self.take(frame).await? {
                    return Ok(End::Ours);
                }
            }
            let open = self.opened.clone();
            tokio::select! {
                count = reader.read_buf(&mut buffer) => match count {
                    Ok(1..) => {}
                    _ => return Ok(End::Theirs),
                },
                // Nobody serves this connection any more.
                () = open.closed() => return Ok(End::Ours),
            }
        }
    }

    /// Answers whether the connection goes on.
    async fn take(&mut self, frame: Frame) -> Result<bool, SpdyError> {
        match frame {
            Frame::Open { stream, fin, headers } => self.open(stream, fin, headers).await,
            Frame::Data { stream, fin, data } => {
                if let Some(pieces) = self.streams.get(&stream)
                    && !data.is_empty()
                {
                    // A stream that nobody reads any more loses what still comes.
                    let _ = pieces.send(data).await;
                }
                if fin {
                    self.streams.remove(&stream);
                }
                Ok(true)
            }
            Frame::Reset { stream, .. } => {
                self.streams.remove(&stream);
                Ok(true)
            }
            Frame::Ping(number) => Ok(self.frames.send(Frame::Ping(number)).await.is_ok()),
            Frame::GoAway | Frame::Reply { .. } | Frame::Other => Ok(true),
        }
    }

    async fn open(&mut self, stream: u32, fin: bool, headers: Vec<(String, String)>) -> Result<bool, SpdyError> {
        if stream.is_multiple_of(2) || stream <= self.last {
            return Err(SpdyError::Stream(stream));
        }
        self.last = stream;
        self.streams.retain(|_, pieces| !pieces.is_closed());
        if self.streams.len() >= STREAMS_MAX {
            return Ok(self
                .frames
                .send(Frame::Reset {
                    stream,
                    status: REFUSED,
                })
                .await
                .is_ok());
        }
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        if !fin {
            self.streams.insert(stream, pieces);
        }
        if self.frames.send(Frame::Reply { stream }).await.is_err() {
            return Ok(false);
        }
        let opened = Stream {
            headers,
            receiver: Receiver { pieces: receiver },
            sender: Sender {
                stream,
                frames: self.frames.clone(),
            },
        };
        Ok(self.opened.send(opened).await.is_ok())
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) {
    let mut encoder = Encoder::default();
    while let Some(frame) = frames.recv().await {
        if writer.write_all(&encoder.encode(&frame)).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_go_both_ways() {
        let (client, server) = tokio::io::duplex(1024);
        let mut session = Session::new(server);
        let (mut reader, mut writer) = tokio::io::split(client);
        let mut encoder = Encoder::default();
        let open = Frame::Open {
            stream: 1,
            fin: false,
            headers: vec![("streamtype".into(), "data".into())],
        };
        for frame in [Frame::Ping(7), open] {
            writer.write_all(&encoder.encode(&frame)).await.unwrap();
        }
        let mut data = |fin, data: &'static [u8]| {
            encoder.encode(&Frame::Data {
                stream: 1,
                fin,
                data: Bytes::from_static(data),
            })
        };
        writer.write_all(&data(false, b"hello")).await.unwrap();
        writer.write_all(&data(true, b"")).await.unwrap();
        let mut stream = session.next().await.unwrap();
        assert_eq!(stream.header("streamtype"), "data");
        assert_eq!(stream.receiver.next().await.unwrap(), "hello");
        assert_eq!(stream.receiver.next().await, None);
        assert!(stream.sender.send(Bytes::from_static(b"back")).await);
        stream.sender.finish().await;
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let mut seen = Vec::new();
        while seen.len() < 4 {
            match decoder.next(&mut buffer).unwrap() {
                Some(frame) => seen.push(frame),
                None => assert!(reader.read_buf(&mut buffer).await.unwrap() > 0),
            }
        }
        let piece = |fin, data: &'static [u8]| Frame::Data {
            stream: 1,
            fin,
            data: Bytes::from_static(data),
        };
        let expect = [
            Frame::Ping(7),
            Frame::Reply { stream: 1 },
            piece(false, b"back"),
            piece(true, b""),
        ];
        assert_eq!(seen, expect);
        drop((reader, writer));
        assert!(session.next().await.is_none(), "the client is gone");
    }

    #[tokio::test]
    async fn a_stream_number_does_not_come_back() {
        let (frames, _to_send) = mpsc::channel(8);
        let (opened, _streams) = mpsc::channel(8);
        let mut reading = Reading {
            frames,
            opened,
            streams: HashMap::new(),
            last: 0,
        };
        assert_eq!(reading.open(3, false, Vec::new()).await, Ok(true));
        for stream in [0, 1, 2, 3, 4] {
            assert_eq!(
                reading.open(stream, false, Vec::new()).await,
                Err(SpdyError::Stream(stream))
            );
        }
    }
}
