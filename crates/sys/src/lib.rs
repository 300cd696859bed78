//! See ARCHITECTURE.md.
pub mod netlink;
pub mod netlink_conntrack;
pub mod netlink_route;
pub mod netns;
pub mod nftables;
