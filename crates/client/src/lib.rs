//! How every component talks to the API: requests, shared informers, work queues, leader election and event recording.
//!
//! One [`Transport`] trait hides whether the server is in this process (a function call into its pipeline) or behind
//! HTTPS. Everything above it is the same in both cases.
//!
//! **Architecture invariant:** this crate knows nothing of the server's internals; it speaks the Kubernetes API only.
//! What is read are typed views, what is written are edits (design D3).

pub mod certificates;
pub mod discovery;
mod error;
pub mod events;
pub mod https;
pub mod informer;
pub mod kind;
mod kinds;
pub mod lease;
pub mod metrics;
mod params;
pub mod queue;
mod request;
pub mod resource;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod verbs;
mod watch;
pub mod worker;

pub use error::Error;
pub use k8s_openapi;
pub use kind::{Kind, Meta, Metadata, Object, PartialObject};
pub use params::{DeleteParams, List, ListParams, Patch, Preconditions, Propagation, WatchParams};
pub use request::Client;
pub use resource::{Resource, resources};
pub use transport::{Body, Transport, TransportError, body_of, collect};
pub use watch::{Event, WatchStream};

/// The result of a call to the API.
pub type Result<T, E = Error> = std::result::Result<T, E>;
