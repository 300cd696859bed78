//! The network of a node in real network namespaces: packets between pods, through services, to DNS, and nothing left.
//!
//! Each test makes a node and pods of its own; nothing is written outside those namespaces, and no packet leaves them.

mod agent;
mod dns;
mod host_ports;
mod links;
mod policies;
mod services;
mod world;
