//! Values of Kubernetes' libraries.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use api::quantity::Quantity;

use super::addresses::{Network, address_size};
use super::authorizer::{Authorizing, Decision, ResourceCheck};
use super::formats::NamedFormat;
use super::semvers::Semver;
use super::urls::Url;

/// Their types that expressions can name, with the version that brought them.
pub(crate) const TYPES: &[(&str, u16)] = &[
    (AUTHORIZER, 27),
    (PATH_CHECK, 27),
    (GROUP_CHECK, 27),
    (RESOURCE_CHECK, 27),
    (DECISION, 27),
    (URL, 0),
    (QUANTITY, 28),
    (IP, 30),
    (CIDR, 30),
    (FORMAT, 31),
    (SEMVER, 33),
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

/// A URL.
pub const URL: &str = "kubernetes.URL";
/// A quantity.
pub const QUANTITY: &str = "kubernetes.Quantity";
/// An address.
pub const IP: &str = "net.IP";
/// A network.
pub const CIDR: &str = "net.CIDR";
/// A named format.
pub const FORMAT: &str = "kubernetes.NamedFormat";
/// A semantic version.
pub const SEMVER: &str = "kubernetes.Semver";

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
    /// A URL.
    Url(Arc<Url>),
    /// A quantity.
    Quantity(Arc<Quantity>),
    /// An address.
    Ip(IpAddr),
    /// A network.
    Cidr(Network),
    /// A named format.
    Format(&'static NamedFormat),
    /// A semantic version.
    Semver(Arc<Semver>),
}

impl Opaque {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Authorizer(_) => AUTHORIZER,
            Opaque::PathCheck(_) => PATH_CHECK,
            Opaque::GroupCheck(_) => GROUP_CHECK,
            Opaque::ResourceCheck(_) => RESOURCE_CHECK,
            Opaque::Decision(_) => DECISION,
            Opaque::Url(_) => URL,
            Opaque::Quantity(_) => QUANTITY,
            Opaque::Ip(_) => IP,
            Opaque::Cidr(_) => CIDR,
            Opaque::Format(_) => FORMAT,
            Opaque::Semver(_) => SEMVER,
        }
    }

    pub(crate) fn equals(&self, other: &Opaque) -> bool {
        match (self, other) {
            (Opaque::Authorizer(one), Opaque::Authorizer(other)) => Arc::ptr_eq(one, other),
            (Opaque::PathCheck(one), Opaque::PathCheck(other)) => Arc::ptr_eq(one, other),
            (Opaque::GroupCheck(one), Opaque::GroupCheck(other)) => Arc::ptr_eq(one, other),
            (Opaque::ResourceCheck(one), Opaque::ResourceCheck(other)) => Arc::ptr_eq(one, other),
            (Opaque::Decision(one), Opaque::Decision(other)) => Arc::ptr_eq(one, other),
            (Opaque::Url(one), Opaque::Url(other)) => one == other,
            (Opaque::Quantity(one), Opaque::Quantity(other)) => one == other,
            (Opaque::Ip(one), Opaque::Ip(other)) => one == other,
            (Opaque::Cidr(one), Opaque::Cidr(other)) => one == other,
            (Opaque::Format(one), Opaque::Format(other)) => one.name() == other.name(),
            (Opaque::Semver(one), Opaque::Semver(other)) => one.order(other).is_eq(),
            _ => false,
        }
    }

    /// The size that costs are counted by: an address has bytes.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Opaque::Ip(address) => Some(address_size(*address)),
            Opaque::Cidr(network) => Some(network.size()),
            _ => None,
        }
    }

    /// The text that stands for it in JSON, if there is one.
    pub(crate) fn text(&self) -> Option<String> {
        Some(match self {
            Opaque::Url(url) => url.text().to_owned(),
            Opaque::Quantity(quantity) => quantity.to_string(),
            Opaque::Ip(address) => address.to_string(),
            Opaque::Cidr(network) => network.to_string(),
            Opaque::Format(format) => format.name().to_owned(),
            Opaque::Semver(version) => version.to_string(),
            _ => return None,
        })
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.text().unwrap_or_else(|| self.type_name().to_owned()))
    }
}
