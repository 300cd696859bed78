//! Whom the streams of a process go to and come from: channels of a WebSocket, or streams of a SPDY connection.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use streams::channel::{self, Event, Message, Protocol};
use streams::spdy;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message as Frame, Utf8Bytes};

use super::{Socket, WantedProcess};

/// How long a client of SPDY may take to open its streams.
/// Source: `k8s.io/cri-streaming` (`StreamCreationTimeout`).
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client sends.
pub(super) enum Input {
    /// For the process.
    Stdin(Bytes),
    /// Nothing more for the process.
    StdinEnd,
    /// The terminal's columns and rows.
    Resize((u16, u16)),
    /// Nothing that matters.
    Other,
}

/// How a process ended, or why there was none.
pub(super) type Outcome = Result<i32, String>;

/// A client.
pub(super) enum Peer {
    /// Over a WebSocket.
    WebSocket(WebSocket),
    /// Over SPDY.
    Spdy(Box<Spdy>),
}

impl Peer {
    /// What the client sends next; `None` when it is gone. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Input> {
        match self {
            Peer::WebSocket(socket) => socket.next().await,
            Peer::Spdy(spdy) => spdy.next().await,
        }
    }

    /// Sends a piece of a channel. `false`: the client is gone.
    pub(super) async fn send(&mut self, channel: u8, data: Bytes) -> bool {
        match self {
            Peer::WebSocket(socket) => {
                let message = socket.protocol.encode(channel, &data);
                socket.sink.send(frame(message)).await.is_ok()
            }
            Peer::Spdy(spdy) => {
                let stream = if channel == channel::STDERR {
                    &spdy.stderr
                } else {
                    &spdy.stdout
                };
                match stream {
                    Some(stream) => stream.send(data).await,
                    None => true,
                }
            }
        }
    }

    /// Tells how it ended, and closes.
    pub(super) async fn finish(self, outcome: Outcome) {
        match self {
            Peer::WebSocket(socket) => socket.finish(outcome).await,
            Peer::Spdy(spdy) => spdy.finish(outcome).await,
        }
    }
}

/// What the error channel says; `None` is nothing.
fn last_word(outcome: &Outcome, has_status: bool) -> Option<String> {
    let status: Value = match outcome {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(text) => json!({
            "metadata": {},
            "status": "Failure",
            "message": text,
            "reason": "InternalError",
            "code": 500,
        }),
    };
    match (has_status, outcome) {
        (true, _) => Some(status.to_string()),
        (false, Ok(0)) => None,
        (false, _) => status["message"].as_str().map(str::to_owned),
    }
}

/// A client over a WebSocket.
pub(super) struct WebSocket {
    protocol: Protocol,
    sink: SplitSink<WebSocketStream<Socket>, Frame>,
    source: SplitStream<WebSocketStream<Socket>>,
}

// === impl WebSocket ===

impl WebSocket {
    pub(super) fn new(protocol: Protocol, socket: WebSocketStream<Socket>) -> WebSocket {
        let (sink, source) = socket.split();
        WebSocket { protocol, sink, source }
    }

    async fn next(&mut self) -> Option<Input> {
        let event = match self.source.next().await {
            Some(Ok(Frame::Binary(data))) => self.protocol.decode(Message::Binary(data)),
            Some(Ok(Frame::Text(text))) => self.protocol.decode(Message::Text(text.to_string())),
            Some(Ok(Frame::Close(_))) | Some(Err(_)) | None => return None,
            Some(Ok(_)) => return Some(Input::Other),
        };
        Some(match event.ok()? {
            Event::Data(channel::STDIN, data) => Input::Stdin(data),
            Event::Data(channel::RESIZE, data) => channel::parse_resize(&data).map_or(Input::Other, Input::Resize),
            Event::Close(channel::STDIN) => Input::StdinEnd,
            _ => Input::Other,
        })
    }

    async fn finish(mut self, outcome: Outcome) {
        if let Some(text) = last_word(&outcome, self.protocol.has_status()) {
            let message = self.protocol.encode(channel::ERROR, text.as_bytes());
            let _ = self.sink.send(frame(message)).await;
        }
        // Clients take a close with a code for the end, and one without for a failure (client-go reads 1005 as an error).
        let normal = CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        };
        let _ = self.sink.send(Frame::Close(Some(normal))).await;
        let _ = self.sink.close().await;
    }
}

/// A message as the socket sends it.
pub(super) fn frame(message: Message) -> Frame {
    match message {
        Message::Binary(bytes) => Frame::Binary(bytes),
        Message::Text(text) => Frame::Text(Utf8Bytes::from(text)),
    }
}

