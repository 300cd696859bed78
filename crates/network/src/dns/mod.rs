//! The cluster's DNS: names of Services and pods, as `kubernetes/dns` specification 1.1.0 and CoreDNS' defaults have them.
//!
//! [`zone`] knows the names, [`answer`] turns a query into a reply, [`server`] moves both over UDP and TCP, [`upstream`]
//! asks somebody else for foreign names.

pub mod answer;
pub mod server;
pub mod upstream;
pub mod zone;

/// Seconds an answer may be kept; CoreDNS' default for its kubernetes plugin.
pub const TTL_SECONDS: u32 = 5;
