//! The network of one node: pod links, the service proxy, network policies, the cluster's DNS.
//!
//! Everything that decides is a plain function over plain values ([`views`], [`catalog`], [`services::plan`],
//! [`policies::plan`], [`dns::zone`], [`links::pool`]); thin shells carry the decisions to the kernel by netlink ([`links::PodLinks`],
//! [`services::kernel`], [`node`]) or to clients by sockets ([`dns::server`]). [`agent::Agent`] joins them to the API.
//!
//! **Architecture invariant:** no child process, no bridge, no iptables, and nothing outside the node's own network
//! namespace is written. Pods, services and names are IPv4 today; addresses are [`std::net::IpAddr`] where they enter, and
//! the table, link and zone modules each name the one place where IPv6 joins.

pub mod agent;
pub mod attachments;
pub mod catalog;
pub mod dial;
pub mod dns;
pub mod host_ports;
pub mod links;
pub mod node;
pub mod objects;
pub mod orders;
pub mod policies;
pub mod services;
pub mod views;

mod health_ports;
mod ranges;
mod rule_parts;
mod standing;

pub use agent::{Agent, AgentConfig};
pub use attachments::Attachments;
pub use dial::{dial_in, listen_in, udp_in};
pub use host_ports::{HostPort, HostPorts};
pub use links::PodLinks;
