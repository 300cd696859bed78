//! Safe wrappers of what the kernel offers: namespaces, mounts, control groups, netlink, processes.
//!
//! **Architecture Invariant:** no policy and no async runtime: what to do is decided by the callers.

pub mod cgroup;
pub mod disk;
pub mod mounts;
pub mod namespaces;
pub mod netlink;
pub mod netlink_conntrack;
pub mod netlink_message;
pub mod netlink_route;
pub mod netns;
pub mod nftables;
pub mod nftables_expression;
pub mod process;
