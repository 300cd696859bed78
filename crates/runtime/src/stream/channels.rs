//! Port-forward over the channels of a WebSocket (`v4.channel.k8s.io`): for each port that the client named one channel of
//! data and one for errors, and one connection inside the pod's network. Both channels begin with the port, in two bytes.
//!
//! A connection that ends is not made again; with the last of them the WebSocket ends. Invariant: nothing piles up. Who sends
//! waits for whom it is sent to, so that a program that does not read holds up the client's other ports too, as upstream's pipes
//! do.
//!
//! Source: `k8s.io/cri-streaming` (`portforward/websocket.go`).

use std::future::Future;

use bytes::Bytes;
use futures::stream::SplitStream;
use futures::{SinkExt, StreamExt};
use streams::channel::{CHUNK_BYTES, Event, Message, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::peer::frame;

/// Messages that wait for the client, and pieces that wait for a program in the pod: enough to keep both busy.
const WAITING_MAX: usize = 16;

/// Forwards the ports until the client is gone or all connections have ended.
pub(super) async fn serve<S, F>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    pod: &str,
    ports: &[u16],
    connect: impl Fn(u16) -> F,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<TcpStream, String>> + Send + 'static,
{
    let (mut sink, source) = socket.split();
    let (to_client, mut outgoing) = mpsc::channel::<Message>(WAITING_MAX);
    let mut connections = JoinSet::new();
    let mut inputs = Vec::new();
    for (index, port) in (0_u8..).zip(ports) {
        let (input, from_client) = mpsc::channel(WAITING_MAX);
        inputs.push(input);
        let pair = Pair {
            protocol,
            data: 2 * index,
            error: 2 * index + 1,
            to_client: to_client.clone(),
        };
        let failed = format!("error forwarding port {port} to pod {pod}, uid : ");
        connections.spawn(forward(pair, *port, connect(*port), from_client, failed));
    }
    drop(to_client);
    // Ends when every connection has: each holds a sender.
    let outward = async {
        while let Some(message) = outgoing.recv().await {
            if sink.send(frame(message)).await.is_err() {
                return;
            }
        }
        // Whoever is gone needs no goodbye.
        let _ = sink.close().await;
    };
    tokio::select! {
        () = outward => {}
        () = inward(source, protocol, &inputs) => {}
    }
}

/// Hands what the client sends to the connections; returns when it is gone, or sends what is no message.
async fn inward<S>(mut source: SplitStream<WebSocketStream<S>>, protocol: Protocol, inputs: &[mpsc::Sender<Bytes>])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = match source.next().await {
            Some(Ok(Frame::Binary(data))) => Message::Binary(data),
            Some(Ok(Frame::Text(text))) => Message::Text(text.to_string()),
            Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
            Some(Ok(_)) => continue,
        };
        let Ok(event) = protocol.decode(message) else { return };
        // Error channels are ours to write.
        if let Event::Data(channel, data) = event
            && channel % 2 == 0
            && let Some(input) = inputs.get(usize::from(channel / 2))
        {
            // What comes for a connection that has ended is dropped.
            let _ = input.send(data).await;
        }
    }
}

/// The two channels of a port.
struct Pair {
    protocol: Protocol,
    data: u8,
    error: u8,
    to_client: mpsc::Sender<Message>,
}

impl Pair {
    /// `false`: the client is gone.
    async fn send(&self, channel: u8, data: &[u8]) -> bool {
        self.to_client.send(self.protocol.encode(channel, data)).await.is_ok()
    }
}

/// One port, from its announcement to the end of its connection.
async fn forward(
    pair: Pair,
    port: u16,
    connect: impl Future<Output = Result<TcpStream, String>>,
    mut from_client: mpsc::Receiver<Bytes>,
    failed: String,
) {
    for channel in [pair.data, pair.error] {
        if !pair.send(channel, &port.to_le_bytes()).await {
            return;
        }
    }
    let connection = match connect.await {
        Ok(connection) => connection,
        Err(why) => {
            pair.send(pair.error, format!("{failed}{why}").as_bytes()).await;
            return;
        }
    };
    let (mut reader, mut writer) = connection.into_split();
    let to_client = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            if !pair.send(pair.data, &chunk[..count]).await {
                return;
            }
        }
    };
    let to_pod = async {
        while let Some(piece) = from_client.recv().await {
            if writer.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    // A client cannot end its half, so that the program's end is the connection's.
    tokio::select! {
        () = to_client => {}
        () = async { to_pod.await; std::future::pending().await } => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::io::DuplexStream;
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// A program in the pod: it answers each piece in capitals, and ends when it hears `bye`.
    async fn program() -> std::net::SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 1024];
            while let Ok(count @ 1..) = socket.read(&mut heard).await {
                socket.write_all(&heard[..count].to_ascii_uppercase()).await.unwrap();
                if &heard[..count] == b"bye" {
                    return;
                }
            }
        });
        address
    }

    /// All that comes on each channel, up to the end.
    async fn heard(client: &mut WebSocketStream<DuplexStream>, protocol: Protocol) -> BTreeMap<u8, Vec<u8>> {
        let mut all: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        while let Some(Ok(message)) = client.next().await {
            let message = match message {
                Frame::Binary(data) => Message::Binary(data),
                Frame::Text(text) => Message::Text(text.to_string()),
                _ => continue,
            };
            let Event::Data(channel, data) = protocol.decode(message).unwrap() else {
                continue;
            };
            all.entry(channel).or_default().extend_from_slice(&data);
        }
        all
    }

    #[tokio::test]
    async fn each_port_has_its_channels() {
        for protocol in [Protocol::V4, Protocol::V4Base64] {
            let address = program().await;
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let connect = move |port: u16| async move {
                match port {
                    80 => TcpStream::connect(address).await.map_err(|error| error.to_string()),
                    _ => Err("nobody listens".into()),
                }
            };
            let server = tokio::spawn(async move {
                let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
                serve(socket, protocol, "p", &[80, 81], connect).await;
            });
            let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            for message in [
                (1, "not mine to write"),
                (2, "nobody"),
                (9, "no such channel"),
                (0, "bye"),
            ] {
                let message = protocol.encode(message.0, message.1.as_bytes());
                client.send(frame(message)).await.unwrap();
            }
            let all = heard(&mut client, protocol).await;
            let expect = BTreeMap::from([
                (0, [&[80, 0][..], b"BYE"].concat()),
                (1, vec![80, 0]),
                (2, vec![81, 0]),
                (
                    3,
                    [&[81, 0][..], b"error forwarding port 81 to pod p, uid : nobody listens"].concat(),
                ),
            ]);
            assert_eq!(all, expect, "{protocol:?}");
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_everything() {
        let address = program().await;
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(async move {
            let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
            let connect = move |_| async move { TcpStream::connect(address).await.map_err(|error| error.to_string()) };
            serve(socket, Protocol::V4, "p", &[80], connect).await;
        });
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        assert!(client.next().await.is_some());
        client.close(None).await.unwrap();
        server.await.unwrap();
    }
}
