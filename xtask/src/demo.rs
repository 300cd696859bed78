//! `cargo xtask demo`: the release binary, a cluster, and what it looks like from the outside.

use crate::{cargo, kubectl};

/// Builds the release binary and lets it show itself; `--down` removes everything again.
pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    crate::run(&cargo(), &["build", "--release", "--locked", "--package", "trireme"])?;
    let binary = release_binary();
    if arguments.contains(&"--down") {
        return crate::run(&binary, &["reset", "--yes"]);
    }
    kubectl::check()?;
    crate::run(&binary, &["up", "--demo"])
}

fn release_binary() -> String {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let folder = crate::workspace().join(target);
    folder
        .join("x86_64-unknown-linux-gnu/release/trireme")
        .display()
        .to_string()
}
