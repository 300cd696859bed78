//! The API server: HTTP, authentication, authorization, admission, the generic verbs over the rows of `kinds`, watch,
//! discovery and OpenAPI. It does not know where objects are used.
//!
//! Start at [`pipeline`] for the stages of a request, at [`verbs`] for what happens to an object, and at [`server`] for how
//! it is put together. A composition root calls [`ApiServer::start`] with a [`Config`], then [`Running::serve`] and
//! [`Running::transport`].

pub mod admission;
pub mod aggregation;
pub mod audit;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
pub mod cluster;
pub mod dial;
pub mod flowcontrol;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod health;
pub mod hook;
pub mod metrics;
pub mod pipeline;
pub mod pki;
pub mod registry;
pub mod request;
pub mod sealing;
pub mod serve;
pub mod server;
pub mod tokens;
pub mod version;

mod allocation;
mod backup;
mod call;
mod commit;
mod connect;
mod custom;
mod decode;
mod discovery;
mod endpoints;
mod loopback;
mod managed;
mod openapi;
mod options;
mod respond;
mod reviews;
mod route;
mod storage;
mod trace;
mod transport;
mod verbs;
mod virtuals;

pub use server::{ApiServer, Config, MakeParts, MeasureBytes, Parts, Running, StartError};
