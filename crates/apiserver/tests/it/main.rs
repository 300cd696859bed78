//! The API server as its clients see it: a store in memory below, both transports above (a call in this process, and
//! HTTPS on loopback), and tables of requests with what they are answered.

mod admission;
mod aggregation;
mod attacks;
mod connect;
mod custom;
mod custom_versions;
mod discovery;
mod encryption;
mod etcd;
mod every_kind;
mod eviction;
mod external_signer;
mod faults;
mod flow;
mod identity;
mod lists;
mod metrics;
mod policies;
mod quota;
mod requests;
mod rows;
mod sealing;
mod secrecy;
mod secret_tokens;
mod services;
mod watches;
mod webhooks;
mod websockets;
mod wire;
mod world;
mod writes;
