//! The streaming side of exec: an HTTP server on the loopback address that answers WebSocket requests for tokens which
//! CRI's `Exec` handed out, framed as Kubernetes' channels.
//!
//! A token is random, good for one connection and for a minute, as in every CRI runtime.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use streams::channel::{self, Event, Message, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message as Frame, Utf8Bytes};

use crate::error::{Error, Result};
use crate::exec::ExecSession;
use crate::runtime::Runtime;

/// How long a URL may be used after it was handed out.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// URLs that may be outstanding.
const TOKENS_MAX: usize = 1000;
/// Chunks that wait for a slow client before the process's output is not read any more.
const CHUNKS_MAX: usize = 16;

/// Commands that were asked for and not begun.
#[derive(Default)]
pub(crate) struct Tokens {
    waiting: Mutex<HashMap<String, (Wanted, Instant)>>,
    address: Mutex<Option<SocketAddr>>,
}

#[derive(Clone)]
struct Wanted {
    container: String,
    args: Vec<String>,
    tty: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Runtime {
    /// A URL under which the command can be run once.
    pub(crate) fn exec_url(&self, request: rpc::cri::ExecRequest) -> Result<String> {
        let container = self.container(&request.container_id)?;
        if container.record.lock().state() != rpc::cri::ContainerState::ContainerRunning {
            return Err(Error::State("container is not running".into()));
        }
        if request.tty && request.stderr {
            return Err(Error::Invalid("tty and stderr cannot both be true".into()));
        }
        let address = *self.streams.address.lock();
        let address = address.ok_or_else(|| Error::State("the streaming server does not run".into()))?;
        let token = self.new_id();
        let wanted = Wanted {
            container: container.id.clone(),
            args: request.cmd,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let mut waiting = self.streams.waiting.lock();
        let now = Instant::now();
        waiting.retain(|_, (_, since)| now.duration_since(*since) < TOKEN_LIFETIME);
        if waiting.len() >= TOKENS_MAX {
            return Err(Error::Internal(
                "too many exec requests are waiting for their clients".into(),
            ));
        }
        waiting.insert(token.clone(), (wanted, now));
        Ok(format!("http://{address}/exec/{token}"))
    }

    fn redeem(&self, token: &str) -> Option<Wanted> {
        let (wanted, since) = self.streams.waiting.lock().remove(token)?;
        (since.elapsed() < TOKEN_LIFETIME).then_some(wanted)
    }
}

/// Serves streams on a loopback port of the kernel's choice until `shutdown`.
pub(crate) async fn serve(runtime: Arc<Runtime>, shutdown: base::Shutdown) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    *runtime.streams.address.lock() = Some(listener.local_addr()?);
    shutdown.clone().spawn(async move {
        loop {
            let Some(accepted) = shutdown.until(listener.accept()).await else {
                break;
            };
            let Ok((socket, _)) = accepted else { continue };
            let _ = socket.set_nodelay(true);
            let (runtime, shutdown_of_connection) = (Arc::clone(&runtime), shutdown.clone());
            shutdown.spawn(async move {
                let service = hyper::service::service_fn(move |request| answer(Arc::clone(&runtime), request));
                let server = hyper::server::conn::http1::Builder::new();
                let connection = server.serve_connection(TokioIo::new(socket), service).with_upgrades();
                // A client that hangs up is no event.
                let _ = shutdown_of_connection.until(connection).await;
            });
        }
        *runtime.streams.address.lock() = None;
    });
    Ok(())
}

async fn answer(
    runtime: Arc<Runtime>,
    mut request: Request<Incoming>,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let refuse = |status: StatusCode, text: &str| {
        let mut response = Response::new(Full::from(format!("{text}\n")));
        *response.status_mut() = status;
        Ok(response)
    };
    let Some(token) = request.uri().path().strip_prefix("/exec/") else {
        return refuse(StatusCode::NOT_FOUND, "there is nothing here");
    };
    let value = |name: header::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let upgrades = value(header::UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let Some(key) = value(header::SEC_WEBSOCKET_KEY).filter(|_| upgrades).map(str::to_owned) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "only WebSocket connections (v5.channel.k8s.io) are served here, not SPDY",
        );
    };
    let offered: Vec<&str> = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let protocol = match Protocol::negotiate(offered.iter().copied(), channel::EXEC_PROTOCOLS) {
        Some(protocol) => protocol,
        None if offered.is_empty() => Protocol::V1,
        None => return refuse(StatusCode::BAD_REQUEST, "none of the offered subprotocols is known"),
    };
    let echo = !offered.is_empty();
    let Some(wanted) = runtime.redeem(token) else {
        return refuse(StatusCode::NOT_FOUND, "the token is not known, used, or too old");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(channel::MESSAGE_BYTES_MAX);
        config.max_frame_size = Some(channel::MESSAGE_BYTES_MAX);
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        converse(runtime, wanted, protocol, socket).await;
    });
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    if echo {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol.name());
    }
    Ok(response
        .body(Full::default())
        .expect("invariant: the headers are valid"))
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// What waits to be sent: a channel's chunk.
type Chunk = (u8, Bytes);

