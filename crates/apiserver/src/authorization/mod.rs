//! Who may do what: the administrators' group, the Node authorizer and RBAC, in this order.
//!
//! All verdicts are taken from the replica in memory, and each authorizer drains the changes that are committed before it
//! decides, so that whoever made a binding may use it with the next request.

mod chain;
mod node;
mod rbac;
mod rules;

pub use chain::Chain;
pub use node::NodeAuthorizer;
pub(crate) use node::{node_of, references as node_references};
pub use rbac::Rbac;
pub use rules::Rule;
