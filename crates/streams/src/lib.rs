//! WebSocket streams of exec, attach, port-forward and logs, for API server, kubelet and runtime.
//!
//! **Architecture Invariant:** knows bytes, channels and sockets, no Kubernetes object.

pub mod channel;
pub mod messages;
pub mod spdy;
pub mod tunnel;
