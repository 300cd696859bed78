//! The container engine: OCI images over overlayfs, a shim a pod, containers by `libcontainer`, served as CRI v1.
//!
//! The daemon that hosts this crate never forks into a container. It starts one small static executable a pod (`crates/
//! shim`, embedded here, see [`shim`]), which outlives it: after a restart [`Runtime::open`] finds containers, logs and exit
//! codes as they are. Start reading at [`runtime`] (what there is), then `sandbox` and `container` (what happens to it).
//!
//! **Architecture Invariant:** knows no Kubernetes API type, only CRI; a pod's network is made by whoever is handed in as a
//! [`PodNetwork`]. No state is global: two engines with two configurations can live in one process.

mod attach;
mod container;
mod container_status;
mod devices;
mod error;
mod exec;
mod files;
pub mod image;
pub mod network;
mod records;
pub mod runtime;
mod sandbox;
mod seccomp;
mod serve;
pub mod shim;
mod signals;
mod spec;
mod stats;
mod stream;
mod user;

// The shim's own files: both sides of a conversation are compiled from one source.
#[allow(dead_code)]
#[path = "../../shim/src/protocol.rs"]
mod protocol;
#[allow(dead_code)]
#[path = "../../shim/src/wire.rs"]
mod wire;

pub use attach::Attached;
pub use error::{Error, Result};
pub use exec::{ExecOutput, ExecSession};
pub use network::{LoopbackOnly, PodNetwork, PodNetworkRequest};
pub use runtime::{Config, Runtime};
pub use serve::serve;
pub use stream::{ExecStream, Terminal};
