//! The scheduler: finds a node for every pod that has none.
//!
//! A decision is a plain function from a snapshot to a node or to the reasons why there is none ([`decide`]); one task
//! ([`run`]) follows pods and nodes, keeps the [`queue`] and the [`cluster`], and binds. That task alone owns the state:
//! every trigger of work is one of the events in its loop.
//!
//! **Architecture invariant:** talks to the API only; a node is given away at most once for what it has, because a pod
//! counts on its node from the decision on, before the binding is written.

pub mod budgets;
pub mod cluster;
pub mod decide;
pub mod filters;
pub mod pod;
pub mod preempt;
pub mod queue;
mod report;
pub mod resources;
mod scores;
mod shell;
pub mod view;

pub use shell::{Config, run};
