//! Links in what comes through a proxy: a page or a redirect that says `/next` means its own server, which a browser
//! reaches below the proxy's path only.
//!
//! Source: `k8s.io/apimachinery/pkg/util/proxy/transport.go`. Pages beyond [`PAGE_BYTES_MAX`] pass as they are.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use futures::StreamExt;
use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use api::Status;
use client::{Body, body_of};

/// A page is held as a whole while its links are rewritten.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Attributes that hold a link, by element. Source: `atomsToAttrs`.
const LINKS: [(&str, &[&str]); 28] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("td", &["background"]),
    ("th", &["background"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where an answer came from.
pub struct Place<'a> {
    /// The proxy's path, without a slash at its end.
    pub base: &'a str,
    /// The host and port that were asked.
    pub host: &'a str,
    /// The host that the client asked, which the other side was told.
    pub asked: &'a str,
}

impl Place<'_> {
    /// The link as it works below the proxy; `None` when it does already.
    fn link(&self, link: &str) -> Option<String> {
        let (before, path) = match link.split_once("://") {
            Some(("http" | "https", rest)) => self.behind_host(link, rest)?,
            _ => match link.strip_prefix("//") {
                Some(rest) => self.behind_host(link, rest)?,
                None => ("", link),
            },
        };
        if !path.starts_with('/') || path.starts_with(self.base) {
            return None;
        }
        Some(format!("{before}{}{path}", self.base))
    }

    /// What of a link stays before the proxy's path, and its own path. The client reaches the host that it asked, and no other.
    fn behind_host<'l>(&self, link: &'l str, rest: &'l str) -> Option<(&'l str, &'l str)> {
        let own = rest.strip_prefix(self.host);
        if let Some(path) = own.filter(|path| path.starts_with('/')) {
            return Some(("", path));
        }
        let path = rest.strip_prefix(self.asked)?;
        Some((&link[..link.len() - path.len()], path))
    }
}

/// Rewrites a redirect, or the links of a page.
pub async fn rewrite(mut answer: Response<Body>, place: &Place<'_>) -> Result<Response<Body>, Status> {
    let headers = answer.headers_mut();
    if let Some(location) = headers.get(LOCATION) {
        let link = location.to_str().ok().and_then(|location| place.link(location));
        if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
            headers.insert(LOCATION, link);
        }
        return Ok(answer);
    }
    let is_page = text(headers, CONTENT_TYPE.as_str()).starts_with("text/html");
    let Some(coding) = Coding::of(headers).filter(|_| is_page) else {
        return Ok(answer);
    };
    let (mut parts, mut body) = answer.into_parts();
    let mut page = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::internal(format!("error trying to reach service: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        page.extend_from_slice(&data);
        if page.len() > PAGE_BYTES_MAX {
            return Ok(Response::from_parts(parts, beginning_with(page.into(), body)));
        }
    }
    if let Some(rewritten) = coding.decode(&page).and_then(|html| links(&html, place)) {
        page = coding.encode(&rewritten);
        parts.headers.remove(CONTENT_LENGTH);
    }
    Ok(Response::from_parts(parts, body_of(page)))
}

fn beginning_with(start: Bytes, rest: Body) -> Body {
    let start = futures::stream::once(async { Ok(Frame::data(start)) });
    StreamBody::new(start.chain(http_body_util::BodyStream::new(rest))).boxed_unsync()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// How a page is compressed.
#[derive(Clone, Copy)]
enum Coding {
    Plain,
    Gzip,
    Deflate,
}

impl Coding {
    /// `None` when it is one that is not known here.
    fn of(headers: &HeaderMap) -> Option<Coding> {
        match text(headers, CONTENT_ENCODING.as_str()) {
            "" | "identity" => Some(Coding::Plain),
            "gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            _ => None,
        }
    }

    /// `None` when it is broken or beyond the limit.
    fn decode(self, page: &[u8]) -> Option<Vec<u8>> {
        let limit = PAGE_BYTES_MAX as u64 + 1;
        let mut html = Vec::new();
        match self {
            Coding::Plain => page.take(limit).read_to_end(&mut html),
            Coding::Gzip => GzDecoder::new(page).take(limit).read_to_end(&mut html),
            Coding::Deflate => DeflateDecoder::new(page).take(limit).read_to_end(&mut html),
        }
        .ok()?;
        (html.len() <= PAGE_BYTES_MAX).then_some(html)
    }

    fn encode(self, html: &[u8]) -> Vec<u8> {
        let written = match self {
            Coding::Plain => Ok(html.to_vec()),
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(html).and_then(|()| encoder.finish())
            }
            Coding::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(html).and_then(|()| encoder.finish())
            }
        };
        written.expect("invariant: a Vec takes all bytes")
    }
}

