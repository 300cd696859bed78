//! Service-account tokens: ES256 JSON web tokens, bound to the objects they were made for.
//!
//! Source of the claims: `pkg/serviceaccount/claims.go`; of the limits: `pkg/registry/core/serviceaccount/storage/token.go`.
//! Invariant: a token is accepted only while every object it is bound to exists with the same uid.

mod authenticator;
mod claims;
mod issuer;
mod jwt;

pub use authenticator::{BoundObjects, Identity, TokenAuthenticator, TokenError};
pub use claims::{Claims, KubernetesClaims, Reference, TokenBinding};
pub use issuer::{ClusterObjects, Issuer};
pub(crate) use jwt::id_of;
pub use jwt::{JwtError, Signer};

use jiff::Timestamp;

/// The issuer of every token, and the audience when a request names none.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The life of a token when the request does not say, in seconds.
pub const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;
/// The shortest life a request may ask for, in seconds.
pub const MIN_EXPIRATION_SECONDS: i64 = 600;
/// The longest life a request may ask for: what fits 32 bits, as upstream.
pub const MAX_EXPIRATION_SECONDS: i64 = 1 << 32;
/// What the kubelet asks for on behalf of pods. Such a token lives for [`EXTENDED_SECONDS`] and warns after an hour, so
/// that programs that read their token once keep working (upstream's `--service-account-extend-token-expiration`).
pub const WARN_ONLY_SECONDS: i64 = 3607;
/// How long an extended token lives, in seconds.
pub const EXTENDED_SECONDS: i64 = 365 * 86_400;

/// What a token is asked for.
pub struct TokenRequest<'a> {
    /// The account's namespace.
    pub namespace: &'a str,
    /// The account.
    pub account: Reference,
    /// The object whose end ends the token.
    pub bound_to: TokenBinding,
    /// Whom the token is for; empty for the API server.
    pub audiences: Vec<String>,
    /// The life asked for.
    pub expiration_seconds: i64,
}

/// A token and when it ends by what the client is told.
pub struct IssuedToken {
    /// The signed token: a secret.
    pub token: String,
    /// `status.expirationTimestamp`.
    pub expires: Timestamp,
}

/// Signs a token for a request whose objects were found to exist.
///
/// # Errors
/// The signature library's.
pub fn issue(signer: &Signer, request: TokenRequest, now: Timestamp) -> Result<IssuedToken, JwtError> {
    let issued = now.as_second();
    let for_us = request.audiences.is_empty() || request.audiences.iter().any(|a| a == ISSUER);
    let bound_to_pod = request.bound_to.pod.is_some();
    let extended = request.expiration_seconds == WARN_ONLY_SECONDS && for_us && bound_to_pod;
    let (end, warn_after) = match extended {
        true => (issued + EXTENDED_SECONDS, Some(issued + WARN_ONLY_SECONDS)),
        false => (issued + request.expiration_seconds, None),
    };
    let audiences = if request.audiences.is_empty() {
        vec![ISSUER.to_owned()]
    } else {
        request.audiences
    };
    let claims = Claims {
        audiences,
        expires: end,
        issued_at: issued,
        issuer: ISSUER.into(),
        id: signer.new_token_id(),
        kubernetes: KubernetesClaims {
            namespace: request.namespace.into(),
            node: request.bound_to.node,
            pod: request.bound_to.pod,
            secret: request.bound_to.secret,
            account: request.account.clone(),
            warn_after,
        },
        not_before: issued,
        subject: format!("system:serviceaccount:{}:{}", request.namespace, request.account.name),
    };
    let expires = Timestamp::from_second(issued + request.expiration_seconds).map_err(|_| JwtError::Expiration)?;
    Ok(IssuedToken {
        token: signer.sign(&claims)?,
        expires,
    })
}
