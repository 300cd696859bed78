//! `/logs/`: the files of the machine's `/var/log`, for whoever may `get` the node's `log`.
//!
//! Invariant: nothing outside of that directory is read, whatever a path or a link says, and nothing but files and directories:
//! a link there may have been made by a pod that has the directory mounted.
//! Source: `ServeLogs` in `pkg/kubelet/kubelet_pods.go`, which serves it with Go's `http.FileServer`; its page of a directory is
//! the one here.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use client::{Body, TransportError};
use futures::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt;

use super::route::text;

/// What is read of a file at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Names of a directory that are shown; more than that nobody reads, and each takes memory.
const NAMES_MAX: usize = 10_000;

/// Answers with a file or the page of a directory, by its path below `root`.
pub(super) async fn answer(root: &Path, path: &str) -> Response<Body> {
    match open(root, path).await {
        Ok(Found::File(file, length)) => send(file, length),
        Ok(Found::Directory(directory)) if path.is_empty() || path.ends_with('/') => list(&directory).await,
        Ok(Found::Directory(directory)) => {
            // Links of the page are relative to it.
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
            if let Ok(location) = HeaderValue::from_str(&format!("{}/", link(&name))) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
        Err(error) => refusal(&error),
    }
}

enum Found {
    File(tokio::fs::File, u64),
    Directory(PathBuf),
}

async fn open(root: &Path, path: &str) -> io::Result<Found> {
    let root = tokio::fs::canonicalize(root).await?;
    let wanted = root.join(path.trim_start_matches('/'));
    let real = tokio::fs::canonicalize(&wanted).await?;
    if !real.starts_with(&root) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let metadata = tokio::fs::metadata(&real).await?;
    if metadata.is_dir() {
        return Ok(Found::Directory(real));
    }
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(Found::File(tokio::fs::File::open(&real).await?, metadata.len()))
}

/// No more than there is now: a log that grows meanwhile would never end.
fn send(file: tokio::fs::File, length: u64) -> Response<Body> {
    let pieces = stream::try_unfold((file, length), |(mut file, left)| async move {
        let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES))];
        let count = file
            .read(&mut chunk)
            .await
            .map_err(|error| TransportError::Lost(error.to_string()))?;
        if count == 0 {
            return Ok(None);
        }
        chunk.truncate(count);
        Ok(Some((Frame::data(Bytes::from(chunk)), (file, left - count as u64))))
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // Whatever stands in a log, no browser takes it for a page.
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

async fn list(directory: &Path) -> Response<Body> {
    let names = match names(directory).await {
        Ok(names) => names,
        Err(error) => return refusal(&error),
    };
    let mut page = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n".to_owned();
    for name in names {
        // Writing to a text does not fail.
        let _ = writeln!(page, "<a href=\"{}\">{}</a>", link(&name), escape(&name));
    }
    page.push_str("</pre>\n");
    let mut response = text(StatusCode::OK, page);
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Sorted; those of directories end with a slash.
async fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut entries = tokio::fs::read_dir(directory).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().await?.is_dir() {
            name.push('/');
        }
        names.push(name);
        if names.len() == NAMES_MAX {
            break;
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A name as a relative link: what means something in a URL is escaped.
fn link(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn escape(name: &str) -> String {
    let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    name.replace('"', "&#34;").replace('\'', "&#39;")
}

fn refusal(error: &io::Error) -> Response<Body> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
            text(StatusCode::NOT_FOUND, "404 page not found\n")
        }
        io::ErrorKind::PermissionDenied => text(StatusCode::FORBIDDEN, "403 Forbidden\n"),
        _ => text(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn ask(root: &Path, path: &str) -> (u16, String) {
        let (parts, body) = answer(root, path).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut told = String::from_utf8_lossy(&body).into_owned();
        if let Some(location) = parts.headers.get(header::LOCATION) {
            told = location.to_str().unwrap().to_owned();
        }
        (parts.status.as_u16(), told)
    }

    #[tokio::test]
    async fn files_directories_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("log");
        std::fs::create_dir_all(root.join("pods/a b")).unwrap();
        std::fs::write(root.join("syslog"), "line\n".repeat(CHUNK_BYTES)).unwrap();
        std::fs::write(root.join("pods/a b/<0>.log"), "hello\n").unwrap();
        std::fs::write(home.path().join("secret"), "s").unwrap();
        symlink("pods/a b/<0>.log", root.join("inside")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink("/", root.join("everything")).unwrap();
        let head = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n";
        let lost = (404, "404 page not found\n".to_owned());
        let page = |links: &str| (200, format!("{head}{links}</pre>\n"));
        let top = "<a href=\"everything\">everything</a>\n<a href=\"inside\">inside</a>\n<a href=\"outside\">outside</a>\n\
                   <a href=\"pods/\">pods/</a>\n<a href=\"syslog\">syslog</a>\n";
        for (path, expect) in [
            ("", page(top)),
            ("pods/", page("<a href=\"a%20b/\">a b/</a>\n")),
            ("pods/a b/", page("<a href=\"%3C0%3E.log\">&lt;0&gt;.log</a>\n")),
            ("pods/a b/<0>.log", (200, "hello\n".into())),
            ("inside", (200, "hello\n".into())),
            ("pods", (301, "pods/".into())),
            ("pods/a b", (301, "a%20b/".into())),
            ("syslog", (200, "line\n".repeat(CHUNK_BYTES))),
            ("outside", lost.clone()),
            ("../secret", lost.clone()),
            ("everything/etc/passwd", lost.clone()),
            ("/etc/passwd", lost.clone()),
            ("syslog/x", lost.clone()),
            ("a\0b", lost.clone()),
            ("none", lost),
        ] {
            assert_eq!(ask(&root, path).await, expect, "{path:?}");
        }
    }
}
