//! Tokens that controllers of other clusters put into Secrets: without an end and without audiences, and therefore good only
//! as long as the Secret holds them.
//!
//! Source: `pkg/serviceaccount/legacy.go`. Different from upstream: the Secret gets no label that tells when its token was
//! last used, since nobody writes while a request is authenticated here.

use api::meta;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::authenticator::{BoundObjects, TokenError};
use super::claims::{Claims, LegacyClaims};

/// Who issued them.
pub(super) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// The label of a Secret whose token counts no longer.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// How a token came into its Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretToken {
    /// Nobody looked.
    Unknown,
    /// Somebody asked for it with a Secret of that name.
    Manual(String),
    /// It came with its account, which lists the Secret.
    Automatic(String),
}

/// Whether a token whose signature was verified still counts. With `lookup` its Secret and its account are looked at.
///
/// # Errors
/// Why not.
pub(super) fn check(
    token: &str,
    public: &Claims,
    own: &LegacyClaims,
    lookup: bool,
    objects: &dyn BoundObjects,
) -> Result<SecretToken, TokenError> {
    let refused = |why: String| Err(TokenError::Refused(why));
    for (claim, name) in [
        (&public.subject, "sub"),
        (&own.namespace, "namespace"),
        (&own.secret, "secretName"),
        (&own.account, "serviceAccountName"),
        (&own.account_uid, "serviceAccountUID"),
    ] {
        if claim.is_empty() {
            return refused(format!("{name} claim is missing"));
        }
    }
    let (namespace, account) = (&own.namespace, &own.account);
    if public.subject != format!("system:serviceaccount:{namespace}:{account}") {
        return refused("sub claim is invalid".into());
    }
    if !lookup {
        return Ok(SecretToken::Unknown);
    }
    let invalidated = || TokenError::Refused("Token has been invalidated".into());
    let secret = objects
        .read("secrets", namespace, &own.secret)
        .ok_or_else(invalidated)?;
    if is_deleting(&secret) {
        return Err(invalidated());
    }
    let held = secret["data"]["token"]
        .as_str()
        .and_then(|data| BASE64.decode(data).ok());
    // Its signature was verified: there is nothing to find out by the time that this takes.
    if held.as_deref() != Some(token.as_bytes()) {
        return refused("Token does not match server's copy".into());
    }
    let found = objects.read("serviceaccounts", namespace, account);
    let found = found.ok_or_else(|| TokenError::Refused(format!("serviceaccounts {account:?} not found")))?;
    if is_deleting(&found) {
        return refused(format!("ServiceAccount {namespace}/{account} has been deleted"));
    }
    let (uid, claimed) = (meta::text(&found, "uid"), &own.account_uid);
    if uid != claimed {
        return refused(format!("ServiceAccount UID ({uid}) does not match claim ({claimed})"));
    }
    let name = &own.secret;
    if secret["metadata"]["labels"][INVALID_SINCE]
        .as_str()
        .is_some_and(|since| !since.is_empty())
    {
        return Err(TokenError::Withdrawn {
            secret: format!("{name}/{namespace}"),
            why: format!(
                "the token in secret {namespace}/{name} for service account {namespace}/{account} has been marked invalid. Use \
                 tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' \
                 label from the secret to temporarily allow use of this token"
            ),
        });
    }
    let mut listed = found["secrets"].as_array().into_iter().flatten();
    Ok(match listed.any(|reference| reference["name"] == **name) {
        true => SecretToken::Automatic(name.clone()),
        false => SecretToken::Manual(name.clone()),
    })
}

fn is_deleting(object: &api::Value) -> bool {
    !meta::text(object, "deletionTimestamp").is_empty()
}
