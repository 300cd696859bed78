//! Logs and watches as messages of a WebSocket.

use std::net::SocketAddr;

use api::codec::protobuf;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::connect::{PODS, answer, node, pod, tls, world};
use crate::world::World;

type Socket = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

/// Opens a WebSocket and answers with it and the header that was asked for.
async fn open(
    world: &World,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Socket, String), tungstenite::Error> {
    let (address, ca) = world.listen().await;
    let mut request = format!("wss://{address}{path}").into_client_request()?;
    let all = [("authorization", "Bearer tester")];
    for (name, value) in all.iter().chain(headers) {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (socket, answer) = tokio_tungstenite::client_async(request, tls(address, &ca).await).await?;
    let of = |name: &str| {
        answer
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let told = of("sec-websocket-protocol").or_else(|| of("content-type"));
    Ok((socket, told.unwrap_or_default()))
}

/// The code of a failure.
fn refusal(error: tungstenite::Error) -> u16 {
    let tungstenite::Error::Http(answer) = error else {
        panic!("{error}")
    };
    answer.status().as_u16()
}

/// What is told with a failure, read from the connection to its orderly end, which the server makes when it is asked to, or after
/// the client has made its own.
async fn refused_with((address, ca): &(SocketAddr, String), path: &str, protocol: &str, ends: bool) -> (u16, Value) {
    let mut connection = tls(*address, ca).await;
    let close = if ends { "close, " } else { "" };
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer tester\r\nconnection: {close}Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: {protocol}\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    // What TLS has not handed to the socket yet would stay there, as long as the client only reads.
    connection.flush().await.unwrap();
    let (code, body) = answer(&mut connection).await;
    if !ends {
        connection.shutdown().await.unwrap();
    }
    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).await.expect("an orderly end");
    assert!(rest.is_empty(), "{rest:?}");
    (code, serde_json::from_str(&body).unwrap())
}

/// Many clients at once that are refused, on a machine that is busy with them: each hears why.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_arrive_whole_however_many_there_are() {
    let world = world().await;
    let api = world.api();
    node(&api, "n1").await;
    pod(&api, "p", json!("n1")).await;
    let (at, path) = (&world.listen().await, &format!("{PODS}/p/log"));
    let all = (0..200).map(|index| refused_with(at, path, "nonsense", index % 2 == 0));
    let heard: Vec<_> = futures::stream::iter(all).buffer_unordered(50).collect().await;
    assert_eq!(heard.len(), 200);
    for (code, status) in heard {
        assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    }
}

#[tokio::test]
async fn logs_come_in_the_protocol_that_the_client_offers() {
    let world = world().await;
    let api = world.api();
    node(&api, "n1").await;
    pod(&api, "p", json!("n1")).await;
    let expect = "n1@192.0.2.7:10250 GET /containerLogs/default/p/c?tailLines=5 ";
    for (offered, chosen) in [
        (None, ""),
        (Some("binary.k8s.io"), "binary.k8s.io"),
        (Some("base64.binary.k8s.io"), "base64.binary.k8s.io"),
        (Some("nonsense, binary.k8s.io"), "binary.k8s.io"),
    ] {
        let headers: Vec<_> = offered
            .iter()
            .map(|offered| ("sec-websocket-protocol", *offered))
            .collect();
        let (mut socket, told) = open(&world, &format!("{PODS}/p/log?tailLines=5"), &headers)
            .await
            .unwrap();
        assert_eq!(told, chosen);
        let mut messages = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            messages.push(message);
        }
        assert!(messages.pop().unwrap().is_close(), "{offered:?}");
        // The first one is empty: the connection works.
        assert!(messages.remove(0).is_empty(), "{offered:?}");
        let text: String = messages.into_iter().map(|message| text_of(message, chosen)).collect();
        assert_eq!(text, expect, "{offered:?}");
    }
    let headers = [("sec-websocket-protocol", "v5.channel.k8s.io")];
    let refused = open(&world, &format!("{PODS}/p/log"), &headers).await.unwrap_err();
    assert_eq!(refusal(refused), 403);
    let why =
        "requested protocol(s) are not supported: [v5.channel.k8s.io]; supports [binary.k8s.io, base64.binary.k8s.io]";
    let at = world.listen().await;
    for ends in [false, true] {
        let (code, status) = refused_with(&at, &format!("{PODS}/p/log"), "v5.channel.k8s.io", ends).await;
        assert_eq!(
            (code, &status["code"], &status["message"]),
            (403, &json!(403), &json!(why))
        );
    }
    let refused = open(&world, &format!("{PODS}/none/log"), &[]).await.unwrap_err();
    assert_eq!(refusal(refused), 404);
}

fn text_of(message: Message, protocol: &str) -> String {
    let bytes = match (message, protocol) {
        (Message::Text(text), "base64.binary.k8s.io") => STANDARD.decode(text.as_bytes()).unwrap(),
        (Message::Binary(bytes), "" | "binary.k8s.io") => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_watch_sends_a_message_an_event() {
    let world = World::start().await;
    let api = world.api();
    let path = "/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dweb";
    let protobuf_type = "application/vnd.kubernetes.protobuf";
    let (mut json, json_type) = open(&world, path, &[]).await.unwrap();
    let (mut binary, binary_type) = open(&world, path, &[("accept", protobuf_type)]).await.unwrap();
    assert_eq!(
        [&*json_type, &*binary_type],
        ["application/json", &*format!("{protobuf_type};stream=watch")]
    );
    let made = api.config_map("web", json!({})).await;
    api.delete("/api/v1/namespaces/default/configmaps/web").await.ok();
    for word in ["ADDED", "DELETED"] {
        let Message::Text(text) = json.next().await.unwrap().unwrap() else {
            panic!("no text")
        };
        let event: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["uid"]),
            (&json!(word), &made["metadata"]["uid"])
        );
        let Message::Binary(bytes) = binary.next().await.unwrap().unwrap() else {
            panic!("no bytes")
        };
        // No length before it: a message is an event.
        assert_eq!(&bytes[2..2 + word.len()], word.as_bytes());
        let at = bytes.windows(4).position(|window| window == protobuf::PREFIX).unwrap();
        assert_eq!(
            protobuf::decode(&bytes[at..]).unwrap().1["metadata"]["uid"],
            made["metadata"]["uid"]
        );
    }
    // What is wrong is told before there is a WebSocket.
    let refused = open(&world, "/api/v1/pods?watch=true&labelSelector=!!", &[])
        .await
        .unwrap_err();
    assert_eq!(refusal(refused), 400);
}
