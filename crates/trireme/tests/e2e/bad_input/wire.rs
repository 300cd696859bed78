//! Bytes that are no TLS, no HTTP/1.1, no HTTP/2, or that stop in the middle: the connection ends, and nothing else does.
//!
//! Sources: RFC 9112 (HTTP/1.1), RFC 9113 (HTTP/2, sections 4 to 6 and 7 for the error codes).

use std::sync::Arc;
use std::time::Duration;

use client::https::Credentials;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{MAPS, ask};
use crate::cluster::Cluster;

/// How long the server may take to end a connection: its limit for a handshake is ten seconds.
const END_WITHIN: Duration = Duration::from_secs(30);
/// Connections that say nothing while others are answered.
const SILENT: usize = 64;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// GET https://x/readyz by HPACK's static table.
const GET_READYZ: &[u8] = b"\x82\x87\x04\x07/readyz\x01\x01x";

// Types of HTTP/2 frames and codes of errors (RFC 9113, sections 6 and 7).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const PROTOCOL_ERROR: u32 = 1;
const FRAME_SIZE_ERROR: u32 = 6;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;

/// The way to the server of a test.
struct Wire {
    address: String,
    tls: Arc<ClientConfig>,
}

impl Wire {
    /// TLS as the administrator, with one protocol offered.
    fn new(cluster: &Cluster, protocol: &str) -> Wire {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut cluster.ca_pem().as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let Credentials::Certificate { chain_pem, key_pem } = cluster.administrator() else {
            panic!("the administrator has a certificate");
        };
        let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut chain_pem.as_bytes()).collect();
        let key = rustls_pemfile::private_key(&mut key_pem.as_bytes()).unwrap().unwrap();
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.unwrap(), key)
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Wire {
            address: cluster.server().trim_start_matches("https://").to_owned(),
            tls: Arc::new(config),
        }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    async fn tls(&self) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(self.tls.clone())
            .connect(name, self.tcp().await)
            .await
            .unwrap()
    }
}

/// Sends something and that this is all; what comes back until the server ends the connection.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    // The server may have had enough before the end.
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    until_its_end(stream).await
}

