//! Reading a method and a path, exactly as upstream's `RequestInfoFactory` does.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use api::selector::{FieldSelector, LabelSelector};
use http::Method;

use super::query::percent;
use super::{Attributes, Query};

/// Why a path could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// `/api/v1/watch` and nothing behind it.
    #[error("unable to determine kind and namespace from url, {0}")]
    NoKind(String),
    /// A path that is no text.
    #[error("the path is not valid: {0}")]
    BadPath(String),
}

/// Subresources of a namespace; any other name behind a namespace is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Reads what the request is about. `path` is still percent-encoded.
pub fn parse(method: &Method, path: &str, query: &Query) -> Result<Attributes, InfoError> {
    tracing::trace!(target: "walk", "what is asked");
    let path = percent::decode(path, false).ok_or_else(|| InfoError::BadPath(path.into()))?;
    let mut info = Attributes {
        verb: method.as_str().to_ascii_lowercase(),
        path: path.clone(),
        ..Attributes::default()
    };
    let trimmed = path.trim_matches('/');
    let all: Vec<&str> = if trimmed.is_empty() {
        Vec::new()
    } else {
        trimmed.split('/').collect()
    };
    if all.len() < 3 || !matches!(all[0], "api" | "apis") {
        return Ok(info);
    }
    let mut parts = &all[1..];
    let grouped = all[0] == "apis";
    if grouped && parts.len() < 3 {
        return Ok(info);
    }
    info.prefix = all[0].into();
    if grouped {
        info.group = parts[0].into();
        parts = &parts[1..];
    }
    info.is_resource = true;
    info.version = parts[0].into();
    parts = &parts[1..];

    let special = matches!(parts[0], "proxy" | "watch");
    if special {
        if parts.len() < 2 {
            return Err(InfoError::NoKind(path));
        }
        info.verb = parts[0].into();
        parts = &parts[1..];
    } else {
        info.verb = verb_of(method).into();
    }
    if parts[0] == "namespaces" && parts.len() > 1 {
        info.namespace = parts[1].into();
        if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
            parts = &parts[2..];
        }
    }
    info.resource = parts[0].into();
    if parts.len() >= 2 {
        info.name = parts[1].into();
    }
    if parts.len() >= 3 && info.verb != "proxy" {
        info.subresource = parts[2].into();
        info.rest = parts[3..].join("/");
        // A proxied path keeps its trailing slash: the target may answer differently without it.
        if path.ends_with('/') && (parts.len() > 3 || info.subresource == "proxy") {
            info.rest.push('/');
        }
    }
    // One that cannot be read is none here, and the verb refuses it.
    let fields = || FieldSelector::parse(query.text("fieldSelector")).unwrap_or_default();
    if info.name.is_empty() && info.verb == "get" {
        info.verb = if query.flag("watch") == Some(true) {
            "watch"
        } else {
            "list"
        }
        .into();
        info.name = exact_name(&fields()).unwrap_or_default();
    }
    if info.name.is_empty() && info.verb == "delete" {
        info.verb = "deletecollection".into();
    }
    if !special && matches!(&*info.verb, "list" | "watch" | "deletecollection") {
        info.field_selector = fields().requirements().to_vec();
        info.label_selector = LabelSelector::parse(query.text("labelSelector")).unwrap_or_default();
    }
    Ok(info)
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The name that a field selector asks for, when it could stand in a path. Rights to single names hang on it: it is read by the
/// selector's own rules, as the list itself is, and not looked for in the text.
fn exact_name(selector: &FieldSelector) -> Option<String> {
    let value = selector.exact_value("metadata.name")?;
    let usable = !value.is_empty() && !matches!(value, "." | "..") && !value.contains(['/', '%', '\\']);
    usable.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        // method, path?query -> verb, group/version, resource/subresource, namespace, name, rest
        for (request, expect) in [
            ("GET /api/v1/pods", "list /v1 pods/ ns= name= rest="),
            ("GET /api/v1/pods?watch=true", "watch /v1 pods/ ns= name= rest="),
            ("GET /api/v1/pods?watch=0", "list /v1 pods/ ns= name= rest="),
            ("GET /api/v1/namespaces/a/pods", "list /v1 pods/ ns=a name= rest="),
            ("GET /api/v1/namespaces/a/pods/b", "get /v1 pods/ ns=a name=b rest="),
            ("HEAD /api/v1/namespaces/a/pods/b", "get /v1 pods/ ns=a name=b rest="),
            (
                "GET /api/v1/namespaces/a/pods/b/log",
                "get /v1 pods/log ns=a name=b rest=",
            ),
            (
                "PUT /api/v1/namespaces/a/status",
                "update /v1 namespaces/status ns=a name=a rest=",
            ),
            (
                "PUT /api/v1/namespaces/a/finalize",
                "update /v1 namespaces/finalize ns=a name=a rest=",
            ),
            ("GET /api/v1/namespaces", "list /v1 namespaces/ ns= name= rest="),
            ("GET /api/v1/namespaces/a", "get /v1 namespaces/ ns=a name=a rest="),
            (
                "DELETE /api/v1/namespaces/a/pods",
                "deletecollection /v1 pods/ ns=a name= rest=",
            ),
            (
                "DELETE /api/v1/namespaces/a/pods/b",
                "delete /v1 pods/ ns=a name=b rest=",
            ),
            (
                "POST /apis/apps/v1/namespaces/a/deployments",
                "create apps/v1 deployments/ ns=a name= rest=",
            ),
            (
                "PATCH /apis/apps/v1/namespaces/a/deployments/b/scale",
                "patch apps/v1 deployments/scale ns=a name=b rest=",
            ),
            (
                "GET /api/v1/watch/namespaces/a/pods/b",
                "watch /v1 pods/ ns=a name=b rest=",
            ),
            (
                "GET /api/v1/namespaces/a/services/b:80/proxy/x/y",
                "get /v1 services/proxy ns=a name=b:80 rest=x/y",
            ),
            (
                "GET /api/v1/namespaces/a/services/b/proxy/",
                "get /v1 services/proxy ns=a name=b rest=/",
            ),
            (
                "GET /api/v1/pods?fieldSelector=metadata.name%3Dx",
                "list /v1 pods/ ns= name=x rest=",
            ),
            (
                "GET /api/v1/pods?fieldSelector=status.phase%21%3Da%2Cmetadata.name%3D%3Dx",
                "list /v1 pods/ ns= name=x rest=",
            ),
            // What looks like a name and is a value, or no selector at all, gives no right to a name.
            (
                "GET /api/v1/pods?fieldSelector=metadata.namespace%21%3Da%5C%2Cmetadata.name%3Dx",
                "list /v1 pods/ ns= name= rest=",
            ),
            (
                "GET /api/v1/pods?fieldSelector=metadata.name%3Dx%2Cnonsense",
                "list /v1 pods/ ns= name= rest=",
            ),
            (
                "GET /api/v1/pods?fieldSelector=metadata.name%21%3Dx",
                "list /v1 pods/ ns= name= rest=",
            ),
            ("GET /apis/apps/v1", "get / / ns= name= rest="),
            ("GET /api/v1", "get / / ns= name= rest="),
            ("GET /healthz", "get / / ns= name= rest="),
            ("GET /", "get / / ns= name= rest="),
        ] {
            let (method, uri) = request.split_once(' ').unwrap();
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let info = parse(&method.parse().unwrap(), path, &Query::parse(query)).unwrap();
            let got = format!(
                "{} {}/{} {}/{} ns={} name={} rest={}",
                info.verb,
                info.group,
                info.version,
                info.resource,
                info.subresource,
                info.namespace,
                info.name,
                info.rest
            );
            // A list by name keeps verb list: upstream only fills the name in.
            assert_eq!(got, expect, "{request}");
        }
        assert!(parse(&Method::GET, "/api/v1/watch", &Query::default()).is_err());
        assert!(parse(&Method::GET, "/api/v1/%ff", &Query::default()).is_err());
    }

    #[test]
    fn no_path_is_too_strange() {
        let random = base::Random::seeded(1);
        let pieces = [
            "api",
            "apis",
            "v1",
            "namespaces",
            "watch",
            "proxy",
            "pods",
            "",
            "%2e",
            "%",
            "%ff",
            "status",
            ".",
            "..",
            "ä",
            "x",
        ];
        for _ in 0..20_000 {
            let path: String = (0..random.index(9))
                .map(|_| format!("/{}", pieces[random.index(pieces.len())]))
                .collect();
            let query = Query::parse(pieces[random.index(pieces.len())]);
            if let Ok(info) = parse(&Method::GET, &path, &query) {
                assert_eq!(info.is_resource, matches!(&*info.prefix, "api" | "apis"), "{path}");
                assert!(info.is_resource || info.resource.is_empty(), "{path}");
            }
        }
    }
}
