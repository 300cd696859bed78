//! OpenAPI documents of what is served: v3 for each group version and for each path of none, v2 for everything.
//!
//! Pure functions from rows to documents. They are large (the one of `v1` is a megabyte), so the caller makes them
//! when first asked, keeps the bytes with a hash, and drops them when a row changes.
//!
//! Their shape is upstream's as far as clients depend on it: kubectl finds kinds by `x-kubernetes-group-version-kind`
//! of paths, merges by the list and patch extensions, asks whether PATCH has `fieldValidation`, and explains fields
//! by the schemas. The v2 document also exists in gnostic's protobuf, which client-go asks for.

mod general;
mod gnostic;
mod paths;
mod types;
mod v2;
mod v3;

use std::io;
use std::sync::Arc;

use crate::{GroupVersion, GroupVersionKind, Value};

/// The media types by which clients ask for [`v2_protobuf`].
pub const V2_PROTOBUF_ACCEPT: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// The media type of the answer. Go's parser of media types refuses the `@` that its clients ask with.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A resource that is served.
#[derive(Clone, Debug)]
pub struct OpenApiResource {
    /// The version it is served in, and its kind.
    pub gvk: GroupVersionKind,
    /// The name in paths: `pods`.
    pub plural: String,
    /// Whether it lives in namespaces.
    pub namespaced: bool,
    /// The API's own words: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: Vec<String>,
    /// What stands behind a name: `status`, `scale`, `exec`.
    pub subresources: Vec<OpenApiSubresource>,
    /// What a custom resource says of itself; `None` for built-in kinds.
    pub custom: Option<CustomSchema>,
}

/// The schema of a custom resource. It is read when a document is made, so that it costs no more than its text before.
#[derive(Clone, Debug)]
pub struct CustomSchema {
    /// `openAPIV3Schema` as JSON.
    pub text: Arc<str>,
    /// The kind of lists.
    pub list_kind: String,
    /// The fields that a field selector may name.
    pub selectable: Vec<String>,
}

/// A subresource of a resource.
#[derive(Clone, Debug)]
pub struct OpenApiSubresource {
    /// Its name in the path.
    pub name: String,
    /// The kind that is read or written there.
    pub gvk: GroupVersionKind,
    /// The API's own words; `connect` for streams and proxies.
    pub verbs: Vec<String>,
}

/// What the documents are made from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// All rows that are served.
    pub resources: &'a [OpenApiResource],
    /// The version in `info`, such as `v1.36.0`.
    pub version: &'a str,
    /// Whether it tells how its tokens are verified.
    pub is_issuer: bool,
    /// The description of a type (second argument empty) or of a field, by the definition's name without `io.k8s.`.
    pub describe: &'a dyn Fn(&str, &str) -> Option<String>,
}

/// The OpenAPI v3 document of a group version.
pub fn v3(source: &Source<'_>, group_version: &GroupVersion) -> Value {
    v3::document(source, group_version)
}

/// The OpenAPI v3 document of a path that belongs to no group version: `api`, `apis/apps`, `version`.
pub fn v3_general(source: &Source<'_>, name: &str) -> Option<Value> {
    let path = general::paths(source)
        .into_iter()
        .find(|path| general::document_of(path) == name)?;
    Some(v3::general(source, path))
}

/// The names of all documents that [`v3_general`] makes.
pub fn v3_general_names(source: &Source<'_>) -> Vec<String> {
    let paths = general::paths(source);
    paths.iter().map(|path| general::document_of(path).to_owned()).collect()
}

/// The OpenAPI v2 (swagger) document of everything.
pub fn v2(source: &Source<'_>) -> Value {
    v2::document(source)
}

/// Writes what [`v2`] makes as JSON: with hundreds of custom resources the tree of it would take some hundred megabytes.
///
/// # Errors
/// Those of `out`.
pub fn write_v2(source: &Source<'_>, out: &mut dyn io::Write) -> io::Result<()> {
    v2::write(source, out)
}

/// An OpenAPI v2 document that [`v2`] made, in gnostic's protobuf.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    gnostic::encode(document)
}

/// Writes the same without the tree.
///
/// # Errors
/// Those of `out`.
pub fn write_v2_protobuf(source: &Source<'_>, out: &mut dyn io::Write) -> io::Result<()> {
    gnostic::write(source, out)
}

/// No descriptions.
pub fn undescribed(_: &str, _: &str) -> Option<String> {
    None
}

impl OpenApiResource {
    /// Whether it is one of a group version.
    pub fn is_of(&self, group_version: &GroupVersion) -> bool {
        self.gvk.group == group_version.group && self.gvk.version == group_version.version
    }
}

/// The rows of everything that upstream serves, as its table of facts has it.
pub fn builtin_resources() -> Vec<OpenApiResource> {
    crate::schema::resources()
        .iter()
        .map(|row| OpenApiResource {
            gvk: row.group_version.kind(&row.kind),
            plural: row.plural.into(),
            namespaced: row.namespaced,
            verbs: row.verbs.clone(),
            subresources: row
                .subresources
                .iter()
                .map(|(name, subresource)| OpenApiSubresource {
                    name: name.clone(),
                    gvk: subresource.gvk.clone(),
                    verbs: subresource.verbs.clone(),
                })
                .collect(),
            custom: None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
