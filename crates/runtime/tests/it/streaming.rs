//! Other processes in containers: synchronous, and over WebSockets.

use futures::{SinkExt, StreamExt};
use rpc::cri;
use streams::channel::{self, Event, Message, Protocol};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::node::{Node, container, words};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn synchronous_execs() {
    let mut node = Node::start("exec").await;
    let pod = node.run_sandbox("web").await;
    let id = node.run(&pod, container("sleeper", &["sleep", "1000"])).await;
    let output = node.exec(&id, &["sh", "-c", "echo out; exit 3"]).await;
    assert_eq!((output.exit_code, output.stdout.as_slice()), (3, &b"out\n"[..]));
    let output = node.exec(&id, &["spam", "20000"]).await;
    assert_eq!((output.exit_code, output.stderr.as_slice()), (0, &b"done\n"[..]));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 20_000);
    let request = cri::ExecSyncRequest {
        container_id: id.clone(),
        cmd: words(&["nothing"]),
        timeout: 10,
    };
    let error = node.client.exec_sync(request).await.unwrap_err();
    assert!(
        error.message().contains("executable file not found in $PATH"),
        "{error}"
    );
    let request = cri::ExecSyncRequest {
        container_id: id.clone(),
        cmd: words(&["sleep", "1000"]),
        timeout: 1,
    };
    let error = node.client.exec_sync(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error}");
    // Many at once are all reaped.
    let execs = (0..16).map(|index| {
        let mut client = node.client.clone();
        let request = cri::ExecSyncRequest {
            container_id: id.clone(),
            cmd: words(&["exit", &index.to_string()]),
            timeout: 30,
        };
        async move { client.exec_sync(request).await.unwrap().into_inner().exit_code }
    });
    assert_eq!(futures::future::join_all(execs).await, (0..16).collect::<Vec<i32>>());
    node.remove_pod(&pod).await;
    let request = cri::ExecSyncRequest {
        container_id: id,
        cmd: words(&["true"]),
        timeout: 1,
    };
    assert_eq!(
        node.client.exec_sync(request).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    node.finish().await;
}

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn open(url: &str) -> Socket {
    let mut request = url.replacen("http://", "ws://", 1).into_client_request().unwrap();
    let protocol = Protocol::V5.name().parse().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    let address = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], Protocol::V5.name());
    socket
}

async fn say(socket: &mut Socket, number: u8, data: &[u8]) {
    let Message::Binary(bytes) = Protocol::V5.encode(number, data) else {
        panic!("v5 is binary")
    };
    socket.send(Frame::Binary(bytes)).await.unwrap();
}

/// Collects channels until `enough` or the end.
async fn hear(socket: &mut Socket, seen: &mut [Vec<u8>; 5], enough: impl Fn(&[Vec<u8>; 5]) -> bool) {
    while !enough(seen) {
        match socket.next().await {
            Some(Ok(Frame::Binary(bytes))) => {
                if let Ok(Event::Data(number, data)) = Protocol::V5.decode(Message::Binary(bytes)) {
                    seen[usize::from(number)].extend_from_slice(&data);
                }
            }
            Some(Ok(Frame::Close(_))) | None => return,
            Some(Ok(_)) => {}
            Some(Err(err)) => panic!("{err}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_with_and_without_a_terminal() {
    let mut node = Node::start("stream").await;
    let pod = node.run_sandbox("web").await;
    let id = node.run(&pod, container("sleeper", &["sleep", "1000"])).await;
    let mut request = cri::ExecRequest {
        container_id: id.clone(),
        cmd: words(&["cat"]),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let url = node.client.exec(request.clone()).await.unwrap().into_inner().url;
    let mut socket = open(&url).await;
    let mut seen: [Vec<u8>; 5] = Default::default();
    say(&mut socket, channel::STDIN, b"hello").await;
    hear(&mut socket, &mut seen, |seen| seen[1] == b"hello").await;
    let Some(Message::Binary(close)) = Protocol::V5.encode_close(channel::STDIN) else {
        panic!("v5 closes")
    };
    socket.send(Frame::Binary(close)).await.unwrap();
    hear(&mut socket, &mut seen, |_| false).await;
    let status: serde_json::Value = serde_json::from_slice(&seen[usize::from(channel::ERROR)]).unwrap();
    assert_eq!(status["status"], "Success");
    // The token was for one connection.
    let address = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let again = tokio_tungstenite::client_async(url.replacen("http://", "ws://", 1), stream).await;
    assert!(again.is_err());

    request.cmd = words(&["sh"]);
    request.tty = true;
    request.stderr = false;
    let url = node.client.exec(request).await.unwrap().into_inner().url;
    let mut socket = open(&url).await;
    let mut seen: [Vec<u8>; 5] = Default::default();
    hear(&mut socket, &mut seen, |seen| seen[1].ends_with(b"# ")).await;
    say(&mut socket, channel::RESIZE, br#"{"Width":91,"Height":17}"#).await;
    say(&mut socket, channel::STDIN, b"tty\n").await;
    hear(&mut socket, &mut seen, |seen| {
        String::from_utf8_lossy(&seen[1]).contains("a terminal 91x17")
    })
    .await;
    say(&mut socket, channel::STDIN, b"exit 5\n").await;
    hear(&mut socket, &mut seen, |_| false).await;
    let status: serde_json::Value = serde_json::from_slice(&seen[usize::from(channel::ERROR)]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "5", "{status}");
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_with_a_terminal() {
    let mut node = Node::start("tty").await;
    let pod = node.run_sandbox("web").await;
    let mut config = container("tty", &["tty"]);
    config.tty = true;
    config.stdin = true;
    let (status, log) = node.run_to_end(&pod, config).await;
    assert_eq!(status.exit_code, 0, "{log}");
    assert!(log.contains("a terminal"), "{log}");
    node.remove_pod(&pod).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stdin_that_is_for_one_ends_with_them() {
    let mut node = Node::start("attach").await;
    let pod = node.run_sandbox("web").await;
    let reads = |name: &str| {
        let mut config = container(name, &["cat"]);
        (config.stdin, config.stdin_once) = (true, true);
        config
    };
    let (left, orphaned) = (
        node.run(&pod, reads("left")).await,
        node.run(&pod, reads("orphaned")).await,
    );
    let request = |id: &str| cri::AttachRequest {
        container_id: id.into(),
        stdin: true,
        stdout: true,
        ..cri::AttachRequest::default()
    };
    let mut sockets = Vec::new();
    for id in [&left, &orphaned] {
        let url = node.client.attach(request(id)).await.unwrap().into_inner().url;
        let mut socket = open(&url).await;
        let mut seen: [Vec<u8>; 5] = Default::default();
        say(&mut socket, channel::STDIN, b"hello").await;
        hear(&mut socket, &mut seen, |seen| seen[1] == b"hello").await;
        sockets.push(socket);
    }
    // A client that leaves, and one whose daemon dies: the container reads the end of its input either way.
    sockets.remove(0).close(None).await.unwrap();
    assert_eq!(node.ended(&left).await.exit_code, 0);
    node.halt().await;
    let mut node = node.restart().await;
    assert_eq!(node.ended(&orphaned).await.exit_code, 0);
    node.remove_pod(&pod).await;
    node.finish().await;
}
