//! Tests over all built-in kinds at once.

mod generate;
mod kinds;
mod mutations;
mod roundtrip;
