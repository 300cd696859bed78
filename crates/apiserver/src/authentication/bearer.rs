//! Where a request carries a bearer token: in the `Authorization` header, or in a WebSocket's subprotocol, since browsers
//! set no headers there.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/request/bearertoken` and `.../websocket/protocol.go`.

use base64::Engine as _;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

/// What the subprotocol with a token begins with.
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The token of the `Authorization` header. Two spaces before it make it none, as upstream.
pub(super) fn of_header(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let mut words = value.splitn(3, ' ');
    let (scheme, token) = (words.next()?, words.next()?);
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token among a WebSocket's subprotocols.
///
/// # Errors
/// Several tokens, one that is no text, or one without another subprotocol to answer with.
pub(super) fn of_websocket(headers: &HeaderMap) -> Result<Option<String>, String> {
    if !is_websocket(headers) {
        return Ok(None);
    }
    let mut encoded = None;
    let mut others = false;
    for protocol in protocols(headers) {
        match protocol.strip_prefix(WEBSOCKET_TOKEN_PREFIX) {
            None => others = true,
            Some(_) if encoded.is_some() => {
                return Err("multiple base64.bearer.authorization tokens specified".into());
            }
            Some(token) => encoded = Some(token),
        }
    }
    let Some(encoded) = encoded else { return Ok(None) };
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded);
    let bytes = bytes.map_err(|_| "invalid base64.bearer.authorization token encoding")?;
    let token = String::from_utf8(bytes).map_err(|_| "invalid base64.bearer.authorization token")?;
    match token.is_empty() {
        true => Ok(None),
        false if !others => Err("missing additional subprotocol".into()),
        false => Ok(Some(token)),
    }
}

/// Removes tokens, so that nothing behind authentication ever sees one.
pub(super) fn clear(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    if !protocols(headers).any(|protocol| protocol.starts_with(WEBSOCKET_TOKEN_PREFIX)) {
        return;
    }
    let others: Vec<&str> = protocols(headers)
        .filter(|protocol| !protocol.starts_with(WEBSOCKET_TOKEN_PREFIX))
        .collect();
    let others = HeaderValue::from_str(&others.join(",")).ok();
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let mut words = values.flat_map(|value| value.split(','));
        words.any(|own| own.trim().eq_ignore_ascii_case(word))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|list| list.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_upstream_does() {
        for (value, expect) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            (" BEARER abc ", Some("abc")),
            ("Bearer abc def", Some("abc")),
            ("Bearer  abc", None),
            ("Basic abc", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            assert_eq!(of_header(&headers), expect, "{value}");
            clear(&mut headers);
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn a_websocket_brings_one_token_and_another_protocol() {
        const TOKEN: &str = "base64url.bearer.authorization.k8s.io.YWJj";
        for (protocols, expect, left) in [
            (
                format!("v5.channel.k8s.io, {TOKEN}"),
                Ok(Some("abc")),
                "v5.channel.k8s.io",
            ),
            ("v5.channel.k8s.io".into(), Ok(None), "v5.channel.k8s.io"),
            (TOKEN.to_owned(), Err("missing additional subprotocol"), ""),
            (format!("a,{TOKEN},{TOKEN}"), Err("multiple base64.bearer"), "a"),
            (
                "a,base64url.bearer.authorization.k8s.io.!".into(),
                Err("invalid base64.bearer.authorization token encoding"),
                "a",
            ),
            (
                "a,base64url.bearer.authorization.k8s.io._w".into(),
                Err("invalid base64.bearer.authorization token"),
                "a",
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
            assert_eq!(of_websocket(&headers), Ok(None), "no upgrade: {protocols}");
            headers.insert(UPGRADE, "websocket".parse().unwrap());
            headers.insert(CONNECTION, "keep-alive, Upgrade".parse().unwrap());
            match (of_websocket(&headers), expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got.as_deref(), expect, "{protocols}"),
                (Err(got), Err(expect)) => assert!(got.starts_with(expect), "{got}"),
                (got, expect) => panic!("{protocols}: {got:?} in place of {expect:?}"),
            }
            clear(&mut headers);
            let rest = headers
                .get(SEC_WEBSOCKET_PROTOCOL)
                .map_or("", |value| value.to_str().unwrap());
            assert_eq!(rest, left, "{protocols}");
        }
    }
}
