//! Who is asking: client certificates of the cluster's authority, then service-account tokens.
//!
//! A handshake and a signature are verified once and remembered under the exact bytes that were verified; what can change
//! (the clock, the objects a token is bound to) is looked at for every request.

mod certificates;

use std::sync::Arc;

use base::clock::Clock;
use futures::future::BoxFuture;

pub use certificates::CertificateAuthenticator;

use crate::pipeline::{Authenticator, Credentials, Identity};
use crate::request::UserInfo;
use crate::tokens::{TokenAuthenticator, TokenError};

/// The token may ride in a WebSocket's subprotocol, since browsers set no headers there.
/// Source: `k8s.io/apiserver/pkg/authentication/request/websocket/protocol.go`.
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Certificates first, then bearer tokens: upstream's order.
pub struct Authentication {
    certificates: CertificateAuthenticator,
    tokens: TokenAuthenticator,
    clock: Clock,
}

// === impl Authentication ===

impl Authentication {
    /// An authenticator of both kinds of credentials.
    pub fn new(certificates: CertificateAuthenticator, tokens: TokenAuthenticator, clock: Clock) -> Authentication {
        Authentication {
            certificates,
            tokens,
            clock,
        }
    }

    fn token(&self, token: &str, audiences: &[String]) -> Result<Option<Identity>, String> {
        match self.tokens.authenticate(token, audiences, self.clock.now()) {
            Ok(identity) => {
                let mut user = UserInfo::new(identity.user, identity.groups);
                user.uid = identity.uid;
                user.extra = identity.extra;
                Ok(Some(Identity {
                    user,
                    audiences: identity.audiences,
                }))
            }
            Err(TokenError::NotOurs) => Err("invalid bearer token".into()),
            Err(other) => Err(format!("invalid bearer token, {other}")),
        }
    }
}

impl Authenticator for Authentication {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Option<Identity>, String>> {
        tracing::trace!(target: "walk", "who asks");
        let found = match self
            .certificates
            .authenticate(credentials.peer_certificates, self.clock.now())
        {
            Ok(Some(user)) => Ok(Some(Identity {
                user,
                audiences: Vec::new(),
            })),
            refused => match bearer_token(credentials.headers) {
                Some(token) => self.token(&token, &[]),
                None => refused.map(|_| None),
            },
        };
        Box::pin(std::future::ready(found))
    }

    fn authenticate_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, String>> {
        Box::pin(std::future::ready(self.token(token, audiences)))
    }
}

/// The bearer token of a request: the `Authorization` header, else a WebSocket subprotocol.
fn bearer_token(headers: &http::HeaderMap) -> Option<Arc<str>> {
    if let Some(value) = headers.get(http::header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.into());
    }
    use base64::Engine as _;
    let protocols = headers
        .get_all(http::header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let encoded = protocols
        .flat_map(|list| list.split(','))
        .find_map(|p| p.trim().strip_prefix(WEBSOCKET_TOKEN_PREFIX))?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(bytes)
        .ok()
        .filter(|token| !token.is_empty())
        .map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_where_clients_put_them() {
        for (name, value, expect) in [
            ("authorization", "Bearer abc", Some("abc")),
            ("authorization", "bearer  abc", Some("abc")),
            ("authorization", "Basic abc", None),
            ("authorization", "Bearer ", None),
            ("authorization", "Bearer", None),
            (
                "sec-websocket-protocol",
                "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj",
                Some("abc"),
            ),
            (
                "sec-websocket-protocol",
                "base64url.bearer.authorization.k8s.io.!",
                None,
            ),
            ("x-other", "Bearer abc", None),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::HeaderName::from_static(name), value.parse().unwrap());
            assert_eq!(bearer_token(&headers).as_deref(), expect, "{name}: {value}");
        }
    }
}
