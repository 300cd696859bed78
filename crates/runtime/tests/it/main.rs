//! The engine with real containers: needs root, control groups, overlayfs and seccomp, and fails without.
//!
//! Each test has an engine of its own (directories, control group, images), reached through CRI on its socket as a kubelet
//! reaches it, and asserts at its end that nothing is left: no process, no mount, no control group.

mod confinement;
mod durability;
mod lifecycle;
mod limits;
mod logs;
mod mounts;
mod node;
mod roles;
mod streaming;
mod waiting;
