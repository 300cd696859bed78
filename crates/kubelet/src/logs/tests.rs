//! Logs as they are read from files that grow, are renamed and truncated.

use std::io::Write;
use std::path::PathBuf;

use tokio::sync::oneshot;
use tokio_stream::StreamExt;

use super::records::{Record, parse};
use super::*;

const FIRST: &str = "2026-01-01T00:00:00.000000001Z stdout F one\n\
                     2026-01-01T00:00:01Z stderr F two\n\
                     2026-01-01T00:00:02.5Z stdout P thr\n\
                     2026-01-01T00:00:02.6Z stdout F ee\n\
                     2026-01-01T00:00:03Z stdout F \n\
                     2026-01-01T00:00:04Z stdout F four\n";

async fn collect(path: &Path, options: Options) -> String {
    let never = Box::pin(std::future::pending());
    let mut stream = open(path, options, never).await.unwrap();
    let mut text = Vec::new();
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    String::from_utf8(text).unwrap()
}

fn log(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

#[test]
fn records() {
    let time = || "2026-01-01T00:00:00Z".parse().unwrap();
    for (line, expect) in [
        (
            "2026-01-01T00:00:00Z stdout F a b",
            Some((Stream::Stdout, false, "a b")),
        ),
        ("2026-01-01T00:00:00Z stderr P:x a", Some((Stream::Stderr, true, "a"))),
        ("2026-01-01T00:00:00Z stdout F ", Some((Stream::Stdout, false, ""))),
        ("2026-01-01T00:00:00Z stdout F", None),
        ("2026-01-01T00:00:00Z stdlog F a", None),
        ("yesterday stdout F a", None),
        ("", None),
    ] {
        let expect = expect.map(|(stream, partial, text)| Record {
            time: time(),
            stream,
            partial,
            text: text.as_bytes(),
        });
        assert_eq!(parse(line.as_bytes()), expect, "{line}");
    }
}

#[tokio::test]
async fn options() {
    let (_dir, path) = log(FIRST);
    let none = Options::default;
    for (options, expect) in [
        (none(), "one\ntwo\nthree\n\nfour\n"),
        (
            Options {
                stream: Stream::Stderr,
                ..none()
            },
            "two\n",
        ),
        (
            Options {
                stream: Stream::Stdout,
                ..none()
            },
            "one\nthree\n\nfour\n",
        ),
        (
            Options {
                tail_lines: Some(0),
                ..none()
            },
            "",
        ),
        (
            Options {
                tail_lines: Some(2),
                ..none()
            },
            "\nfour\n",
        ),
        (
            Options {
                tail_lines: Some(100),
                ..none()
            },
            "one\ntwo\nthree\n\nfour\n",
        ),
        (
            Options {
                limit_bytes: Some(5),
                ..none()
            },
            "one\nt",
        ),
        (
            Options {
                since: "2026-01-01T00:00:03Z".parse().ok(),
                ..none()
            },
            "\nfour\n",
        ),
        (
            Options {
                timestamps: true,
                limit_bytes: Some(72),
                ..none()
            },
            "2026-01-01T00:00:00.000000001Z one\n2026-01-01T00:00:01.000000000Z two\n20",
        ),
    ] {
        assert_eq!(collect(&path, options.clone()).await, expect, "{options:?}");
    }
    let stamped = collect(
        &path,
        Options {
            timestamps: true,
            ..none()
        },
    )
    .await;
    assert!(
        stamped.contains("\n2026-01-01T00:00:02.500000000Z three\n2026-"),
        "{stamped}"
    );
}

#[tokio::test]
async fn files_that_are_not_whole() {
    let (_dir, path) = log("garbage\n2026-01-01T00:00:00Z stdout F a\n2026-01-01T00:00:00Z stdout F unfin");
    assert_eq!(collect(&path, Options::default()).await, "a\nunfin");
    let long = "x".repeat(3 * 1024 * 1024);
    let text = format!(
        "{long}\n2026-01-01T00:00:00Z stdout F a\n2026-01-01T00:00:00Z stdout F {}\n",
        &long[..100_000]
    );
    let (_dir, path) = log(&text);
    assert_eq!(collect(&path, Options::default()).await.len(), 100_003);
    assert!(
        open(Path::new("/none/0.log"), Options::default(), Box::pin(async {}))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn rotated_files_come_first() {
    let (dir, path) = log(FIRST);
    std::fs::rename(&path, dir.path().join("0.log.full")).unwrap();
    std::fs::write(&path, "2026-01-01T00:00:05Z stdout F five\n").unwrap();
    std::fs::write(dir.path().join("0.log.1.gz"), "compressed").unwrap();
    assert_eq!(
        collect(&path, Options::default()).await,
        "one\ntwo\nthree\n\nfour\nfive\n"
    );
    assert_eq!(
        collect(
            &path,
            Options {
                tail_lines: Some(2),
                ..Options::default()
            }
        )
        .await,
        "four\nfive\n"
    );
}

#[tokio::test]
async fn following() {
    let (dir, path) = log("2026-01-01T00:00:00Z stdout F old\n");
    let (end, ended) = oneshot::channel::<()>();
    let options = Options {
        follow: true,
        tail_lines: Some(1),
        ..Options::default()
    };
    let ended = Box::pin(async move { drop(ended.await) });
    let mut stream = open(&path, options, ended).await.unwrap();
    let mut seen = String::new();
    let mut until = async |wanted: &str| {
        while !seen.ends_with(wanted) {
            let chunk = stream.next().await.expect("the stream goes on").unwrap();
            seen.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    until("old\n").await;
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append("2026-01-01T00:00:01Z stdout F a");
    append("b\n");
    until("ab\n").await;
    // Written, renamed, written again, all before anybody looks.
    append("2026-01-01T00:00:02Z stdout F before\n");
    std::fs::rename(&path, dir.path().join("0.log.full")).unwrap();
    append("2026-01-01T00:00:03Z stdout F after\n");
    until("before\nafter\n").await;
    std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    append("2026-01-01T00:00:03Z stdout F x\n");
    until("x\n").await;
    append("2026-01-01T00:00:04Z stdout F last\n");
    end.send(()).unwrap();
    until("last\n").await;
    assert!(stream.next().await.is_none());
    assert_eq!(seen, "old\nab\nbefore\nafter\nx\nlast\n");
}
