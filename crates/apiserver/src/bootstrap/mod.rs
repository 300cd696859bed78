//! What every cluster starts with: the RBAC policy, namespaces, priority classes and the Services of the API and of DNS.
//!
//! [`ensure`] makes what is absent and adds back what was taken from the policy, as upstream does at every start; what is
//! as it should be costs a read of memory and no write.

mod ensure;
mod objects;
pub mod policy;

pub use ensure::{BootstrapError, ensure};
pub use objects::Addresses;

/// What [`ensure`] does, by upstream's names of what it does after its start.
pub const HOOKS: [&str; 4] = [
    "start-system-namespaces-controller",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
];
