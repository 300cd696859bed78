//! What a service-account token says.

use serde::{Deserialize, Deserializer, Serialize};

/// An object that a token names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its uid: an object of the same name made later is another one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The objects besides its account that a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBinding {
    /// The pod that uses the token.
    pub pod: Option<Reference>,
    /// The secret that holds the token.
    pub secret: Option<Reference>,
    /// The node of the pod, or the node that uses the token.
    pub node: Option<Reference>,
}

/// The claims under `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// The account's namespace.
    #[serde(default)]
    pub namespace: String,
    /// The node, when bound to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod, when bound to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret, when bound to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The account.
    #[serde(default, rename = "serviceaccount")]
    pub account: Reference,
    /// After when, in seconds since 1970, the token should have been replaced.
    #[serde(default, rename = "warnafter", skip_serializing_if = "Option::is_none")]
    pub warn_after: Option<i64>,
}

/// All claims of a token. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom the token is for.
    #[serde(default, rename = "aud", deserialize_with = "one_or_more")]
    pub audiences: Vec<String>,
    /// When it ends; none: never.
    #[serde(
        default,
        rename = "exp",
        deserialize_with = "seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires: Option<i64>,
    /// When it was made.
    #[serde(
        default,
        rename = "iat",
        deserialize_with = "seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub issued_at: Option<i64>,
    /// Who made it.
    #[serde(default, rename = "iss")]
    pub issuer: String,
    /// Its own id, for audit logs.
    #[serde(default, rename = "jti", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Kubernetes' own claims.
    #[serde(default, rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// When it begins.
    #[serde(
        default,
        rename = "nbf",
        deserialize_with = "seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub not_before: Option<i64>,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(default, rename = "sub")]
    pub subject: String,
    /// What a token of a Secret says, of the time before tokens had an end.
    #[serde(skip)]
    pub legacy: Option<LegacyClaims>,
}

/// The claims of tokens that controllers of other clusters put into Secrets (issuer `kubernetes/serviceaccount`).
/// Source: `pkg/serviceaccount/legacy.go`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LegacyClaims {
    /// The account's namespace.
    #[serde(default, rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    /// The Secret that holds the token.
    #[serde(default, rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    /// The account.
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    /// Its uid.
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub account_uid: String,
}

/// An audience may stand alone (RFC 7519, section 4.1.3).
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        More(Vec<String>),
    }
    Ok(match Audiences::deserialize(deserializer)? {
        Audiences::One(one) => vec![one],
        Audiences::More(more) => more,
    })
}

/// A time, of which parts of seconds do not count. One that no clock shows is as far off as can be.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.map(|seconds| seconds as i64))
}
