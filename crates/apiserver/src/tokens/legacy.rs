//! Tokens that Secrets hold. Those that controllers of other clusters put there have no end and no audiences, and are therefore
//! good only as long as the Secret holds them. Ours are bound to their Secret, and are followed in the same way.
//!
//! Source: `pkg/serviceaccount/legacy.go`.

use api::{Value, meta};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

use super::authenticator::{BoundObjects, TokenError};
use super::claims::{Claims, KubernetesClaims, LegacyClaims};
use super::tracking::UsedSecrets;

/// Who issued them.
pub(super) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// The type of their Secrets.
const TYPE: &str = "kubernetes.io/service-account-token";
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

/// Where Secrets and accounts are looked at, and when.
pub(super) struct Lookup<'a> {
    pub objects: &'a dyn BoundObjects,
    /// Hears of the Secrets whose tokens are used.
    pub used: Option<&'a UsedSecrets>,
    pub now: Timestamp,
}

/// Whether a token of another cluster's controllers, whose signature was verified, still counts. With `lookup` its Secret and
/// its account are looked at.
///
/// # Errors
/// Why not.
pub(super) fn check(
    token: &str,
    public: &Claims,
    own: &LegacyClaims,
    lookup: Option<&Lookup>,
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
    let Some(lookup) = lookup else {
        return Ok(SecretToken::Unknown);
    };
    let invalidated = || TokenError::Refused("Token has been invalidated".into());
    let secret = lookup
        .objects
        .read("secrets", namespace, &own.secret)
        .ok_or_else(invalidated)?;
    if is_deleting(&secret) {
        return Err(invalidated());
    }
    if !holds(&secret, token) {
        return refused("Token does not match server's copy".into());
    }
    let found = lookup.objects.read("serviceaccounts", namespace, account);
    let found = found.ok_or_else(|| TokenError::Refused(format!("serviceaccounts {account:?} not found")))?;
    if is_deleting(&found) {
        return refused(format!("ServiceAccount {namespace}/{account} has been deleted"));
    }
    let (uid, claimed) = (meta::text(&found, "uid"), &own.account_uid);
    if uid != claimed {
        return refused(format!("ServiceAccount UID ({uid}) does not match claim ({claimed})"));
    }
    follow(&secret, &found, lookup)
}

/// The same for a token of this cluster, which is known to count: how it came into its Secret, if that holds it.
///
/// # Errors
/// It was withdrawn.
pub(super) fn held(token: &str, own: &KubernetesClaims, lookup: &Lookup) -> Result<Option<SecretToken>, TokenError> {
    let Some(bound) = &own.secret else {
        return Ok(None);
    };
    let secret = lookup.objects.read("secrets", &own.namespace, &bound.name);
    let Some(secret) = secret.filter(|secret| secret["type"] == TYPE && holds(secret, token)) else {
        return Ok(None);
    };
    let account = lookup
        .objects
        .read("serviceaccounts", &own.namespace, &own.account.name);
    account.map(|account| follow(&secret, &account, lookup)).transpose()
}

/// Its signature was verified: there is nothing to find out by the time that this takes.
fn holds(secret: &Value, token: &str) -> bool {
    let held = secret["data"]["token"].as_str();
    let held = held.and_then(|data| BASE64.decode(data).ok());
    held.as_deref() == Some(token.as_bytes())
}

/// What is known of the Secret of a token that was used just now.
fn follow(secret: &Value, account: &Value, lookup: &Lookup) -> Result<SecretToken, TokenError> {
    if let Some(used) = lookup.used {
        used.used(secret, lookup.now);
    }
    let (namespace, name, account_name) = (meta::namespace(secret), meta::name(secret), meta::name(account));
    if secret["metadata"]["labels"][INVALID_SINCE]
        .as_str()
        .is_some_and(|since| !since.is_empty())
    {
        return Err(TokenError::Withdrawn {
            secret: format!("{name}/{namespace}"),
            why: format!(
                "the token in secret {namespace}/{name} for service account {namespace}/{account_name} has been marked invalid. Use \
                 tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' \
                 label from the secret to temporarily allow use of this token"
            ),
        });
    }
    let mut listed = account["secrets"].as_array().into_iter().flatten();
    Ok(match listed.any(|reference| reference["name"] == name) {
        true => SecretToken::Automatic(name.to_owned()),
        false => SecretToken::Manual(name.to_owned()),
    })
}

fn is_deleting(object: &Value) -> bool {
    !meta::text(object, "deletionTimestamp").is_empty()
}
