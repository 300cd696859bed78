//! Who may do what: the administrators' group, and then the authorizers that a configuration names, by default the Node
//! authorizer and RBAC, in this order.
//!
//! All but webhooks take their verdicts from the replica in memory, and drain the changes that are committed before they
//! decide, so that whoever made a binding may use it with the next request.

pub mod config;

mod abac;
mod chain;
mod configured;
mod fixed;
mod node;
mod rbac;
mod rules;
pub(crate) mod webhook;

pub use abac::Abac;
pub use chain::Chain;
pub use configured::{Configured, Prepared};
pub use fixed::{AlwaysAllow, AlwaysDeny};
pub use node::NodeAuthorizer;
pub(crate) use node::{NODES_GROUP, node_of, references as node_references};
pub use rbac::Rbac;
pub use rules::Rule;
pub use webhook::Webhook;