async fn until_its_end(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut answer = Vec::new();
    // A connection that is reset has ended, too.
    let ended = tokio::time::timeout(END_WITHIN, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection goes on: {}", answer.escape_ascii());
    answer
}

/// The server answers, has stored nothing, and nothing in it fell over.
async fn goes_on(cluster: &Cluster) {
    let server = cluster.transport(cluster.administrator());
    assert_eq!(ask(&*server, "GET", "/readyz", "", Vec::new()).await.1, "ok");
    let maps = ask(&*server, "GET", MAPS, "", Vec::new()).await.1;
    let names = maps["items"].as_array().into_iter().flatten();
    assert!(
        !names.into_iter().any(|map| map["metadata"]["name"] == "torn"),
        "something was stored"
    );
    let log = std::fs::read_to_string(cluster.dir.join("data/log/server.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work);
}

#[test]
fn what_is_no_tls_ends_alone() {
    let cluster = Cluster::start();
    let wire = Wire::new(&cluster, "http/1.1");
    block_on(async {
        let mut silent = Vec::new();
        for place in 0..SILENT {
            let mut stream = wire.tcp().await;
            // Half of them begin a record and never end it.
            if place % 2 == 0 {
                stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
            }
            silent.push(stream);
        }
        for (what, bytes) in [
            ("plain HTTP", b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
            ("nothing", Vec::new()),
            ("zeros", vec![0; 64 * 1024]),
            ("a record of no known type", vec![0xff; 4096]),
            (
                "a record longer than records may be",
                b"\x16\x03\x01\xff\xff".repeat(4096),
            ),
            (
                "a hello that is none",
                [&b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c"[..], &[0xaa; 12]].concat(),
            ),
            ("half a hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
            ("an alert", b"\x15\x03\x03\x00\x02\x02\x28".to_vec()),
            ("HTTP/2's preface", PREFACE.to_vec()),
        ] {
            let answer = converse(wire.tcp().await, &bytes).await;
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{what}: {}", answer.escape_ascii());
        }
        goes_on(&cluster).await;
        // Who says nothing is not waited for.
        for stream in silent {
            until_its_end(stream).await;
        }
    });
}

#[test]
fn what_is_no_http_1_is_refused() {
    let cluster = Cluster::start();
    cluster.kubectl_ok(&["create", "namespace", "bad-input"]);
    let wire = Wire::new(&cluster, "http/1.1");
    let get = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let body = r#"{"metadata":{"name":"torn"}}"#;
    let post = |headers: &str, body: &str| {
        format!(
            "POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}\r\n\r\n{body}"
        )
    };
    let cases = [
        ("no request", "GARBAGE\r\n\r\n".into(), "HTTP/1.1 400"),
        ("no path", "GET HTTP/1.1\r\nHost: x\r\n\r\n".into(), "HTTP/1.1 400"),
        ("no version", "GET / HTTP/9.9\r\nHost: x\r\n\r\n".into(), "HTTP/1.1 400"),
        (
            "a method of odd letters",
            "G\u{1}T / HTTP/1.1\r\nHost: x\r\n\r\n".into(),
            "HTTP/1.1 400",
        ),
        (
            "a header without a colon",
            "GET / HTTP/1.1\r\nHost x\r\n\r\n".into(),
            "HTTP/1.1 400",
        ),
        (
            "a zero in a header",
            "GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n".into(),
            "HTTP/1.1 400",
        ),
        (
            "a header of 300 kB",
            format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(300 << 10)),
            "HTTP/1.1 431",
        ),
        (
            "a thousand headers",
            format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(1000)),
            "HTTP/1.1 431",
        ),
        (
            "a path of 300 kB",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(300 << 10)),
            "HTTP/1.1 4",
        ),
        (
            "two lengths",
            post("Content-Length: 1\r\nContent-Length: 28", body),
            "HTTP/1.1 400",
        ),
        (
            "a length that is none",
            post("Content-Length: -1", body),
            "HTTP/1.1 400",
        ),
        (
            "a chunk that is none",
            post("Transfer-Encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n"),
            "HTTP/1.1 400",
        ),
        // Whoever stops in the middle hears nothing, or that the middle was not the end.
        ("a body that stops", post("Content-Length: 100", body), ""),
        (
            "chunks that stop",
            post("Transfer-Encoding: chunked", &format!("1c\r\n{body}\r\n")),
            "",
        ),
        ("a head that stops", "GET /readyz HTTP/1.1\r\nHo".into(), ""),
    ];
    block_on(async {
        let mut wrong = String::new();
        for (what, text, expect) in cases {
            let mut stream = wire.tls().await;
            let answer = match expect {
                "" => converse(stream, text.as_bytes()).await,
                // Whoever says that this is all need not be answered: hyper looks for the end before it answers.
                _ => {
                    stream.write_all(text.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    until_its_end(stream).await
                }
            };
            let good =
                answer.starts_with(expect.as_bytes()) && (!expect.is_empty() || !answer.starts_with(b"HTTP/1.1 2"));
            if !good {
                wrong += &format!(
                    "{what}: expected {expect}, came {}\n",
                    answer[..answer.len().min(200)].escape_ascii()
                );
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
        // A good request in the smallest pieces is a good request.
        let mut slow = wire.tls().await;
        for byte in get.bytes() {
            slow.write_all(&[byte]).await.unwrap();
            slow.flush().await.unwrap();
        }
        let answer = until_its_end(slow).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
        goes_on(&cluster).await;
    });
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The error codes of the frames by which a server says goodbye.
fn goodbyes(mut bytes: &[u8]) -> Vec<u32> {
    let mut codes = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let (payload, next) = rest.split_at(length.min(rest.len()));
        if *kind == GOAWAY && payload.len() >= 8 {
            codes.push(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        bytes = next;
    }
    codes
}

#[test]
fn what_is_no_http_2_is_refused() {
    let cluster = Cluster::start();
    let wire = Wire::new(&cluster, "h2");
    let settings = frame(SETTINGS, 0, 0, &[]);
    let resets = (0..3000_u32).flat_map(|number| {
        let stream = 2 * number + 1;
        [
            frame(HEADERS, WHOLE, stream, GET_READYZ),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ]
        .concat()
    });
    // Of cut settings and bad HPACK the standard has codes of their own; those of the crate h2 are less exact.
    let cases = [
        (
            "settings cut short",
            frame(SETTINGS, 0, 0, &[0; 5]),
            Some(PROTOCOL_ERROR),
        ),
        (
            "a frame larger than was agreed",
            frame(DATA, 0, 1, &[0; 20_000]),
            Some(FRAME_SIZE_ERROR),
        ),
        (
            "a request on no stream",
            frame(HEADERS, WHOLE, 0, GET_READYZ),
            Some(PROTOCOL_ERROR),
        ),
        (
            "a request on a server's stream",
            frame(HEADERS, WHOLE, 2, GET_READYZ),
            Some(PROTOCOL_ERROR),
        ),
        (
            "headers that are no HPACK",
            frame(HEADERS, WHOLE, 1, &[0xff; 64]),
            Some(PROTOCOL_ERROR),
        ),
        ("data of no request", frame(DATA, 0, 1, b"x"), Some(PROTOCOL_ERROR)),
        (
            "the rest of nothing",
            frame(CONTINUATION, 4, 1, GET_READYZ),
            Some(PROTOCOL_ERROR),
        ),
        (
            "a window that grows by nothing",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            Some(PROTOCOL_ERROR),
        ),
        (
            "frames of no known type",
            frame(0xfe, 0xff, 1, &[0xaa; 100]).repeat(100),
            None,
        ),
        ("requests that are taken back at once", resets.collect(), None),
        ("noise", b"\x55\xaa\x00\xff".repeat(16 << 10), None),
    ];
    block_on(async {
        let mut wrong = String::new();
        for (what, frames, expect) in cases {
            let answer = converse(wire.tls().await, &[PREFACE, &settings, &frames].concat()).await;
            let came = goodbyes(&answer);
            if expect.is_some_and(|code| !came.contains(&code)) {
                wrong += &format!("{what}: expected {expect:?}, came {came:?}\n");
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
        // What begins as the preface and does not go on as one.
        converse(wire.tls().await, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
        goes_on(&cluster).await;
    });
}
