//! What a request is about: who asks ([`UserInfo`]), for what ([`Attributes`]), as upstream's `RequestInfo` reads it from
//! the method and the path.
//!
//! Everything behind the HTTP edge speaks in these types; they are plain data without a connection.

mod info;
mod query;
mod user;

pub use info::{InfoError, parse};
pub use query::Query;

/// Percent-decodes a path segment.
pub fn percent_decode(text: &str) -> Option<String> {
    query::percent::decode(text, false)
}
pub use user::{SYSTEM_ANONYMOUS, SYSTEM_MASTERS, UserInfo, groups};

/// What a request wants to do to what: the input of authorization.
///
/// Source of the reading: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// For resources `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths
    /// the HTTP method in lower case.
    pub verb: String,
    /// `api` or `apis` for resources.
    pub prefix: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The version in the path.
    pub version: String,
    /// The plural; empty for paths that are no resource.
    pub resource: String,
    /// The subresource, or empty.
    pub subresource: String,
    /// The namespace, or empty. For `/api/v1/namespaces/x` this is `x` too, as upstream has it.
    pub namespace: String,
    /// The object's name, or empty.
    pub name: String,
    /// The whole path, percent-decoded.
    pub path: String,
    /// Whether this is a request for a resource.
    pub is_resource: bool,
    /// The terms of the field selector of list, watch and deletecollection. It narrows what is asked for: one that cannot be read is
    /// none here, and the verb refuses it.
    pub field_selector: Vec<api::selector::FieldTerm>,
    /// The label selector of list, watch and deletecollection; likewise.
    pub label_selector: api::selector::LabelSelector,
    /// What follows the subresource in the path, such as the rest of a proxied path; without a leading slash.
    pub rest: String,
}

impl Attributes {
    /// Whether the request cannot change anything.
    pub fn is_read_only(&self) -> bool {
        matches!(&*self.verb, "get" | "list" | "watch" | "head" | "options")
    }

    /// The resource whatever its version.
    pub fn group_resource(&self) -> api::GroupResource {
        api::GroupResource {
            group: self.group.clone(),
            resource: self.resource.clone(),
        }
    }
}