async fn converse(runtime: Arc<Runtime>, wanted: Wanted, protocol: Protocol, socket: Socket) {
    let (mut sink, mut source) = socket.split();
    let session = runtime
        .exec(&wanted.container, wanted.args.clone(), wanted.tty, wanted.stdin)
        .await;
    let mut session = match session {
        Ok(session) => session,
        Err(err) => {
            finish(&mut sink, protocol, Err(err.to_string())).await;
            return;
        }
    };
    let (sender, mut chunks) = mpsc::channel::<Chunk>(CHUNKS_MAX);
    let terminal = session
        .terminal
        .take()
        .and_then(|fd| Terminal::new(fd).ok())
        .map(Arc::new);
    let mut pumps = Vec::new();
    match &terminal {
        Some(terminal) => pumps.push(tokio::spawn(pump_terminal(Arc::clone(terminal), sender))),
        None => {
            for (stream, number, asked) in [
                (session.stdout.take(), channel::STDOUT, wanted.stdout),
                (session.stderr.take(), channel::STDERR, wanted.stderr),
            ] {
                if let Some(stream) = stream {
                    pumps.push(tokio::spawn(pump(stream, number, asked.then(|| sender.clone()))));
                }
            }
            drop(sender);
        }
    }
    let mut stdin = session.stdin.take();
    let mut output_open = true;
    let mut exit = None;
    let alive = loop {
        tokio::select! {
            chunk = chunks.recv(), if output_open => match chunk {
                Some((number, data)) => {
                    if sink.send(frame(protocol.encode(number, &data))).await.is_err() {
                        break false;
                    }
                }
                None => output_open = false,
            },
            code = session.wait(), if exit.is_none() => exit = Some(code),
            message = source.next() => {
                let event = match message {
                    Some(Ok(Frame::Binary(data))) => protocol.decode(Message::Binary(data)),
                    Some(Ok(Frame::Text(text))) => protocol.decode(Message::Text(text.to_string())),
                    Some(Ok(Frame::Close(_))) | Some(Err(_)) | None => break false,
                    Some(Ok(_)) => continue,
                };
                match event {
                    Ok(Event::Data(channel::STDIN, data)) => {
                        let written = match (&terminal, &mut stdin) {
                            (Some(terminal), _) if wanted.stdin => terminal.write(&data).await,
                            (None, Some(stdin)) => stdin.write_all(&data).await,
                            _ => Ok(()),
                        };
                        if written.is_err() {
                            // The process does not read any more; its exit will tell.
                            stdin = None;
                        }
                    }
                    Ok(Event::Data(channel::RESIZE, data)) => {
                        if let (Some(terminal), Some(size)) = (&terminal, channel::parse_resize(&data)) {
                            terminal.resize(size);
                        }
                    }
                    Ok(Event::Close(channel::STDIN)) => stdin = None,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            }
        }
        if exit.is_some() && !output_open {
            break true;
        }
        if exit.is_some() && wanted.tty && chunks.is_empty() && pumps.iter().all(tokio::task::JoinHandle::is_finished) {
            break true;
        }
    };
    pumps.iter().for_each(tokio::task::JoinHandle::abort);
    if !alive {
        // As with every CRI runtime, the process of a client that went away goes too: nobody could end it any more.
        let _ = session.kill().await;
        return;
    }
    let code = exit.unwrap_or(Err(Error::Internal("it did not end".into())));
    finish(&mut sink, protocol, code.map_err(|err| err.to_string())).await;
}

fn frame(message: Message) -> Frame {
    match message {
        Message::Binary(bytes) => Frame::Binary(bytes),
        Message::Text(text) => Frame::Text(Utf8Bytes::from(text)),
    }
}

/// Sends the final status and closes.
async fn finish(sink: &mut SplitSink<Socket, Frame>, protocol: Protocol, outcome: std::result::Result<i32, String>) {
    let status = match &outcome {
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
            "message": format!("error executing command in container: {text}"),
            "reason": "InternalError",
            "code": 500,
        }),
    };
    let text = match (protocol.has_status(), &outcome) {
        (true, _) => Some(status.to_string()),
        (false, Ok(0)) => None,
        (false, _) => status["message"].as_str().map(str::to_owned),
    };
    if let Some(text) = text {
        let _ = sink.send(frame(protocol.encode(channel::ERROR, text.as_bytes()))).await;
    }
    // Clients take a close with a code for the end, and one without for a failure (client-go reads 1005 as an error).
    let normal = CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    };
    let _ = sink.send(Frame::Close(Some(normal))).await;
    let _ = sink.close().await;
}

