//! What a service-account token says.

use serde::{Deserialize, Serialize};

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
    #[serde(default, rename = "aud")]
    pub audiences: Vec<String>,
    /// When it ends.
    #[serde(rename = "exp")]
    pub expires: i64,
    /// When it was made.
    #[serde(default, rename = "iat")]
    pub issued_at: i64,
    /// Who made it.
    #[serde(rename = "iss")]
    pub issuer: String,
    /// Its own id, for audit logs.
    #[serde(default, rename = "jti")]
    pub id: String,
    /// Kubernetes' own claims.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// When it begins.
    #[serde(default, rename = "nbf")]
    pub not_before: i64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(rename = "sub")]
    pub subject: String,
}
