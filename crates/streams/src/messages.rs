//! One stream of messages from the server to a client over a WebSocket: logs, and the events of a watch.
//!
//! What the client sends is read and dropped, so that its pings are answered and its end is seen.
//! Source: `k8s.io/streaming` (`wsstream/stream.go`, `IgnoreReceives`).

use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::channel::{MESSAGE_BYTES_MAX, Message};

/// Sends all messages and closes; ends sooner when the client does. A message is taken when the one before it was written.
pub async fn send<C>(connection: C, messages: impl Stream<Item = Message>)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(MESSAGE_BYTES_MAX);
    let socket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await;
    let (mut sink, mut source) = socket.split();
    let dropped = async {
        while let Some(Ok(message)) = source.next().await {
            if message.is_close() {
                break;
            }
        }
    };
    let sent = async {
        let mut messages = std::pin::pin!(messages);
        while let Some(message) = messages.next().await {
            let message = match message {
                Message::Binary(bytes) => tungstenite::Message::Binary(bytes),
                Message::Text(text) => tungstenite::Message::text(text),
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
        // Whoever is gone needs no goodbye.
        let _ = sink.close().await;
    };
    tokio::select! {
        () = dropped => {}
        () = sent => {}
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    async fn client(end: tokio::io::DuplexStream) -> WebSocketStream<tokio::io::DuplexStream> {
        WebSocketStream::from_raw_socket(end, Role::Client, None).await
    }

    #[tokio::test]
    async fn messages_arrive_in_order_and_then_the_end() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let messages = [Message::Binary(Bytes::from_static(b"a")), Message::Text("b".into())];
        let server = tokio::spawn(send(ours, stream::iter(messages)));
        let mut client = client(theirs).await;
        let mut seen = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            seen.push(message);
        }
        server.await.unwrap();
        assert_eq!(
            seen[..2],
            [tungstenite::Message::binary(&b"a"[..]), tungstenite::Message::text("b")]
        );
        assert!(seen[2].is_close() && seen.len() == 3, "{seen:?}");
    }

    #[tokio::test]
    async fn a_client_that_closes_ends_a_stream_without_end() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(send(ours, stream::pending()));
        let mut client = client(theirs).await;
        client
            .send(tungstenite::Message::text("nobody reads this"))
            .await
            .unwrap();
        client.send(tungstenite::Message::Ping(Bytes::new())).await.unwrap();
        assert!(client.next().await.unwrap().unwrap().is_pong());
        client.close(None).await.unwrap();
        server.await.unwrap();
    }
}
