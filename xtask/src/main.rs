//! The jobs that people and CI run: `cargo xtask <job>`.

fn main() {}
