//! A control plane in a test, and what tests of several crates share.
//!
//! [`ControlPlane`] is the real one (store, API server with its authentication, authorization and admission, controllers,
//! scheduler), reached by function calls and over HTTPS, over any store engine. [`HollowNode`] reports pods as running.
//! [`walk`] compares what a running program told of itself with ARCHITECTURE.md; [`fuzz`] spoils what is read from outside.

mod control_plane;
pub mod fuzz;
mod hollow_node;
pub mod record;
pub mod walk;

pub use control_plane::{ControlPlane, engine_on};
pub use hollow_node::HollowNode;
