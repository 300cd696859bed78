//! Paths of no group version: which groups and versions there are, what the server is, and how its tokens are verified.
//!
//! In v3 each is the only one of a document that has its name: `apis/apps` is of `/apis/apps/`. As upstream: groups of custom
//! resources and of other servers have none, though they answer there.

use std::collections::BTreeSet;

use super::Source;
use super::paths::{Answer, JSON, Path, group_tag, group_title, read};

pub(super) fn paths(source: &Source<'_>) -> Vec<Path> {
    let versions = "get available API versions";
    let mut paths = vec![
        read(
            "/api/".into(),
            "getCoreAPIVersions".into(),
            group_tag(""),
            versions,
            Answer::Discovery("APIVersions"),
        ),
        read(
            "/apis/".into(),
            "getAPIVersions".into(),
            "apis".into(),
            versions,
            Answer::Discovery("APIGroupList"),
        ),
        read(
            "/version/".into(),
            "getCodeVersion".into(),
            "version".into(),
            "get the version information for this server",
            Answer::Version,
        ),
    ];
    let built_in = source.resources.iter().filter(|resource| resource.custom.is_none());
    let groups: BTreeSet<&str> = built_in.map(|resource| &*resource.gvk.group).collect();
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        paths.push(read(
            format!("/apis/{group}/"),
            format!("get{}APIGroup", group_title(group)),
            group_tag(group),
            "get information of a group",
            Answer::Discovery("APIGroup"),
        ));
    }
    if source.is_issuer {
        paths.push(read(
            "/.well-known/openid-configuration/".into(),
            "getServiceAccountIssuerOpenIDConfiguration".into(),
            "WellKnown".into(),
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            Answer::OpenId(&[JSON]),
        ));
        paths.push(read(
            "/openid/v1/jwks/".into(),
            "getServiceAccountIssuerOpenIDKeyset".into(),
            "openid".into(),
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            Answer::OpenId(&["application/jwk-set+json"]),
        ));
    }
    paths
}

/// The name of the v3 document of one of these paths.
pub(super) fn document_of(path: &Path) -> &str {
    path.path.trim_matches('/')
}