/// A client over SPDY: one stream for each direction of each channel.
pub(super) struct Spdy {
    session: spdy::Session,
    has_status: bool,
    stdin: Option<spdy::Receiver>,
    resize: Option<spdy::Receiver>,
    stdout: Option<spdy::Sender>,
    stderr: Option<spdy::Sender>,
    error: spdy::Sender,
    /// The directions that nobody uses: dropped, they would count as ended.
    _unused: Vec<spdy::Receiver>,
}

// === impl Spdy ===

impl Spdy {
    /// Waits until the client has opened all streams that it asked for. `None`: it did not.
    pub(super) async fn new(wanted: &WantedProcess, protocol: &str, mut session: spdy::Session) -> Option<Spdy> {
        let has_resize = wanted.tty && matches!(protocol, "v3.channel.k8s.io" | "v4.channel.k8s.io");
        let mut missing: Vec<&str> = [
            ("error", true),
            ("stdin", wanted.stdin),
            ("stdout", wanted.stdout),
            ("stderr", wanted.stderr),
            ("resize", has_resize),
        ]
        .into_iter()
        .filter_map(|(name, is_wanted)| is_wanted.then_some(name))
        .collect();
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        let open = async {
            while !missing.is_empty() {
                let stream = session.next().await?;
                let kind = stream.header("streamtype").to_owned();
                match missing.iter().position(|name| *name == kind) {
                    Some(at) => {
                        missing.remove(at);
                        senders.push((kind.clone(), stream.sender));
                        receivers.push((kind, stream.receiver));
                    }
                    None => stream.sender.reset().await,
                }
            }
            Some(())
        };
        tokio::time::timeout(OPEN_TIMEOUT, open).await.ok()??;
        let sender = |name: &str| {
            let found = senders.iter().find(|(kind, _)| kind == name);
            found.map(|(_, sender)| sender.clone())
        };
        let (error, stdout, stderr) = (sender("error")?, sender("stdout"), sender("stderr"));
        let mut receiver = |name: &str| {
            let at = receivers.iter().position(|(kind, _)| kind == name)?;
            Some(receivers.swap_remove(at).1)
        };
        Some(Spdy {
            stdin: receiver("stdin"),
            resize: receiver("resize"),
            session,
            has_status: protocol == "v4.channel.k8s.io",
            stdout,
            stderr,
            error,
            _unused: receivers.into_iter().map(|(_, receiver)| receiver).collect(),
        })
    }

    async fn next(&mut self) -> Option<Input> {
        let (has_stdin, has_resize) = (self.stdin.is_some(), self.resize.is_some());
        tokio::select! {
            piece = piece(&mut self.stdin), if has_stdin => match piece {
                Some(data) => Some(Input::Stdin(data)),
                None => {
                    self.stdin = None;
                    Some(Input::StdinEnd)
                }
            },
            piece = piece(&mut self.resize), if has_resize => match piece {
                // A size after the other, each a line of JSON; the last one of a piece counts.
                Some(data) => {
                    let mut sizes = data.split(|byte| *byte == b'\n').rev().filter_map(channel::parse_resize);
                    Some(sizes.next().map_or(Input::Other, Input::Resize))
                }
                None => {
                    self.resize = None;
                    Some(Input::Other)
                }
            },
            stream = self.session.next() => {
                // No more streams belong to this.
                stream?.sender.reset().await;
                Some(Input::Other)
            }
        }
    }

    async fn finish(self, outcome: Outcome) {
        for stream in [&self.stdout, &self.stderr].into_iter().flatten() {
            stream.finish().await;
        }
        if let Some(text) = last_word(&outcome, self.has_status) {
            self.error.send(Bytes::from(text)).await;
        }
        self.error.finish().await;
    }
}

async fn piece(receiver: &mut Option<spdy::Receiver>) -> Option<Bytes> {
    receiver.as_mut()?.next().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words() {
        for (outcome, has_status, expect) in [
            (Ok(0), false, None),
            (Ok(0), true, Some("\"Success\"")),
            (
                Ok(7),
                false,
                Some("command terminated with non-zero exit code: exit status 7"),
            ),
            (Ok(7), true, Some("\"ExitCode\"")),
            (Err("no".to_owned()), false, Some("no")),
        ] {
            let word = last_word(&outcome, has_status);
            assert_eq!(word.is_some(), expect.is_some(), "{outcome:?}");
            assert!(word.unwrap_or_default().contains(expect.unwrap_or("")), "{outcome:?}");
        }
    }
}
