//! The API server: HTTP, authentication, authorization, admission, the generic verbs over the rows of `kinds`, watch,
//! discovery and OpenAPI. It does not know where objects are used.
//!
//! Start at [`pipeline`] for the stages of a request and at [`cluster`] for how state is read.

pub mod cluster;
pub mod pipeline;
pub mod request;