/// Reads a stream to its end; without a sender the bytes are dropped, so that the process does not block.
async fn pump(mut stream: pipe::Receiver, number: u8, sender: Option<mpsc::Sender<Chunk>>) {
    let mut chunk = vec![0; channel::CHUNK_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        if let Some(sender) = &sender
            && sender
                .send((number, Bytes::copy_from_slice(&chunk[..count])))
                .await
                .is_err()
        {
            return;
        }
    }
}

async fn pump_terminal(terminal: Arc<Terminal>, sender: mpsc::Sender<Chunk>) {
    let mut chunk = vec![0; channel::CHUNK_BYTES];
    // Its other side closed says EIO.
    while let Ok(count @ 1..) = terminal.read(&mut chunk).await {
        if sender
            .send((channel::STDOUT, Bytes::copy_from_slice(&chunk[..count])))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// The master side of a terminal. To tokio it is a pipe for each direction: something to wait for and to read or write.
pub struct Terminal {
    reader: pipe::Receiver,
    writer: pipe::Sender,
    fd: OwnedFd,
}

impl Terminal {
    /// Takes the descriptor over; needs a tokio runtime.
    pub fn new(fd: OwnedFd) -> std::io::Result<Terminal> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let reader = pipe::Receiver::from_file_unchecked(fd.try_clone()?.into())?;
        let writer = pipe::Sender::from_file_unchecked(fd.try_clone()?.into())?;
        Ok(Terminal { reader, writer, fd })
    }

    /// Reads what was written to it.
    pub async fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            self.reader.readable().await?;
            match self.reader.try_read(buffer) {
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// Types into it.
    pub async fn write(&self, mut data: &[u8]) -> std::io::Result<()> {
        while !data.is_empty() {
            self.writer.writable().await?;
            match self.writer.try_write(data) {
                Ok(count) => data = &data[count..],
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Tells its size, columns and rows.
    pub fn resize(&self, (columns, rows): (u16, u16)) {
        let size = rustix::termios::Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // A terminal that is gone needs no size.
        let _ = rustix::termios::tcsetwinsize(&self.fd, size);
    }
}

/// An exec for callers in this process, with a terminal that can be awaited.
pub struct ExecStream {
    /// The process and its pipes.
    pub session: ExecSession,
    /// Its terminal, if it was asked for.
    pub terminal: Option<Terminal>,
}

impl Runtime {
    /// Starts a command whose streams the caller moves itself.
    pub async fn exec_stream(
        self: &Arc<Self>,
        id: &str,
        args: Vec<String>,
        tty: bool,
        stdin: bool,
    ) -> Result<ExecStream> {
        let mut session = self.exec(id, args, tty, stdin).await?;
        let terminal = session.terminal.take().map(Terminal::new).transpose();
        let terminal = terminal.map_err(crate::error::doing("using the terminal"))?;
        Ok(ExecStream { session, terminal })
    }
}
