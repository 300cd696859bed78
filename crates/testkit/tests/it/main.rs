//! The control plane of tests, by using it.

mod fuzz;
mod planes;
