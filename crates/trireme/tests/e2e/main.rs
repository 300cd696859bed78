//! The control plane from the outside: the built program, the real `kubectl` of `PATH`, and HTTPS.
//!
//! Every cluster here has a directory of its own and a port of the kernel's choice. Most have no node: where pods have to
//! run, a stand-in ([`testkit::HollowNode`]) reports them as a kubelet would. Those of [`node_cluster`] have a real one with containers.
//! A cluster ends when the last of it is dropped, or when this program does, however it ends (see [`cluster::Cluster`]).

mod access;
mod aggregation;
mod audit;
mod backup;
mod bad_input;
mod certificates;
mod clients;
mod cluster;
mod command_line;
mod crash;
mod custom;
mod demo;
mod encryption;
mod error_texts;
mod etcd_front;
mod etcd_server;
mod etcd_servers;
mod examples;
mod grpc;
mod killed;
mod migrate;
mod node_cluster;
mod node_gates;
mod node_limits;
mod node_network;
mod node_pods;
mod node_policies;
mod node_resilience;
mod node_resize;
mod node_streams;
mod policies;
mod services;
mod spans;
mod terminal;
mod tokens;
mod traces;
mod transcript;
mod transcripts;
mod walk;
mod workloads;
