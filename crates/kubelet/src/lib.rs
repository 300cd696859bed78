//! The kubelet: the pods of one node, from the API to the container runtime and back.
//!
//! A decision about a pod is a plain function ([`plan`], [`mod@status`], [`config`]); one task a pod ([`pod`]) carries
//! decisions out. The kubelet speaks CRI and nothing else to its runtime, and the API to everybody else.
//!
//! **Architecture invariant:** talks to the API and CRI only. A pod's containers outlive the kubelet: what it needs to
//! know after a restart it reads from the runtime and the API.

pub mod config;
pub mod cri;
pub mod env;
pub mod http_client;
pub mod logs;
pub mod node;
pub mod observed;
pub mod plan;
pub mod pod;
pub mod probes;
mod resize;
mod restart;
pub mod server;
pub mod status;
mod storage;
pub mod volumes;
