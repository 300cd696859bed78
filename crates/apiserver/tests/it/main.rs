//! The API server as its clients see it: a store in memory below, both transports above (a call in this process, and
//! HTTPS on loopback), and tables of requests with what they are answered.

mod admission;
mod connect;
mod discovery;
mod etcd;
mod faults;
/// The objects that the schema's own tests are made of, one for each kind.
#[path = "../../../api/tests/it/generate.rs"]
#[allow(dead_code, reason = "only full objects are needed here")]
mod generate;
mod identity;
mod lists;
mod policies;
mod requests;
mod rows;
mod sealing;
mod services;
mod watches;
mod wire;
mod world;
mod writes;
