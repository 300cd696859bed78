//! What the standard library lacks and every other crate needs: time, randomness and the disk as values that are handed
//! in, back-off, and orderly shutdown.
//!
//! The purpose of handing them in is that a whole cluster can run in one thread under a seed. So the only direct reads of
//! the wall clock and of the system's randomness in the project are in [`clock`] and [`random`]; the monotonic clock is
//! tokio's, which a test can pause.
//!
//! This crate knows nothing of Kubernetes.

pub mod backoff;
pub mod clock;
pub mod disk;
pub mod random;
pub mod shutdown;

pub use backoff::Backoff;
pub use clock::Clock;
pub use random::Random;
pub use shutdown::Shutdown;
