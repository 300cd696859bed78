//! URLs: `url('https://example.com:80/path').getHost()`. Sources: `pkg/cel/library/urls.go` of the API server, and Go's
//! `net/url`, whose rules decide what a URL is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Native::Plain;
use super::opaque::Opaque;
use super::strings::text;
use super::{Line, Outcome, no_overload};
use crate::program::Error;
use crate::value::{Key, Map, Text, Value};

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("string_to_url", "url(string) -> kubernetes.URL", Plain(url)),
    ("url_get_scheme", "kubernetes.URL::getScheme() -> string", Plain(scheme)),
    ("url_get_host", "kubernetes.URL::getHost() -> string", Plain(host)),
    ("url_get_hostname", "kubernetes.URL::getHostname() -> string", Plain(hostname)),
    ("url_get_port", "kubernetes.URL::getPort() -> string", Plain(port)),
    ("url_get_escaped_path", "kubernetes.URL::getEscapedPath() -> string", Plain(escaped_path)),
    ("url_get_query", "kubernetes.URL::getQuery() -> map(string, list(string))", Plain(query)),
    ("is_url_string", "isURL(string) -> bool", Plain(is_url)),
];

/// A URL in its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    whole: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// The text it was made of.
    pub(crate) fn text(&self) -> &str {
        &self.whole
    }

    /// Go's `ParseRequestURI`: an absolute URL or an absolute path. A fragment belongs to the path or the query there; with
    /// `fragment` it is cut off, as `Parse` does.
    pub(crate) fn parse(whole: &str, fragment: bool) -> Result<Url, String> {
        let error = |why: &str| format!("parse {whole:?}: {why}");
        if whole.is_empty() {
            return Err(error("empty url"));
        }
        if whole.bytes().any(|one| one < b' ' || one == 0x7f) {
            return Err(error("net/url: invalid control character in URL"));
        }
        let mut url = Url {
            whole: whole.to_owned(),
            ..Url::default()
        };
        let body = if fragment {
            whole.split_once('#').map_or(whole, |(body, _)| body)
        } else {
            whole
        };
        if body == "*" {
            url.path = "*".into();
            return Ok(url);
        }
        let (scheme, rest) = split_scheme(body).map_err(error)?;
        url.scheme = scheme.to_ascii_lowercase();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        url.query = query.to_owned();
        if !rest.starts_with('/') {
            // `mailto:x` has no path; without a scheme it is no URI of a request.
            return if scheme.is_empty() {
                Err(error("invalid URI for request"))
            } else {
                Ok(url)
            };
        }
        let mut path = rest;
        if let Some(authority) = rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
            let end = authority.find('/').unwrap_or(authority.len());
            let (authority, after) = authority.split_at(end);
            url.host = parse_host(authority).map_err(|why| error(&why))?;
            path = after;
        }
        url.path = escaped(path).map_err(|why| error(&why))?;
        Ok(url)
    }
}

/// Cuts `scheme:` off, when there is one.
fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, one) in text.char_indices() {
        match one {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

/// The host and port of `user@host:port`.
fn parse_host(authority: &str) -> Result<String, String> {
    let (user, host) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(user, host)| (Some(user), host));
    let user_ok = |one: u8| one.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&one);
    if user.is_some_and(|user| !user.bytes().all(user_ok)) {
        return Err("net/url: invalid userinfo".into());
    }
    let port = if let Some(bracketed) = host.strip_prefix('[') {
        let end = bracketed.rfind(']').ok_or("missing ']' in host")?;
        &bracketed[end + 1..]
    } else {
        host.rfind(':').map_or("", |colon| &host[colon..])
    };
    let digits = port.strip_prefix(':');
    if !port.is_empty() && digits.is_none_or(|digits| !digits.bytes().all(|one| one.is_ascii_digit())) {
        return Err(format!("invalid port {port:?} after host"));
    }
    let ok = |one: u8| one >= 0x80 || one.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]<>\"%".contains(&one);
    if let Some(at) = host.bytes().position(|one| !ok(one)) {
        let one = &host[at..=at];
        return Err(format!("invalid character {one:?} in host name"));
    }
    check_escapes(host)?;
    Ok(host.to_owned())
}

/// Every `%` begins an escape.
fn check_escapes(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let digits = bytes.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            let end = (at + 3).min(bytes.len());
            return Err(format!(
                "invalid URL escape {:?}",
                String::from_utf8_lossy(&bytes[at..end])
            ));
        }
    }
    Ok(())
}

/// A path with everything escaped that must be.
fn escaped(path: &str) -> Result<String, String> {
    check_escapes(path)?;
    let mut out = String::with_capacity(path.len());
    for one in path.bytes() {
        if one.is_ascii_alphanumeric() || b"-._~$&+,/:;=@!'()*[]%".contains(&one) {
            out.push(char::from(one));
        } else {
            out.push_str(&format!("%{one:02X}"));
        }
    }
    Ok(out)
}

/// A part of a query without its escapes; `None` when they are broken.
fn unescaped(text: &str) -> Option<String> {
    check_escapes(text).ok()?;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(one) = bytes.get(at) {
        at += 1;
        match one {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(bytes.get(at..at + 2)?).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                at += 2;
            }
            other => out.push(*other),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

fn of<'v>(value: &'v Value<'_>) -> Result<&'v Url, Error> {
    match value {
        Value::Opaque(Opaque::Url(url)) => Ok(url),
        _ => Err(no_overload()),
    }
}

fn url<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let whole = text(&arguments[0])?;
    let parsed = Url::parse(whole, false).and_then(|_| Url::parse(whole, true));
    let failed = |why| Error::evaluation(format!("URL parse error during conversion from string: {why}"));
    Ok(Value::Opaque(Opaque::Url(Arc::new(parsed.map_err(failed)?))))
}

fn is_url<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(Url::parse(text(&arguments[0])?, false).is_ok()))
}

fn scheme<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(of(&arguments[0])?.scheme.clone().into())
}

fn host<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(of(&arguments[0])?.host.clone().into())
}

/// The host without brackets, and the port.
fn host_and_port(url: &Url) -> (&str, &str) {
    let bracketed = url.host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match bracketed {
        Some((host, port)) => (host, port.strip_prefix(':').unwrap_or("")),
        None => url.host.rsplit_once(':').unwrap_or((&url.host, "")),
    }
}

fn hostname<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(host_and_port(of(&arguments[0])?).0.to_owned().into())
}

fn port<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(host_and_port(of(&arguments[0])?).1.to_owned().into())
}

fn escaped_path<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(of(&arguments[0])?.path.clone().into())
}

fn query<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let mut parameters: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in of(&arguments[0])?
        .query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
    {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) {
            parameters.entry(key).or_default().push(value.into());
        }
    }
    let entry = |(key, values): (String, Vec<Value<'a>>)| (Key::String(Text::from(key)), Value::list(values));
    Ok(Value::Map(Map::made(parameters.into_iter().map(entry).collect())))
}
