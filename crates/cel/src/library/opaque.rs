//! Values of Kubernetes' libraries.

use std::fmt;
use std::sync::Arc;

use super::authorizer::{Authorizing, Decision, ResourceCheck};

/// Their types that expressions can name, with the version that brought them.
pub(crate) const TYPES: &[(&str, u16)] = &[
    (AUTHORIZER, 27),
    (PATH_CHECK, 27),
    (GROUP_CHECK, 27),
    (RESOURCE_CHECK, 27),
    (DECISION, 27),
];

/// Who asks the authorizer.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// A check of a path.
pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
/// The resources of an API group.
pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
/// A check of a resource.
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
/// What the authorizer said.
pub const DECISION: &str = "kubernetes.authorization.Decision";

/// A value of a library's type.
#[derive(Clone, Debug)]
pub enum Opaque {
    /// Who asks the authorizer.
    Authorizer(Arc<Authorizing>),
    /// A check of a path.
    PathCheck(Arc<(Authorizing, String)>),
    /// The resources of an API group.
    GroupCheck(Arc<(Authorizing, String)>),
    /// A check of a resource.
    ResourceCheck(Arc<ResourceCheck>),
    /// What the authorizer said.
    Decision(Arc<Decision>),
}

impl Opaque {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Authorizer(_) => AUTHORIZER,
            Opaque::PathCheck(_) => PATH_CHECK,
            Opaque::GroupCheck(_) => GROUP_CHECK,
            Opaque::ResourceCheck(_) => RESOURCE_CHECK,
            Opaque::Decision(_) => DECISION,
        }
    }

    pub(crate) fn equals(&self, other: &Opaque) -> bool {
        match (self, other) {
            (Opaque::Authorizer(one), Opaque::Authorizer(other)) => Arc::ptr_eq(one, other),
            (Opaque::PathCheck(one), Opaque::PathCheck(other)) => Arc::ptr_eq(one, other),
            (Opaque::GroupCheck(one), Opaque::GroupCheck(other)) => Arc::ptr_eq(one, other),
            (Opaque::ResourceCheck(one), Opaque::ResourceCheck(other)) => Arc::ptr_eq(one, other),
            (Opaque::Decision(one), Opaque::Decision(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The text that stands for it in JSON, if there is one.
    pub(crate) fn text(&self) -> Option<String> {
        None
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.text().unwrap_or_else(|| self.type_name().to_owned()))
    }
}
