//! The cluster's state as the server's own parts read it: from memory, at the latest committed revision.
//!
//! Authorizers, admission plug-ins and allocators read through [`Cluster`]; none of them goes through the request
//! pipeline, so that admission cannot wait for a seat behind itself (D6).

mod object;
mod texts;

use std::sync::Arc;

use futures::future::BoxFuture;

use api::GroupResource;

pub use object::{Header, Object, ObjectError, to_stored};
pub use texts::Texts;

/// Reads of the state in memory. Objects are hub objects.
pub trait Cluster: Send + Sync {
    /// One object; `None` when there is none (or no such resource). The namespace is empty for cluster-wide resources.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>>;

    /// All objects of a resource in the order of their keys; `None` is every namespace.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Object>>;

    /// Follows a resource: first a [`Change::Reset`] with everything, then each change in order. Committed changes are
    /// visible to [`Changes::try_next`] before the write that made them is acknowledged, so a reader that drains it
    /// before each decision reads its own writes.
    fn changes(&self, resource: &GroupResource) -> Box<dyn Changes>;
}

/// One step of a followed resource.
#[derive(Clone, Debug)]
pub enum Change {
    /// Forget what you know, this is everything (at the start, and after falling behind).
    Reset(Vec<Arc<Object>>),
    /// One object was made, changed (`old` and `new`) or deleted (`new` is `None`).
    Changed {
        /// The object before.
        old: Option<Arc<Object>>,
        /// The object now.
        new: Option<Arc<Object>>,
    },
}

/// A cursor over the changes of one resource.
pub trait Changes: Send {
    /// The next change that is there already.
    fn try_next(&mut self) -> Option<Change>;

    /// The next change, waiting for it. `None` when the server ends.
    fn next(&mut self) -> BoxFuture<'_, Option<Change>>;
}
