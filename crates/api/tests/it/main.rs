//! Tests over all built-in kinds at once.

mod kinds;
mod mutations;
mod roundtrip;
