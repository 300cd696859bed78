//! A byte stream inside the binary messages of a WebSocket: how kubectl (1.30 and newer) sends the SPDY of port-forward.
//!
//! Source: KEP-4006 and `k8s.io/apiserver/pkg/util/proxy/streamtunnel.go`.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::channel::{CHUNK_BYTES, MESSAGE_BYTES_MAX};

/// What stands before the name of the protocol inside.
const PREFIX: &str = "SPDY/3.1+";
/// How names of protocols that may be tunnelled end.
const SUFFIX: &str = ".k8s.io";

/// The protocols inside that a client offers (values of `Sec-WebSocket-Protocol`, comma lists allowed).
pub fn offered<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    values
        .into_iter()
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().strip_prefix(PREFIX))
        .filter(|name| name.ends_with(SUFFIX))
        .collect()
}

/// The subprotocol of the WebSocket for a protocol inside.
pub fn subprotocol(inside: &str) -> String {
    format!("{PREFIX}{inside}")
}

/// Moves bytes between the client's WebSocket and the raw connection until either ends.
pub async fn join<A, B>(websocket: A, raw: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(MESSAGE_BYTES_MAX);
    let socket = WebSocketStream::from_raw_socket(websocket, Role::Server, Some(config)).await;
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(raw);
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            let written = match message {
                Message::Binary(bytes) => writer.write_all(&bytes).await,
                Message::Close(_) => break,
                // Pings are answered by the socket itself; text is nothing here.
                _ => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
    };
    let outward = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            let message = Message::Binary(Bytes::copy_from_slice(&chunk[..count]));
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers() {
        for (values, expect) in [
            (&["SPDY/3.1+portforward.k8s.io"][..], &["portforward.k8s.io"][..]),
            (&["v4.channel.k8s.io, SPDY/3.1+a.k8s.io", "SPDY/3.1+b"], &["a.k8s.io"]),
            (&[], &[]),
        ] {
            assert_eq!(offered(values.iter().copied()), expect, "{values:?}");
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways() {
        let (client, server) = tokio::io::duplex(1024);
        let (inside, raw) = tokio::io::duplex(1024);
        let tunnel = tokio::spawn(join(server, raw));
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut inside = inside;
        client
            .send(Message::Binary(Bytes::from_static(b"there")))
            .await
            .unwrap();
        let mut there = [0; 5];
        inside.read_exact(&mut there).await.unwrap();
        assert_eq!(&there, b"there");
        inside.write_all(b"back").await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().into_data(), "back");
        drop(inside);
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
        tunnel.await.unwrap();
    }
}