/// The page with its links rewritten; `None` when there are none to rewrite. Everything else stays byte for byte.
fn links(html: &[u8], place: &Place<'_>) -> Option<Vec<u8>> {
    let mut emitter = DefaultEmitter::<usize>::new_with_span();
    // What stands in scripts and styles is no tag.
    emitter.naively_switch_states(true);
    let mut out = Vec::new();
    let mut copied = 0;
    for token in Tokenizer::new_with_emitter(html, emitter) {
        let Ok(token) = token;
        let Token::StartTag(mut tag) = token else { continue };
        let Some((_, names)) = LINKS.iter().find(|(element, _)| *tag.name == *element.as_bytes()) else {
            continue;
        };
        let mut changed = false;
        for (name, value) in &mut tag.attributes {
            let link = std::str::from_utf8(value)
                .ok()
                .filter(|_| names.iter().any(|own| **name == *own.as_bytes()))
                .and_then(|link| place.link(link));
            if let Some(link) = link {
                value.value = link.into_bytes().into();
                changed = true;
            }
        }
        if changed {
            out.extend_from_slice(&html[copied..tag.span.start]);
            write_tag(&mut out, &tag);
            copied = tag.span.end;
        }
    }
    (copied > 0).then(|| {
        out.extend_from_slice(&html[copied..]);
        out
    })
}

fn write_tag(out: &mut Vec<u8>, tag: &StartTag<usize>) {
    out.push(b'<');
    out.extend_from_slice(&tag.name);
    for (name, value) in &tag.attributes {
        out.push(b' ');
        out.extend_from_slice(name);
        out.extend_from_slice(b"=\"");
        for byte in value.iter() {
            match byte {
                b'&' => out.extend_from_slice(b"&amp;"),
                b'"' => out.extend_from_slice(b"&#34;"),
                byte => out.push(*byte),
            }
        }
        out.push(b'"');
    }
    out.extend_from_slice(if tag.self_closing { b"/>" } else { b">" });
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place {
        base: "/api/v1/namespaces/n/pods/p/proxy",
        host: "10.244.0.9:80",
        asked: "localhost:8001",
    };

    #[test]
    fn links_lead_below_the_proxy() {
        for (link, expect) in [
            ("/next?a=1#b", Some("/api/v1/namespaces/n/pods/p/proxy/next?a=1#b")),
            (
                "http://10.244.0.9:80/next",
                Some("/api/v1/namespaces/n/pods/p/proxy/next"),
            ),
            ("//10.244.0.9:80/", Some("/api/v1/namespaces/n/pods/p/proxy/")),
            ("/api/v1/namespaces/n/pods/p/proxy/next", None),
            (
                "https://localhost:8001/next",
                Some("https://localhost:8001/api/v1/namespaces/n/pods/p/proxy/next"),
            ),
            (
                "//localhost:8001/",
                Some("//localhost:8001/api/v1/namespaces/n/pods/p/proxy/"),
            ),
            ("https://localhost:80011/next", None),
            ("http://elsewhere/next", None),
            ("//elsewhere/next", None),
            ("http://10.244.0.9:8080/next", None),
            ("next", None),
            ("#part", None),
            ("mailto:a@b", None),
        ] {
            assert_eq!(PLACE.link(link).as_deref(), expect, "{link}");
        }
    }

    #[test]
    fn only_links_of_a_page_change() {
        for (page, expect) in [
            (
                "<p>\u{e9}<a href='/x?a&amp;b' id=i>t</a>",
                Some("<p>\u{e9}<a href=\"BASE/x?a&amp;b\" id=\"i\">t</a>"),
            ),
            ("<IMG SRC=/i.png /><br>", Some("<img src=\"BASE/i.png\"/><br>")),
            (
                "<script src='/s'>x = \"<a href='/no'>\"</script>",
                Some("<script src=\"BASE/s\">x = \"<a href='/no'>\"</script>"),
            ),
            ("<!-- <a href='/c'> --><a href='c' title='/t'>", None),
            ("<a href=\"/un", None),
            ("no page at all", None),
        ] {
            let expect = expect.map(|page| page.replace("BASE", PLACE.base));
            let got = links(page.as_bytes(), &PLACE).map(|page| String::from_utf8(page).unwrap());
            assert_eq!(got, expect, "{page}");
        }
    }

    #[tokio::test]
    async fn compressed_pages_are_rewritten_and_long_ones_pass() {
        let link = b"<a href=\"/x\">";
        let long = [b"<a href=\"/x\">".as_slice(), &vec![b' '; PAGE_BYTES_MAX]].concat();
        for (coding, name, page, changes) in [
            (Coding::Plain, "", link.as_slice(), true),
            (Coding::Gzip, "gzip", link, true),
            (Coding::Deflate, "deflate", link, true),
            (Coding::Plain, "br", link, false),
            (Coding::Plain, "", &long, false),
            (Coding::Gzip, "gzip", &long, false),
        ] {
            let mut answer = Response::new(body_of(coding.encode(page)));
            let headers = answer.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            if !name.is_empty() {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
            }
            let answer = rewrite(answer, &PLACE).await.unwrap();
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            if changes {
                let page = String::from_utf8(coding.decode(&bytes).unwrap()).unwrap();
                assert_eq!(page, "<a href=\"/api/v1/namespaces/n/pods/p/proxy/x\">", "{name}");
            } else {
                assert!(bytes == coding.encode(page), "{name}: {} bytes", bytes.len());
            }
        }
    }
}
