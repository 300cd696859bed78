//! Service-account tokens: JSON web tokens, bound to the objects they were made for.
//!
//! Source of the claims: `pkg/serviceaccount/claims.go`; of the limits: `pkg/registry/core/serviceaccount/storage/token.go`.
//! Invariant: a token is accepted only while every object it is bound to exists with the same uid.

mod authenticator;
mod claims;
mod external;
mod issuer;
mod jwt;
mod key_files;
pub(crate) mod keys;
mod legacy;
mod settings;
mod tracking;

pub use authenticator::{BoundObjects, Identity, TokenAuthenticator, TokenError};
pub use claims::{Claims, KubernetesClaims, LegacyClaims, Reference, TokenBinding};
pub use external::ExternalSigner;
pub use issuer::{ClusterObjects, Issuer};
pub(crate) use jwt::id_of;
pub use jwt::{JwtError, Signer};
pub use key_files::{SigningKey, VerifyingKey, verifying_keys};
pub use legacy::SecretToken;
pub use settings::TokenSettings;
pub use tracking::UsedSecrets;
pub(crate) use tracking::maintain;

use jiff::Timestamp;

/// The issuer of every token, and the audience when a request names none, when nobody says otherwise.
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
    /// Whom the token is for; empty: for the API server.
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

/// Signs a token for a request whose objects were found to exist, by a key of our own.
///
/// # Errors
/// The signature library's.
pub fn issue(signer: &Signer, request: TokenRequest, now: Timestamp) -> Result<IssuedToken, JwtError> {
    let (claims, expires) = asked_for(signer, request, now)?;
    Ok(IssuedToken {
        token: signer.sign(&claims)?,
        expires,
    })
}

/// The same by whoever signs.
async fn issued(signer: &Signer, request: TokenRequest<'_>, now: Timestamp) -> Result<IssuedToken, JwtError> {
    let (claims, expires) = asked_for(signer, request, now)?;
    Ok(IssuedToken {
        token: signer.signed(&claims).await?,
        expires,
    })
}

/// What the token of a request says, and when it ends by what the client is told.
fn asked_for(signer: &Signer, request: TokenRequest, now: Timestamp) -> Result<(Claims, Timestamp), JwtError> {
    let (settings, issued) = (signer.settings(), now.as_second());
    let audiences = match request.audiences.is_empty() {
        true => settings.audiences.clone(),
        false => request.audiences,
    };
    let (life, warn_after) = settings.life(request.expiration_seconds, &audiences, request.bound_to.pod.is_some());
    let claims = Claims {
        audiences,
        expires: Some(issued + life),
        issued_at: Some(issued),
        issuer: settings.issuer().into(),
        id: signer.new_token_id(),
        kubernetes: KubernetesClaims {
            namespace: request.namespace.into(),
            node: request.bound_to.node,
            pod: request.bound_to.pod,
            secret: request.bound_to.secret,
            account: request.account.clone(),
            warn_after: warn_after.map(|seconds| issued + seconds),
        },
        not_before: Some(issued),
        subject: format!("system:serviceaccount:{}:{}", request.namespace, request.account.name),
        legacy: None,
    };
    let expires = Timestamp::from_second(issued + request.expiration_seconds).map_err(|_| JwtError::Expiration)?;
    Ok((claims, expires))
}
