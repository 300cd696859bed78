//! One folder a resource: defaulting, validation, strategy and columns, and the rows that the API server serves.
//!
//! Used by `apiserver` only. No IO, no `async`, no clock.

pub mod row;
